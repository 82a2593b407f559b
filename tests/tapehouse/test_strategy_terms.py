"""Ticks, lots, currencies, interest and delistings: what a strategy declares reaches its account."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from tapehouse.backtest.config import BacktestConfig
from tapehouse.backtest.panel import build_orders
from tapehouse.backtest.run import panel_of, simulate_orders
from tapehouse.errors import TapehouseError
from tapehouse.strategies.schema import Strategy
from tapehouse.strategies.terms import plain_terms
from tapehouse.strategies.trading import Traded, trade
from tests.tapehouse.strategy_market import CALENDAR, FOLD, STAMP, instruments, market, predictions

BLOCK = CALENDAR.filter(pl.col("session").is_between(FOLD.test_first_session, FOLD.test_last_session))["session"]


def traded(costs: dict, **market_changes) -> Traded:
    declared = Strategy.model_validate({"name": "s", "description": "x", "signals": {"predictors": {"p": 1.0}}, "costs": costs})
    return trade(declared, FOLD, {"p": predictions()}, replace(market(), **market_changes))


def series(**levels: list[float]) -> pl.DataFrame:
    """Levels known in the evening of each session of the calendar, from the first on."""
    at = (CALENDAR["close_at"] + timedelta(minutes=5)).cast(STAMP)
    parts = [
        pl.DataFrame({"series_id": [name] * len(own), "decision_at": at[: len(own)], "level": own})
        for name, own in levels.items()
    ]
    return pl.concat(parts)


def test_prices_on_ticks_and_whole_lots():
    found = traded({"ticks": True, "whole_lots": True}, instruments=instruments(tick_size=pl.lit(0.25), lot_size=pl.lit(100.0)))
    trades = found.result.trades
    assert (
        trades.height
        and np.allclose(trades["shares"] % 100, 0)
        and not np.allclose(traded({}).result.trades["shares"] % 100, 0)
    )
    for side in ("entry_price", "exit_price"):
        off = trades[side] / 0.25
        assert np.allclose(off, off.round())


def test_cash_earns_the_rate_that_was_known_the_day_before():
    flat = traded({"rate_series": "BILL"}, series=series(BILL=[5.0] * CALENDAR.height))
    days = (BLOCK[-1] - BLOCK[0]).days
    assert flat.result.ledger["interest"][-1] == pytest.approx(1e6 * 0.05 * days / 365, rel=0.5)
    jumps = [0.0] * CALENDAR.height
    late = CALENDAR["session"].index_of(BLOCK[-1])
    jumps[late] = 1000.0  # known in the evening of the last session: nothing can earn it
    none = traded({"rate_series": "BILL"}, series=series(BILL=jumps))
    assert none.result.ledger["interest"][-1] == 0.0
    with pytest.raises(TapehouseError, match="no level of 'BILL'"):
        traded({"rate_series": "BILL"})


def test_another_currency_needs_its_price():
    europe = instruments(currency=pl.when(pl.col("symbol") == "B").then(pl.lit("EUR")).otherwise(pl.lit("USD")))
    with pytest.raises(TapehouseError, match="B is priced in EUR, the account kept in USD"):
        traded({}, instruments=europe)
    steady = {"currency_series": {"EUR": "DEXUSEU"}}
    found = traded(steady, instruments=europe, series=series(DEXUSEU=[2.0] * CALENDAR.height))
    plain = traded({})
    # Twice as dear a share, half as many of them, and the same gain.
    ours, theirs = (r.result.trades.filter(symbol="B") for r in (found, plain))
    assert np.allclose(ours["shares"] * 2, theirs["shares"], rtol=1e-9)
    assert np.allclose(found.result.equity["equity"], plain.result.equity["equity"], rtol=1e-9)


def test_a_delisted_share_leaves_at_what_is_left_of_it():
    last = BLOCK[14]
    ended = instruments(valid_to=pl.when(pl.col("symbol") == "A").then(pl.lit(last)))
    made = market()
    gone = (pl.col("symbol") == "A") & (pl.col("session") > last)
    # An order of the evening before rests past the end and is cancelled; who is in is paid out.
    said = predictions().filter(~((pl.col("symbol") == "A") & (pl.col("decision_at").dt.date() > last)))
    buys = said.with_columns(action=pl.lit("BUY"))
    declared = Strategy.model_validate(
        {
            "name": "s",
            "description": "x",
            "signals": {"predictors": {"p": 1.0}},
            "orders": {"hold": True},
            "costs": {"delisting_return": -0.3},
        }
    )
    changed = replace(made, instruments=ended, bars=made.bars.filter(~gone), points=made.points.filter(~gone))
    (trade_of_a,) = trade(declared, FOLD, {"p": buys}, changed).result.trades.filter(symbol="A").iter_rows(named=True)
    close = made.bars.filter((pl.col("symbol") == "A") & (pl.col("session") == last))["close"][0]
    assert (trade_of_a["exit_reason"], trade_of_a["exit_session"]) == ("delisted", BLOCK[15])
    assert trade_of_a["exit_price"] == pytest.approx(close * 0.7)


def test_an_end_that_is_announced_later_is_not_known():
    told = datetime(2030, 1, 1, tzinfo=UTC)
    later = instruments(valid_to=pl.lit(BLOCK[5]), known_at=pl.lit(told, STAMP))
    both = pl.concat([instruments(), later])
    assert set(traded({}, instruments=both).result.trades["exit_reason"]).isdisjoint({"delisted"})
    with pytest.raises(TapehouseError, match="no row for"):
        traded({}, instruments=later)


def plain(listed: pl.DataFrame, made=None):
    """The account of a recipe that buys whatever it can, as `tapehouse.steps.trade` makes it."""
    made, config = made or market(), BacktestConfig(exit_rule="hold")
    block = CALENDAR.filter(pl.col("session").is_between(BLOCK[0], BLOCK[-1]))
    panel, block = panel_of(made.points, made.bars, made.actions, block, config)
    panel = plain_terms(panel, listed, block["close_at"][-1] + config.settlement)
    said = predictions(made=made).filter(split="test").with_columns(action=pl.lit("BUY"))
    said = said.join(made.points.select("symbol", "decision_at"), on=["symbol", "decision_at"], how="semi")
    return simulate_orders(panel, build_orders(said, made.points, panel, block), config)


def test_an_account_without_terms_of_its_own_is_paid_out_at_the_last_close():
    made, last = market(), BLOCK[14]
    gone = (pl.col("symbol") == "A") & (pl.col("session") > last)
    left = replace(made, bars=made.bars.filter(~gone), points=made.points.filter(~gone))
    listed = instruments(valid_to=pl.when(pl.col("symbol") == "A").then(pl.lit(last)))
    trades = plain(listed, left).trades.filter(symbol="A")
    close = made.bars.filter((pl.col("symbol") == "A") & (pl.col("session") == last))["close"][0]
    assert trades.select("exit_reason", "exit_session", "exit_price").rows() == [("delisted", BLOCK[15], close)]


def test_an_account_without_terms_of_its_own_is_kept_in_the_currency_of_its_symbols():
    europe = plain(instruments(currency=pl.lit("EUR")))
    assert europe.equity.equals(plain(instruments()).equity) and europe.trades.height == 3
    mixed = instruments(currency=pl.when(pl.col("symbol") == "B").then(pl.lit("EUR")).otherwise(pl.lit("USD")))
    with pytest.raises(TapehouseError, match=r"priced in \['EUR', 'USD'\], and the account of a recipe is kept in one"):
        plain(mixed)
