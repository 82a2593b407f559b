"""Pairs on books: drawn by the key alone, the same by day and by range, and knowing nothing of later."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from tapehouse.book_orders import load_book_objectives
from tapehouse.book_pairs import GRAIN, decision_points, draw_orders
from tapehouse.hashing import frame_hash
from tapehouse.leakage import find_leaks
from tapehouse.project import Project
from tapehouse.prompts.orders import parse_orders, shown_price
from tapehouse.scratch import read_raw, rebuild
from tests.house import ROOT, House, copy_project

TABLE = "datasets.book_pairs"
DAYS = ["2013-03-25", "2013-03-26"]
CUT = datetime(2013, 3, 26, 2, 30, 17, tzinfo=UTC)
DECLARED = load_book_objectives(ROOT / "book_objectives.yaml")
MIDNIGHT = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> House:
    """The default data's simulated book over two days, raw."""
    folds = "{min_train_sessions: 50, test_sessions: 15, min_test_sessions: 10, purge_sessions: 2, count: 1}\n"
    house = House(copy_project(tmp_path_factory.mktemp("books"), date(2012, 9, 1), date(2013, 4, 1), folds))
    for name in ("raw.book_events", "raw.trades"):
        assert not house.make(name).failed
    return house


@pytest.fixture(scope="module")
def raw(house) -> dict[str, pl.DataFrame]:
    with house.warehouse.reading() as (cursor, _):
        return read_raw(cursor, house.project, [TABLE], *DAYS)


@pytest.fixture(scope="module")
def pairs(house, raw) -> pl.DataFrame:
    return made(house.project, raw, *DAYS)


def made(project: Project, raw: dict[str, pl.DataFrame], first: str, last: str) -> pl.DataFrame:
    start, end = project.span(first, last, "days")
    return rebuild(project, raw, [TABLE], first, last)[TABLE].filter(
        pl.col("decision_at").is_between(start, end, closed="left")
    )


def test_each_day_alone_has_the_bits_of_the_range(house, raw, pairs):
    for day in DAYS:
        alone = made(house.project, raw, day, day)
        inside = pairs.filter(pl.col("decision_at").dt.date() == date.fromisoformat(day))
        assert alone.height > 300
        assert frame_hash(alone.sort(GRAIN)) == frame_hash(inside.sort(GRAIN))


def test_what_is_known_after_a_cut_changes_no_pair_before_it(house, raw, pairs):
    def stored(name, first, last):
        return pairs

    assert [str(leak) for leak in find_leaks(house.project, raw, [TABLE], CUT, 7, stored)] == []
    # The proof sees something: were a pair known at its decision, it would be found to know of later.
    house.edit("checks/datasets/book_pairs.yaml", "cutoff: reward_known_at", "cutoff: decision_at")
    try:
        leaks = find_leaks(House(house.home, house.settings.root).project, raw, [TABLE], CUT, 7, stored)
    finally:
        house.edit("checks/datasets/book_pairs.yaml", "cutoff: decision_at", "cutoff: reward_known_at")
    assert leaks


def test_pairs_of_the_default_data(pairs):
    assert not pairs.select(pl.struct(GRAIN).is_duplicated().any()).item()
    assert (pairs["margin_bps"] >= DECLARED.near_tie_bps).all()
    assert np.allclose(pairs["chosen_reward"] - pairs["rejected_reward"], pairs["margin_bps"])
    ranges = {"aggressive": (1.0, 5.0), "patient": (5.0, 15.0), "risk_averse": (10.0, 30.0)}
    for (name,), own in pairs.partition_by("objective", as_dict=True).items():
        assert own.height > 150
        farther = (own["chosen_offset_bps"] > own["rejected_offset_bps"]).mean()
        assert 0.4 < farther < 0.6, (name, farther)
        low, high = ranges[name]  # limits are on the tick, which is a bp here
        for which in ("chosen", "rejected"):
            assert own[f"{which}_offset_bps"].is_between(low - 0.6, high + 0.6).all()
    buys = pairs.group_by("regime").agg((pl.col("side") == "BUY").mean())
    shares = dict(buys.iter_rows())
    assert all(abs(shares[regime] - share) < 0.12 for regime, share in DECLARED.buy_share.items())
    for which in ("chosen", "rejected"):
        parsed = parse_orders(pairs[which], pairs["prompt"])
        assert (parsed["parse_state"] == "ok").all()
        assert (parsed["limit_price"] == pairs[f"{which}_limit"]).all()
        assert (parsed["action"] == pairs["side"]).all()
        # The offset is where the limit lies on its tick (a bp here), not what was drawn; the prompt's mid has three decimals.
        mid = np.array([shown_price(prompt) for prompt in pairs["prompt"]])
        passive = np.where(pairs["side"] == "BUY", 1.0, -1.0) * (1.0 - pairs[f"{which}_limit"].to_numpy() / mid) * 1e4
        assert np.abs(pairs[f"{which}_offset_bps"].to_numpy() - passive).max() < 0.1
        filled = pairs[f"{which}_outcome"].is_in(["through", "queue", "taken"])
        assert (pairs[f"{which}_markout_bps"].is_not_null() <= filled).all()
    assert (pairs["chosen"].str.len_chars() == pairs["rejected"].str.len_chars()).all()


def features(mids: list[float], volatility: float | None) -> pl.DataFrame:
    count = len(mids)
    return pl.DataFrame(
        {
            "symbol": ["SIM:PERP"] * count,
            "market": ["futures"] * count,
            "source": ["simulator"] * count,
            "decision_at": [MIDNIGHT + timedelta(seconds=i) for i in range(count)],
            "mid": mids,
            "mid_vol_60s_bps": [volatility] * count,
        }
    ).with_columns(pl.col("decision_at").cast(pl.Datetime("us", "UTC")), pl.col("mid_vol_60s_bps").cast(pl.Float64))


@pytest.mark.parametrize(
    ("last", "volatility", "regime"),
    # 60 returns of 1 bp root mean square: half a deviation of their mean is 3.87 bps over the minute.
    [(100.0 * np.exp(4e-4), 1.0, "bullish"), (100.0 * np.exp(-4e-4), 1.0, "bearish"), (100.0 * np.exp(3.5e-4), 1.0, "sideways"),
     (100.0, 0.0, "sideways")],
)  # fmt: skip
def test_the_regime_is_the_rule_over_a_minute(last, volatility, regime):
    found = decision_points(features([100.0] * 60 + [float(last)], volatility), 60, MIDNIGHT, MIDNIGHT + timedelta(days=1))
    assert found.select("decision_at", "regime").rows() == [(MIDNIGHT + timedelta(seconds=60), regime)]


def test_a_minute_that_was_not_usable_gives_no_decision():
    end = MIDNIGHT + timedelta(days=1)
    assert decision_points(features([100.0] * 61, None), 60, MIDNIGHT, end).is_empty()
    assert decision_points(features([100.0] * 61, 1.0)[1:], 60, MIDNIGHT, end).is_empty()


def test_what_is_drawn_follows_the_shares_and_the_key_alone():
    count = 60_000
    points = pl.DataFrame(
        {
            "symbol": ["SIM:PERP"] * count,
            "market": ["futures"] * count,
            "source": ["simulator"] * count,
            "decision_at": [MIDNIGHT + timedelta(minutes=i) for i in range(count)],
            "regime": ["bullish", "bearish", "sideways"] * (count // 3),
        }
    )
    drawn = draw_orders(points, DECLARED)
    for name, objective in DECLARED.objectives.items():
        own = drawn.filter(objective=name)
        assert own.height / count == pytest.approx(objective.share, abs=0.01)
        assert own["kept"].mean() == pytest.approx(DECLARED.keep.objective.get(name, 1.0), abs=0.02)
        assert own["near_offset"].min() >= objective.strata[0].near[0] and (own["near_offset"] < own["far_offset"]).all()
    for regime, share in DECLARED.buy_share.items():
        assert (drawn.filter(regime=regime)["side"] == 1).mean() == pytest.approx(share, abs=0.015)
    some = points.sample(500, shuffle=True, seed=1)
    again = some.join(drawn, on=["symbol", "decision_at"], how="left", maintain_order="left")
    assert (
        draw_orders(some, DECLARED)
        .select(pl.exclude(points.columns))
        .equals(again.select("objective", "side", "near_offset", "far_offset", "kept"))
    )
