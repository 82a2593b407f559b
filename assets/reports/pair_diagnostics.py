"""One row per (dataset, fold, objective, measure, level): what preference pairs give away without the prompt, and how balanced.

Length-only and offset-only rules, fitted on each fold's training window and scored on its test block, and in-sample by
objective; reward margins; shares by regime, objective, side and symbol. A page with the plots lies in the reports' folder.
"""

from tapehouse.tables import reads, table


@table(
    reads("datasets.preference_pairs", window="all"),
    reads("features.decision_points", window="all"),
    reads("models.folds"),
    files=("objectives.yaml",),
)
def build(b):
    from tapehouse.files import replace_file
    from tapehouse.orders import load_objectives
    from tapehouse.pair_diagnostics import described, diagnostics
    from tapehouse.report.pairs import headline, pairs_html, preview_png
    from tapehouse.report.provenance import provenance
    from tapehouse.training.manifest import git_state

    dataset = "datasets.preference_pairs"
    pairs, regimes = b.read(dataset), b.read("features.decision_points")
    rows = diagnostics(dataset, pairs, regimes, b.folds)
    told = described(pairs, regimes)
    declared = load_objectives(b.settings.home / "objectives.yaml").buy_share
    origin = provenance(b.snapshot, git_state(b.settings.home), b.read("models.folds"))
    page, preview = (b.settings.reports_dir / f"preference_pairs{suffix}" for suffix in (".html", ".png"))
    replace_file(page, pairs_html(dataset, told, rows, origin, declared).encode())
    replace_file(preview, preview_png(dataset, told, rows, declared))
    b.note(says=headline(rows), pairs=pairs.height, page=page, preview=preview)
    return rows
