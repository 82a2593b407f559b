"""One row per (subject, other): the difference of two Sharpe ratios over the sessions that both have, with a paired interval.

The A/B table: every pair of recipes and strategies, in both orders, as drawn for the verdicts.
"""

from tapehouse.tables import reads, table


@table(
    reads("reports.backtest_equity", window="all"),
    reads("reports.backtests", window="all"),
)
def build(b):
    import polars as pl

    from tapehouse.subject_differences import difference_rows
    from tapehouse.verdicts import curves

    counts = b.read("reports.backtests").filter(metric="trades").group_by("subject").agg(pl.col("value").sum())
    trades = {subject: int(count) for subject, count in counts.iter_rows()}
    rows = difference_rows(curves(b.read("reports.backtest_equity"), trades))
    b.note(pairs=rows.height // 2, apart=rows.filter(pl.col("low") > 0).height)
    return rows
