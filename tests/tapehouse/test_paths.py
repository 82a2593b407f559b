"""Where bars and decisions lie in the grid of sessions."""

from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.paths import session_columns, settled_paths
from tests.tapehouse.market_records import action_frame, at, bar, bars, calendar, day, frame

FLAT = (100, 101, 99, 100)
days = st.dates(date(1990, 1, 1), date(2030, 1, 1))


@given(st.sets(days, min_size=1, max_size=30), st.lists(st.one_of(st.none(), days), max_size=30), st.integers(-3, 3))
def test_each_day_has_its_place_among_the_sessions_or_none(sessions, asked, shift):
    known = sorted(sessions)
    asked = [*asked, known[0] + timedelta(days=shift), known[-1] + timedelta(days=shift)]
    places = session_columns(pl.Series(asked, dtype=pl.Date), pl.Series(known, dtype=pl.Date))
    assert places.to_list() == [known.index(one) if one in sessions else -1 for one in asked]


def test_a_correction_within_the_lag_counts_and_a_later_one_does_not():
    late = {"symbol": "AAA", "index": 1, "open": 100, "high": 101, "low": 99}
    corrected = [bar(**late, close=100.5, known_at=at(2, 20)), bar(**late, close=77.0, known_at=at(2, 22))]
    versions = frame([*bars("AAA", [FLAT] * 3), *bars("BBB", [FLAT] * 2), *corrected])
    paths = settled_paths(versions, action_frame(), calendar(5), ["BBB", "AAA"])
    assert paths.close[1, :3].tolist() == [100.0, 100.5, 100.0]
    assert paths.close[0, :2].tolist() == [100.0, 100.0] and paths.close[0, 2] != paths.close[0, 2]
    only = settled_paths(versions, action_frame(), calendar(5), ["BBB"])  # bars of others are left aside
    assert only.close.shape == (1, 5)


def test_a_decision_that_has_no_place_is_named():
    paths = settled_paths(frame(bars("AAA", [FLAT] * 3)), action_frame(), calendar(5), ["AAA"])
    for symbol, session in (("BBB", day(0)), ("AAA", day(9))):
        with pytest.raises(TapehouseError, match=f"decision of {symbol} on {session}: not a session of the calendar"):
            paths.places(pl.DataFrame({"symbol": [symbol], "session": [session]}))
