"""One row per (symbol, interval, decision_at): the price features against their own trailing year, as z-scores.

A view beside the raw features, never in their place; nothing here is fitted on a window that a fold would have to know.
"""

from tapehouse.tables import reads, table


# 400 days.
@table(reads("features.price", lookback_months=14))
def build(b):
    from tapehouse.features.normalised import rolling_zscores

    return rolling_zscores(b.read("features.price"), b.start, b.end)
