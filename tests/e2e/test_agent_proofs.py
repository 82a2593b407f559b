"""Promises 2 and 3 for the reference policy's account, instructions and prompts with rewards; a planted leak is caught."""

from datetime import UTC, date, datetime
from textwrap import dedent

import polars as pl
import pytest

from tapehouse.hashing import frame_hash
from tapehouse.leakage import around, find_leaks, mutate
from tapehouse.scratch import read_raw, rebuild
from tests.house import House, copy_project

TABLES = ["features.policy_state", "datasets.instructions", "datasets.rl_prompts"]
# The day after a split's ex-date, and the turn of a year, when accounts are opened anew.
CUTS = [datetime(2005, 3, 1, 17, tzinfo=UTC), datetime(2004, 12, 31, 18, tzinfo=UTC)]
FOLDS = "{min_train_sessions: 50, test_sessions: 15, min_test_sessions: 10, purge_sessions: 2, count: 2}\n"
LEAK = "features.policy_peek"
# The account of today's bars at every past decision: corrections reach back.
PEEK = '''
    """One row per (symbol, interval, decision_at): the balance as the bars known today would have made it."""

    from tapehouse.tables import reads, table


    @table(
        reads("staging.bars", lookback_months=33, lookahead_months=2),
        reads("raw.corporate_actions", lookback_months=33, lookahead_months=2),
    )
    def build(b):
        import polars as pl

        from tapehouse.reference_policy import policy_states

        latest = b.read("staging.bars").sort("known_at").unique(["symbol", "interval", "session"], keep="last")
        bars = latest.with_columns(known_at="event_at")
        states = policy_states(bars, b.read("raw.corporate_actions"), b.start, b.end)
        return states.select("symbol", "interval", "decision_at", "balance")
    '''
PEEK_CHECKS = """
    time: decision_at
    columns:
      symbol: {type: varchar, doc: "Ticker."}
      interval: {type: varchar, doc: "Length of the bars."}
      decision_at: {type: timestamptz, doc: "When the decision is taken, UTC."}
      balance: {type: double, doc: "Currency."}
    """


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """The real declarations with a leak beside them, and the raw tables of seven months."""
    home = copy_project(tmp_path_factory.mktemp("agent"), date(2004, 9, 1), date(2005, 4, 1), FOLDS)
    for file, text in ((f"assets/{LEAK}.py", PEEK), (f"checks/{LEAK}.yaml", PEEK_CHECKS)):
        (home / file.replace("features.", "features/")).write_text(dedent(text).lstrip())
    house = House(home)
    for name in ("instruments", "bars", "corporate_actions"):
        assert not house.make(f"raw.{name}").failed
    return house


def raw_rows(house: House, names: list[str], first: str, last: str) -> dict[str, pl.DataFrame]:
    with house.warehouse.reading() as (cursor, _):
        return read_raw(cursor, house.project, names, first, last)


@pytest.mark.parametrize("cut", CUTS)
def test_what_was_known_after_a_cut_changes_no_row_before_it(house, cut):
    first, last = around(house.project, TABLES, cut)
    raw = raw_rows(house, TABLES, first, last)
    assert [str(leak) for leak in find_leaks(house.project, raw, TABLES, cut, 3)] == []
    before, after = (rebuild(house.project, rows, TABLES, first, last) for rows in (raw, mutate(raw, cut, 3)))
    for name in TABLES:
        assert before[name].height > 100
        assert frame_hash(before[name]) != frame_hash(after[name]), f"{name}: nothing was changed"


def test_a_planted_leak_is_caught(house):
    raw = raw_rows(house, [LEAK], *around(house.project, [LEAK], CUTS[0]))
    assert {leak.table for leak in find_leaks(house.project, raw, [LEAK], CUTS[0], 3)} == {LEAK}


def test_months_one_by_one_are_the_range(house):
    first, last = "2004-11-01", "2005-02-01"
    raw = raw_rows(house, TABLES, first, last)
    whole = rebuild(house.project, raw, TABLES, first, last)
    for month in ("2004-11-01", "2005-01-01", "2005-02-01"):
        alone = rebuild(house.project, raw, TABLES, month, month)
        inside = pl.col("decision_at").is_between(*house.project.span(month, month), closed="left")
        for name in TABLES:
            assert alone[name].filter(inside).height > 20
            assert frame_hash(alone[name].filter(inside)) == frame_hash(whole[name].filter(inside)), (name, month)
