"""One row per (subject, metric): what a recipe or strategy earned and went through over all its blocks, joined, with interval.

The figures of one block are in reports.backtests; the difference of two subjects in reports.differences; how far to believe the
best of many in reports.verdicts.
"""

from tapehouse.tables import reads, table


@table(
    reads("reports.backtest_equity", window="all"),
    reads("reports.backtest_trades", window="all"),
)
def build(b):
    from tapehouse.subject_statistics import statistics_rows

    rows = statistics_rows(b.read("reports.backtest_equity"), b.read("reports.backtest_trades"))
    b.note(subjects=rows["subject"].n_unique())
    return rows
