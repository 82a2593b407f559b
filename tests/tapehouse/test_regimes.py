"""The rule regime by hand and on random markets; the hidden regimes' rows."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tapehouse import hmm
from tapehouse.errors import TapehouseError
from tapehouse.folds import Fold
from tapehouse.hashing import frame_hash
from tapehouse.regimes import WINDOW_BARS, hidden_regimes, rule, rule_regimes
from tests.tapehouse.market_records import (
    LAG,
    STAMP,
    action,
    action_frame,
    another_future,
    at,
    bar,
    bars,
    day,
    decided,
    frame,
    random_market,
    within,
)

FOREVER = datetime(1990, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)


def of(versions, actions=None, start=FOREVER[0], end=FOREVER[1]) -> pl.DataFrame:
    return rule_regimes(versions, action_frame() if actions is None else actions, start, end, LAG)


def walk(drift: float, swing: float, count: int = 21) -> list[float]:
    """Prices whose log returns are drift + swing and drift - swing in turn."""
    returns = [drift + swing * (1 if i % 2 else -1) for i in range(count - 1)]
    return [100 * math.exp(sum(returns[:i])) for i in range(count)]


def test_the_rule_by_hand():
    # Twenty returns of drift ± 2 %: sample deviation 0.02 · √(20/19); a drift of ½ · deviation / √20 = 0.0022942 is the edge.
    edge = 0.5 * 0.02 * math.sqrt(20 / 19) / math.sqrt(20)
    for drift, regime in (
        (edge * 1.01, "bullish"),
        (edge * 0.99, "sideways"),
        (-edge * 0.99, "sideways"),
        (-edge * 1.01, "bearish"),
    ):
        rows = of(frame(bars("AAA", walk(drift, 0.02))))
        assert rows["regime"].to_list() == [None] * 20 + [regime]
        last = rows.row(20, named=True)
        assert last["mean_ret_20d"] == pytest.approx(drift)
        assert last["ret_deviation_20d"] == pytest.approx(0.02 * math.sqrt(20 / 19))
        assert last["drift_score_20d"] == pytest.approx(drift / edge / 2)
        assert last["decision_at"] == decided(20)


def test_a_price_that_does_not_move_is_sideways_and_one_that_only_rises_bullish():
    assert of(frame(bars("AAA", [10] * 21)))["regime"][-1] == "sideways"
    assert of(frame(bars("AAA", [10] * 21)))["drift_score_20d"][-1] is None
    assert of(frame(bars("AAA", [2.0**i for i in range(21)])))["regime"][-1] == "bullish"


def test_without_the_root_nearly_every_day_would_be_sideways():
    versions, actions = random_market(3, 400, ("AAA",))
    rows = of(versions, actions).drop_nulls("regime")
    shares = [
        (pl.col("mean_ret_20d").abs() * factor < pl.col("ret_deviation_20d") / 2).mean()
        for factor in (1, math.sqrt(WINDOW_BARS))
    ]
    bare, scaled = (rows.select(share).item() for share in shares)
    assert bare > 0.9 > 0.6 > scaled
    assert scaled == pytest.approx((rows["regime"] == "sideways").mean())


def test_a_split_is_no_bear_market_and_a_halt_has_no_regime():
    prices = walk(0.003, 0.001, 31)
    halved = [p if i < 25 else p / 2 for i, p in enumerate(prices)]
    rows = of(frame(bars("AAA", halved)), action_frame([action("AAA", "split", 25, 2)]))
    assert set(rows["regime"][20:]) == {"bullish"}
    halted = frame(bars("AAA", [*prices[:10], *[None] * 40, *prices[10:31]]))
    rows = of(halted).with_columns(back=pl.col("session") - pl.col("session").shift(20))
    assert rows["regime"][20:30].null_count() == 10
    assert rows["regime"][30] == "bullish"


def test_a_regime_is_known_with_the_latest_record_of_its_window():
    """Twenty returns have twenty-one closes: a correction of the oldest, just before the decision, is one of its inputs."""
    prices, between = bars("AAA", [100.0 + i % 3 for i in range(30)]), at(29, 21.05)
    for place, seen in ((9, between), (15, between), (8, at(29, 21))):
        rows = of(frame([*prices, bar("AAA", place, 90, 90, 90, 90, known_at=between, version=2)]))
        assert rows.filter(session=day(29))["known_at"].item() == seen


def test_a_month_alone_reads_all_that_its_rows_need():
    versions, actions = random_market(5, 300, ("AAA", "BBB"))
    whole = of(versions, actions)
    for index in (70, 150, 250):
        start, end = at(index, 0), at(index + 30, 0)
        back = start - timedelta(days=45)
        alone = of(within(versions, back, end), within(actions, back, end), start, end)
        wanted = whole.filter(pl.col("decision_at").is_between(start, end, closed="left"))
        assert wanted.height > 40
        assert frame_hash(alone) == frame_hash(wanted)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(25, 75))
def test_another_future_leaves_every_row_decided_before_it(seed, cut):
    versions, actions = random_market(seed, 80, ("AAA", "BBB"), late=6)
    before = of(versions, actions)
    after = of(*another_future(versions, actions, at(cut, 22), seed))
    known = pl.col("decision_at") <= at(cut, 22)
    assert frame_hash(before.filter(known)) == frame_hash(after.filter(known))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_scale_names_order_and_weeks_change_nothing_else(seed):
    versions, actions = random_market(seed, 60, ("AAA", "BBB"))
    plain = of(versions, actions)
    doubled = of(
        versions.with_columns(pl.col("open", "high", "low", "close") * 4),
        actions.with_columns(pl.col("amount") * 4),
    )
    assert frame_hash(doubled) == frame_hash(plain)  # powers of two move no bit
    assert frame_hash(of(versions.sample(fraction=1, shuffle=True, seed=seed), actions)) == frame_hash(plain)
    named = of(*(f.with_columns(symbol=pl.lit("Z") + pl.col("symbol")) for f in (versions, actions)))
    assert_frame_equal(named.with_columns(pl.col("symbol").str.slice(1)), plain)
    later = timedelta(weeks=3)
    moved = of(
        versions.with_columns(pl.col("session", "event_at", "known_at") + later),
        actions.with_columns(pl.col("ex_date", "event_at", "known_at") + later),
    )
    assert_frame_equal(moved.with_columns(pl.col("decision_at", "session", "known_at") - later), plain)


def test_a_dividend_above_the_price_is_refused_by_name():
    with pytest.raises(TapehouseError, match="dividend of AAA ex 2019-01-03"):
        of(frame(bars("AAA", [10] * 30)), action_frame([action("AAA", "dividend", 2, 20)]))


def test_the_rule_of_nothing_is_nothing():
    rows = pl.DataFrame(
        {"mean": [None, 0.1, 0.0], "deviation": [None, 0.1, 0.0]}, schema={"mean": pl.Float64, "deviation": pl.Float64}
    )
    assert rows.select(rule(pl.col("mean"), pl.col("deviation"), 20)).to_series().to_list() == [None, "bullish", "sideways"]


# ---------------------------------------------------------------------- hidden states


def fold(train: tuple[int, int], test: tuple[int, int]) -> Fold:
    stamps = (at(train[0], 14), at(train[1], 14), at(test[0], 14), at(test[1], 14), at(test[1], 14))
    return Fold("2019-06-01", *stamps, 0, day(test[0]), day(test[1] - 1))


def market_rows(count: int, seed: int = 1) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "decision_at": [decided(i) for i in range(count)],
            "known_at": [at(i, 21) for i in range(count)],
            "ret_20d": rng.normal(0, 0.03, count),
            "realised_vol_20d": np.exp(rng.normal(-2, 0.5, count)),
        },
        schema_overrides={"decision_at": STAMP, "known_at": STAMP},
    )


def points(count: int) -> pl.DataFrame:
    stamps = pl.Series([decided(i) for i in range(count)], dtype=STAMP)
    return pl.DataFrame({"symbol": ["AAA"] * count, "interval": ["1d"] * count, "decision_at": stamps})


def model(market: pl.DataFrame) -> hmm.States:
    return hmm.fit(hmm.inputs(market).select(hmm.INPUTS).to_numpy())


def test_every_point_gets_the_filter_of_the_market_rows_known_by_then():
    market, block = market_rows(300), fold((0, 250), (260, 300))
    states = model(market[:250])
    rows = hidden_regimes(points(300), market, states, block)
    assert rows["bars_of_history"].to_list() == list(range(1, 301))
    wanted = hmm.filtered(states, hmm.inputs(market).select(hmm.INPUTS).to_numpy())
    assert np.array_equal(rows.select("p_low_volatility_range", "p_trend", "p_high_volatility").to_numpy(), wanted)
    assert rows["regime"].to_list() == [hmm.STATES[i] for i in wanted.argmax(axis=1)]
    assert rows["known_at"].to_list() == [max(at(i, 21), block.train_end) for i in range(300)]


def test_market_rows_known_too_late_or_too_old_are_not_used():
    market, block = market_rows(300), fold((0, 250), (260, 300))
    late = market.with_columns(
        known_at=pl.when(pl.int_range(pl.len()) == 280).then(decided(280) + timedelta(hours=1)).otherwise("known_at")
    )
    rows = hidden_regimes(points(300), late, model(market[:250]), block)
    assert rows["bars_of_history"].to_list()[278:284] == [279, 280, 280, 282, 283, 284]
    gap = market.filter(~pl.int_range(pl.len()).is_between(261, 290))
    rows = hidden_regimes(points(300), gap, model(market[:250]), block)
    assert rows["regime"].is_null().to_list() == [270 <= i <= 290 for i in range(300)]
    assert (rows["known_at"] >= block.train_end).all()


def test_a_fold_without_a_model_has_rows_without_probabilities():
    rows = hidden_regimes(points(5), market_rows(5), None, fold((0, 3), (3, 5)))
    assert rows.height == 5
    assert rows["regime"].null_count() == rows["p_trend"].null_count() == 5
    assert hidden_regimes(points(5), market_rows(5).clear(), None, fold((0, 3), (3, 5))).height == 5


def test_the_filter_restarts_in_may_two_years_before():
    count = 366 + 365 * 4
    rows = hidden_regimes(
        points(count), market_rows(count), model(market_rows(count)), fold((0, count - 60), (count - 50, count))
    )
    history = dict(zip(rows["decision_at"].dt.date(), rows["bars_of_history"], strict=True))
    assert history[day(364)] == 365  # 2019-12-31
    new_year = datetime(2022, 1, 1).date()
    assert history[new_year] == (new_year - datetime(2020, 5, 1).date()).days + 1
    assert min(v for k, v in history.items() if k.year >= 2022) > 400
