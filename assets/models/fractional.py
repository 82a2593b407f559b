"""One row per (fold, symbol, interval, decision_at): the log price, differenced by the order that the fold has chosen."""

from tapehouse.tables import reads, table


@table(reads("features.fractional", window="fold"), reads("features.decision_points", window="fold"), reads("models.fits"))
def build(b):
    from tapehouse.fits import values_of
    from tapehouse.fold_views import FRACTIONAL, KEY, chosen_fractional

    rows = b.read("features.fractional").join(b.read("features.decision_points"), on=KEY, how="semi")
    return chosen_fractional(rows, values_of(b.read("models.fits"), b.fold, FRACTIONAL), b.fold)
