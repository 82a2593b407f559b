"""One row per (dataset, fold, objective, measure, level): what preference pairs give away without the prompt, and how balanced.

Length-only and offset-only rules, fitted on each fold's training window and scored on its test block, and in-sample by
objective; reward margins; shares by regime, objective, side and symbol. A page with the plots lies in the reports' folder.
"""

from tapehouse.tables import reads, table


@table(
    reads("datasets.preference_pairs", window="all"),
    reads("datasets.book_pairs", window="all"),
    reads("models.folds"),
    files=("objectives.yaml", "book_objectives.yaml"),
)
def build(b):
    import polars as pl

    from tapehouse.book_orders import load_book_objectives
    from tapehouse.files import replace_file
    from tapehouse.orders import load_objectives
    from tapehouse.pair_diagnostics import described, diagnostics
    from tapehouse.report.pairs import headline, pairs_html, preview_png
    from tapehouse.report.provenance import provenance
    from tapehouse.training.manifest import git_state

    declared = {
        "datasets.preference_pairs": load_objectives(b.settings.home / "objectives.yaml").buy_share,
        "datasets.book_pairs": load_book_objectives(b.settings.home / "book_objectives.yaml").buy_share,
    }
    origin = provenance(b.snapshot, git_state(b.settings.home), b.read("models.folds"))
    parts = []
    for dataset, shares in declared.items():
        told = described(b.read(dataset))
        if told.is_empty():  # a warehouse without books has no pairs on them
            continue
        rows = diagnostics(dataset, told, b.folds)
        stem = dataset.removeprefix("datasets.")
        page, preview = (b.settings.reports_dir / f"{stem}{suffix}" for suffix in (".html", ".png"))
        replace_file(page, pairs_html(dataset, told, rows, origin, shares).encode())
        replace_file(preview, preview_png(told, rows, shares))
        b.note(**{f"{stem}_says": headline(rows), f"{stem}_page": page, f"{stem}_preview": preview})
        parts.append(rows)
    return pl.concat(parts)
