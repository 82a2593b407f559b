"""A strategy as a whole: the account it declares, what it may know, and that every signal is accounted for."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapehouse.backtest.config import BacktestConfig
from tapehouse.backtest.run import run_backtest
from tapehouse.predictions import TEST
from tapehouse.strategies.log import MEANING
from tapehouse.strategies.schema import Strategy
from tapehouse.strategies.trading import Traded, trade
from tests.tapehouse.strategy_market import CALENDAR, EVENTS_SCHEMA, FOLD, market, predictions

ALL_VETOES = {
    name: {} for name in ("consecutive_losses", "win_rate", "drawdown", "vix", "support", "resistance", "hours", "events")
}


def strategy(**sections) -> Strategy:
    """One that follows `p`, unless `sections` say otherwise."""
    return Strategy.model_validate({"name": "s", "description": "x", "signals": {"predictors": {"p": 1.0}}, **sections})


def traded(declared: Strategy, made=None, **frames: pl.DataFrame) -> Traded:
    return trade(declared, FOLD, frames or {"p": predictions()}, made or market())


def test_without_gates_and_vetoes_it_is_the_backtest_of_its_predictor():
    made, said = market(), predictions()
    found = traded(strategy(orders={"take_multiple": 1.0}), made, p=said)
    block = CALENDAR.filter(pl.col("session").is_between(FOLD.test_first_session, FOLD.test_last_session))
    plain = run_backtest(said.filter(split=TEST), made.points, made.bars, made.actions, block, BacktestConfig())
    assert found.result.trades.equals(plain.trades) and found.result.ledger.equals(plain.ledger)
    assert found.result.trades.height > 10 and found.vetoes.is_empty()


FULL = {
    "signals": {"predictors": {"p": 2.0, "q": 1.0}, "combine": "regime", "by_regime": {"bullish": {"q": 1.0}}},
    "gates": {"confidence": {"least": 0.1}, "regime": {"source": "volatility", "blocked": ["low"]}, "auditor": "p"},
    "vetoes": ALL_VETOES,
    "sizing": {"kind": "risk", "size": 0.01, "most": 0.5},
    "orders": {"trail_atr": 1.0, "exit_on_opposite": True},
    "limits": {"gross": 1.0, "net": 0.6, "symbol": 0.4},
    "tail": {"loss": 0.002, "rate": 0.1},
}


@pytest.fixture(scope="module")
def everything() -> tuple[Strategy, dict[str, pl.DataFrame]]:
    return strategy(**FULL), {"p": predictions(2, "p"), "q": predictions(3, "q", rule=True)}


def test_every_signal_is_accounted_for(everything):
    declared, frames = everything
    found = traded(declared, None, **frames)
    wanted = found.decisions.filter(pl.col("action") != "HOLD")
    fates = dict(wanted["fate"].value_counts().iter_rows())
    counts, log = found.result.counts, found.vetoes
    gated = sum(n for fate, n in fates.items() if fate.startswith("gate."))
    held = sum(n for fate, n in fates.items() if fate.startswith(("veto.", "guard.")))
    assert found.figures["gated"] == gated and counts["vetoed"] == held and counts["signals"] + gated == wanted.height
    assert set(found.figures) == set(MEANING)
    assert log["held_back"].sum() == gated + held and (log["signals"] == wanted.height).all()
    assert fates["ordered"] == counts["filled"] + counts["refused"] - fates.get("no_size", 0) + counts["expired"]
    paces = {row[0]: row[1:] for row in log.select("veto", "window", "least", "cool_down").iter_rows()}
    assert paces["consecutive_losses"] == (3, 3, 5) and paces["win_rate"] == paces["vix"] == (20, 10, 5)
    assert dict(log.select("veto", "state").iter_rows()) == dict.fromkeys(log["veto"], "active") | {
        "hours": "not_applicable",
        "events": "unavailable",
    }
    assert found.result.equity["gross_exposure"][-1] == 0.0  # flat where the next piece is joined,
    ended = found.result.trades.filter(exit_reason="end")
    assert ended.height and (ended["commission"] > ended["exit_shares"] * ended["exit_price"] * 9e-4).all()  # at cost


@pytest.mark.parametrize("cut", [5, 17, 33])
def test_what_comes_after_a_cut_changes_nothing_before_it(everything, cut):
    """Bars, features, events, answers and a restated bar after the cut are other ones, valid all of them."""
    declared, frames = everything
    block = CALENDAR.filter(pl.col("session") >= FOLD.test_first_session)
    day, until = block["session"][cut], block["close_at"][cut] + timedelta(hours=1)
    made, other = market(1), market(9)

    def spliced(mine: pl.DataFrame, theirs: pl.DataFrame, column: str, at) -> pl.DataFrame:
        return pl.concat([mine.filter(pl.col(column) <= at), theirs.filter(pl.col(column) > at)])

    late = [("us", "release", "NEW", block["open_at"][cut + 1], until + timedelta(minutes=1), True)]
    changed = replace(
        made,
        points=spliced(made.points, other.points, "decision_at", until).sort("symbol", "interval", "decision_at"),
        bars=spliced(made.bars, other.bars, "session", day),
        events=pl.DataFrame(late, schema=EVENTS_SCHEMA, orient="row"),
    )
    mutated = {n: spliced(f, predictions(7, n, n == "q"), "decision_at", until) for n, f in frames.items()}
    before, after = trade(declared, FOLD, frames, made), trade(declared, FOLD, mutated, changed)
    decided = pl.col("decision_at") <= until
    assert before.decisions.filter(decided).equals(after.decisions.filter(decided))
    assert before.decisions.filter(decided).height and not before.decisions.equals(after.decisions)
    over = pl.col("exit_session") <= day
    assert before.result.trades.filter(over).drop("trade_id").equals(after.result.trades.filter(over).drop("trade_id"))
    ledger = pl.col("session") <= day
    assert before.result.ledger.filter(ledger).equals(after.result.ledger.filter(ledger))


@pytest.mark.parametrize("sizing", [{"kind": "equal"}, {"kind": "volatility", "size": 0.1}, {"kind": "training", "size": 0.1}])
def test_what_is_listed_later_divides_nothing_before(sizing):
    """Of three symbols one has its first bar and decision in the middle of the block, or none at all."""
    block = CALENDAR.filter(pl.col("session") >= FOLD.test_first_session)
    listed, made, found = block["session"][25], market(), []
    for begins in (block["session"][-1] + timedelta(days=365), listed):
        kept = (pl.col("symbol") != "C") | (pl.col("session") >= begins)
        here = replace(made, points=made.points.filter(kept), bars=made.bars.filter(kept))
        said = predictions().join(here.points, on=["symbol", "interval", "decision_at"], how="semi", maintain_order="left")
        found.append(traded(strategy(sizing=sizing), here, p=said))
    one, two = (f.result.ledger.filter(pl.col("session") <= listed) for f in found)
    assert one.equals(two) and found[1].result.trades.filter(symbol="C").height
    weights = found[1].decisions.filter(symbol="A")
    assert sizing["kind"] != "equal" or weights["weight"].unique().sort().to_list() == [1 / 3, 1 / 2]


def test_a_planted_leak_is_seen_by_the_same_comparison():
    """A predictor that reads the next session's return trades otherwise before the cut when that return is another one."""
    block = CALENDAR.filter(pl.col("session") >= FOLD.test_first_session)
    made, other = market(1), market(9)

    def clairvoyant(source) -> pl.DataFrame:
        later = (pl.col("close").shift(-1) > pl.col("close")).over("symbol").fill_null(False)
        sign = source.points.select("symbol", "decision_at", up=later)
        said = predictions().join(sign, on=["symbol", "decision_at"], how="left", maintain_order="left")
        return said.with_columns(action=pl.when("up").then(pl.lit("BUY")).otherwise(pl.lit("SELL"))).drop("up")

    differs = []
    for cut in range(5, 30, 5):
        day, until = block["session"][cut], block["close_at"][cut] + timedelta(hours=1)
        points = pl.concat([made.points.filter(pl.col("session") <= day), other.points.filter(pl.col("session") > day)]).sort(
            "symbol", "interval", "decision_at"
        )
        one, two = (clairvoyant(m).filter(pl.col("decision_at") <= until) for m in (made, replace(made, points=points)))
        differs.append(not one["action"].equals(two["action"]))
    assert any(differs)


def test_vetoes_keep_entries_out_and_no_exit_in():
    """The VIX is above its limit from the eleventh session of the block on, for one window: who is in still leaves."""
    block = CALENDAR.filter(pl.col("session") >= FOLD.test_first_session)
    first, last = block["session"][10], block["session"][29]
    stormy = pl.when(pl.col("session").is_between(first, last)).then(40.0).otherwise(15.0)
    buys = predictions().with_columns(action=pl.lit("BUY"))
    always = strategy(vetoes={"vix": {}}, orders={"horizon_sessions": 15})
    found = trade(always, FOLD, {"p": buys}, market(vix=stormy))
    entered, left = found.result.trades["entry_session"], found.result.trades["exit_session"]
    # Orders of the evening before the storm still fill on its first session.
    assert not entered.is_between(first, last, closed="right").any() and left.is_between(first, last).any()
    assert found.decisions.filter(fate="veto.vix").height == 3 * 20
    free = trade(strategy(orders={"horizon_sessions": 15}), FOLD, {"p": buys}, market(vix=stormy))
    assert free.result.trades["entry_session"].is_between(first, last, closed="right").any()


def test_an_opposite_signal_ends_a_position_also_under_a_veto():
    day = CALENDAR.filter(pl.col("session") >= FOLD.test_first_session)["session"]
    turned = pl.when(pl.col("decision_at").dt.date() < day[4]).then(pl.lit("BUY")).otherwise(pl.lit("SELL"))
    said = predictions().with_columns(action=turned)
    stormy = pl.when(pl.col("session") >= day[4]).then(40.0).otherwise(15.0)
    wide = {"stop_atr": 50.0, "horizon_sessions": 100}
    found = trade(
        strategy(vetoes={"vix": {"window": 60}}, orders={**wide, "exit_on_opposite": True}),
        FOLD,
        {"p": said},
        market(vix=stormy),
    )
    assert found.result.trades["side"].to_list() == ["BUY"] * 3
    assert found.result.trades.select("exit_reason", "exit_session").unique().rows() == [("signal", day[5])]
    kept = trade(strategy(vetoes={"vix": {"window": 60}}, orders=wide), FOLD, {"p": said}, market(vix=stormy))
    assert set(kept.result.trades["exit_reason"]) == {"end"}


def test_limits_lie_on_the_better_side_of_the_close():
    made = market()
    found = traded(strategy(orders={"entry": "limit", "limit_atr": 0.5, "valid_sessions": 2}), made)
    near = found.result.trades.join(made.points, on=["symbol", "decision_at"])
    worse = pl.when(pl.col("side") == "BUY").then(1).otherwise(-1) * (
        pl.col("entry_price") - pl.col("close") + pl.when(pl.col("side") == "BUY").then(0.5).otherwise(-0.5) * pl.col("atr_14")
    )
    assert near.height and (near.select(worse).to_series() <= 1e-9).all() and found.result.counts["expired"]


def test_sizes_reach_the_account():
    found = traded(strategy(sizing={"kind": "fraction", "size": 0.02}))
    notional = found.result.trades["shares"] * found.result.trades["entry_price"]
    assert found.result.trades.height and np.allclose(notional / 1e6, 0.02, rtol=0.1)
    missing = market(realised_vol_20d=pl.lit(None, pl.Float64))
    none = traded(strategy(sizing={"kind": "volatility", "size": 0.1}), missing)
    assert none.result.trades.is_empty() and set(none.decisions["fate"]) <= {"no_size", "too_late"}


def test_a_tail_target_makes_the_account_smaller_and_says_what_was_realised():
    full = traded(strategy())
    small = traded(strategy(tail={"loss": 0.004, "rate": 0.1}))
    figures = small.figures
    assert figures["tail_realised"] < figures["tail_at_full_size"] and 0 < figures["tail_size"] < 1
    assert small.result.equity["gross_exposure"].mean() < full.result.equity["gross_exposure"].mean()
    losses = -full.result.equity["ret"].to_numpy()[1:]
    assert figures["tail_at_full_size"] == np.mean(losses > 0.004)


def test_the_same_bytes_again(everything):
    declared, frames = everything
    one, two = traded(declared, None, **frames), traded(declared, None, **frames)
    shuffled = traded(declared, None, **{n: f.sample(fraction=1.0, shuffle=True, seed=4) for n, f in frames.items()})
    for other in (two, shuffled):
        assert one.result.ledger.equals(other.result.ledger) and one.result.trades.equals(other.result.trades)
        assert one.decisions.equals(other.decisions) and one.vetoes.equals(other.vetoes)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_the_ledger_holds_under_any_declaration(data):
    """Opening equity + gains + dividends + interest - costs = equity, at every close, whatever is declared."""
    declared = strategy(
        signals={"predictors": {"p": 1.0, "q": 1.0}, "combine": data.draw(st.sampled_from(["weight", "vote"]))},
        vetoes={name: {} for name in data.draw(st.sets(st.sampled_from(sorted(ALL_VETOES))))},
        sizing=data.draw(
            st.sampled_from(
                [
                    {"kind": "equal"},
                    {"kind": "fraction", "size": 0.4},
                    {"kind": "risk", "size": 0.02},
                    {"kind": "training", "size": 0.2},
                ]
            )
        ),
        limits={"gross": data.draw(st.floats(0.2, 2.0)), "net": 0.5, "symbol": 0.6, "lots": data.draw(st.integers(1, 3))},
        orders=data.draw(
            st.sampled_from(
                [
                    {},
                    {"hold": True},
                    {"entry": "limit", "limit_atr": 0.3},
                    {"break_even_at": 0.5, "trail_atr": 1.0, "exit_on_opposite": True},
                ]
            )
        ),
        costs={
            "impact": 0.1,
            "borrow_bps": 50.0,
            "half_spread_bps": 2.0,
            "participation": 0.05,
            "ticks": data.draw(st.booleans()),
        },
    )
    seed = data.draw(st.integers(0, 1000))
    made = market(seed)
    found = trade(declared, FOLD, {"p": predictions(seed, "p"), "q": predictions(seed + 1, "q", rule=True)}, made)
    ledger = found.result.ledger
    gains = declared.initial_cash + ledger["realised"] + ledger["unrealised"] + ledger["dividends"] + ledger["interest"]
    parts = (gains - ledger["commission"] - ledger["slippage"] - ledger["borrow"]).to_numpy()
    equity = ledger["equity"].to_numpy()
    assert (np.abs(parts - equity) <= 1e-9 * np.maximum(1.0, np.abs(equity))).all()
    assert found.result.equity["gross_exposure"][-1] == 0.0
    held = found.decisions["fate"].str.contains(r"^(?:veto|guard)[.]").sum()
    assert found.result.counts["vetoed"] == held == found.vetoes["held_back"].sum()
