"""One row per (fold, kind, key): a number that was fitted on the fold's training window alone.

The market's hidden states, the quantiles that cut the five classes, the scalers of the price features and the order of
fractional differencing of each symbol; tapehouse/fits.py says which keys each kind has.
"""

from tapehouse.tables import reads, table


@table(
    reads("features.price", window="train"),
    reads("features.decision_points", window="train"),
    reads("features.fractional", window="train"),
    reads("labels.signal", window="train"),
)
def build(b):
    import polars as pl

    from tapehouse.fits import fit_rows
    from tapehouse.fold_views import KEY, fit_fractional, fit_scalers, fit_signal
    from tapehouse.folds import fitted_until
    from tapehouse.hmm import fitted

    universe = b.settings.universe
    decided = pl.col("decision_at") < fitted_until(b.fold)
    points = b.read("features.decision_points").filter(decided).select(KEY)
    price, fractional = (b.read(name).filter(decided) for name in ("features.price", "features.fractional"))
    hidden = fitted(price.filter(symbol=universe.benchmark, interval=universe.interval))
    signal = fit_signal(b.read("labels.signal"), b.fold)
    scalers = fit_scalers(price.join(points, on=KEY, how="semi"))
    orders = fit_fractional(fractional.join(points.select("symbol", "interval").unique(), on=KEY[:2], how="semi"))
    b.note(hmm_rows=hidden.rows, signal_rows=signal.rows, scalers=len(scalers), orders=len(orders) // 2)
    return fit_rows(b.fold, [hidden, signal, *scalers, *orders])
