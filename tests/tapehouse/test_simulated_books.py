"""Simulated books: any range the same rows, a truth that holds, and files that read back as what was written."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.book_files import StreamReader
from tapehouse.book_messages import BOOK_SCHEMA, TRADE_SCHEMA
from tapehouse.errors import TapehouseError
from tapehouse.simulated_books import StreamShape, simulate_day, simulated_book_events, simulated_trades
from tapehouse.simulated_streams import disturb, stream_lines, write_stream

START = datetime(2024, 1, 1, tzinfo=UTC)
THIN = StreamShape(messages_per_second=0.01)


def hours(count: float) -> datetime:
    return START + timedelta(hours=count)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.floats(0, 71), min_size=1, max_size=4), seed=st.integers(0, 3))
def test_any_cutting_of_a_range_gives_the_same_rows(cuts, seed):
    edges = [START, *sorted(hours(cut) for cut in cuts), hours(72)]
    for make, schema in ((simulated_book_events, BOOK_SCHEMA), (simulated_trades, TRADE_SCHEMA)):
        whole = make(seed, "SIM:A", START, hours(72), shape=THIN)
        parts = [make(seed, "SIM:A", low, high, shape=THIN) for low, high in pairwise(edges)]
        assert pl.concat(parts).equals(whole)
        assert dict(whole.schema) == schema
        assert whole["symbol"].str.starts_with("SIM:").all()
        assert whole["source"].str.contains("simul").all()


def test_what_decides_a_stream():
    def first(seed=1, symbol="SIM:A", shape=THIN):
        return simulated_book_events(seed, symbol, START, hours(24), shape=shape)

    assert first().equals(first())
    for other in (first(seed=2), first(symbol="SIM:B"), first(shape=StreamShape("spot", 0.01))):
        assert not other.equals(first())
    empty = simulated_book_events(1, "SIM:A", START, START, shape=THIN)
    assert not empty.height
    assert dict(empty.schema) == BOOK_SCHEMA


@pytest.mark.parametrize("market", ["spot", "futures"])
def test_the_messages_are_those_of_one_stream(market):
    book = simulated_book_events(1, "SIM:A", START, hours(72), shape=StreamShape(market, 0.02))
    assert book["sequence"].is_sorted()
    assert book["sequence"].is_unique().all()
    differences = book.filter(kind="diff")
    before = differences["last_id"].shift(1)[1:]
    if market == "futures":  # across midnights, too
        assert differences["previous_id"][1:].equals(before, check_names=False)
        assert (differences["first_id"][1:] > before).all()
    else:
        assert differences["previous_id"].null_count() == differences.height
        assert (differences["first_id"][1:] == before + 1).all()
    day = simulate_day(1, "SIM:A", date(2024, 1, 1), StreamShape(market, 0.02))
    assert (day.truth["bid_price"] < day.truth["ask_price"]).all()
    assert set(book["kind"]) == {"snapshot", "diff", "ticker"}
    ticks = book.explode("bid_prices")["bid_prices"].drop_nulls() * 100
    assert ((ticks - ticks.round()).abs() < 1e-6).all()


@pytest.mark.parametrize("market", ["spot", "futures"])
def test_a_written_stream_reads_back(tmp_path, market):
    day = simulate_day(5, "SIM:A", date(2024, 1, 1), StreamShape(market, 0.02))
    path = write_stream(tmp_path / "stream.gz", stream_lines(day.book, day.trades))
    batches = list(StreamReader(path, "simulator").batches())
    assert not sum(batch.rejected.height for batch in batches)
    assert pl.concat([batch.book for batch in batches]).equals(day.book)
    assert pl.concat([batch.trades for batch in batches]).equals(day.trades)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), lose=st.floats(0, 0.5), swap=st.floats(0, 0.5), copy=st.floats(0, 0.5))
def test_what_is_disturbed_is_counted(seed, lose, swap, copy):
    book = simulate_day(1, "SIM:A", date(2024, 1, 1), THIN).book
    told = disturb(book, seed, lose, swap, copy)
    assert told.book.height == book.height - told.lost + told.copied
    assert told.book["sequence"].is_unique().all()
    assert told.book["sequence"].is_sorted()
    assert told.book.filter(pl.col("kind") != "diff").height >= book.filter(pl.col("kind") != "diff").height
    if not (told.lost or told.swapped or told.copied):
        assert told.book.equals(book)


@pytest.mark.parametrize(("symbol", "source"), [("BTCUSDT", "simulator"), ("SIM:A", "binance")])
def test_what_does_not_say_that_it_is_simulated_is_refused(symbol, source):
    with pytest.raises(TapehouseError, match="every row says what it is"):
        simulated_book_events(1, symbol, START, hours(1), source=source)
