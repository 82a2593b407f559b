from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.versions import BAR_KEY, as_known, epochs, microseconds, sorted_versions, timeline
from tests.tapehouse.market_records import LAG, at, bar, decided, frame, random_market


def test_the_latest_version_known_by_the_cutoff_is_taken():
    versions = frame(
        [
            bar("AAA", 0, 10, 10, 10, 10),
            bar("AAA", 0, 11, 11, 11, 11, known_at=at(1, 9), version=2),
            bar("AAA", 1, 20, 20, 20, 20),
            bar("AAA", 1, 21, 21, 21, 21, known_at=at(9, 9), version=2),
            bar("AAA", 2, 30, 30, 30, 30, known_at=at(9, 9)),
        ]
    )
    known = as_known(versions, BAR_KEY, pl.lit(at(2, 22)))
    assert known["close"].to_list() == [11.0, 20.0]  # session 2 became known after the cutoff


def test_of_two_versions_known_at_one_instant_the_higher_number_counts():
    twice = frame([bar("AAA", 0, 11, 11, 11, 11, version=2), bar("AAA", 0, 10, 10, 10, 10, version=1)])
    assert as_known(twice, BAR_KEY, pl.lit(at(5, 0)))["close"].to_list() == [11.0]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(0, 39))
def test_a_timeline_says_what_as_known_says(seed, cut):
    bars = sorted_versions(random_market(seed, 40, symbols=("AAA",), late=12)[0], BAR_KEY)
    times = timeline(bars, BAR_KEY, microseconds(bars["event_at"] + LAG))
    decision = decided(cut)
    now = microseconds(pl.Series([decision], dtype=pl.Datetime("us", "UTC")))[0]
    since = max([0, *times.late[times.late <= now].tolist()])
    held = bars[times.as_known(since)].filter(pl.col("event_at") <= at(cut, 21))
    known = as_known(bars, BAR_KEY, pl.lit(decision)).filter(pl.col("event_at") <= at(cut, 21))
    assert held.equals(known)


def test_epochs_cut_a_span_at_late_records_inside_it():
    start, end = at(0, 0), at(2, 0)
    day = timedelta(days=1) // timedelta(microseconds=1)
    first = microseconds(pl.Series([start]))[0]
    late = [np.array([first - 5, first + day], np.int64), np.array([first + day, first + 5 * day], np.int64)]
    assert list(epochs(late, start, end)) == [(first, first + day), (first + day, first + 2 * day)]
    assert list(epochs([], start, end)) == [(first, first + 2 * day)]


def test_a_bound_without_time_zone_is_refused():
    with pytest.raises(ValueError, match="no time zone"):
        list(epochs([], datetime(2020, 1, 1), at(1, 0)))
