"""Exact balance of an export, and rates that balance in expectation."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tapehouse.balance import exact, keep_rates, table
from tapehouse.errors import TapehouseError

START = datetime(2012, 1, 3, 21, 5, tzinfo=UTC)


def rows(*cells: tuple[str, str, int]) -> pl.DataFrame:
    """Rows of (symbol, side), as many as asked, one a day."""
    made = [
        {"symbol": symbol, "interval": "1d", "decision_at": START + timedelta(days=day), "objective": "patient", "side": side}
        for symbol, side, count in cells
        for day in range(count)
    ]
    return pl.DataFrame(made, schema_overrides={"decision_at": pl.Datetime("us", "UTC")})


UNEVEN = rows(
    ("IBM", "BUY", 7), ("IBM", "SELL", 3), ("FB", "BUY", 1), ("FB", "SELL", 4), ("MSFT", "BUY", 3), ("MSFT", "SELL", 5)
)


def test_by_hand():
    """The smallest cell is FB's one buy; without FB it is one of three."""
    found = exact(UNEVEN, ("symbol", "side"))
    assert (found.per_cell, found.cells, found.rows.height, found.left_out) == (1, 6, 6, {})
    found = exact(UNEVEN, ("symbol", "side"), least=2)
    assert (found.per_cell, found.cells, found.left_out) == (3, 4, {"FB": 1})
    assert table(found.rows, ("symbol", "side")).rows() == [
        ("side", "BUY", 6, 0.5),
        ("side", "SELL", 6, 0.5),
        ("symbol", "IBM", 6, 0.5),
        ("symbol", "MSFT", 6, 0.5),
    ]


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(1, 9), min_size=4, max_size=4), seed=st.integers(0, 99))
def test_cells_are_equal_and_what_stays_does_not_depend_on_the_order(counts, seed):
    cells = [(symbol, side) for symbol in ("IBM", "FB") for side in ("BUY", "SELL")]
    given_rows = rows(*((*cell, count) for cell, count in zip(cells, counts, strict=True)))
    found = exact(given_rows, ("symbol", "side"), salt="2012-05-29")
    assert set(found.rows.group_by("symbol", "side").len()["len"]) == {min(counts)}
    shuffled = exact(given_rows.sample(fraction=1, shuffle=True, seed=seed), ("symbol", "side"), salt="2012-05-29")
    key = ["symbol", "decision_at", "side"]
    assert_frame_equal(shuffled.rows.sort(key), found.rows.sort(key))


def test_decisions_on_books_are_told_apart_by_market_and_source():
    on_books = UNEVEN.with_columns(market=pl.lit("spot"), source=pl.lit("feed")).drop("interval")
    found = exact(on_books, ("symbol", "side"), least=2)
    assert (found.per_cell, found.rows.height) == (3, 12)
    both = pl.concat([on_books, on_books.with_columns(market=pl.lit("futures"))])
    kept = exact(both, ("symbol", "side", "market"), least=2).rows.partition_by("market")
    assert [part.height for part in kept] == [12, 12]
    assert not kept[0].drop("market").equals(kept[1].drop("market"))  # each market draws its own


def test_what_cannot_be_balanced_is_said():
    with pytest.raises(TapehouseError, match=r"0 rows of .*'FB'.*'SELL'.*balance by fewer columns"):
        exact(rows(("IBM", "BUY", 2), ("IBM", "SELL", 2), ("FB", "BUY", 2)), ("symbol", "side"), spare="")
    with pytest.raises(TapehouseError, match="no column 'regime'"):
        exact(UNEVEN)
    with pytest.raises(TapehouseError, match="no rows are left"):
        exact(UNEVEN, ("symbol", "side"), least=50)
    with pytest.raises(TapehouseError, match="side is null in 23 rows"):
        exact(UNEVEN.with_columns(side=pl.lit(None, pl.String)), ("side",))


def test_rates_by_hand():
    """Ten buys and five sells, to be alike: half of the buys stay. Of 30 rows of IBM 10, where MSFT has 10."""
    assert keep_rates(rows(("IBM", "BUY", 10), ("IBM", "SELL", 5)), {"side": {"BUY": 0.5, "SELL": 0.5}}) == {
        "side": {"BUY": 0.5, "SELL": 1.0}
    }
    both = rows(("IBM", "BUY", 20), ("IBM", "SELL", 10), ("MSFT", "BUY", 5), ("MSFT", "SELL", 5))
    rates = keep_rates(both, {"side": {"BUY": 0.5, "SELL": 0.5}, "symbol": {"IBM": 0.5, "MSFT": 0.5}}, digits=9)
    expected = {
        (symbol, side): count * rates["side"][side] * rates["symbol"][symbol]
        for (symbol, side), count in {("IBM", "BUY"): 20, ("IBM", "SELL"): 10, ("MSFT", "BUY"): 5, ("MSFT", "SELL"): 5}.items()
    }
    buys = expected["IBM", "BUY"] + expected["MSFT", "BUY"]
    assert buys == pytest.approx(sum(expected.values()) / 2)
    assert expected["IBM", "BUY"] + expected["IBM", "SELL"] == pytest.approx(sum(expected.values()) / 2)
    assert max(rates["side"].values()) == max(rates["symbol"].values()) == 1.0


def test_a_value_without_a_share_is_refused():
    with pytest.raises(TapehouseError, match=r"side has the values \['BUY', 'SELL'\], its shares \['BUY'\]"):
        keep_rates(UNEVEN, {"side": {"BUY": 1.0}})
