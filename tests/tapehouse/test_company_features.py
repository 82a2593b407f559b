"""Company features by hand, against a plain loop over versions, and the same whatever else was read."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.company_features import SCHEMA, company_features
from tapehouse.hashing import frame_hash

STAMP = pl.Datetime("us", "UTC")
DECISION = {"symbol": pl.String, "interval": pl.String, "decision_at": STAMP, "known_at": STAMP}
FACT = dict.fromkeys(("symbol", "concept", "unit", "source"), pl.String)
FACT |= {"period_start": pl.Date, "period_end": pl.Date, "value": pl.Float64, "event_at": STAMP, "known_at": STAMP}
TRADE = dict.fromkeys(("symbol", "owner_cik", "code"), pl.String)
TRADE |= {"transaction_date": pl.Date, "derivative": pl.Boolean, "event_at": STAMP, "known_at": STAMP}
INCOME, ASSETS, SALES = "us-gaap:NetIncomeLoss", "us-gaap:Assets", "us-gaap:Revenues"


def at(day: date, hour: int = 21) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


def ended(day: date) -> datetime:
    """The end of a day in New York, near enough."""
    return at(day + timedelta(days=1), 5)


def fact(concept, end, value, known, days=365, unit="USD", symbol="IBM", source="sec") -> dict:
    start = end if concept == ASSETS else end - timedelta(days=days - 1)
    stamps = {"event_at": ended(end), "known_at": at(known, 12)}
    names = {"symbol": symbol, "concept": concept, "unit": unit, "source": source}
    return names | {"period_start": start, "period_end": end, "value": float(value)} | stamps


def trade(owner, day, code, known, derivative=False, symbol="IBM") -> dict:
    stamps = {"event_at": ended(day), "known_at": at(known, 12)}
    return {"symbol": symbol, "owner_cik": owner, "code": code, "transaction_date": day, "derivative": derivative} | stamps


def of(days, facts=(), trades=(), symbol="IBM") -> pl.DataFrame:
    rows = [(symbol, "1d", at(day), at(day) - timedelta(minutes=5)) for day in days]
    return company_features(
        pl.DataFrame(rows, schema=DECISION, orient="row"),
        pl.DataFrame(list(facts), schema=FACT),
        pl.DataFrame(list(trades), schema=TRADE),
    )


def test_profits_by_hand():
    year, next_year = date(2019, 12, 31), date(2020, 12, 31)
    facts = [
        fact(INCOME, year, 10, date(2020, 2, 20)),
        fact(ASSETS, year, 200, date(2020, 2, 20)),
        fact(SALES, year, 40, date(2020, 3, 1)),  # told later than the rest
        fact(INCOME, year, -8, date(2020, 6, 20)),  # restated
        fact(INCOME, date(2020, 3, 31), 3, date(2020, 4, 20), days=91),  # a quarter is no year
        fact(ASSETS, date(2020, 3, 31), 300, date(2020, 4, 20)),
        fact(INCOME, next_year, 5, date(2021, 2, 20)),  # without assets yet
        fact(ASSETS, next_year, 0, date(2021, 3, 20)),  # nothing that one could divide by
        fact(INCOME, year, 99, date(2020, 2, 1), symbol="MSFT"),
    ]
    days = [date(2020, 2, 19), date(2020, 2, 20), date(2020, 3, 1), date(2020, 5, 1), date(2020, 6, 20), date(2021, 2, 20)]
    rows = of([*days, date(2021, 3, 20), date(2022, 7, 1), date(2022, 7, 3)], facts)
    assert rows["return_on_assets"].to_list() == [None, 0.05, 0.05, 0.05, -0.04, None, None, None, None]
    assert rows["net_margin"].to_list() == [None, None, 0.25, 0.25, -0.2, None, None, None, None]
    ends = [None, year, year, year, year, next_year, next_year, next_year, None]  # 548 days old, and 549
    assert rows["fiscal_year_end"].to_list() == ends
    assert rows["known_at"].to_list() == [at(d) - timedelta(minutes=5) for d in [*days, date(2021, 3, 20)]] + [
        at(date(2022, 7, 1)) - timedelta(minutes=5),
        at(date(2022, 7, 3)) - timedelta(minutes=5),
    ]


def test_insiders_by_hand():
    trades = [
        trade("1", date(2020, 3, 2), "P", date(2020, 3, 4)),
        trade("1", date(2020, 3, 2), "P", date(2020, 3, 4)),  # the same order, filled in two parts
        trade("1", date(2020, 3, 2), "P", date(2020, 5, 4)),  # an amendment tells of it again
        trade("2", date(2020, 3, 2), "P", date(2020, 3, 5)),
        trade("2", date(2020, 3, 3), "S", date(2020, 3, 5)),
        trade("3", date(2020, 3, 3), "P", date(2020, 3, 5), derivative=True),
        trade("4", date(2020, 1, 2), "A", date(2020, 1, 3)),  # a grant: the company's insiders are told of
        trade("5", date(2020, 1, 6), "P", date(2021, 1, 3)),  # told of a year late
    ]
    days = [date(2020, 1, 2), date(2020, 1, 3), date(2020, 3, 4), date(2020, 3, 5), date(2020, 5, 30), date(2020, 6, 1)]
    rows = of([*days, date(2020, 6, 2), date(2021, 3, 2), date(2021, 3, 4)], trades=trades)
    assert rows["insider_buys_90d"].to_list() == [None, 0, 1, 2, 2, 0, 0, 0, None]
    assert rows["insider_sells_90d"].to_list() == [None, 0, 0, 1, 1, 1, 0, 0, None]


def test_a_company_that_nobody_tells_of_has_nulls():
    rows = of([date(2020, 1, 2)])
    assert rows.columns == list(SCHEMA)
    assert rows.select(pl.exclude("symbol", "interval", "decision_at", "known_at")).null_count().sum_horizontal()[0] == 5


day = st.integers(0, 1400).map(lambda n: date(2018, 1, 1) + timedelta(days=n))
lag = st.integers(-3, 700)
income = st.sampled_from([INCOME, "us-gaap:ProfitLoss"])
years = st.sampled_from([date(2017, 12, 31), date(2018, 12, 31), date(2019, 6, 30), date(2019, 12, 31)])
some_facts = st.lists(
    st.builds(
        lambda concept, end, value, late, days: fact(concept, end, value, end + timedelta(days=max(late, 1)), days),
        st.one_of(income, st.sampled_from([ASSETS, SALES])),
        years,
        st.integers(-3, 9),
        lag,
        st.sampled_from([90, 350, 365, 366, 380, 381]),
    ),
    max_size=12,
    unique_by=lambda row: (row["concept"], row["period_start"], row["period_end"], row["known_at"]),
)
some_trades = st.lists(
    st.builds(
        lambda owner, when, code, late, derivative: trade(owner, when, code, when + timedelta(days=late), derivative),
        st.sampled_from("123"),
        day,
        st.sampled_from("PSA"),
        lag,
        st.booleans(),
    ),
    max_size=12,
)


def plainly(decided: datetime, facts: list[dict], trades: list[dict]) -> tuple:
    """One decision's features by going through all records."""
    known = sorted(
        (f for f in facts if max(f["known_at"], f["event_at"]) <= decided),
        key=lambda f: (max(f["known_at"], f["event_at"]), f["known_at"]),
    )
    latest = {(f["concept"], f["period_start"], f["period_end"]): f["value"] for f in known}
    ends = [k for k in latest if k[0] in (INCOME, "us-gaap:ProfitLoss") and 350 <= (k[2] - k[1]).days + 1 <= 380]
    end = roa = margin = None
    if ends:
        _, start, end = max(ends, key=lambda k: (k[2], k[1], k[0] == INCOME))
        made = latest.get((INCOME, start, end), latest.get(("us-gaap:ProfitLoss", start, end)))
        assets, sales = latest.get((ASSETS, end, end)), latest.get((SALES, start, end))
        roa = made / assets if assets and assets > 0 else None
        margin = made / sales if sales and sales > 0 else None
        if (decided.date() - end).days > 548:
            end = roa = margin = None
    told = [t for t in trades if max(t["known_at"], t["event_at"]) <= decided]
    covered = any(decided - t["event_at"] < timedelta(days=365) for t in told)

    def count(code):
        within = [t for t in told if t["code"] == code and not t["derivative"] and decided - t["event_at"] < timedelta(days=90)]
        return len({(t["owner_cik"], t["transaction_date"]) for t in within}) if covered else None

    return end, roa, margin, count("P"), count("S")


@given(st.lists(day, min_size=1, max_size=6, unique=True), some_facts, some_trades)
@settings(max_examples=120, deadline=None)
def test_as_a_plain_loop_says_and_a_record_of_long_ago_changes_nothing(days, facts, trades):
    rows = of(days, facts, trades)
    found = rows.select(list(SCHEMA)[4:]).rows()
    assert found == [plainly(at(d), facts, trades) for d in sorted(days)]
    assert (rows["known_at"] <= rows["decision_at"]).all()
    assert frame_hash(of(days[::-1], facts[::-1], trades[::-1])) == frame_hash(rows)
    for number, decided in enumerate(sorted(days)):  # what a month alone reads
        near = [f for f in facts if ended(decided) - timedelta(days=560) < f["event_at"] < ended(decided)]
        lately = [t for t in trades if ended(decided) - timedelta(days=380) < t["event_at"] < ended(decided)]
        assert frame_hash(of([decided], near, lately)) == frame_hash(rows[number])
