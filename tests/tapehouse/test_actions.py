import json
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.actions import (
    SPLIT_RATIOS,
    Adjustment,
    Close,
    classify_step,
    derive_actions,
    rounding_noise,
    unexplained_as_rejects,
)
from tapehouse.calendars import TIMESTAMP, sessions
from tapehouse.chains import receive
from tapehouse.feeds import adjustments
from tapehouse.ingest import REJECT_COLUMNS
from tapehouse.settings import load_settings
from tapehouse.universe import load_universe
from tapehouse.versions import ACTION_KEY, as_known

EXACT = Adjustment(close_decimals=None, adjusted_decimals=12)
TEXTBOOK = {"vendor": EXACT}
ARRIVED = datetime(2026, 1, 1, tzinfo=UTC)
START, END = datetime(2005, 1, 1, tzinfo=UTC), datetime(2005, 12, 31, tzinfo=UTC)
DAYS = sessions(date(2005, 2, 1), date(2005, 12, 1))


def bars(closes: list[float], adjusted: list[float], **columns) -> pl.DataFrame:
    days = DAYS.head(len(closes))
    return pl.DataFrame(
        {
            "symbol": "ABC",
            "source": "vendor",
            "session": days["session"],
            "event_at": days["close_at"],
            "known_at": days["close_at"],
            "ingested_at": days["close_at"],
            "close": closes,
            "vendor_adj_close": adjusted,
        }
    ).with_columns(**columns)


def derive(frame: pl.DataFrame, adjustment: Adjustment = EXACT, start=START, end=END):
    return derive_actions(frame, start, end, adjustments={"vendor": adjustment})


@pytest.fixture(scope="module")
def universe():
    return load_universe(Path(__file__).parents[2] / "sources.yaml")


@pytest.fixture(scope="module")
def real(universe):
    bars = receive(load_settings(Path(__file__).parents[2]), "bars", universe.start, universe.end).rows
    return bars.with_columns(ingested_at=pl.lit(ARRIVED).cast(TIMESTAMP))


@pytest.fixture(scope="module")
def real_actions(universe, real):
    return derive_actions(real, universe.start, universe.end, adjustments=adjustments(universe))


def test_a_split_and_a_dividend_by_hand():
    # 100 -> 51 with two new shares for one old, then 52 -> 50 with 1.04 in cash: 1.04 / 52 = 2 %, so the factor before
    # is 1 / 0.98 of that after.
    after, before = 1.0, 1 / 0.98
    frame = bars([100.0, 51.0, 52.0, 50.0], [100 / (2 * before), 51 / before, 52 / before, 50 / after])
    found = derive(frame)
    assert found.actions.select("kind", "ex_date", "ratio", "amount").rows() == [
        ("dividend", date(2005, 2, 4), 1.0, 1.04),
        ("split", date(2005, 2, 2), 2.0, 0.0),
    ]
    assert found.actions["known_at"].to_list() == [
        datetime(2005, 2, 4, 5, tzinfo=UTC),
        datetime(2005, 2, 2, 5, tzinfo=UTC),
    ]
    assert found.actions["event_at"].equals(found.actions["known_at"])
    assert found.unexplained.is_empty()


def test_both_on_one_day():
    # An old share at 100 becomes two at 49.5 and 0.40 for each: 0.80 for the old one, in either form of the factor.
    textbook = 2 / (1 - 0.40 / 50)
    assert classify_step(Close(100, 100), Close(49.5, 49.5 * textbook), EXACT) == {
        "split": (2.0, 0.0),
        "dividend": (1.0, 0.8),
    }
    wiki = 2 * (1 + 0.40 / 49.5)
    assert classify_step(Close(100, 100), Close(49.5, 49.5 * wiki), Adjustment(None, 12, dividend_factor="ex_close")) == {
        "split": (2.0, 0.0),
        "dividend": (1.0, 0.8),
    }


def test_a_large_step_that_is_no_ratio_is_a_dividend():
    # Microsoft, 2004-11-15: 29.97 before, 27.39 after, 3.08 in cash; the factor's step is 1.1124.
    step = 1 + 3.08 / 27.39
    wiki = Adjustment(None, 12, "ex_close")
    assert step == pytest.approx(1.1124, abs=1e-4)
    assert classify_step(Close(29.97, 29.97), Close(27.39, 27.39 * step), wiki) == {"dividend": (1.0, 3.08)}


def test_a_factor_that_rises_is_a_reverse_split_or_unexplained():
    assert classify_step(Close(1, 1), Close(10, 1), EXACT) == {"split": (0.1, 0.0)}
    found = derive(bars([10.0, 10.0], [10.0, 9.0]))
    assert found.actions.is_empty()
    assert found.unexplained.select("symbol", "ex_date", "step").rows() == [("ABC", date(2005, 2, 2), pytest.approx(0.9))]
    reject = unexplained_as_rejects(found.unexplained).row(0, named=True)
    assert list(reject) == list(REJECT_COLUMNS)
    assert (reject["filed_at"], reject["symbol"]) == (datetime(2005, 2, 2, 5, tzinfo=UTC), "ABC")
    assert json.loads(reject["record"])["ex_date"] == "2005-02-02"


def test_rounding_is_no_dividend():
    # Half a cent on an adjusted close of 0.92 is 0.54 %, twice; half a cent on 26 is nothing beside it.
    coarse = Adjustment()
    assert rounding_noise(Close(26, 0.92), Close(26, 0.92), coarse) == pytest.approx(2 * (0.005 / 0.92 + 0.005 / 26))
    assert classify_step(Close(26, 0.92), Close(26, 0.93), coarse) == {}
    assert "dividend" in classify_step(Close(26, 0.92), Close(26, 0.93), EXACT)


def test_the_packaged_file_gives_the_declared_actions(real_actions):
    found = real_actions.actions
    assert real_actions.unexplained.is_empty()
    splits = found.filter(kind="split").sort("ex_date").select("symbol", "ex_date", "ratio").rows()
    assert splits == [("AAPL", date(2000, 6, 21), 2.0), ("MSFT", date(2003, 2, 18), 2.0), ("AAPL", date(2005, 2, 28), 2.0)]
    dividends = found.filter(kind="dividend")
    assert dict(dividends.group_by("symbol").len().rows()) == {"AAPL": 3, "IBM": 52, "MSFT": 37}
    # Declared amounts are whole cents: to the cent, and not only nearly, which tells the form of the vendor's factor.
    assert ((dividends["amount"] * 100).round(0) - dividends["amount"] * 100).abs().max() < 1e-9
    amounts = {(s, d): a for s, d, a in dividends.select("symbol", "ex_date", "amount").rows()}
    assert amounts["MSFT", date(2004, 11, 15)] == 3.08
    assert amounts["AAPL", date(2012, 8, 9)] == 2.65
    assert amounts["IBM", date(2000, 5, 8)] == 0.13
    assert amounts["IBM", date(2013, 2, 6)] == 0.85


def test_no_false_dividend_when_adjusted_closes_are_rounded(universe, real):
    rounded = real.with_columns(pl.col("vendor_adj_close").round(2))
    found = derive_actions(rounded, universe.start, universe.end).actions
    apple = found.filter((pl.col("symbol") == "AAPL") & (pl.col("kind") == "dividend"))
    assert apple["ex_date"].min() == date(2012, 8, 9)  # none since 1995
    assert found.filter(kind="split").height == 3


def test_any_month_alone_gives_the_same_actions(universe, real, real_actions):
    edges = pl.datetime_range(universe.start, universe.end, "1mo", eager=True).to_list()
    how = adjustments(universe)
    parts = []
    for start, end in pairwise(edges):
        window = real.filter((pl.col("event_at") >= start - timedelta(days=60)) & (pl.col("event_at") < end))
        parts.append(derive_actions(window, start, end, adjustments=how).actions)
    assert pl.concat(parts).sort("symbol", "kind", "ex_date").equals(real_actions.actions.sort("symbol", "kind", "ex_date"))


def test_a_late_correction_is_a_later_version():
    frame = bars([50.0, 50.0, 50.0, 50.0], [49.0, 49.0, 50.0, 50.0])  # 1.00 ex on the third day
    late = datetime(2005, 3, 1, tzinfo=UTC)
    fixed = frame[1:2].with_columns(vendor_adj_close=49.5, known_at=pl.lit(late).cast(TIMESTAMP))
    found = derive(pl.concat([frame, fixed])).actions
    third, second = datetime(2005, 2, 3, 5, tzinfo=UTC), date(2005, 2, 2)
    assert found.select("ex_date", "amount", "known_at").rows() == [
        (second, 0.505051, late),
        (date(2005, 2, 3), 1.0, third),
        (date(2005, 2, 3), 0.5, late),
    ]
    assert derive(frame).actions.equals(found.filter(pl.col("known_at") < late))


def test_an_action_arrives_with_the_later_of_its_bars():
    frame = bars([50.0, 25.0], [25.0, 25.0])
    first, second = frame["ingested_at"]
    assert derive(frame).actions["ingested_at"].to_list() == [second]
    swapped = frame.with_columns(ingested_at=pl.Series([second, first]))
    assert derive(swapped).actions["ingested_at"].to_list() == [second]


def test_a_withdrawn_action_becomes_one_without_effect():
    frame = bars([50.0, 50.0, 50.0], [25.0, 50.0, 50.0])
    late = datetime(2005, 3, 1, tzinfo=UTC)
    fixed = frame[0:1].with_columns(vendor_adj_close=50.0, known_at=pl.lit(late).cast(TIMESTAMP))
    found = derive(pl.concat([frame, fixed])).actions
    assert found.select("kind", "ratio", "amount", "known_at").rows() == [
        ("split", 2.0, 0.0, datetime(2005, 2, 2, 5, tzinfo=UTC)),
        ("split", 1.0, 0.0, late),
    ]


def test_a_vendor_that_adjusts_all_history_again_changes_nothing():
    frame = bars([50.0, 50.0, 50.0, 50.0], [49.0, 49.0, 50.0, 50.0])
    late = pl.lit(datetime(2005, 3, 1, tzinfo=UTC)).cast(TIMESTAMP)
    again = frame.with_columns(vendor_adj_close=pl.col("vendor_adj_close") / 7, known_at=late)
    assert derive(pl.concat([frame, again])).actions.equals(derive(frame).actions)


def test_a_missing_adjusted_close_is_passed_over():
    assert derive(bars([50.0, 50.0], [None, 50.0])).actions.is_empty()


def test_an_empty_frame():
    assert derive(bars([], []).cast({"close": pl.Float64, "vendor_adj_close": pl.Float64})).actions.is_empty()


PRICE = st.floats(5, 500).map(lambda price: round(price, 2))


@settings(max_examples=200, deadline=None)
@given(before=PRICE, after=PRICE, share=st.floats(0.002, 0.3), form=st.sampled_from(["previous_close", "ex_close"]))
def test_any_dividend_comes_back(before, after, share, form):
    amount = round(before * share, 2)
    step = 1 / (1 - amount / before) if form == "previous_close" else 1 + amount / after
    if amount == 0 or any(abs(step / ratio - 1) < 0.021 for ratio in SPLIT_RATIOS):
        return
    found = classify_step(Close(before, before / step), Close(after, after), Adjustment(None, 11, form))
    assert found == {"dividend": (1.0, pytest.approx(amount, abs=1e-6))}


@st.composite
def histories(draw):
    """Bars with actions, corrections and late bars, each version with its own `known_at`."""
    length = draw(st.integers(4, 12))
    frame = bars(
        draw(st.lists(PRICE, min_size=length, max_size=length)),
        draw(st.lists(st.sampled_from([10.0, 10.0, 10.0, 9.8, 5.0]), min_size=length, max_size=length)),
    )
    frame = frame.with_columns(vendor_adj_close=pl.col("close") / pl.col("vendor_adj_close"))
    extra = []
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, length - 1))
        delay = timedelta(hours=draw(st.integers(1, 400)))
        extra.append(
            frame[at : at + 1].with_columns(close=draw(PRICE), known_at=pl.lit(frame["event_at"][at] + delay).cast(TIMESTAMP))
        )
    return pl.concat([frame, *extra]).unique(["session", "known_at"], keep="first", maintain_order=True)


@settings(max_examples=100, deadline=None)
@given(frame=histories(), cut=st.integers(0, 600))
def test_what_is_known_later_changes_nothing_known_before(frame, cut):
    """Forget every version known after the cut, and the bar whose ex-date is the day of the cut stays undecided."""
    at = datetime(2005, 2, 1, 21, tzinfo=UTC) + timedelta(hours=cut)
    whole = derive(frame).actions
    before = derive(frame.filter(pl.col("known_at") <= at)).actions
    # An action is known from 00:00 of its ex-date and read off that day's close: it needs the bars known by the close.
    settled = pl.col("event_at") <= at - timedelta(hours=24)
    known = (pl.col("known_at") <= at) & settled
    assert whole.filter(known).equals(before.filter(settled))
    assert (
        as_known(whole, ACTION_KEY, pl.lit(at)).filter(settled).equals(as_known(before, ACTION_KEY, pl.lit(at)).filter(settled))
    )
