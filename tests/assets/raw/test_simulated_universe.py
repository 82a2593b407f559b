"""A simulated universe on the real engine: listings, delistings, a changed ticker and funding, from raw to decisions."""

from datetime import UTC, date, datetime, timedelta

import pytest
import yaml

from tapehouse.sources.simulator import Declaration, lives, universe_lines
from tests.house import House, copy_project

START, END = date(2003, 9, 1), date(2005, 1, 1)
SIMULATOR = {
    "kind": "simulator",
    "seed": 4,
    "start": START,
    "equities": 5,
    "delisted_per_year": 0.35,
    "renamed": 0.9,
    "missing": 0.01,
    "corrected": 0.02,
    "futures": {"SIM:FUT-Z3": date(2003, 12, 19), "SIM:FUT-H4": date(2004, 3, 19)},
    "perpetuals": {"SIM:PERP": {"funding_hours": 8}},
}
MADE = ("raw.instruments", "raw.bars", "raw.corporate_actions", "raw.funding", "staging.bars", "staging.universe")
DECIDED = "features.decision_points"


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> House:
    home = copy_project(tmp_path_factory.mktemp("simulated"), START, END)
    content = yaml.safe_load((home / "sources.yaml").read_text())
    lines = universe_lines(Declaration(**SIMULATOR), "simulator")
    content |= {"benchmark": "SIM:INDEX", "universe": lines, "sources": {"simulator": SIMULATOR}}
    content |= {"days": {"start": date(2004, 5, 1), "end": date(2004, 5, 4)}}
    content["feeds"] = {"funding": [{"source": "simulator", "symbols": ["SIM:PERP"]}]}
    (home / "sources.yaml").write_text(yaml.safe_dump(content))
    (home / "models_registry" / "folds.yaml").write_text(
        "{min_train_sessions: 60, test_sessions: 30, min_test_sessions: 20, count: 1}\n"
    )
    house = House(home)
    needed = {*MADE, DECIDED, *house.project.ancestors(DECIDED)}
    for name in (n for n in house.project.assets if n in needed):
        assert not house.make(name).failed, name
    return house


def gone() -> dict[str, date]:
    """Equities that are delisted inside the span, with their last day."""
    return {s: a.delisted for s, a in lives(Declaration(**SIMULATOR)).items() if a.delisted and a.delisted < END}


def test_every_row_says_that_it_is_simulated(house):
    for table in ("raw.bars", "raw.corporate_actions", "raw.funding", "raw.instruments"):
        assert house.rows(f"select distinct source from {table}") == [("simulator",)]
        assert house.rows(f"select count(*) from {table} where symbol not like 'SIM:%'") == [(0,)]
    assert house.rows("select count(*) from raw.quarantine") == [(0,)]


def test_a_corrected_bar_is_what_was_known_of_it(house):
    (count,) = house.rows("select count(*) filter (version = 2), max(version), count(*) from staging.bars")
    assert 0.005 < count[0] / count[2] < 0.03 and count[1] == 2
    corrected = "select symbol, session, event_at, high from staging.bars where version = 2 order by all limit 1"
    ((symbol, session, closed, high),) = house.rows(corrected)
    known = f"select high from staging.bars_as_known($at) where symbol = '{symbol}' and session = date '{session}'"
    for hours, seen in ((0, round(high - 0.01, 2)), (47, round(high - 0.01, 2)), (48, high)):
        at = closed + timedelta(hours=hours)
        assert house.rows(known.replace("$at", f"timestamptz '{at.isoformat()}'")) == [(seen,)]


def test_who_has_gone_stays_in_the_past(house):
    assert 1 <= len(gone()) <= 4
    for symbol, last in gone().items():
        at = "timestamptz '2030-01-01'"
        there = f"select count(*) from staging.universe_as_known({at}) where symbol = '{symbol}' and valid_from <= $day"
        there += " and (valid_to is null or valid_to >= $day)"
        for day, member in ((last, 1), (last + timedelta(days=1), 0), (START + timedelta(days=20), 1)):
            assert house.rows(there.replace("$day", f"date '{day}'")) == [(member,)], (symbol, day)
        # Before the announcement nobody knew, and it was a member for all that anyone could say.
        before = datetime.combine(lives(Declaration(**SIMULATOR))[symbol].announced, datetime.min.time(), UTC)
        query = there.replace(at, f"timestamptz '{before.isoformat()}'").replace("$day", f"date '{last + timedelta(days=1)}'")
        assert house.rows(query) == [(1,)]
        assert house.rows(f"select max(session) <= date '{last}' from staging.bars where symbol = '{symbol}'") == [(True,)]


def test_an_instrument_keeps_its_id_and_its_symbol_through_a_changed_ticker(house):
    renamed = {s for s, about in lives(Declaration(**SIMULATOR)).items() if about.renamed}
    query = "select symbol, count(distinct ticker), count(distinct instrument_id) from raw.instruments group by symbol"
    assert {s for s, tickers, ids in house.rows(query) if tickers == 2 and ids == 1} == renamed
    future = house.rows("select valid_to, expires_at from raw.instruments where symbol = 'SIM:FUT-Z3'")
    assert future == [(date(2003, 12, 19), datetime(2003, 12, 19, 21, tzinfo=UTC))]


def test_each_decision_is_there_once(house):
    twice = "select symbol, decision_at from features.decision_points group by symbol, decision_at having count(*) > 1"
    assert house.rows(twice) == []
    decided = house.rows("select symbol, count(*), max(session) from features.decision_points group by symbol")
    assert {symbol for symbol, _, _ in decided} <= {f"SIM:{n:04d}" for n in range(1, 6)} and len(decided) >= 3
    priced = "select count(*) from features.price where symbol = 'SIM:0001' and rsi_14 is not null and macd_hist is not null"
    points = {symbol: count for symbol, count, _ in decided}
    assert points.get("SIM:0001", 0) <= house.rows(priced)[0][0]


def test_days_of_funding_one_by_one_are_the_range(house):
    assert house.rows("select count(*), count(distinct event_at) from raw.funding") == [(9, 9)]
    before = {key: made.out_hash for key, made in house.state().items() if key[0].startswith("raw.funding")}
    for day in ("2004-05-03", "2004-05-01", "2004-05-02"):
        house.make("raw.funding", [day])
    assert {key: made.out_hash for key, made in house.state().items() if key[0].startswith("raw.funding")} == before
    assert len(before) == 3
