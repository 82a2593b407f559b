from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import ValidationError

from tapehouse.balance import table
from tapehouse.calendars import all_sessions
from tapehouse.features.price import price_features
from tapehouse.keyed import keyed_uniform, row_keys
from tapehouse.order_kernels import draw_one, tick_one, uniform
from tapehouse.orders import Costs, Objective, Objectives, Weights, load_objectives
from tapehouse.pairs import GRAIN, Counts, draw_hashes, preference_pairs
from tapehouse.regimes import rule_regimes
from tests.tapehouse.market_records import (
    STAMP,
    action_frame,
    another_future,
    at,
    bars,
    calendar,
    day,
    decided,
    frame,
    random_market,
    real_market,
    within,
)

FLAT = (100, 101, 99, 100)
DECLARED = load_objectives(Path("objectives.yaml"))


def one_stratum(window=1, tie=5.0) -> Objectives:
    """Offsets of exactly 1 and 2 ATR, paid by price alone, without costs."""
    objective = Objective(
        words="a test",
        share=1.0,
        window_sessions=window,
        weights=Weights(price=1, certainty=0, risk=0, fees=0),
        strata=[{"near": (1.0, 1.0), "far": (2.0, 2.0)}],
    )
    costs = Costs(half_spread_bps=0, maker_fee_bps=0, taker_fee_bps=0, unfilled_penalty_bps=0)
    return Objectives(costs=costs, near_tie_bps=tie, objectives={"test": objective})


def points(close=100.0, atr=1.0, index=0) -> pl.DataFrame:
    row = ("AAA", "1d", decided(index), day(index), close, atr, "sideways")
    schema = {"symbol": pl.String, "interval": pl.String, "decision_at": STAMP, "session": pl.Date}
    rest = {"close": pl.Float64, "atr_14": pl.Float64, "regime": pl.String}
    return pl.DataFrame([row], schema=schema | rest, orient="row")


def paired(path: list, tie=5.0):
    versions = frame(bars("AAA", [FLAT, *path]))
    return preference_pairs(points(), versions, action_frame(), one_stratum(tie=tie), at(0, 0), at(9, 0), calendar(20))


def test_the_farther_order_is_chosen_where_both_fill():
    row = paired([(100, 105, 95, 100)]).rows.row(0, named=True)  # through 98 and 102, whichever side was drawn
    side = 1 if row["side"] == "BUY" else -1
    assert (row["chosen_limit"], row["rejected_limit"]) == (100.0 - 2 * side, 100.0 - side)
    assert (row["chosen_offset_atr"], row["rejected_offset_atr"]) == (2.0, 1.0)
    assert (row["chosen_filled"], row["rejected_filled"]) == (True, True)
    assert (row["chosen_reward"], row["rejected_reward"]) == (pytest.approx(200.0), pytest.approx(100.0))
    assert row["margin_bps"] == pytest.approx(100.0)
    assert row["difficulty"] == pytest.approx(1 / (1 + 100 / 100))  # an ATR is 100 bps of the close
    assert row["chosen_markout_bps"] == pytest.approx(side * (100.0 / row["chosen_limit"] - 1) * 1e4)
    assert (row["placement"], row["regime"], row["stage"]) == (1, "sideways", "decision")
    assert (row["reward_end_at"], row["reward_known_at"]) == (at(1, 21), at(2, 21))


def test_the_nearer_order_is_chosen_where_it_alone_fills_and_the_price_returns():
    result = paired([(100, 101.5, 98.5, 100)])
    row = result.rows.row(0, named=True)
    assert (row["chosen_offset_atr"], row["chosen_filled"], row["rejected_filled"]) == (1.0, True, False)
    assert row["chosen_reward"] == pytest.approx(100.0)
    assert row["rejected_reward"] == pytest.approx(0.0)
    assert row["chosen_markout_bps"] == pytest.approx(100.0, rel=0.02) and row["rejected_markout_bps"] is None
    assert result.farther_wins == 0.0


def test_near_ties_and_unfinished_windows_are_dropped_and_counted():
    tie = paired([(100, 100.5, 99.5, 100)])  # neither fills: both are executed at the close
    assert (tie.counts, len(tie.rows)) == (Counts(drawn=1, near_ties=1), 0)
    wide = paired([(100, 105, 95, 100)], tie=150.0)
    assert (wide.counts, len(wide.rows)) == (Counts(drawn=1, near_ties=1), 0)
    open_end = paired([])
    assert (open_end.counts, len(open_end.rows)) == (Counts(drawn=1, incomplete=1), 0)


def test_limits_far_from_the_price_are_dropped_and_counted():
    versions = frame(bars("AAA", [FLAT] * 5))
    wild = preference_pairs(points(atr=11.0), versions, action_frame(), one_stratum(), at(0, 0), at(9, 0), calendar(20))
    assert (wild.counts, len(wild.rows)) == (Counts(drawn=1, out_of_band=1), 0)


def test_limits_that_a_prompt_could_not_write_are_dropped_and_counted():
    """At a close of 100 a sell lies at 101 and 102: a template that ends at 101.99 cannot write the latter."""
    versions = frame(bars("AAA", [FLAT, (100, 105, 95, 100)]))
    selling = one_stratum().model_copy(update={"buy_share": {"sideways": 0.0}})

    def of(largest: float) -> Counts:
        market = points(), versions, action_frame(), selling, at(0, 0), at(9, 0), calendar(20)
        return preference_pairs(*market, largest=largest).counts

    assert (of(102.0), of(101.99)) == (Counts(drawn=1), Counts(drawn=1, out_of_band=1))


def test_prices_are_rounded_to_the_tick_and_print_so():
    assert [tick_one(price, 0.01) for price in (117.4549, 0.125, 100.0, 9999.994)] == [117.45, 0.12, 100.0, 9999.99]
    assert tick_one(101.3, 0.25) == 101.25


def test_draws_are_fixed_by_their_key_and_look_uniform():
    moments = [at(index, 21) for index in range(2000)]
    many = pl.DataFrame({"symbol": "AAA", "interval": "1d", "decision_at": moments}, schema_overrides={"decision_at": STAMP})
    draws = keyed_uniform(many, "patient|side")
    assert draws[:3].tolist() == [drawn_in_integers(moment, "patient|side") for moment in moments[:3]]
    assert [uniform(key, draw_hashes("patient", 1)[0]) for key in row_keys(many)] == keyed_uniform(
        many, "patient|1|side"
    ).tolist()
    assert np.array_equal(keyed_uniform(many[::-1], "patient|side")[::-1], draws)
    assert abs(draws.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(draws, keyed_uniform(many, "aggressive|side"))[0, 1]) < 0.06
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 0.06


def drawn_in_integers(moment: datetime, what: str) -> float:
    """The documented hash of AAA's daily decision in Python's own integers; another result would change every dataset."""

    def splitmix(state: int) -> int:
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
        return state ^ (state >> 31)

    def keyed(text: str) -> int:
        return int.from_bytes(blake2b(text.encode(), digest_size=8, key=b"tapehouse.pairs.1").digest(), "little")

    microseconds = int(moment.timestamp()) * 1_000_000
    return (splitmix(splitmix(keyed("AAA|1d") ^ splitmix(microseconds)) ^ keyed(what)) >> 11) / 2**53


def market_points(versions, actions) -> pl.DataFrame:
    rows = price_features(versions, actions, at(0, 0), at(60, 0))
    rows = rows.with_columns(regime=pl.when(pl.col("ret_5d") > 0).then(pl.lit("bullish")).otherwise(pl.lit("bearish")))
    return rows.filter(pl.col("atr_14").is_not_null() & ~pl.col("symbol").str.starts_with("^"))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(15, 55), max_size=4, unique=True))
def test_any_cutting_of_a_range_gives_the_same_bits(seed, cuts):
    versions, actions = random_market(seed, 60, late=8)
    decided_points = market_points(versions, actions)
    whole = preference_pairs(decided_points, versions, actions, DECLARED, at(0, 0), at(60, 0), calendar(80))
    parts = []
    for start, end in pairwise([at(0, 0), *[at(cut, 0) for cut in sorted(cuts)], at(60, 0)]):
        seen = start, end + timedelta(days=31)
        inputs = decided_points.sample(fraction=1, shuffle=True, seed=seed), within(versions, *seen), within(actions, *seen)
        parts.append(preference_pairs(*inputs, DECLARED, start, end, calendar(80)))
    joined = pl.concat([part.rows for part in parts[::-1]]).sort(GRAIN)
    assert_frame_equal(joined, whole.rows, check_exact=True)
    assert sum((part.counts for part in parts), Counts()) == whole.counts
    gone = whole.counts
    assert len(whole.rows) + gone.left_out + gone.near_ties + gone.incomplete + gone.out_of_band == gone.drawn


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(25, 50))
def test_another_future_leaves_every_pair_known_before_it(seed, cut):
    versions, actions = random_market(seed, 60, late=8)
    decided_points = market_points(versions, actions).filter(pl.col("decision_at") <= at(cut, 12))

    def known(versions, actions):
        pairs = preference_pairs(decided_points, versions, actions, DECLARED, at(0, 0), at(60, 0), calendar(80))
        return pairs.rows.filter(pl.col("reward_known_at") <= at(cut, 12))

    before = known(versions, actions)
    assert len(before) > 0
    assert_frame_equal(known(*another_future(versions, actions, at(cut, 12), seed)), before, check_exact=True)


@pytest.fixture(scope="module")
def real():
    """Two placements a decision on the real bars, each with the regime of the rule over its last month."""
    versions, actions = real_market()
    span = datetime(2000, 1, 1, tzinfo=UTC), datetime(2014, 1, 1, tzinfo=UTC)
    rows = price_features(versions, actions, *span)
    regimes = rule_regimes(versions, actions, *span, timedelta(minutes=5)).select("symbol", "interval", "decision_at", "regime")
    points = rows.filter(~pl.col("symbol").str.starts_with("^")).drop_nulls().join(regimes, on=GRAIN[:3])
    return preference_pairs(points, versions, actions, DECLARED.model_copy(update={"placements": 2}), *span, all_sessions())


def test_on_the_real_data_the_farther_offset_wins_about_half(real):
    assert len(real.rows) > 30_000
    assert real.counts.out_of_band < 0.01 * real.counts.drawn
    assert 0.47 <= real.farther_wins <= 0.53
    offsets = real.rows.with_columns(
        far=pl.col("chosen_offset_atr") > pl.col("rejected_offset_atr"),
        wide=(pl.col("chosen_offset_atr") - pl.col("rejected_offset_atr")).abs().rank("ordinal").over("objective")
        * 3
        // (pl.len().over("objective") + 1),
    )
    for by in (["objective", "wide"], ["objective", "side"], ["regime", "side"]):
        shares = offsets.group_by(by).agg(pl.col("far").mean())["far"]
        assert shares.is_between(0.44, 0.56).all(), shares


def test_on_the_real_data_classes_are_balanced_in_expectation(real):
    """At the declared rates; a class of 10,000 has a standard error of half a per cent."""
    shares = {
        (column, value): share for column, value, _, share in table(real.rows, ("regime", "side", "objective")).iter_rows()
    }
    for regime in ("bullish", "bearish", "sideways"):
        assert shares["regime", regime] == pytest.approx(1 / 3, abs=0.02)
    for name, objective in DECLARED.objectives.items():
        assert shares["objective", name] == pytest.approx(objective.share, abs=0.02)
    assert shares["side", "BUY"] == pytest.approx(0.5, abs=0.02)
    buys = dict(real.rows.group_by("regime").agg((pl.col("side") == "BUY").mean()).iter_rows())
    for regime, share in DECLARED.buy_share.items():
        assert buys[regime] == pytest.approx(share, abs=0.04)


def test_placements_of_a_decision_are_drawn_apart():
    strata = np.array([[0.1, 0.3, 1.0, 2.0], [0.3, 0.5, 1.5, 2.5]])
    keys = row_keys(pl.concat([points(index=index) for index in range(12)]))
    drawn = {placement: [draw_one(key, draw_hashes("test", placement), 0.5, strata) for key in keys] for placement in (1, 2)}
    assert drawn[1] != drawn[2]
    for side, near, far in drawn[1] + drawn[2]:
        assert side in (1.0, -1.0) and 0.1 <= near <= 0.5 and 1.0 <= far <= 2.5
        assert (round(near, 2), round(far, 2)) == (near, far)
        assert near <= 0.3 or far >= 1.5  # both of one stratum


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"keep": {"objective": {"patience": 0.5}}}, "no objective"),
        ({"keep": {"side": {"HOLD": 0.5}}}, "BUY"),
        ({"buy_share": {"bullish": 1.2}}, "less than or equal to 1"),
        ({"objectives": {"test": {**one_stratum().objectives["test"].model_dump(), "share": 0.5}}}, "sum to 0.5"),
    ],
)
def test_declarations_that_cannot_be_are_refused(change, fault):
    with pytest.raises(ValidationError, match=fault):
        Objectives.model_validate({**one_stratum().model_dump(), **change})


def test_an_objective_without_strata_is_refused():
    with pytest.raises(ValidationError, match="strata"):
        Objective(words="none", share=1, window_sessions=1, weights=Weights(price=1, certainty=0, risk=0, fees=0), strata=[])
