"""One row per (symbol, interval, decision_at): what a company had reported of its profits by then, and its insiders' trades.

Of the last fiscal year that was known, and of the 90 days before the decision; null where nothing is known.
"""

from tapehouse.tables import reads, table

REPORTED = 19  # months, which hold the 18 after which a fiscal year says nothing any more
TRADED = 13  # months, which hold the year by which a company's insiders are known to be told of


@table(
    reads("features.price"),
    reads("raw.fundamentals", lookback_months=REPORTED),
    reads("raw.insider_trades", lookback_months=TRADED),
)
def build(b):
    import polars as pl

    from tapehouse.company_features import company_features

    decisions = b.read("features.price").filter(pl.col("decision_at").is_between(b.start, b.end, closed="left"))
    rows = company_features(decisions, b.read("raw.fundamentals"), b.read("raw.insider_trades"))
    b.note(**{name: rows[name].count() for name in ("return_on_assets", "net_margin", "insider_buys_90d")})
    return rows
