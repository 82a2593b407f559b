"""One row per (subject): whether a recipe or strategy beats the strongest baseline, loses to it, or neither is proven.

Over all its test blocks, joined, with the paired difference of Sharpe ratios corrected for all subjects and the Sharpe ratio
deflated by everything that was tried; tapehouse/verdicts.py says how.
"""

from tapehouse.tables import reads, table


def fingerprint(settings, start, end):
    from tapehouse.declared_trials import declared_trials

    return declared_trials(settings.home).fingerprint


@table(
    reads("reports.backtest_equity", window="all"),
    reads("reports.backtests", window="all"),
    reads("models.adapters", window="all"),
    reads("reports.trials"),
    files=("models_registry/judging.yaml",),
    fingerprint=fingerprint,
)
def build(b):
    import polars as pl

    from tapehouse.declared_trials import declared_trials
    from tapehouse.judging_rules import load_rules
    from tapehouse.verdicts import curves, verdicts

    counts = b.read("reports.backtests").filter(metric="trades").group_by("subject").agg(pl.col("value").sum())
    trades = {subject: int(count) for subject, count in counts.iter_rows()}
    kinds = dict(b.read("models.adapters").select("adapter", "kind").unique().iter_rows())
    found = curves(b.read("reports.backtest_equity"), trades)
    kinds |= {name: "strategy" for name in found if name not in kinds}
    prior = declared_trials(b.settings.home).prior
    baselines, universe = load_rules(b.settings.home).baselines, len(b.settings.universe.tradable)
    rows = verdicts(found, kinds, baselines, b.read("reports.trials"), universe, prior)
    b.note(**dict(rows["verdict"].value_counts().iter_rows()))
    return rows
