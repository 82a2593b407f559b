"""One row per (fold, symbol, interval, decision_at): the price features less their training mean, over their deviation.

A view beside the raw features, never in their place. Features in units of price are taken over the close.
"""

from tapehouse.tables import reads, table


@table(reads("features.price", window="fold"), reads("features.decision_points", window="fold"), reads("models.fits"))
def build(b):
    from tapehouse.fits import values_of
    from tapehouse.fold_views import KEY, SCALER, scaled_features

    price = b.read("features.price").join(b.read("features.decision_points"), on=KEY, how="semi")
    return scaled_features(price, values_of(b.read("models.fits"), b.fold, SCALER), b.fold)
