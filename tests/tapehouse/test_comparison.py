"""Two subjects beside each other: a case on paper, what always holds, what is refused, and the page."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.comparison import ACTIONS, SIDES, compared
from tapehouse.errors import TapehouseError
from tapehouse.report.comparison import comparison_html, statistics_cells
from tapehouse.report.shell import figures_of
from tapehouse.subject_differences import difference_rows
from tapehouse.verdicts import curves

DAY = date(2024, 1, 1)
NOTHING = pl.DataFrame(
    schema={"adapter": pl.String, "fold": pl.String, "symbol": pl.String, "interval": pl.String,
            "decision_at": pl.Datetime("us", "UTC"), "action": pl.String}
)  # fmt: skip


def equity(returns: dict[tuple[str, str], list[float]]) -> pl.DataFrame:
    """Sessions of (subject, fold) from the fold's day on; a first session is put before the returns given."""
    rows = [
        (subject, fold, date.fromisoformat(fold) + timedelta(days=i), r, 0.5, 0.5, 0.1)
        for (subject, fold), own in returns.items()
        for i, r in enumerate([0.0, *own])
    ]
    names = ["subject", "fold", "session", "ret", "gross_exposure", "net_exposure", "turnover"]
    return pl.DataFrame(rows, schema=names, orient="row")


def trades(entries: list[tuple[str, str, str, str, int, int, float]]) -> pl.DataFrame:
    """Rows of subject, fold, symbol, side, sessions of entry and exit (counted from the fold's first), gain."""
    rows = [
        (
            s,
            f,
            symbol,
            side,
            date.fromisoformat(f) + timedelta(days=i),
            date.fromisoformat(f) + timedelta(days=o),
            pnl,
            10.0,
            100.0,
        )
        for s, f, symbol, side, i, o, pnl in entries
    ]
    names = ["subject", "fold", "symbol", "side", "entry_session", "exit_session", "pnl", "shares", "entry_price"]
    schema = dict(zip(names, [*[pl.String] * 4, pl.Date, pl.Date, *[pl.Float64] * 3], strict=True))
    return pl.DataFrame(rows, schema=schema, orient="row")


def beside(days: pl.DataFrame, made: pl.DataFrame, answers: pl.DataFrame = NOTHING, a: str = "a", b: str = "b"):
    counts = dict(made.group_by("subject").len().iter_rows())
    return compared(a, b, days, made, difference_rows(curves(days, counts)), answers)


FOLD, LATER = "2024-01-01", "2024-06-01"
# Sessions 0 to 3. a is long X from 1 until its exit on 3; b is short X from 1 until 2 and long Y from 2 until 3.
DAYS = equity({("a", FOLD): [0.1, 0.0, -0.1], ("b", FOLD): [0.0, 0.0, 0.05], ("a", LATER): [0.2]})
MADE = trades(
    [
        ("a", FOLD, "X", "BUY", 1, 3, 50.0),
        ("b", FOLD, "X", "SELL", 1, 2, -20.0),
        ("b", FOLD, "Y", "BUY", 2, 3, 30.0),
        ("a", LATER, "X", "BUY", 1, 1, 1000.0),
    ]
)


def test_two_accounts_on_paper():
    found = beside(DAYS, MADE)
    assert found.folds == (FOLD,)  # b has no account in the later block
    assert found.blocks.rows() == [(FOLD, pytest.approx(1.1 * 0.9 - 1), pytest.approx(0.05), 1, 2)]
    assert found.symbols.rows() == [("X", 50.0, -20.0, 1, 1), ("Y", 0.0, 30.0, 0, 1)]
    # Eight closes, X and Y on four sessions: X on 1 long and short, on 2 long and flat; Y on 2 flat and long.
    assert found.held == [[0.0, 1 / 8, 1 / 8], [1 / 8, 5 / 8, 0.0], [0.0, 0.0, 0.0]]
    assert found.alike == 0.0  # of the three closes where either held something
    both, a, b = found.entries.rows()
    assert both == ("both", 0, 0.0, None, None)  # same session and symbol, other side
    assert a == ("a", 1, 50.0, 1.0, pytest.approx(500.0)) and b == ("b", 2, 10.0, 0.5, pytest.approx(50.0))
    # Gaps of 10, 0 and 15 per cent; the first session of the block earns nothing and is left out.
    assert found.farthest["session"].to_list() == [DAY + timedelta(days=i) for i in (3, 1, 2)]
    assert found.answered is None
    assert found.claim == "Nothing can be said of a and b: they share too few sessions"


def test_entries_of_both_count_once_and_answers_are_crossed():
    made = trades([("a", FOLD, "X", "BUY", 1, 2, 5.0), ("b", FOLD, "X", "BUY", 1, 3, 7.0)])
    at = [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)]
    answers = pl.DataFrame(
        {"adapter": ["a"] * 4 + ["b"] * 3, "fold": FOLD, "symbol": "X", "interval": "1d", "decision_at": at + at[:3],
         "action": ["BUY", "BUY", "SELL", "HOLD", "BUY", "SELL", "SELL"]}
    )  # fmt: skip
    found = beside(DAYS.filter(fold=FOLD), made, answers)
    assert found.entries.rows()[0] == ("both", 1, 5.0, 1.0, pytest.approx(50.0))
    assert found.entries["trades"].to_list() == [1, 0, 0]
    assert ACTIONS == ("BUY", "HOLD", "SELL")
    # The fourth question was put to a alone.
    assert found.answered == [[1 / 3, 0.0, 1 / 3], [0.0, 0.0, 0.0], [0.0, 0.0, 1 / 3]]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(-0.004, 0.004))
def test_changing_places_changes_signs(seed, drift):
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.01, 60)
    days = equity({("a", FOLD): [*(noise + drift)], ("b", FOLD): [*(noise + rng.normal(0, 0.005, 60))]})
    sides = rng.choice(["BUY", "SELL"], 8)
    made = trades([("ab"[i % 2], FOLD, "XY"[i // 4], str(sides[i]), i * 3 + 1, i * 3 + 6, float(i)) for i in range(8)])
    one, other = beside(days, made), beside(days, made, a="b", b="a")
    assert one.difference["difference"] == pytest.approx(-other.difference["difference"])
    assert one.held == [list(column) for column in zip(*other.held, strict=True)]
    assert sum(map(sum, one.held)) == pytest.approx(1.0) and len(one.held) == len(SIDES)
    assert one.farthest["session"].to_list() == other.farthest["session"].to_list()
    swapped = {"ahead of": "behind", "behind": "ahead of"}
    word = next((w for w in swapped if w in one.claim), None)
    assert (word is None and "cannot be told apart" in other.claim) or swapped[word] in other.claim


def test_a_difference_that_is_there_is_said():
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 0.01, 200)
    found = beside(equity({("a", FOLD): [*(noise + 0.002)], ("b", FOLD): [*noise]}), MADE.filter(fold=FOLD).head(0))
    assert found.claim == "a is ahead of b" and "over the 200 sessions that both have; the 95 % interval" in found.evidence


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(TapehouseError, match=r"aa: no traded subject of this name; did you mean a\?"):
        beside(DAYS, MADE, a="aa")
    with pytest.raises(TapehouseError, match="zzz: no traded subject of this name; there are a, b"):
        beside(DAYS, MADE, b="zzz")
    with pytest.raises(TapehouseError, match="one subject"):
        beside(DAYS, MADE, b="a")
    apart = equity({("a", FOLD): [0.1], ("b", LATER): [0.1]})
    with pytest.raises(TapehouseError, match=f"no block in common .a {FOLD} to {FOLD}; b {LATER} to {LATER}"):
        beside(apart, MADE)
    with pytest.raises(TapehouseError, match=r"reports\.differences has no row of a and b; make it: `tapehouse run"):
        compared("a", "b", DAYS, MADE, difference_rows({}), NOTHING)
    old = difference_rows(curves(DAYS.filter(pl.col("session") < DAY + timedelta(days=3)), {}))
    with pytest.raises(TapehouseError, match="knows 2 sessions, of 3, of a and b"):
        compared("a", "b", DAYS, MADE, old, NOTHING)


def test_the_page_says_it_first_repeats_and_escapes():
    name = "<b>a"
    rename = pl.col("subject").replace("a", name)
    days, made = DAYS.with_columns(rename), MADE.with_columns(rename)
    page, again = (
        comparison_html(beside(days, made, a=name), {name: "LOSES"}, {"snapshot": "7", "commit": "abc"}) for _ in range(2)
    )
    assert page == again and name not in page
    head = page[: page.index("<section>")]
    assert "snapshot 7 · commit abc" in head and "too few sessions" in head and "chosen with hindsight" in head
    assert "one question asked beforehand" in head and 'class="badge bad">LOSES' in head
    drawn = figures_of(page)
    assert drawn["equity"]["data"][2]["y"] == [10.0, 10.0, pytest.approx((1.1 * 0.9 / 1.05 - 1) * 100, abs=1e-4)]
    assert drawn["blocks"]["data"][1]["y"] == [5.0]
    cells = {metric: rest for metric, *rest in statistics_cells(beside(DAYS, MADE))}
    assert cells["trades"] == ["1", "", "2", ""] and cells["return"][0] == "\N{MINUS SIGN}1.0\N{NO-BREAK SPACE}%"
