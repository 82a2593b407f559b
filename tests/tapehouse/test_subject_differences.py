"""The A/B table: the verdicts' own pairs to the bit, both orders, and what is too short to say anything."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from tapehouse.metrics import sharpe
from tapehouse.subject_differences import ROWS, difference_rows
from tapehouse.verdicts import Curve, draws_for, paired

DAYS = tuple(date(2010, 1, 1) + timedelta(days=i) for i in range(1200))


def curve(name: str, drift: float, seed: int, sessions: slice = slice(0, 1000), trades: int = 100) -> Curve:
    days = DAYS[sessions]
    noise = np.random.default_rng(seed).normal(0, 0.01, len(days))
    return Curve(name, noise + drift, days, 2, trades)


def rows(*found: Curve) -> pl.DataFrame:
    made = difference_rows({one.subject: one for one in found})
    assert dict(made.schema) == ROWS
    return made


def row(made: pl.DataFrame, subject: str, other: str) -> dict:
    return made.row(by_predicate=(pl.col("subject") == subject) & (pl.col("other") == other), named=True)


def test_a_pair_is_as_the_verdicts_say_it():
    a, b, c = curve("a", 0.002, 1), curve("b", 0.0, 2), curve("c", 0.001, 3)
    made = rows(a, b, c)
    assert made.select("subject", "other").rows() == [(x, y) for x in "abc" for y in "abc" if x != y]
    found, verdict = row(made, "a", "b"), paired(a.ret, b.ret, "b", draws_for(3))
    assert (found["difference"], found["low"], found["high"]) == (verdict.difference, verdict.low, verdict.high)
    assert found["p_value"] == verdict.p_value and found["other_sharpe"] == verdict.baseline_sharpe
    assert found["correlation"] == pytest.approx(np.corrcoef(a.ret, b.ret)[0, 1])
    turned = row(made, "b", "a")
    assert (turned["difference"], turned["low"], turned["high"]) == pytest.approx(
        (-found["difference"], -found["high"], -found["low"])
    )
    assert found["p_value"] + turned["p_value"] == pytest.approx(1.0, abs=1e-3) and found["p_value"] < 0.05


def test_only_common_sessions_count():
    """The last 400 sessions of the one are the first of the other; a third shares none with the first."""
    a, b, c = curve("a", 0.0, 1), curve("b", 0.0, 2, slice(600, 1200)), curve("c", 0.0, 3, slice(1000, 1200))
    made = rows(a, b, c)
    found = row(made, "a", "b")
    assert (found["sessions"], found["first_session"], found["last_session"]) == (400, DAYS[600], DAYS[999])
    assert found["sharpe"] == sharpe(a.ret[600:]) and found["other_sharpe"] == sharpe(b.ret[:400])
    assert made.select("subject", "other").rows() == [("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")]


def test_the_same_returns_do_not_differ_and_cash_has_a_ratio_of_zero():
    a = curve("a", 0.001, 1)
    same, cash = Curve("b", a.ret, a.sessions, 2, 9), Curve("cash", np.zeros(1000), a.sessions, 2, 0)
    made = rows(a, same, cash)
    twin, idle = row(made, "a", "b"), row(made, "a", "cash")
    assert (twin["difference"], twin["low"], twin["high"], twin["p_value"]) == (0.0, 0.0, 0.0, 1.0)
    assert twin["correlation"] == pytest.approx(1.0)
    assert (idle["other_sharpe"], idle["difference"], idle["correlation"]) == (0.0, idle["sharpe"], None)


def test_few_sessions_prove_nothing():
    made = rows(curve("a", 0.01, 1, slice(0, 29)), curve("b", 0.0, 2, slice(0, 29)))
    assert made["low"].to_list() == [None, None] and made["p_value"].to_list() == [None, None]
    assert rows(curve("a", 0.0, 1)).is_empty()
