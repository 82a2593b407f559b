"""What a company has reported by a decision: profits over assets and sales of its last fiscal year, and its insiders' trades.

Only ratios and whole numbers come out, and each is one division or a count: no order of summing can change a bit. A record
counts once it is known and its own day has ended; so what a month alone reads is what a range reads.

- **Profit.** The latest fiscal year (a period of 350 to 380 days) whose net income is known, in the version known by then,
  over the assets at its end and over the revenue of the same period, each as known by then. A year that ended more than
  18 months ago says nothing any more.
- **Insiders.** Days on which an insider bought (code P) or sold (code S) shares of the company in the market, in the 90 days
  before the decision: one for each insider and day, so that neither an order filled in parts nor an amendment that tells of
  it again counts twice. Where no form about the company has come within a year, nothing is known (null), not zero.
"""

from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from tapehouse.text_features import latest_in_force
from tapehouse.versions import NEVER, microseconds

# The first of these that a company reports is taken.
NET_INCOME: Final = ("us-gaap:NetIncomeLoss", "us-gaap:ProfitLoss", "ifrs-full:ProfitLoss")
ASSETS: Final = ("us-gaap:Assets", "ifrs-full:Assets")
REVENUE: Final = (
    "us-gaap:Revenues",
    "us-gaap:RevenueFromContractWithCustomerExcludingAssessedTax",
    "us-gaap:SalesRevenueNet",
    "ifrs-full:Revenue",
)
YEAR_DAYS: Final = (350, 380)  # fiscal years of 52 and 53 weeks among them
OLDEST_YEAR: Final = timedelta(days=548)
TRADES: Final = timedelta(days=90)
COVERED: Final = timedelta(days=365)
MICROSECOND: Final = timedelta(microseconds=1)
BOUGHT, SOLD = "P", "S"  # the SEC's codes of trades in the open market

UTC_DATETIME = pl.Datetime("us", "UTC")
KEY = ["symbol", "interval", "decision_at"]
SCHEMA = {
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": UTC_DATETIME,
    "known_at": UTC_DATETIME,
    "fiscal_year_end": pl.Date,
    "return_on_assets": pl.Float64,
    "net_margin": pl.Float64,
    "insider_buys_90d": pl.Int64,
    "insider_sells_90d": pl.Int64,
}
_YEARS = {
    "at": UTC_DATETIME,
    "told_at": UTC_DATETIME,
    "fiscal_year_end": pl.Date,
    "return_on_assets": pl.Float64,
    "net_margin": pl.Float64,
}


def company_features(decisions: pl.DataFrame, fundamentals: pl.DataFrame, insider_trades: pl.DataFrame) -> pl.DataFrame:
    """Company features of every decision.

    Args:
        decisions: `symbol, interval, decision_at, known_at` (of the decision's price).
        fundamentals: `raw.fundamentals`, all versions with `event_at` in the 18 months before the decisions.
        insider_trades: `raw.insider_trades`, all versions with `event_at` in the year before them.

    Returns:
        One row for each decision, sorted; columns and units as in `checks/features/company.yaml`.
    """
    parts = [pl.DataFrame(schema=SCHEMA)]
    for (symbol,), own in decisions.sort(KEY).partition_by("symbol", as_dict=True, maintain_order=True).items():
        years = fiscal_years(fundamentals.filter(symbol=symbol))
        rows = own.sort("decision_at").join_asof(years, left_on="decision_at", right_on="at", strategy="backward")
        old = (rows["decision_at"].dt.date() - rows["fiscal_year_end"]) > OLDEST_YEAR
        rows = rows.with_columns(pl.when(~old.fill_null(True)).then(pl.col(name)) for name in list(_YEARS)[1:])
        parts.append(_with_insiders(rows, insider_trades.filter(symbol=symbol)).select(list(SCHEMA)))
    return pl.concat(parts).sort(KEY)


def fiscal_years(fundamentals: pl.DataFrame) -> pl.DataFrame:
    """What is known of one company's last fiscal year, from each instant (`at`, UTC, ascending) on at which that changes.

    Columns: `at, told_at, fiscal_year_end, return_on_assets, net_margin`; a ratio is null where a part of it is missing or no
    positive number is under it. `told_at` is the latest instant at which one of these figures became known: that of what is
    used alone, so that it does not depend on how far back the records go.
    """
    wanted = fundamentals.filter(pl.col("concept").is_in([*NET_INCOME, *ASSETS, *REVENUE]))
    told = wanted.with_columns(at=pl.max_horizontal("known_at", "event_at")).sort("at", "known_at", "concept", "unit", "source")
    facts: dict[tuple, tuple[float, datetime]] = {}
    years: set[tuple[date, date, str]] = set()
    states: dict[datetime, tuple] = {}
    columns = ("at", "concept", "unit", "period_start", "period_end", "value")
    for at, concept, unit, start, end, value in told.select(columns).iter_rows():
        facts[concept, unit, start, end] = value, at
        if concept in NET_INCOME and YEAR_DAYS[0] <= (end - start).days + 1 <= YEAR_DAYS[1]:
            years.add((end, start, unit))
        if years:
            states[at] = (at, *_year(facts, max(years)))
    return pl.DataFrame(list(states.values()), schema=_YEARS, orient="row")


def _year(facts: dict[tuple, tuple[float, datetime]], year: tuple[date, date, str]) -> tuple:
    end, start, unit = year
    income = _first(facts, NET_INCOME, unit, start, end)
    under = _first(facts, ASSETS, unit, end, end), _first(facts, REVENUE, unit, start, end)
    used = [income, *(part for part in under if part)]
    ratios = (income[0] / part[0] if part and part[0] > 0 else None for part in under)
    return max(at for _, at in used), end, *ratios


def _first(facts: dict[tuple, tuple], concepts: tuple[str, ...], unit: str, start: date, end: date) -> tuple | None:
    return next((facts[key] for c in concepts if (key := (c, unit, start, end)) in facts), None)


def _with_insiders(decisions: pl.DataFrame, trades: pl.DataFrame) -> pl.DataFrame:
    at = microseconds(decisions["decision_at"])
    told = trades.with_columns(at=pl.max_horizontal("known_at", "event_at"))
    begin, end = _spans(told, COVERED)
    latest = latest_in_force(begin, end, at, COVERED // MICROSECOND)
    covered = pl.Series(latest > NEVER)
    columns = {}
    for name, code in (("insider_buys_90d", BOUGHT), ("insider_sells_90d", SOLD)):
        market = told.filter((pl.col("code") == code) & ~pl.col("derivative").fill_null(False))
        once = market.group_by("owner_cik", "transaction_date").agg(pl.col("at").min(), pl.col("event_at").min())
        begin, end = _spans(once, TRADES)
        count = np.searchsorted(np.sort(begin), at, side="right") - np.searchsorted(np.sort(end), at, side="right")
        columns[name] = pl.when(covered).then(pl.Series(count))
    told_at = pl.when(covered).then(pl.Series(latest).cast(UTC_DATETIME))
    return decisions.with_columns(known_at=pl.max_horizontal("known_at", "told_at", told_at), **columns)


def _spans(trades: pl.DataFrame, length: timedelta) -> tuple[np.ndarray, np.ndarray]:
    """From when, and until when, each trade counts, us; what is told of too late does not count at all."""
    begin, end = microseconds(trades["at"]), microseconds(trades.select(pl.col("event_at") + length).to_series())
    return begin[end > begin], end[end > begin]
