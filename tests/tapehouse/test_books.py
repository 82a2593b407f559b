"""Books rebuilt from snapshots and differences: by hand, against a simulated truth, and against a real stream's own tickers."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.book_files import StreamReader
from tapehouse.book_kernels import first_not_below, set_level, without_holes
from tapehouse.books import BookRules, collected, quotes_by_day, rebuild
from tapehouse.errors import TapehouseError
from tapehouse.simulated_books import StreamShape, simulate_day, simulated_book_events
from tapehouse.simulated_streams import disturb
from tests.tapehouse.book_stories import NOON, diff, frame, message, played, snapshot, statuses

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "book"
BEST = ("bid_price", "bid_size", "ask_price", "ask_size")
BIDS, ASKS = [(100.0, 2.0), (99.0, 5.0)], [(101.0, 1.0), (102.0, 4.0)]


def test_a_book_by_hand():
    rebuilt = played(
        diff(0.1, 1, 4, [(90.0, 1.0)]),  # contained in the snapshot
        diff(0.2, 5, 8, [(100.0, 3.0)], [(101.0, 0.0)]),  # overlaps it
        snapshot(0.5, 6, BIDS, ASKS),
        diff(1.5, 9, 9, [(100.5, 1.0)], [(102.0, 0.0), (103.0, 6.0)]),
        until=3,
        levels=2,
    )
    first, second = rebuilt.quotes.to_dicts()
    assert (first["known_at"], first["status"], first["last_id"]) == (NOON + timedelta(seconds=1), "valid", 8)
    assert [first[name] for name in BEST] == [100.0, 3.0, 102.0, 4.0]
    assert first["mid"] == 101.0
    assert first["microprice"] == pytest.approx((100 * 4 + 102 * 3) / 7)
    assert first["spread_bps"] == pytest.approx(2 / 101 * 10_000)
    assert (first["bid_depth"], first["ask_depth"]) == (8.0, 4.0)
    assert (second["bid_prices"], second["bid_sizes"]) == ([100.5, 100.0], [1.0, 3.0])
    assert (second["ask_prices"], second["ask_sizes"]) == ([103.0], [6.0])
    assert second["received_at"] == NOON + timedelta(seconds=1.5)
    assert second["event_at"] == NOON + timedelta(seconds=1.497)
    assert rebuilt.counts == {"applied": 2, "contained": 1, "unusable": 0, "snapshots": 1, "tickers": 0}
    assert not rebuilt.rejected.height


def test_an_instant_holds_all_that_was_received_by_it_and_nothing_later():
    rebuilt = played(
        snapshot(0.5, 6, BIDS, ASKS),
        diff(0.6, 7, 7),
        diff(1.0, 8, 8, [(100.0, 7.0)]),
        diff(1.000001, 9, 9, [(100.0, 9.0)]),
        until=2,
    )
    assert rebuilt.quotes["bid_size"].to_list() == [7.0]


def test_a_gap_ends_the_book_until_a_snapshot():
    rebuilt = played(
        snapshot(0.1, 10, BIDS, ASKS),
        diff(0.2, 11, 12),
        diff(1.2, 14, 15, [(100.0, 9.0)]),  # 13 is missing
        diff(2.2, 16, 17),
        snapshot(3.1, 15, BIDS, ASKS),
        diff(3.2, 18, 18),
        until=5,
    )
    assert statuses(rebuilt) == [(1, "valid"), (2, "gap"), (4, "valid")]
    reject = rebuilt.rejected.to_dicts()
    assert [r["reason"] for r in reject] == ["gap: the book was at update id 12, the next difference has U 14, u 15"]
    assert (reject[0]["table_name"], reject[0]["filed_at"]) == ("staging.book_quotes", NOON + timedelta(seconds=1.2))
    # The second snapshot holds 14 and 15, and 16 to 18 follow it.
    assert rebuilt.counts == {"applied": 3, "contained": 1, "unusable": 0, "snapshots": 2, "tickers": 0}


def test_a_stream_without_a_snapshot_gives_its_reason_and_no_book():
    rebuilt = played(*(diff(i + 0.5, i + 1, i + 1, [(100.0, 1.0)], [(101.0, 1.0)]) for i in range(5)), until=5)
    assert statuses(rebuilt) == [(1, "no_snapshot")]
    assert rebuilt.quotes["mid"].null_count() == 1
    assert [r[:11] for r in rebuilt.rejected["reason"]] == ["no snapshot"]
    assert rebuilt.counts["unusable"] == 5


def test_futures_follow_pu():
    rows = [
        diff(0.1, 100, 110, [(100.0, 8.0)], previous=95),
        snapshot(0.2, 105, BIDS, ASKS, market="futures"),
        diff(0.3, 150, 160, [(100.0, 9.0)], previous=110),  # ids are shared with other symbols: U need not follow u
        diff(1.3, 170, 180, previous=165),
    ]
    rebuilt = played(*rows, until=3)
    assert statuses(rebuilt) == [(1, "valid"), (2, "gap")]
    assert rebuilt.quotes["bid_size"][0] == 9.0
    assert rebuilt.rejected["reason"].to_list() == [
        "gap: the book was at update id 160, the next difference has U 170, u 180, pu 165"
    ]


def test_a_snapshot_that_the_differences_do_not_reach():
    rebuilt = played(diff(0.1, 20, 22), snapshot(0.2, 10, BIDS, ASKS), diff(0.3, 23, 23), diff(1.1, 24, 24), until=2)
    assert statuses(rebuilt) == [(1, "snapshot_apart")]
    ahead = played(snapshot(0.2, 10, BIDS, ASKS), diff(0.3, 23, 23), until=2)
    assert statuses(ahead) == [(1, "snapshot_apart")]
    assert ahead.rejected.height == 1


def test_a_snapshot_can_make_no_book_worse():
    rows = [snapshot(0.1, 10, BIDS, ASKS), diff(0.2, 11, 12, [(100.0, 7.0)]), diff(0.3, 13, 14)]
    # Too old, from before a gap would have been, and ahead of the stream: left out. In between: taken, and replayed onto.
    for last, size in ((5, 7.0), (99, 7.0), (12, 2.0), (11, 7.0), (14, 2.0)):
        rebuilt = played(*rows, snapshot(0.4, last, BIDS, ASKS), until=2)
        assert statuses(rebuilt) == [(1, "valid")], last
        assert rebuilt.quotes["bid_size"][0] == size, last


def test_a_crossed_book_is_not_used():
    back = [snapshot(2.1, 12, BIDS, ASKS), diff(2.2, 13, 13)]
    rebuilt = played(snapshot(0.1, 10, BIDS, ASKS), diff(0.2, 11, 11), diff(1.2, 12, 12, [(101.0, 1.0)]), *back, until=4)
    assert statuses(rebuilt) == [(1, "valid"), (2, "crossed"), (3, "valid")]
    assert rebuilt.rejected["reason"][0].startswith("crossed")
    at_once = played(diff(0.1, 10, 10), snapshot(0.2, 10, [(102.0, 1.0)], ASKS), diff(0.3, 11, 11), until=2)
    assert statuses(at_once) == [(1, "crossed")]


def test_a_silent_stream_is_not_relied_on():
    rows = [snapshot(0.1, 10, BIDS, ASKS), diff(0.2, 11, 11), diff(9.2, 12, 12)]
    rebuilt = played(*rows, until=11, max_silence_seconds=3)
    assert statuses(rebuilt) == [(1, "valid"), (2, "valid"), (3, "valid"), (4, "silent"), (10, "valid")]


def test_a_declared_warm_up():
    rows = [diff(i + 0.5, i + 1, i + 1, [(100.0 - i, 1.0)], [(101.0 + i, 1.0)]) for i in range(6)]
    rebuilt = played(*rows, until=6, warm_up_seconds=3)
    assert statuses(rebuilt) == [(1, "warm_up"), (4, "valid"), (5, "valid")]
    gone = played(*rows[:2], diff(2.5, 9, 9, [(90.0, 1.0)], [(110.0, 2.0)]), diff(6.5, 10, 10), until=8, warm_up_seconds=3)
    assert statuses(gone) == [(1, "warm_up"), (7, "valid")]
    assert gone.quotes["bid_price"].to_list() == [None, 90.0]  # nothing from before the gap
    assert gone.rejected["reason"].to_list() == ["gap: the book was at update id 2, the next difference has U 9, u 9"]


def test_differences_too_old_for_a_snapshot_are_told():
    rows = [diff(i + 0.5, i + 1, i + 1) for i in range(10)]
    rebuilt = played(*rows, snapshot(10.1, 10, BIDS, ASKS), diff(10.2, 11, 11), until=12, buffer_seconds=3)
    assert rebuilt.counts == {"applied": 1, "contained": 3, "unusable": 7, "snapshots": 1, "tickers": 0}
    assert rebuilt.rejected.height == 1


def test_sizes_that_do_not_match_prices_are_refused():
    broken = frame(snapshot(0.1, 10, BIDS, ASKS)).with_columns(bid_sizes=pl.lit([1.0], pl.List(pl.Float64)))
    with pytest.raises(TapehouseError, match="bid_prices and bid_sizes differ in length"):
        list(rebuild([broken], BookRules(), NOON, NOON + timedelta(seconds=1)))


changes = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 3)), max_size=200)


@settings(max_examples=60, deadline=None)
@given(changes=changes, near=st.lists(st.integers(0, 40), min_size=200, max_size=200))
def test_levels_are_those_of_a_dictionary(changes, near):
    keys, sizes, n, holes, expected = np.zeros(300), np.zeros(300), 0, 0, {}
    for (key, size), hint in zip(changes, near, strict=False):
        n, holes, _ = set_level(keys, sizes, n, holes, max(min(hint, n - 1), 0), float(key), float(size))
        expected.pop(float(key), None)
        if size:
            expected[float(key)] = float(size)
        held = [(k, s) for k, s in zip(keys[:n], sizes[:n], strict=True) if s > 0]
        assert held == sorted(expected.items())
        assert holes == n - len(held)
        assert n == 0 or sizes[n - 1] > 0
    n = without_holes(keys, sizes, n)
    assert list(zip(keys[:n], sizes[:n], strict=True)) == sorted(expected.items())


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    market=st.sampled_from(["spot", "futures"]),
    lose=st.sampled_from([0.0, 0.01, 0.2]),
    swap=st.sampled_from([0.0, 0.05]),
    copy=st.sampled_from([0.0, 0.1]),
    size=st.sampled_from([61, 100_000]),
)
def test_whenever_a_book_is_valid_it_is_the_true_one(seed, market, lose, swap, copy, size):
    day = simulate_day(
        seed % 5, "SIM:T", date(2024, 1, 5), StreamShape(market, messages_per_second=0.01, snapshot_seconds=9000)
    )
    told = disturb(day.book, seed, lose, swap, copy)
    start = datetime(2024, 1, 5, tzinfo=UTC)
    rules = BookRules(buffer_seconds=3000, max_silence_seconds=3600)
    pieces = [told.book[at : at + size] for at in range(0, told.book.height, size)]
    rebuilt = collected(rebuild(pieces, rules, start, start + timedelta(days=1), trace=True))
    assert sum(rebuilt.counts.values()) == told.book.height == day.book.height - told.lost + told.copied
    truth = day.truth.unique("last_id", keep="first")
    after = rebuilt.trace.filter("valid", kind="diff").join(truth, left_on="book_id", right_on="last_id", suffix="_true")
    assert after.height == rebuilt.trace.filter("valid", kind="diff").height
    for name in BEST:
        assert after[name].equals(after[f"{name}_true"], check_names=False)
    if not (lose or swap):
        assert rebuilt.counts["unusable"] == 0
        assert not rebuilt.rejected.height
    whole = collected(rebuild([told.book], rules, start, start + timedelta(days=1)))
    assert whole.quotes.equals(rebuilt.quotes)
    assert whole.rejected.equals(rebuilt.rejected)


def test_days_one_by_one_or_in_a_range_are_the_same():
    start = datetime(2024, 1, 1, tzinfo=UTC)
    shape = StreamShape(messages_per_second=0.05, snapshot_seconds=40_000)
    events = pl.concat(
        [simulated_book_events(7, s, start, start + timedelta(days=5), shape=shape) for s in ("SIM:A", "SIM:B")]
    ).filter(pl.col("known_at").dt.date() != date(2024, 1, 4))  # a day is missing
    rules = BookRules(cadence_ms=60_000, max_silence_seconds=600)

    def made(first: int, days: int, size: int):
        low, high = start + timedelta(days=first), start + timedelta(days=first + days)
        seen = events.filter((pl.col("known_at") >= low - timedelta(days=1)) & (pl.col("known_at") < high))
        pieces = [seen[at : at + size] for at in range(0, seen.height, size)]
        return collected(quotes_by_day(pieces, rules, low, high))

    whole = made(0, 5, 1_000)
    parts = [made(day, 1, 333) for day in range(5)]
    order = ["symbol", "known_at"]
    assert whole.quotes.sort(order).equals(pl.concat([part.quotes for part in parts]).sort(order))
    assert whole.rejected.sort("origin").equals(pl.concat([part.rejected for part in parts]).sort("origin"))
    assert whole.counts == {name: sum(part.counts[name] for part in parts if part.counts) for name in whole.counts}
    assert sum(whole.counts.values()) == events.height
    # The day without messages says at its start that the book is silent, and no more.
    silent = whole.quotes.filter(pl.col("known_at").dt.date() == date(2024, 1, 4))
    assert set(silent["status"]) <= {"valid", "silent"}
    assert silent.height < 2 * 12


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), hour=st.floats(25, 47), warm_up=st.sampled_from([None, 1800.0]))
def test_what_is_received_later_changes_no_quote(seed, hour, warm_up):
    start = datetime(2024, 1, 1, tzinfo=UTC)
    shape = StreamShape(messages_per_second=0.02, snapshot_seconds=20_000)
    events = simulated_book_events(seed % 3, "SIM:A", start, start + timedelta(days=2), shape=shape)
    events = disturb(events, seed, lose=0.01).book
    cut = start + timedelta(hours=hour)
    before, after = events.filter(pl.col("known_at") <= cut), events.filter(pl.col("known_at") > cut)
    other = disturb(after.with_columns(pl.col("bid_sizes") * 2), seed + 1, lose=0.2, swap=0.2, copy=0.2).book
    rules = BookRules(cadence_ms=30_000, buffer_seconds=3000, max_silence_seconds=900, warm_up_seconds=warm_up)
    day = start + timedelta(days=1)
    told, changed, unheard = (
        collected(quotes_by_day([pl.concat([before, rest])], rules, day, day + timedelta(days=1))).quotes.filter(
            pl.col("known_at") <= cut
        )
        for rest in (after, other, after.clear())
    )
    assert told.equals(changed)
    assert told.equals(unheard)
    assert told.height


def test_a_clock_set_back_by_hours_is_refused_in_a_range():
    rows = [message(86_400 * day, "ticker", day, [(1.0, 1.0)], [(2.0, 1.0)]) for day in (0, 5, 0)]
    events = frame(*rows).with_columns(sequence=pl.int_range(3))
    with pytest.raises(TapehouseError, match="one by one"):
        list(
            quotes_by_day(
                [events[at : at + 1] for at in range(3)], BookRules(), NOON.replace(hour=0), NOON + timedelta(days=6, hours=-12)
            )
        )


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded streams are not here")
@pytest.mark.parametrize(("name", "comparable"), [("usdm", 629), ("spot", 564)])
def test_the_real_book_is_that_of_the_streams_own_tickers(name, comparable):
    """Best bid and ask, price and size, at equal update ids, in every comparable message."""
    reader = StreamReader(RECORDED / f"binance_{name}_btcusdt_20240808.gz", "recorded")
    batches = list(reader.batches())
    assert not sum(batch.rejected.height for batch in batches)
    events = pl.concat([batch.book for batch in batches])
    start = datetime(2024, 8, 8, tzinfo=UTC)
    rebuilt = collected(rebuild([batch.book for batch in batches], BookRules(), start, start + timedelta(days=2), trace=True))
    tickers = events.filter(kind="ticker").select(
        "last_id", *(pl.col(f"{name}s").list.first().alias(f"{name}_told") for name in BEST)
    )
    differences = rebuilt.trace.filter("valid", pl.col("book_id") == pl.col("message_id"), kind="diff")
    compared = differences.join(tickers, left_on="book_id", right_on="last_id")
    assert compared.height == comparable
    for column in BEST:
        assert compared[column].equals(compared[f"{column}_told"], check_names=False)
    assert rebuilt.counts["unusable"] == 0
    assert not rebuilt.rejected.height
    assert sum(rebuilt.counts.values()) == events.height


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded streams are not here")
@pytest.mark.parametrize("name", ["usdm", "spot"])
def test_ten_levels_are_those_of_two_dictionaries(name):
    """A second rebuild in a few plain lines, from the snapshot's line on, compared at every second."""
    reader = StreamReader(RECORDED / f"binance_{name}_btcusdt_20240808.gz", "recorded")
    events = pl.concat([batch.book for batch in reader.batches()])
    start = datetime(2024, 8, 8, tzinfo=UTC)
    quotes = collected(rebuild([events], BookRules(levels=10), start, start + timedelta(days=2))).quotes
    at = {row["last_id"]: row for row in quotes.filter("valid").iter_rows(named=True)}
    (snap,) = events.filter(kind="snapshot").to_dicts()
    sides = {side: dict(zip(snap[f"{side}_prices"], snap[f"{side}_sizes"], strict=True)) for side in ("bid", "ask")}
    compared = 0
    for row in events.filter(pl.col("last_id") > snap["last_id"], kind="diff").iter_rows(named=True):
        for side, levels in sides.items():
            levels.update(zip(row[f"{side}_prices"], row[f"{side}_sizes"], strict=True))
        if quote := at.get(row["last_id"]):
            compared += 1
            for side, levels in sides.items():
                held = sorted(((p, s) for p, s in levels.items() if s), reverse=side == "bid")[:10]
                assert held == list(zip(quote[f"{side}_prices"], quote[f"{side}_sizes"], strict=True))
                assert quote[f"{side}_depth"] == pytest.approx(sum(size for _, size in held))
    assert compared == len(at) > 300


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded streams are not here")
def test_the_real_stream_without_its_snapshot_gives_no_book():
    reader = StreamReader(RECORDED / "binance_spot_btcusdt_20240808.gz", "recorded")
    events = [batch.book.filter(pl.col("kind") != "snapshot") for batch in reader.batches()]
    start = datetime(2024, 8, 8, tzinfo=UTC)
    rebuilt = collected(rebuild(events, BookRules(), start, start + timedelta(days=2)))
    assert rebuilt.quotes["status"].to_list() == ["no_snapshot"]
    assert rebuilt.rejected["reason"].str.starts_with("no snapshot").to_list() == [True]
    assert rebuilt.counts["unusable"] == 3451


@given(st.lists(st.integers(-50, 50), unique=True, max_size=40), st.integers(-60, 60), st.integers(0, 60))
def test_a_level_is_found_from_wherever_one_looks(keys, key, near):
    ascending = np.array(sorted(keys), np.int64)
    assert first_not_below(ascending, ascending.size, key, near) == np.searchsorted(ascending, key)
