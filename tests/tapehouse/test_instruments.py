"""Instruments as declared: tickers, listings and delistings as rows that say what was known when."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.instruments import SCHEMA, instrument_rows, undated
from tapehouse.sources.simulator import Declaration, universe_lines
from tapehouse.universe import Universe, load_universe

DEFAULT = yaml.safe_load((Path(__file__).parents[2] / "sources.yaml").read_text())
META = {
    "id": "US:FB:1",
    "name": "Meta Platforms",
    "kind": "equity",
    "tradable": True,
    "source": "sim",
    "listed": date(2012, 5, 18),
    "history": [
        {"symbol": "FB", "to": date(2022, 6, 8)},
        {"symbol": "META", "from": date(2022, 6, 9), "known_at": date(2022, 5, 31)},
    ],
}
SIMULATOR = {"kind": "simulator", "start": date(2000, 1, 1), "equities": 3}


def universe(tmp_path: Path, lines: dict[str, dict]) -> Universe:
    """The given lines beside the simulated index."""
    index = {
        "SIM:INDEX": {
            "id": "X",
            "name": "X",
            "kind": "index",
            "tradable": False,
            "source": "simulator",
            "listed": date(2000, 1, 3),
        }
    }
    files = {
        "kind": "files",
        "file": "x.csv",
        "holds": list(lines),
        "columns": DEFAULT["sources"]["bokeh-sampledata"]["columns"],
    }
    content = DEFAULT | {
        "feeds": {},
        "benchmark": "SIM:INDEX",
        "universe": index | lines,
        "sources": {"sim": files, "simulator": SIMULATOR},
    }
    path = tmp_path / "sources.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_universe(path)


def told(tmp_path, line: dict, symbol: str = "META", first: date | None = None) -> list[tuple]:
    """(ticker, valid_from, valid_to, known_at) of one instrument."""
    rows = instrument_rows(universe(tmp_path, {symbol: line}), {symbol: first} if first else {})
    assert dict(rows.schema) == SCHEMA
    return rows.filter(symbol=symbol).select("ticker", "valid_from", "valid_to", "known_at").rows()


def test_a_changed_ticker_by_hand(tmp_path):
    opened, announced = datetime(2012, 5, 18, 13, 30, tzinfo=UTC), datetime(2022, 6, 1, 4, tzinfo=UTC)  # the end of 31 May
    assert told(tmp_path, META) == [
        ("FB", date(2012, 5, 18), None, opened),
        ("FB", date(2012, 5, 18), date(2022, 6, 8), announced),
        ("META", date(2022, 6, 9), None, announced),
    ]
    without = META | {"history": [{"symbol": "FB"}, {"symbol": "META", "from": date(2022, 6, 9)}]}
    assert told(tmp_path, without)[1] == ("FB", date(2012, 5, 18), date(2022, 6, 8), datetime(2022, 6, 9, 4, tzinfo=UTC))


def test_a_delisting_by_hand(tmp_path):
    line = {key: META[key] for key in ("id", "name", "kind", "tradable", "source")} | {"delisted": {"on": date(2008, 9, 17)}}
    first, opened = date(2004, 8, 19), datetime(2004, 8, 19, 13, 30, tzinfo=UTC)
    end = datetime(2008, 9, 18, 4, tzinfo=UTC)
    assert told(tmp_path, line, "LEH", first) == [("LEH", first, None, opened), ("LEH", first, date(2008, 9, 17), end)]
    early = line | {"delisted": {"on": date(2008, 9, 17), "known_at": datetime(2008, 9, 15, 12, tzinfo=UTC)}}
    assert told(tmp_path, early, "LEH", first)[1][3] == datetime(2008, 9, 15, 12, tzinfo=UTC)
    # Known before it was listed: it never had no end.
    known = line | {"delisted": {"on": date(2008, 9, 17), "known_at": date(2004, 1, 1)}}
    assert told(tmp_path, known, "LEH", first) == [("LEH", first, date(2008, 9, 17), opened)]


def test_an_instrument_without_bars_is_left_out(tmp_path):
    line = {key: META[key] for key in ("id", "name", "kind", "tradable", "source")}
    assert told(tmp_path, line) == []
    assert undated(universe(tmp_path, {"META": line})) == ("META",)
    assert undated(universe(tmp_path, {"META": META})) == ()


def test_futures_and_perpetuals(tmp_path):
    about = {"name": "X", "tradable": False, "source": "sim", "listed": date(2005, 1, 3)}
    future = about | {"id": "F", "kind": "future", "underlying": "SIM:INDEX", "expires": date(2005, 3, 18), "multiplier": 50}
    future |= {"roll": {"sessions_before_expiry": 5}, "tick_size": 0.25}
    perpetual = about | {"id": "P", "kind": "perpetual", "calendar": "24/7", "funding_hours": 8, "lot_size": 0.001}
    rows = instrument_rows(universe(tmp_path, {"ESH5": future, "BTC-PERP": perpetual}), {})
    contract, swap = (rows.filter(symbol=symbol).to_dicts() for symbol in ("ESH5", "BTC-PERP"))
    assert len(contract) == 1 and contract[0]["expires_at"] == datetime(2005, 3, 18, 21, tzinfo=UTC)
    assert contract[0]["valid_to"] == date(2005, 3, 18) and contract[0]["roll_sessions_before"] == 5
    assert (contract[0]["tick_size"], contract[0]["multiplier"], contract[0]["underlying"]) == (0.25, 50.0, "SIM:INDEX")
    assert (swap[0]["funding_hours"], swap[0]["lot_size"], swap[0]["calendar"]) == (8, 0.001, "24/7")
    assert swap[0]["event_at"] == datetime(2005, 1, 3, tzinfo=UTC) and swap[0]["expires_at"] is None


def test_a_date_beyond_the_calendar(tmp_path):
    with pytest.raises(TapehouseError, match=r"universe.META: 2099-01-02 is beyond the sessions of XNYS"):
        told(tmp_path, META | {"history": [], "listed": date(2099, 1, 2)})


def test_a_ticker_may_be_used_again_only_after_it_was_left(tmp_path):
    heir = {key: META[key] for key in ("name", "kind", "tradable", "source")} | {"id": "US:FB:2", "listed": date(2022, 6, 9)}
    rows = instrument_rows(universe(tmp_path, {"META": META, "FB": heir}), {})
    assert rows.filter(ticker="FB")["instrument_id"].n_unique() == 2
    early = heir | {"listed": date(2022, 6, 8)}
    with pytest.raises(TapehouseError, match=r"universe\.META and universe\.FB both bear the ticker FB on 2022-06-08"):
        instrument_rows(universe(tmp_path, {"META": META, "FB": early}), {})


def test_a_universe_reads_back_from_its_own_text(tmp_path):
    declared = universe(tmp_path, {"META": META})
    assert Universe.model_validate_json(declared.model_dump_json()) == declared


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), day=st.integers(0, 4000), lag=st.integers(0, 4000))
def test_as_known_at_any_instant_a_symbol_has_one_ticker_a_day(seed, day, lag, tmp_path_factory):
    declared = Declaration(kind="simulator", seed=seed, start=date(2000, 1, 3), equities=3, delisted_per_year=0.2, renamed=0.9)
    lines = universe_lines(declared, "simulator")
    path = tmp_path_factory.mktemp("any")
    rows = instrument_rows(universe(path, {s: line | {"listed": date(2000, 1, 3)} for s, line in lines.items()}), {})
    session, at = date(2000, 1, 3) + timedelta(days=day), datetime(2000, 1, 4, tzinfo=UTC) + timedelta(days=day + lag)
    assert rows.select("instrument_id", "valid_from", "known_at").is_unique().all()
    known = rows.filter(pl.col("known_at") <= at).sort("known_at").unique(["instrument_id", "valid_from"], keep="last")
    there = known.filter((pl.col("valid_from") <= session) & (pl.col("valid_to").is_null() | (pl.col("valid_to") >= session)))
    assert there["symbol"].is_unique().all()
    staying = [s for s, line in lines.items() if "delisted" not in line or line["delisted"]["on"] >= session]
    assert set(staying) <= set(there["symbol"])
