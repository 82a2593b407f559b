"""Sweeps: every combination is traded over the validation tail alone and is a trial, also the one that cannot be."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from tapehouse.errors import TapehouseError
from tapehouse.predictions import TEST
from tapehouse.strategies.schema import Strategy
from tapehouse.strategies.sweeps import grid_of, sweep, with_setting
from tapehouse.strategies.trading import tail_returns
from tapehouse.trials import stored_trials
from tapehouse.verdicts import number_of_trials
from tests.tapehouse.strategy_market import CALENDAR, FOLD, market, predictions

DECLARED = Strategy.model_validate({"name": "s", "description": "x", "signals": {"predictors": {"p": 1.0}}})


def traded(strategy: Strategy) -> np.ndarray:
    return tail_returns(strategy, FOLD, {"p": predictions()}, market())


def test_words_are_a_grid():
    assert grid_of(["gates.confidence.least=0.5,0.75", "orders.hold=true"]) == {
        "gates.confidence.least": [0.5, 0.75],
        "orders.hold": [True],
    }
    for words in (["orders.hold"], ["a=1", "a=2"], []):
        with pytest.raises(TapehouseError, match=r"gates.confidence.least=0.5,0.75,0.9"):
            grid_of(words)


def test_a_setting_is_checked_as_a_file_would_be():
    changed = with_setting(DECLARED, {"sizing.kind": "fraction", "sizing.size": 0.02, "vetoes.vix.limit": 25.0})
    assert (changed.sizing.size, changed.vetoes.vix.limit, changed.vetoes.vix.window) == (0.02, 25.0, 20)
    assert changed.hash != DECLARED.hash and with_setting(DECLARED, {"limits.gross": 1.0}).hash == DECLARED.hash
    with pytest.raises(TapehouseError, match=r"limits.gros: unknown key; did you mean 'gross'"):
        with_setting(DECLARED, {"limits.gros": 1.0})
    with pytest.raises(TapehouseError, match="keeps the signals"):
        with_setting(DECLARED, {"signals.predictors.p": 2.0})


def test_every_combination_is_a_trial_and_a_failed_one_too(tmp_path):
    grid = {"orders.take_multiple": [1.0, 2.0], "limits.gross": [0.5, -1.0]}
    found = sweep(DECLARED, grid, FOLD.id, traded, tmp_path)
    assert len(found) == 4 and sum(one.reason is not None for one in found) == 2
    assert [one.sharpe for one in found[:2]] == sorted((one.sharpe for one in found[:2]), reverse=True)
    logged = stored_trials(tmp_path)
    assert logged.group_by("state").len().sort("state").rows() == [("complete", 2), ("failed", 2)]
    assert set(logged["kind"]) == {"sweep"} and number_of_trials(logged) == 4
    assert logged.filter(state="failed")["reason"].str.contains("limits.gross").all()
    best = logged.filter(state="complete").sort("sharpe")["returns"].to_list()[-1]
    assert best == found[0].returns.tolist() and len(best) == 39  # a tail of 40 sessions
    sweep(DECLARED, grid, FOLD.id, traded, tmp_path)
    assert stored_trials(tmp_path).height == 4  # the same trial again is the same trial


def test_a_sweep_never_looks_at_the_test_block():
    day = CALENDAR.filter(pl.col("session") >= FOLD.test_first_session)["session"][0]
    made, other = market(1), market(9)
    points, bars = (
        pl.concat([mine.filter(pl.col("session") < day), theirs.filter(pl.col("session") >= day)])
        for mine, theirs in ((made.points, other.points), (made.bars, other.bars))
    )
    changed = replace(made, points=points.sort("symbol", "interval", "decision_at"), bars=bars)
    declared = with_setting(DECLARED, {"gates.confidence.least": 0.3, "sizing.kind": "training", "sizing.size": 0.1})
    said = predictions()
    blind = said.filter(pl.col("split") != TEST)
    one, two = (tail_returns(declared, FOLD, {"p": s}, m) for s, m in ((said, made), (blind, changed)))
    assert np.any(one) and np.array_equal(one, two)


@pytest.mark.parametrize("cut", [22, 28])
def test_what_comes_after_a_cut_of_the_tail_changes_nothing_before_it(cut):
    """Answers after the cut are other ones, far more confident: no rank of an earlier one moves."""
    block = CALENDAR.filter(pl.col("open_at") >= FOLD.validation_start)
    declared = with_setting(DECLARED, {"gates.confidence.least": 0.5})
    said = predictions()
    sure = pl.col("decision_at") > block["close_at"][cut] + timedelta(hours=1)
    other = said.with_columns(
        action=pl.when(sure).then(pl.lit("BUY")).otherwise("action"),
        **{
            name: pl.when(sure).then(chance).otherwise(name)
            for name, chance in (("p_sell", 0.0), ("p_hold", 0.0), ("p_buy", 1.0))
        },
    )
    one, two = (tail_returns(declared, FOLD, {"p": answers}, market()) for answers in (said, other))
    assert np.any(one[:cut]) and np.array_equal(one[:cut], two[:cut]) and not np.array_equal(one, two)


def test_without_a_tail_there_is_nothing_to_trade():
    assert not len(tail_returns(DECLARED, FOLD, {"p": predictions().filter(split=TEST)}, market()))
