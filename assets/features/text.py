"""One row per (symbol, interval, decision_at): how much was written about a symbol by then, and in what tone.

News, filings and theses in the versions known at the decision; tone by a small lexicon.
"""

from tapehouse.tables import reads, table

BACK = 4  # months, which hold 90 days whichever they are


@table(
    reads("features.price"),
    reads("raw.news", lookback_months=BACK),
    reads("raw.filings", lookback_months=BACK),
    reads("staging.theses", lookback_months=BACK),
)
def build(b):
    import polars as pl

    from tapehouse.text_features import text_features

    decisions = b.read("features.price").filter(pl.col("decision_at").is_between(b.start, b.end, closed="left"))
    return text_features(decisions, b.read("raw.news"), b.read("raw.filings"), b.read("staging.theses"))
