"""One row per (fold, symbol, interval, decision_at): the five-class signal, cut at the quantiles of the fold's training."""

from tapehouse.tables import reads, table


@table(reads("labels.signal", window="fold"), reads("models.fits"))
def build(b):
    from tapehouse.fits import values_of
    from tapehouse.fold_views import SIGNAL, signal_classes

    rows = signal_classes(b.read("labels.signal"), values_of(b.read("models.fits"), b.fold, SIGNAL), b.fold)
    b.note(**dict(rows["signal_class"].drop_nulls().value_counts().iter_rows()), without=rows["signal_class"].null_count())
    return rows
