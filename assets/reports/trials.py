"""One row per (subject, fold, trial): all that was tried, with its daily returns, so that the best is judged as one of many.

Fits that were traded over a test block, and the trials of searches and of trainings that failed, out of their files. Rows are
only added: what a recipe earned before it was changed stays.
"""

from tapehouse.tables import reads, table


def fingerprint(settings, start, end):
    from tapehouse.trials import trials_fingerprint

    return trials_fingerprint(settings.root)


@table(
    reads("reports.backtest_equity", window="all"),
    reads("models.adapters", window="all"),
    fingerprint=fingerprint,
)
def build(b):
    import polars as pl

    from tapehouse.recipes import FOLDER, load_recipes
    from tapehouse.strategies.schema import FOLDER as STRATEGIES
    from tapehouse.strategies.schema import load_strategies
    from tapehouse.trials import appended, fit_trials, stored_trials

    recipes = load_recipes(b.settings.home / FOLDER)
    declared = {**recipes, **load_strategies(b.settings.home / STRATEGIES, recipes)}
    prior = {name: one.prior_trials for name, one in declared.items()}
    fits = fit_trials(b.read("reports.backtest_equity"), b.read("models.adapters"), prior)
    rows = appended(b.existing(), pl.concat([fits, stored_trials(b.settings.root)]).unique(("subject", "fold", "trial")))
    b.note(**dict(rows["kind"].value_counts().iter_rows()), failed=rows.filter(state="failed").height)
    return rows
