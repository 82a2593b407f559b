"""The same orders on the recorded streams by us and by hftbacktest: the same decisions, each difference explained."""

import numpy as np
import polars as pl
import pytest

from bench.fills import PEER_PYTHON, SPAN, by_peer, draw, events_of, recorded
from tapehouse.book_fills import FillRules, book_outcomes
from tapehouse.books import BookRules, collected, rebuild
from tests.shared_data import shared

if not PEER_PYTHON.exists():
    pytest.skip("no environment for hftbacktest; see `make bench-env`", allow_module_level=True)

FUTURES, SPOT = "binance_usdm_btcusdt_20240808.gz", "binance_spot_btcusdt_20240808.gz"


# At the best quotes, for so long that of the orders touched many are filled and many are not.
@pytest.mark.parametrize(("file", "tick", "lot", "window"), [(FUTURES, 0.1, 0.001, 2), (SPOT, 0.01, 0.00001, 5)])
def test_the_same_decisions_as_hftbacktest(file, tick, lot, window):
    book, trades = recorded(shared(f"book/{file}"))
    rules = FillRules(latency_ms=50, window_seconds=window, markout_seconds=1)
    orders = draw(book, 5_000, tick, 0, window + 1)
    (code, at), _ = by_peer(events_of(book, trades), orders, rules, tick, lot, repeats=1)
    both = pl.concat([orders, book_outcomes([book], [trades], orders, rules)], how="horizontal").with_columns(
        peer=pl.Series(code > 0), as_taker=pl.Series(code == 2), peer_at=pl.Series(at // 1000).cast(pl.Datetime("us", "UTC"))
    )
    assert both.filter(outcome="taken")["as_taker"].all() and both.filter(outcome="taken").height > 20
    touched = both.filter("touched", pl.col("outcome") != "taken")
    same = touched["filled"] == touched["peer"]
    assert same.mean() >= 0.99
    for decision in (True, False):
        assert (touched["filled"] == decision).mean() >= 0.2
    unlike = both.filter(pl.col("filled") != pl.col("peer"))
    assert unlike.height < 30
    # One kind of difference: a trade beyond the limit whose taker was on the order's own side. hftbacktest takes no notice.
    for row in unlike.filter("filled").iter_rows(named=True):
        near = (pl.col("known_at") - row["exec_at"]).abs() < pl.duration(milliseconds=200)
        beyond = row["side"] * (row["limit"] - pl.col("price")) > 0
        own = pl.col("side") == ("buy" if row["side"] > 0 else "sell")
        assert row["outcome"] == "through" and trades.filter(near, beyond, own).height
    # The other: the other side's best quote reached the limit, without a trade beyond it. hftbacktest fills that, we do not.
    missed = unlike.filter(~pl.col("filled")).sort("peer_at")
    trace = collected(rebuild([book], BookRules(levels=1), *SPAN, trace=True)).trace
    quotes = trace.select("bid_price", "ask_price", known_at=book.sort("sequence")["known_at"]).sort("known_at")
    seen = missed.join_asof(quotes, left_on="peer_at", right_on="known_at")
    against = np.where(seen["side"] > 0, seen["ask_price"], seen["bid_price"])
    assert (seen["side"].to_numpy() * (seen["limit"].to_numpy() - against) >= 0).all()


def test_in_proportion_as_the_peer_s_model_of_that_name():
    book, trades = recorded(shared(f"book/{SPOT}"))
    rules = FillRules(latency_ms=50, window_seconds=5, markout_seconds=1, cancellations="proportional")
    orders = draw(book, 5_000, 0.01, 0, 6)
    (code, _), _ = by_peer(events_of(book, trades), orders, rules, 0.01, 0.00001, repeats=1)
    outcomes = book_outcomes([book], [trades], orders, rules)
    touched = outcomes.with_columns(peer=pl.Series(code > 0)).filter("touched", pl.col("outcome") != "taken")
    assert (touched["filled"] == touched["peer"]).mean() >= 0.99
