"""Limit orders on books and trades: by hand, against a plain loop on simulated streams, and cut up in every way."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.book_fill_kernels import UNITS, USABLE
from tapehouse.book_fills import LATE, SETTLEMENT, FillRules, _Desk, _tape, book_outcomes
from tapehouse.book_messages import TRADE_SCHEMA, Messages
from tapehouse.errors import TapehouseError
from tapehouse.simulated_books import StreamShape, simulate_day
from tapehouse.simulated_streams import disturb
from tests.tapehouse.book_stories import NOON, diff, frame, snapshot

BIDS, ASKS = [(100.0, 2.0), (99.0, 5.0)], [(101.0, 1.0), (102.0, 4.0)]
OPENING = [snapshot(0.1, 10, BIDS, ASKS), diff(0.2, 11, 11)]
KEY = ("symbol", "market", "source")


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def tape(*trades: tuple) -> pl.DataFrame:
    """Trades (received, price, size, side[, seconds that it happened before that]), times in seconds after noon."""
    rows = []
    for number, (received, price, size, side, *before) in enumerate(trades):
        happened = at(received) - timedelta(seconds=before[0] if before else 0.003)
        times = {"event_at": happened, "known_at": at(received), "received_ns": 0}
        key = {"symbol": "X", "market": "spot", "source": "story", "trade_id": number}
        rows.append({**key, **times, "price": price, "size": size, "side": side})
    return pl.DataFrame(rows, schema=TRADE_SCHEMA)


def order(side: int, limit: float, decided: float = 1.0, **more) -> dict:
    return {
        "symbol": "X",
        "market": "spot",
        "source": "story",
        "decision_at": at(decided),
        "side": side,
        "limit": limit,
        **more,
    }


def lived(messages, trades, *orders: dict, window=10.0, latency=100.0, markout=1.0, cancellations="behind") -> list[dict]:
    """What became of the orders in a story; a stream goes on with a difference a minute after noon."""
    goes_on = [*OPENING, *messages, *(diff(20.0 + i, 101 + i, 101 + i) for i in range(40))]
    last = max([11, *(m["last_id"] for m in messages)])
    goes_on[len(OPENING) + len(messages)]["first_id"] = last + 1
    rules = FillRules(latency_ms=latency, window_seconds=window, markout_seconds=markout, cancellations=cancellations)
    return book_outcomes([frame(*goes_on)], [tape(*trades)], pl.DataFrame(list(orders)), rules).to_dicts()


def test_the_queue_ahead_must_be_traded_away():
    (found,) = lived(
        [diff(2.1, 12, 12, [(100.0, 0.5)])],
        [(0.5, 100.0, 9.0, "sell"), (2.0, 100.0, 1.5, "sell"), (3.0, 100.0, 0.5, "sell"), (4.0, 100.0, 0.01, "sell")],
        order(1, 100.0),
    )
    assert (found["outcome"], found["exec_price"], found["exec_at"]) == ("queue", 100.0, at(4.0))
    assert (found["queue_ahead"], found["touched"], found["filled"]) == (2.0, True, True)
    assert found["end_at"] == at(11.1)


def test_a_trade_beyond_the_limit_fills_whatever_the_queue():
    bought, sold = lived([], [(2.0, 98.0, 0.1, "sell"), (3.0, 103.0, 0.1, "buy")], order(1, 99.0), order(-1, 102.0))
    assert (bought["outcome"], bought["exec_price"], bought["exec_at"]) == ("through", 99.0, at(2.0))
    assert (sold["outcome"], sold["exec_price"], sold["exec_at"]) == ("through", 102.0, at(3.0))


def test_a_touch_is_no_fill_and_the_end_crosses_the_spread():
    messages = [diff(2.0, 12, 12, [], [(100.5, 3.0)]), diff(3.0, 13, 13, [(100.2, 1.0)])]
    bought, sold, far = lived(messages, [(4.0, 100.0, 2.0, "sell")], order(1, 100.0), order(-1, 102.0), order(1, 90.0))
    # The rest of the touched level's two units lay ahead; a trade of a buyer at a bid does not touch it.
    assert (bought["outcome"], bought["exec_price"], bought["touched"]) == ("ended", 100.5, True)
    assert (sold["outcome"], sold["exec_price"], sold["touched"]) == ("ended", 100.2, False)
    assert (far["queue_ahead"], far["exec_at"], far["markout_mid"]) == (0.0, at(11.1), None)
    # Mids: 100.5 at arrival, 100.25, then 100.35.
    assert (bought["worst_mid"], sold["worst_mid"]) == (100.5, 100.25)


def test_a_limit_across_the_spread_takes_the_best_price_on_arrival():
    (found,) = lived([diff(1.05, 12, 12, [], [(101.0, 0.0)]), diff(3.0, 13, 13, [(101.0, 1.0)])], [], order(1, 105.0))
    assert (found["outcome"], found["exec_price"], found["exec_at"]) == ("taken", 102.0, at(1.1))
    assert found["markout_mid"] == 101.0  # a second later, before the bid of 101 came


def test_a_markout_is_the_mid_after_the_fill():
    messages = [diff(2.5, 12, 12, [(100.4, 1.0)]), diff(3.5, 13, 13, [(100.8, 1.0)])]
    (found,) = lived(messages, [(2.0, 98.0, 1.0, "sell")], order(1, 99.0))
    assert found["markout_mid"] == (100.4 + 101.0) / 2


@pytest.mark.parametrize(("rule", "left"), [("behind", 2.0), ("proportional", 1.5), ("ahead", 1.0)])
def test_where_sizes_vanish_from_is_declared(rule, left):
    grows_and_shrinks = [diff(2.0, 12, 12, [(100.0, 4.0)]), diff(3.0, 13, 13, [(100.0, 3.0)])]
    for size, outcome in ((left, "ended"), (left + 0.001, "queue")):
        found = lived(grows_and_shrinks, [(4.0, 100.0, size, "sell")], order(1, 100.0), cancellations=rule)
        assert found[0]["outcome"] == outcome


def test_a_trade_counts_where_it_happened_not_where_it_was_received():
    """The difference at 2.0 shows what the trade, received later, had left: its size is not taken from the queue twice."""
    shows = [diff(2.0, 12, 12, [(100.0, 0.6)])]
    for size, outcome in ((1.4, "ended"), (2.1, "queue")):
        assert lived(shows, [(2.3, 100.0, size, "sell", 0.5)], order(1, 100.0))[0]["outcome"] == outcome
    later = lived(shows, [(2.3, 100.0, 0.601, "sell", 0.1)], order(1, 100.0))
    assert later[0]["outcome"] == "queue"
    before_arrival = [diff(1.05, 12, 12, [(100.0, 2.0)])]
    assert lived(before_arrival, [(2.0, 98.0, 1.0, "sell", 1.0)], order(1, 100.0))[0]["outcome"] == "ended"


def test_a_trade_received_very_late_comes_in_shortly_before_its_receipt():
    events = [diff(2.0 + i, 12 + i, 12 + i) for i in range(9)]
    (found,) = lived(events, [(9.0, 98.0, 1.0, "sell", 7.5)], order(1, 99.0))
    assert found["exec_at"] >= at(9.0) - timedelta(microseconds=LATE)


def test_a_book_that_breaks_leaves_resting_orders_unknown():
    messages = [diff(3.0, 14, 14)]  # 12 and 13 are missing
    resting, filled, later = lived(messages, [(2.0, 98.0, 1.0, "sell")], order(1, 90.0), order(1, 99.0), order(1, 99.0, 5.0))
    assert (resting["outcome"], later["outcome"], filled["outcome"]) == ("unknown", "unknown", "through")
    assert {resting[name] for name in ("filled", "exec_price", "exec_at", "worst_mid", "touched")} == {None}
    before = lived([], [], order(1, 99.0, -1.0))
    assert before[0]["outcome"] == "unknown"


def test_an_order_is_over_only_where_the_stream_is_seen_to_go_on():
    rules = FillRules(latency_ms=0, window_seconds=10)
    ends_here = book_outcomes([frame(*OPENING, diff(10.9, 12, 12))], [], pl.DataFrame([order(1, 100.0)]), rules)
    assert ends_here["outcome"].to_list() == ["unknown"]
    goes_on = book_outcomes([frame(*OPENING, diff(11.1, 12, 12))], [], pl.DataFrame([order(1, 100.0)]), rules)
    assert goes_on["outcome"].to_list() == ["ended"]


@pytest.mark.parametrize("bad", [order(1, 0.0), order(1, float("nan")), order(2, 100.0)])
def test_an_order_without_price_or_side_is_refused(bad):
    with pytest.raises(TapehouseError, match="order of X at 2024-03-01 12:00:01"):
        book_outcomes([], [], pl.DataFrame([order(1, 99.0), bad]), FillRules(latency_ms=0))


SHAPE = StreamShape(market="futures", messages_per_second=4.0, snapshot_seconds=600, latency_ms=300.0)
MINUTES = timedelta(minutes=20)


@pytest.fixture(scope="module")
def stream() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Twenty minutes, in which trades are received up to seconds after the differences that show them."""
    day = simulate_day(3, "SIM:F", date(2024, 1, 2), SHAPE)
    inside = pl.col("known_at") < datetime(2024, 1, 2, tzinfo=UTC) + MINUTES
    return day.book.filter(inside), day.trades.filter(inside)


def drawn(seed: int, count: int, book: pl.DataFrame) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    middle = np.median(book.filter(kind="ticker")["bid_prices"].explode())
    seconds = np.sort(random.uniform(30, 900, count))
    rows = book.select(KEY).row(0)
    return pl.DataFrame(
        {
            "decision_at": [datetime(2024, 1, 2, tzinfo=UTC) + timedelta(seconds=round(s, 3)) for s in seconds],
            "side": random.choice([1, -1], count),
            "limit": np.round(middle + random.integers(-25, 26, count) * 0.01, 10),
            "window_seconds": random.integers(1, 200, count).astype(float),
        }
    ).with_columns(symbol=pl.lit(rows[0]), market=pl.lit(rows[1]), source=pl.lit(rows[2]))


def plainly(book: pl.DataFrame, trades: pl.DataFrame, orders: pl.DataFrame, rules: FillRules) -> list[tuple]:
    """The rules of `tapehouse.book_fills` order by order, on dictionaries: (outcome, price), for a stream without gaps."""
    diffs = book.filter(kind="diff").sort("sequence").to_dicts()
    first = book.filter(kind="snapshot").sort("sequence").row(0, named=True)
    events = [(d["known_at"], 1, d) for d in diffs if d["last_id"] >= first["last_id"]]
    heads = [e[2]["event_at"] for e in events]
    placed: dict[int, list] = {}
    for trade in trades.sort("event_at", "trade_id").to_dicts():
        late = trade["known_at"] - timedelta(microseconds=LATE)
        place = next((i for i, e in enumerate(events) if heads[i] >= trade["event_at"] and e[0] >= late), None)
        if place is not None:
            placed.setdefault(place, []).append(trade)
    found = []
    for order in orders.to_dicts():
        arrival = order["decision_at"] + timedelta(milliseconds=rules.latency_ms)
        end = arrival + timedelta(seconds=order["window_seconds"])
        sides = [dict(zip(first[f"{s}_prices"], first[f"{s}_sizes"], strict=True)) for s in ("bid", "ask")]
        side, limit, ahead, outcome, clock = order["side"], order["limit"], None, None, first["known_at"]
        own = sides[0] if side > 0 else sides[1]

        def crossed(side=side, sides=sides):
            return min(sides[1]) if side > 0 else max(sides[0])

        for place, (known, _, event) in enumerate(events):
            for trade in [*placed.get(place, []), None]:
                now = known if trade is None else max(clock, min(trade["known_at"], known))
                if ahead is None and now > arrival:
                    if side * (limit - crossed()) >= 0:
                        outcome = ("taken", crossed())
                        break
                    ahead = round(own.get(limit, 0.0), 8)
                if ahead is not None and now > end:
                    outcome = ("ended", crossed())
                    break
                clock = now
                if trade is None:
                    for levels, name in zip(sides, ("bid", "ask"), strict=True):
                        for price, size in zip(event[f"{name}_prices"], event[f"{name}_sizes"], strict=True):
                            levels[price] = size
                            if size == 0.0:
                                del levels[price]
                            if levels is own and price == limit and ahead is not None:
                                ahead = min(ahead, size)
                elif ahead is not None and side * (limit - trade["price"]) > 0:
                    outcome = ("through", limit)
                elif ahead is not None and trade["price"] == limit and (trade["side"] == "sell") == (side > 0):
                    ahead = round(ahead - trade["size"], 8)
                    outcome = ("queue", limit) if ahead < 0 else None
                if outcome:
                    break
            if outcome:
                break
        found.append(outcome)
    return found


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1000))
def test_orders_live_as_in_a_plain_loop(stream, seed):
    book, trades = stream
    rules = FillRules(latency_ms=40.0)
    orders = drawn(seed, 25, book)
    outcomes = book_outcomes([book], [trades], orders, rules)
    assert list(outcomes.select("outcome", "exec_price").iter_rows()) == plainly(book, trades, orders, rules)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), size=st.sampled_from([7, 100, 1001]), kept=st.integers(1, 199))
def test_an_order_depends_on_no_other_and_on_no_frame(stream, seed, size, kept):
    book, trades = stream
    rules = FillRules(latency_ms=40.0, cancellations="proportional")
    orders = drawn(seed, 200, book)
    whole = book_outcomes([book], [trades], orders, rules)
    pieces = (book[i : i + size * 10] for i in range(0, book.height, size * 10))
    some = orders.sample(kept, shuffle=True, seed=seed).with_row_index("row")
    alone = book_outcomes(pieces, [trades[i : i + 500] for i in range(0, trades.height, 500)], some, rules)
    again = orders.with_columns(**{c: whole[c] for c in whole.columns}).join(
        some.select("row", "decision_at", "limit", "side"), on=["decision_at", "limit", "side"]
    )
    assert alone.equals(again.sort("row").select(alone.columns))


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), cut=st.integers(200, 900))
def test_what_is_received_after_an_order_is_settled_changes_nothing(stream, seed, cut):
    book, trades = stream
    rules = FillRules(latency_ms=40.0, markout_seconds=5)
    orders = drawn(seed, 150, book)
    at_cut = datetime(2024, 1, 2, tzinfo=UTC) + timedelta(seconds=cut)
    later = pl.col("known_at") > at_cut
    other_trades = pl.concat(
        [trades.filter(~later), trades.filter(later).with_columns(pl.col("price") * 0.9, event_at=pl.col("event_at") - MINUTES)]
    )
    other_book = pl.concat([book.filter(~later), book.filter(later).with_columns(last_id=pl.col("last_id") + 5)])
    before, after = (book_outcomes([b], [t], orders, rules) for b, t in ((book, trades), (other_book, other_trades)))
    settled = before["end_at"] + timedelta(seconds=5, microseconds=SETTLEMENT) <= at_cut
    assert settled.any()
    assert before.filter(settled).equals(after.filter(settled))
    assert not before.equals(after)


@pytest.mark.parametrize("market", ["spot", "futures"])
def test_the_sizes_that_orders_meet_are_those_of_the_book(market):
    """Also after gaps, copies and messages out of order: whenever the book is valid, at every price where an order may rest."""
    shape = StreamShape(market=market, messages_per_second=3.0, snapshot_seconds=300)
    day = simulate_day(5, "SIM:D", date(2024, 1, 2), shape)
    book = disturb(day.book[:4000], 1, lose=0.001, swap=0.001, copy=0.01).book
    orders = drawn(2, 80, book).with_columns(window=pl.lit(10.0)).with_row_index("number")
    days = int(datetime(2024, 1, 2, tzinfo=UTC).timestamp()) // 86_400
    tape_of = _tape([day.trades])[("SIM:D", market, "simulator")]
    desk, seen = _Desk(("SIM:D", market, "simulator"), days, orders, tape_of, FillRules(latency_ms=40)), {0: 0, 1: 0}
    for at in range(0, book.height, 37):
        desk.feed(Messages.of(book[at : at + 37]))
        usable = int(desk.state[USABLE])
        seen[usable] += 1
        for side in (0, 1) if usable else ():
            assert np.array_equal(desk.ladder[1][side], np.rint(desk.book.sizes_at(side, desk.ladder[0]) * UNITS))
    assert min(seen.values()) > 5
