"""Macro features: the latest period known in its latest vintage, whatever calendar a series and a decision keep."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.calendars import TIMESTAMP
from tapehouse.hashing import frame_hash
from tests.house import ROOT

LONG_AGO, FAR_OFF = datetime(1980, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
MACRO = {
    "series_id": pl.String,
    "period": pl.Date,
    "frequency": pl.String,
    "event_at": TIMESTAMP,
    "known_at": TIMESTAMP,
    "value": pl.Float64,
    "vintage": pl.Date,
    "known_as": pl.String,
    "revised": pl.Boolean,
    "source": pl.String,
    "ingested_at": TIMESTAMP,
}
PRICE = {
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": TIMESTAMP,
    "known_at": TIMESTAMP,
    "close": pl.Float64,
    "ret_1d": pl.Float64,
    "ret_20d": pl.Float64,
}


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


def month(period: date, known_at: datetime, value: float | None, series="CPILFESL", revised=False) -> tuple:
    event_at = at(period.year + period.month // 12, period.month % 12 + 1, 1, 5)
    return (series, period, "m", event_at, known_at, value, known_at.date(), "vintage", revised, "a", FAR_OFF)


def daily(period: date, known_at: datetime, value: float, series="VIXCLS") -> tuple:
    event_at = datetime.combine(period, datetime.min.time(), UTC) + timedelta(hours=29)
    return (series, period, "d", event_at, known_at, value, None, "rule", False, "a", FAR_OFF)


def price(symbol: str, decision_at: datetime, close=100.0, ret=0.0) -> tuple:
    return (symbol, "1d", decision_at, decision_at - timedelta(minutes=5), close, ret, ret)


def features(macro: list[tuple], prices: list[tuple], table: str, start=LONG_AGO, end=FAR_OFF) -> pl.DataFrame:
    """The rows of `features.macro_series` or `features.macro`, by its SQL, over staging made by its own."""
    with duckdb.connect() as con:
        con.execute("set timezone = 'UTC'; create schema raw; create schema staging; create schema features")
        con.register("received", pl.DataFrame(macro, schema=MACRO, orient="row"))
        con.register("prices", pl.DataFrame(prices, schema=PRICE, orient="row"))
        con.execute("create table raw.macro_observations as from received; create table features.price as from prices")
        con.execute(
            "create table raw.instruments as select unnest(['IBM', '^GSPC']) as symbol, unnest([false, true]) as benchmark"
        )
        for name in ("staging.macro", "staging.macro_latest"):
            query = (ROOT / "sql" / f"{name.replace('.', '/')}.sql").read_text()
            con.execute(f"create table {name} as {query}", {"start": LONG_AGO, "end": FAR_OFF})
        bounds = {"start": start, "end": end}
        query = (ROOT / "sql/features/macro_series.sql").read_text()
        con.execute(f"create table features.macro_series as {query}", bounds)
        if table == "macro":
            con.execute(f"create table features.macro as {(ROOT / 'sql/features/macro.sql').read_text()}", bounds)
        return con.execute(f"from features.{table} order by all").pl()


JAN, FEB, MAR = date(2010, 1, 1), date(2010, 2, 1), date(2010, 3, 1)
CPI = [
    month(JAN, at(2010, 2, 19, 13, 30), 220.0),
    month(FEB, at(2010, 3, 18, 12, 30), 221.0),
    month(JAN, at(2010, 3, 18, 12, 30), 219.5),  # revised with the release of February
    month(FEB, at(2010, 4, 14, 12, 30), 221.25),
    month(MAR, at(2010, 4, 14, 12, 30), 222.0),
]


def test_by_hand():
    days = [at(2010, 2, 19, 13, 29), at(2010, 3, 1, 21, 5), at(2010, 3, 18, 20, 5), at(2010, 4, 18, 0, 0)]
    rows = features(CPI, [price("IBM", day) for day in days], "macro_series")
    found = rows.select("decision_at", "period", "level", "period_before", "change_1p", "change_28d", "age_days").rows()
    assert found == [
        (days[1], JAN, 220.0, None, None, None, 28),
        (days[2], FEB, 221.0, JAN, 1.5, None, 17),  # against January as it is known now; 28 days ago nothing was known
        (days[3], MAR, 222.0, FEB, 0.75, 1.0, 17),  # a Sunday: a calendar of its own
    ]


def test_what_is_published_after_the_decision_or_too_old_is_not_there():
    vix = [daily(date(2010, 3, 4), at(2010, 3, 4, 21, 15), 18.0), daily(date(2010, 3, 5), at(2010, 3, 5, 21, 15), 17.0)]
    friday, monday = at(2010, 3, 5, 21, 5), at(2010, 3, 8, 21, 5)
    summer = [at(2010, 7, 3, 21, 15), at(2010, 7, 3, 21, 16)]  # 120 days later, and a minute more
    rows = features(vix, [price("IBM", day) for day in (friday, monday, *summer)], "macro_series")
    assert rows.select("decision_at", "level", "change_1p").rows() == [
        (friday, 18.0, None),
        (monday, 17.0, -1.0),
        (summer[0], 17.0, -1.0),
    ]


def test_latest_values_of_a_revised_series_are_kept_out():
    rows = features([month(JAN, at(2010, 2, 19), 220.0, revised=True)], [price("IBM", at(2010, 3, 1, 21, 5))], "macro_series")
    assert rows.is_empty()


def test_the_named_columns_stand_beside_every_symbol():
    friday = at(2010, 3, 5, 21, 5)
    known = at(2010, 3, 5, 6)
    macro = [daily(date(2010, 3, 4), known, v, s) for s, v in (("VIXCLS", 18.0), ("DCOILWTICO", 80.0), ("OTHER", 1.0))]
    macro += [month(FEB, at(2010, 3, 5, 9), value, series) for series, value in (("AAA", 5.0), ("BAA", 6.25))]
    rows = features(macro, [price("IBM", friday), price("^GSPC", friday, 1138.7, 0.01)], "macro")
    assert rows["symbol"].to_list() == ["IBM", "^GSPC"]
    for row in rows.iter_rows(named=True):
        assert (row["vix"], row["oil_usd"], row["credit_spread"], row["core_cpi"]) == (18.0, 80.0, 1.25, None)
        assert (row["index_level"], row["index_ret_1d"]) == (1138.7, 0.01)
        assert row["known_at"] == friday - timedelta(minutes=5)
    alone = features([], [price("IBM", friday)], "macro")
    assert alone["vix"].to_list() == alone["index_level"].to_list() == [None]
    assert alone["known_at"].to_list() == [friday - timedelta(minutes=5)]


VERSIONS = st.lists(
    st.tuples(st.integers(0, 17), st.integers(-20, 200), st.integers(0, 50), st.sampled_from(["AAA", "BAA"])),
    max_size=25,
    unique_by=lambda v: v[:2] + v[3:],
)


@settings(max_examples=20, deadline=None)
@given(VERSIONS, st.lists(st.integers(0, 700), min_size=1, max_size=12, unique=True))
def test_a_plain_loop_finds_the_same_and_so_do_months_one_by_one(versions, days):
    def start_of(index: int) -> date:
        return date(2010 + index // 12, index % 12 + 1, 1)

    macro = []
    for index, delay, value, series in versions:
        bare = month(start_of(index), LONG_AGO, float(value), series)
        macro.append((*bare[:4], bare[3] + timedelta(days=delay), *bare[5:]))
    decisions = [at(2010, 1, 1, 21, 5) + timedelta(days=day) for day in sorted(days)]
    rows = features(macro, [price("IBM", day) for day in decisions], "macro_series")
    wanted = {}
    for decided in decisions:
        for series in ("AAA", "BAA"):
            if (row := _by_loop(macro, series, decided)) is not None:
                wanted[series, decided] = row
    assert {
        (r[0], r[1]): r[2:] for r in rows.select("series_id", "decision_at", "period", "level", "change_1p").rows()
    } == wanted
    edges = [at(2010 + m // 12, m % 12 + 1, 1) for m in range(25)]
    alone = [
        features(macro, [price("IBM", day) for day in decisions], "macro_series", start, end)
        for start, end in pairwise(edges)
        if any(start <= day < end for day in decisions)
    ]
    assert frame_hash(pl.concat(alone).sort("series_id", "decision_at")) == frame_hash(rows.sort("series_id", "decision_at"))


def _by_loop(macro: list[tuple], series: str, decided: datetime) -> tuple | None:
    own = [m for m in macro if m[0] == series]
    # What staging.macro_latest takes: known within a year of the period's end, and no forecast.
    timely = [m for m in own if m[4] <= _months_after(m[3], 12) and m[4] > _months_after(m[3], -3)]
    known = [m for m in timely if m[4] <= decided]
    if not known:
        return None
    period = max(m[1] for m in known)
    # The last statement about it, unless that repeats what was said before: then it is as old as its first saying.
    said = sorted((m for m in own if m[1] == period), key=lambda m: m[4])
    kept = [m for i, m in enumerate(said) if i == 0 or m[5] != said[i - 1][5]]
    kept = [m for m in kept if m in known]
    latest = kept[-1]
    if latest[4] < decided - timedelta(days=120):
        return None
    before = [m for m in own if m[1] < period and m[4] <= decided and m[3] >= _months_after(decided, -12)]
    value_before = max(before, key=lambda m: (m[1], m[4]))[5] if before else None
    return period, latest[5], None if value_before is None else latest[5] - value_before


def _months_after(moment: datetime, months: int) -> datetime:
    from dateutil.relativedelta import relativedelta

    return moment + relativedelta(months=months)


@pytest.mark.parametrize("table", ["macro_series", "macro"])
def test_without_decisions_there_are_no_rows(table):
    assert features(CPI, [], table).is_empty()
