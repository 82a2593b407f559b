"""raw.book_events, raw.trades and staging.book_quotes through the engine: by day and by range, with gaps and late files."""

import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
import yaml

from tapehouse.planning import plan
from tapehouse.simulated_books import StreamShape, simulate_day
from tapehouse.simulated_streams import disturb, stream_lines, write_stream
from tests.house import ROOT, House

RECORDED = ROOT.parent / "shared" / "data" / "book"
FILES = (
    *("assets/raw/book_events.py", "assets/raw/trades.py", "assets/staging/book_quotes.py"),
    *("checks/raw/book_events.yaml", "checks/raw/trades.yaml", "checks/raw/quarantine.yaml", "checks/staging/book_quotes.yaml"),
    *("workspace.yaml", "objectives.yaml", "prompts.yaml"),
)
ASSETS = ("raw.book_events", "raw.trades", "staging.book_quotes")
DAYS = ["2024-01-01", "2024-01-02", "2024-01-03"]
THIN = {"messages_per_second": 0.02, "snapshot_seconds": 20_000}


def project(home: Path, sources: dict, feeds: dict, start: date, end: date) -> House:
    """A project of the tables of books alone."""
    for name in FILES:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, home / name)
    quotes = home / "assets/staging/book_quotes.py"
    quotes.write_text(quotes.read_text().replace("cadence_ms=1000", "cadence_ms=10_000"))  # for fewer rows
    (home / "models_registry").mkdir()
    (home / "models_registry" / "folds.yaml").write_text("{count: 1}\n")  # the span must hold one; no table here reads it
    simulated = {"kind": "simulator", "seed": 3, "books": {"SIM:A": {"market": "spot", **THIN}}}
    content = {
        "span": {"start": date(2008, 1, 1), "end": date(2013, 4, 1)},
        "days": {"start": start, "end": end},
        "calendar": "XNYS",
        "interval": "1d",
        "decision_lag_minutes": 5,
        "settlement_lag_days": 1,
        "benchmark": "SIM:INDEX",
        "universe": {"SIM:INDEX": {"id": "SIM", "name": "Index", "kind": "index", "tradable": False, "source": "simulated"}},
        "sources": {"simulated": simulated, **sources},
        "feeds": feeds,
    }
    (home / "sources.yaml").write_text(yaml.safe_dump(content))
    return House(home)


def file_of(home: Path, day: int, lose: float = 0.0) -> None:
    """A day of another symbol's stream, recorded to a file of its own."""
    made = simulate_day(1, "SIM:F", date(2024, 1, day), StreamShape("futures", 0.02, 20_000))
    write_stream(home / f"{day}.gz", stream_lines(disturb(made.book, 9, lose=lose).book, made.trades))


def made_in_one_range(house: House) -> dict:
    for name in ASSETS:
        outcome = house.make(name)
        assert not outcome.failed, outcome.failed
    return {key: made.out_hash for key, made in house.state().items()}


@pytest.fixture
def house(tmp_path) -> House:
    home = tmp_path / "home"
    home.mkdir()
    for day in (1, 2):
        file_of(home, day, lose=0.002)
    feeds = [{"source": "simulated", "symbols": ["SIM:A"]}, {"source": "files-simulated"}]
    sources = {"files-simulated": {"kind": "binance", "file": "*.gz", "market": "futures"}}
    return project(home, sources, {"book": feeds, "trades": feeds}, date(2024, 1, 1), date(2024, 1, 4))


def test_days_in_any_order_and_one_range_are_the_same(house, tmp_path):
    whole = made_in_one_range(house)
    assert not plan(house.project, house.state())
    again = House(house.home, tmp_path / "again")
    for name in ASSETS:
        for day in (DAYS[1], DAYS[2], DAYS[0]) if name.startswith("raw.") else DAYS[::-1]:
            assert not again.make(name, [day]).failed
    assert {key: made.out_hash for key, made in again.state().items()} == whole
    counted = house.rows("select symbol, kind, count(*) from raw.book_events group by all order by all")
    assert {symbol for symbol, *_ in counted} == {"SIM:A", "SIM:F"}


def test_quotes_gaps_and_past_states(house):
    made_in_one_range(house)
    statuses = dict(house.rows("select status, count(*) from staging.book_quotes where symbol = 'SIM:F' group by status"))
    assert statuses["gap"] >= 1
    gaps = house.rows("select reason, filed_at, event_at from raw.quarantine where table_name = 'staging.book_quotes'")
    assert gaps
    assert all(reason.startswith(("gap", "no snapshot", "snapshot apart")) for reason, *_ in gaps)
    # While a book is not usable it has no numbers, and an as-of join meets the row that says so.
    assert house.rows(
        "select count(*) from staging.book_quotes where not valid and (mid is not null or last_id is not null)"
    ) == [(0,)]
    assert house.rows("select count(*) from staging.book_quotes where valid and not bid_price < mid and mid < ask_price") == [
        (0,)
    ]
    at = datetime(2024, 1, 2, 12, tzinfo=UTC)
    latest = house.rows(f"select max(known_at) from staging.book_quotes_as_known(timestamptz '{at.isoformat()}')")
    assert latest[0][0] == at
    # Each quote is the true book of its instant.
    truth = pl.concat([simulate_day(3, "SIM:A", date(2024, 1, d), StreamShape("spot", 0.02, 20_000)).truth for d in (1, 2, 3)])
    rows = house.rows("select known_at, last_id, bid_price, ask_size from staging.book_quotes where symbol = 'SIM:A' and valid")
    true = {row["last_id"]: (row["bid_price"], row["ask_size"]) for row in truth.iter_rows(named=True)}
    assert len(rows) > 500
    assert all(true[last_id] == (bid, ask_size) for _, last_id, bid, ask_size in rows)


def test_a_late_file_makes_its_own_days_stale_and_the_day_behind_it(house):
    before = made_in_one_range(house)
    file_of(house.home, 3)
    stale = {(entry.asset, entry.partition) for entry in plan(house.project, house.state())}
    assert ("raw.book_events", DAYS[2]) in stale
    assert not {day for name, day in stale if name == "raw.book_events"} - {DAYS[2]}
    house.make("raw.book_events", [DAYS[2]])
    house.make("staging.book_quotes", [DAYS[2]])
    after = {key: made.out_hash for key, made in house.state().items()}
    changed = {key for key in after if after[key] != before[key]}
    assert changed == {(name, DAYS[2]) for name in ("raw.book_events", "staging.book_quotes")} | (
        {("raw.quarantine.book_quotes", DAYS[2])} & changed
    )


def test_a_second_recording_of_a_day_adds_no_trade(house):
    """Not by day and not by range, though its last trades were received after midnight."""
    house.make("raw.trades")
    stored = house.rows("select * from raw.trades order by all")
    assert len(stored) > 100
    made = simulate_day(1, "SIM:F", date(2024, 1, 1), StreamShape("futures", 0.02, 20_000))
    behind = 86_400_000_000_000 - 3_600_000_000_000 * 2
    late = made.trades.with_columns(pl.col("received_ns") + behind)
    write_stream(house.home / "0.gz", stream_lines(made.book.clear(), late))
    for days in ([DAYS[0]], [DAYS[1]], DAYS):
        outcome = house.make("raw.trades", days)
        assert not outcome.failed
        assert house.rows("select * from raw.trades order by all") == stored


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded streams are not here")
def test_the_recorded_streams_cross_midnight(tmp_path):
    """Their last half second was received on the day after: its quotes need the day before."""

    def declared(name: str, market: str, ours: str) -> dict:
        file = str(RECORDED / f"binance_{name}_btcusdt_20240808.gz")
        return {"kind": "binance", "file": file, "market": market, "holds": {"BTCUSDT": ours}}

    sources = {"usdm": declared("usdm", "futures", "BTCUSDT-PERP"), "spot": declared("spot", "spot", "BTCUSDT")}
    feeds = [{"source": name} for name in sources]
    house = project(tmp_path, sources, {"book": feeds, "trades": feeds}, date(2024, 8, 8), date(2024, 8, 10))
    made_in_one_range(house)
    assert house.rows("select count(*) from raw.quarantine") == [(0,)]
    assert house.rows("select count(*) from raw.book_events") == [(31_492 + 72_641,)]
    assert house.rows("select side, count(*) from raw.trades group by side order by side")[0][0] == "buy"
    quotes = house.rows(
        "select symbol, known_at::date, count(*) filter (valid), min(bid_price) > 61000, max(ask_price) < 62500 "
        "from staging.book_quotes group by all order by all"
    )
    assert [(symbol, day) for symbol, day, *_ in quotes] == [
        (symbol, date(2024, 8, day)) for symbol in ("BTCUSDT", "BTCUSDT-PERP") for day in (8, 9)
    ]
    assert all(valid > 5 and low and high for *_, valid, low, high in quotes)
