"""How good answers were, apart from any account: figures with intervals, whole and in slices, against what came.

`core` turns sums over rows into figures; `drawing` resamples sums by joint dates; `answers` makes rows of predictions and
outcomes; `classes` and `barriers` (and those beside them) say what is measured; `reading` is how reports look figures up.
"""
