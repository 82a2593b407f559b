"""One row per (page): a rendered report, where it lies, and what it was made from.

The page of a run says in words which adapters beat the baselines and which do not, and shows the figures behind it.
"""

from tapehouse.tables import reads, table


@table(
    reads("reports.verdicts"),
    reads("reports.leaderboard"),
    reads("reports.differences"),
    reads("reports.evaluations", window="all"),
    reads("reports.backtest_equity", window="all"),
    reads("reports.backtest_trades", window="all"),
    reads("models.adapters", window="all"),
    reads("models.folds"),
    reads("datasets.preference_pairs", window="all"),
    key={"page": "index"},
    files=("models_registry/judging.yaml",),
)
def build(b):
    import polars as pl

    from tapehouse.files import replace_file
    from tapehouse.judging_rules import load_rules
    from tapehouse.report.caveats import hindsight
    from tapehouse.report.links import pageless
    from tapehouse.report.page import report_html
    from tapehouse.report.preview import preview_png
    from tapehouse.report.provenance import page_row, provenance
    from tapehouse.training.manifest import git_state

    rules = load_rules(b.settings.home)
    verdicts, equity = b.read("reports.verdicts"), b.read("reports.backtest_equity")
    commit = git_state(b.settings.home)
    html = report_html(
        verdicts,
        b.read("reports.leaderboard"),
        equity,
        b.read("reports.backtest_trades"),
        b.read("reports.evaluations"),
        b.read("reports.differences"),
        provenance(b.snapshot, commit, b.read("models.folds"), b.read("models.adapters")),
        b.read("datasets.preference_pairs"),
        caveats=(hindsight(b.settings.universe.tradable),),
        baselines=rules.baselines,
        controls=rules.controls,
        pageless=pageless(b),
    )
    picture = preview_png(verdicts, equity, rules.baselines, rules.controls)
    page, preview = (b.settings.reports_dir / name for name in ("index.html", "index.png"))
    replace_file(page, html.encode())
    replace_file(preview, picture)
    b.note(report=page, preview=preview)
    return pl.DataFrame([page_row("index", page, b.settings.root, b.snapshot, commit)])
