"""One row per (subject, fold, trial): all that was tried, with its daily returns, so that the best is judged as one of many.

Fits that were traded over a test block, those whose equity was replaced since among them, and the trials of searches and of
trainings that failed, out of their files. Rows are only added: what a recipe earned before it was changed stays.
"""

from tapehouse.tables import reads, table


def fingerprint(settings, start, end):
    from tapehouse.trials import trials_fingerprint

    return trials_fingerprint(settings.root)


@table(
    reads("reports.backtest_equity", window="all"),
    fingerprint=fingerprint,
)
def build(b):
    import polars as pl

    from tapehouse.declared_trials import declared_trials
    from tapehouse.trials import GRAIN, appended, fit_trials, stored_trials

    declared = declared_trials(b.settings.home)
    fits = fit_trials(b.read("reports.backtest_equity"), declared.settings, declared.prior)
    found = pl.concat([fits, stored_trials(b.settings.root)]).unique(GRAIN, keep="first", maintain_order=True)
    rows = appended(b.existing(), found)
    b.note(**dict(rows["kind"].value_counts().iter_rows()), failed=rows.filter(state="failed").height)
    return rows
