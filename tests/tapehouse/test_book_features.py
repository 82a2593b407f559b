"""Book features by hand, against plain loops, and day by day."""

import math
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.book_features import COLUMNS, book_features, run_lengths, window_sums
from tapehouse.book_messages import TRADE_SCHEMA
from tapehouse.book_quotes import QUOTE_SCHEMA
from tapehouse.errors import TapehouseError
from tapehouse.hashing import frame_hash

START = datetime(2024, 1, 2, 12, tzinfo=UTC)
FOREVER = datetime(2000, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)


def quote(second: int, bids=((100.0, 2.0),), asks=((100.02, 1.0),), valid=True, symbol="BTC") -> dict:
    """A quote so many seconds after noon; levels are (price, size), best first."""
    (bid, bid_size), (ask, ask_size) = bids[0], asks[0]
    return {
        "symbol": symbol,
        "market": "spot",
        "source": "test",
        "known_at": START + timedelta(seconds=second),
        "valid": valid,
        **({"bid_price": bid, "bid_size": bid_size, "ask_price": ask, "ask_size": ask_size} if valid else {}),
        "mid": (bid + ask) / 2 if valid else None,
        "microprice": (bid * ask_size + ask * bid_size) / (bid_size + ask_size) if valid else None,
        "spread_bps": (ask - bid) / ((bid + ask) / 2) * 1e4 if valid else None,
        **{f"{side}_prices": [p for p, _ in levels] if valid else [] for side, levels in (("bid", bids), ("ask", asks))},
        **{f"{side}_sizes": [s for _, s in levels] if valid else [] for side, levels in (("bid", bids), ("ask", asks))},
    }


def trade(number: int, second: float, size: float, side: str) -> dict:
    return {
        "symbol": "BTC",
        "market": "spot",
        "source": "test",
        "trade_id": number,
        "known_at": START + timedelta(seconds=second),
        "price": 100.0,
        "size": size,
        "side": side,
    }


def of(quotes: list[dict], trades: list[dict] = (), start=FOREVER[0], end=FOREVER[1]) -> pl.DataFrame:
    return book_features(pl.DataFrame(quotes, schema=QUOTE_SCHEMA), pl.DataFrame(list(trades), schema=TRADE_SCHEMA), start, end)


def test_one_quote_by_hand():
    bids = [(100.0, 3.0), (99.99, 1.0), (99.96, 2.0), (99.0, 4.0), (98.0, 5.0), (97.0, 100.0)]
    asks = [(100.02, 1.0), (100.03, 2.0), (100.1, 4.0), (101.0, 1.0), (102.0, 2.0)]
    row = of([quote(0, bids, asks)]).row(0, named=True)
    assert row["decision_at"] == row["known_at"] == START
    assert row["imbalance_1"] == 0.5  # 3 against 1
    assert row["imbalance_5"] == 0.2  # 15 against 10: the sixth bid does not count
    # Within 2 bps of 100.01 is down to 99.98999…8 and up to 100.030002; within 10 bps from 99.90999 to 100.11001.
    assert (row["bid_depth_2bps"], row["ask_depth_2bps"]) == (4.0, 3.0)
    assert (row["bid_depth_10bps"], row["ask_depth_10bps"]) == (6.0, 7.0)
    assert row["microprice_bps"] == pytest.approx(((100.0 * 1 + 100.02 * 3) / 4 / 100.01 - 1) * 1e4)
    assert row["spread_bps"] == pytest.approx(0.02 / 100.01 * 1e4)
    assert {row[name] for name in ("ofi_10s", "trade_flow_10s", "trades_10s", "mid_vol_60s_bps")} == {None}


def test_order_flow_by_hand():
    still = [quote(s) for s in range(6)]
    moved = [
        quote(6, bids=((100.0, 5.0),)),  # 3 more on the bid: +3
        quote(7, bids=((100.01, 1.0),)),  # the bid rises: +1
        quote(8, bids=((100.0, 4.0),)),  # and falls: the 1 that was there is gone: -1
        quote(9, bids=((100.0, 4.0),), asks=((100.01, 2.0),)),  # the ask comes down with 2: -2
        quote(10, bids=((100.0, 4.0),), asks=((100.02, 7.0),)),  # and goes up: the 2 are gone: +2
        quote(11, bids=((100.0, 4.0),), asks=((100.02, 6.5),)),  # half of one leaves the ask: +0.5
    ]
    rows = of(still + moved)
    assert rows["ofi_10s"].to_list() == [None] * 10 + [3.0, 3.5]
    assert rows["ofi_60s"].null_count() == 12


def test_trades_count_once_they_are_known_by_the_side_that_took():
    trades = [trade(1, 0.4, 1.0, "buy"), trade(2, 1.0, 2.0, "sell"), trade(3, 10.5, 4.0, "buy"), trade(4, 99.0, 9.0, "buy")]
    rows = of([quote(s) for s in range(13)], trades)
    assert rows["trades_10s"].to_list() == [None] * 10 + [2, 1, 1]
    assert rows["trade_flow_10s"].to_list() == [None] * 10 + [pytest.approx(-1 / 3), 1.0, 1.0]
    assert of([quote(s) for s in range(11)])["trade_flow_10s"].to_list() == [None] * 11  # no trade, no direction


def test_volatility_by_hand():
    prices = [100.0 * (1.0002 if s % 2 else 1.0) for s in range(61)]
    rows = of([quote(s, bids=((p - 0.01, 1.0),), asks=((p + 0.01, 1.0),)) for s, p in enumerate(prices)])
    assert rows["mid_vol_60s_bps"].to_list()[:60] == [None] * 60
    assert rows["mid_vol_60s_bps"][60] == pytest.approx(math.log(1.0002) * 1e4)


def test_a_gap_and_an_unusable_book_break_every_window():
    seconds = [s for s in range(40) if s not in (12, 13)]
    rows = of([quote(s, valid=s != 26) for s in seconds])
    whole = rows.filter(pl.col("ofi_10s").is_not_null())["decision_at"].dt.second().to_list()
    assert whole == [10, 11, 24, 25, 37, 38, 39]
    assert rows.height == 37  # of a book that cannot be used there is no row


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 40), st.integers(0, 10_000))
def test_window_sums_are_sums_and_know_nothing_but_their_window(seed, window, first):
    rng = np.random.default_rng(seed)
    steps = first + np.cumsum(rng.choice([1, 1, 1, 1, 1, 1, 1, 1, 1, 2], 300))
    valid = rng.random(300) > 0.01
    values = rng.normal(size=300) * 10.0 ** rng.integers(-3, 8, 300)
    runs = run_lengths(valid, steps)
    sums = window_sums(values, steps, runs, window)
    for i in range(300):
        if runs[i] < window:
            assert math.isnan(sums[i])
        else:
            assert sums[i] == pytest.approx(math.fsum(values[i - window + 1 : i + 1]), rel=1e-9, abs=1e-6)
    cut = int(rng.integers(1, 250))
    alone = window_sums(values[cut:], steps[cut:], run_lengths(valid[cut:], steps[cut:]), window)
    there = ~np.isnan(alone)
    assert np.array_equal(alone[there], sums[cut:][there])
    assert (np.isnan(alone) == np.isnan(sums[cut:]))[window + 1 :].all()


def random_books(seed: int, count: int) -> tuple[list[dict], list[dict]]:
    rng = np.random.default_rng(seed)
    mid, quotes, trades = 100.0, [], []
    for second in range(count):
        mid += 0.01 * rng.integers(-2, 3)
        levels = [
            tuple((mid + sign * 0.01 * (k + 1), float(rng.integers(1, 9)) / 8 + 0.1) for k in range(rng.integers(1, 11)))
            for sign in (-1, 1)
        ]
        if rng.random() < 0.995:
            quotes.append(quote(second, *levels, valid=rng.random() > 0.005))
        trades += [
            trade(1000 * second + k, second - rng.random(), float(rng.random()), "buy" if rng.random() < 0.5 else "sell")
            for k in range(rng.integers(0, 3))
        ]
    return quotes, trades


@pytest.mark.parametrize("cut", [61, 200, 333, 500])
def test_a_range_alone_has_the_bits_of_the_whole(cut):
    quotes, trades = random_books(cut, 600)
    whole = of(quotes, trades)
    start = START + timedelta(seconds=cut)
    back = start - timedelta(seconds=61)
    alone = of([q for q in quotes if q["known_at"] >= back], [t for t in trades if t["known_at"] >= back], start)
    wanted = whole.filter(pl.col("decision_at") >= start)
    assert wanted["ofi_60s"].drop_nulls().len() > 20
    assert frame_hash(alone) == frame_hash(wanted)


def test_order_symbols_and_scale_change_what_they_should():
    quotes, trades = random_books(7, 200)
    plain = of(quotes, trades)
    rng = np.random.default_rng(1)
    shuffled = of([quotes[i] for i in rng.permutation(len(quotes))], [trades[i] for i in rng.permutation(len(trades))])
    assert frame_hash(shuffled) == frame_hash(plain)
    other = [q | {"symbol": "ETH"} for q in quotes]
    both = of(quotes + other, trades + [t | {"symbol": "ETH"} for t in trades])
    assert frame_hash(both.filter(symbol="BTC")) == frame_hash(plain)
    assert frame_hash(both.filter(symbol="ETH").with_columns(symbol=pl.lit("BTC"))) == frame_hash(plain)
    sizes = [q | {f"{s}_{w}": [4 * x for x in q[f"{s}_{w}"]] for s in ("bid", "ask") for w in ("sizes",)} for q in quotes]
    sizes = [q | {f"{s}_size": 4 * q[f"{s}_size"] for s in ("bid", "ask") if f"{s}_size" in q} for q in sizes]
    scaled = of(sizes, [t | {"size": 4 * t["size"]} for t in trades])
    in_sizes = [c for c in COLUMNS if "depth" in c or c.startswith("ofi")]
    assert frame_hash(scaled.drop(in_sizes)) == frame_hash(plain.drop(in_sizes))
    assert frame_hash(scaled.select(in_sizes)) == frame_hash(plain.select(pl.col(in_sizes) * 4))


def test_a_quote_off_the_cadence_or_twice_is_refused():
    with pytest.raises(TapehouseError, match="off the cadence of 1000 ms"):
        of([quote(0), quote(0) | {"known_at": START + timedelta(milliseconds=300)}])
    with pytest.raises(TapehouseError, match="or there twice"):
        of([quote(0), quote(0)])


def test_no_quotes_give_no_rows_with_the_columns_of_the_table():
    assert of([]).columns == list(COLUMNS)


def test_simulated_days_one_by_one_are_the_days_of_the_range():
    from tapehouse.books import BookRules, collected, quotes_by_day
    from tapehouse.simulated_books import StreamShape, simulate_day

    shape = StreamShape(messages_per_second=0.5)
    days = [simulate_day(3, "SIM:BTC", date(2024, 1, day), shape) for day in (1, 2, 3)]
    first, last = datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 4, tzinfo=UTC)
    quotes = collected(quotes_by_day((d.book for d in days), BookRules(), first - timedelta(days=1), last)).quotes
    trades = pl.concat([d.trades for d in days])
    whole = book_features(quotes, trades, first, last)
    parts = [book_features(quotes, trades, at, at + timedelta(days=1)) for at in (first, first + timedelta(days=1))]
    assert frame_hash(pl.concat(parts)) == frame_hash(whole)
    assert whole["ofi_60s"].drop_nulls().len() > 10_000
