"""Windows by hand, what they may see, and that they hold each row once; a scaler of one fold's rows."""

import tracemalloc
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.networks.recipe import lookback_days
from tapehouse.networks.scaler import Scaler
from tapehouse.networks.windows import Windows, fitted_scaler, sorted_rows, windows_of

STAMP = pl.Datetime("us", "UTC")
KEYS = ["symbol", "interval", "decision_at"]
FIRST = datetime(2024, 1, 1, 22, tzinfo=UTC)


def price(days: dict[str, list[int]]) -> pl.DataFrame:
    """One row a symbol and day: `x` is the day's number, `y` that less 100; both in hundreds for the second symbol."""
    rows = [
        (s, "1d", FIRST + timedelta(days=d), FIRST + timedelta(days=d, hours=-1), 50.0, d * f, d * f - 100.0)
        for f, (s, all_days) in zip((1.0, 100.0), days.items(), strict=False)
        for d in all_days
    ]
    return pl.DataFrame(rows, schema=[*KEYS, "known_at", "close", "x", "y"], orient="row").with_columns(
        pl.col("decision_at", "known_at").cast(STAMP)
    )


def plain(*names: str) -> Scaler:
    return Scaler(names, (0.0,) * len(names), (1.0,) * len(names), 1e9)


def points(rows: list[tuple[str, int]]) -> pl.DataFrame:
    frame = pl.DataFrame([(s, "1d", FIRST + timedelta(days=d)) for s, d in rows], schema=KEYS, orient="row")
    return frame.with_columns(pl.col("decision_at").cast(STAMP))


def test_windows_by_hand():
    rows = price({"A": [0, 1, 2, 3, 4], "B": [2, 3]})
    windows = windows_of(
        sorted_rows(rows.sample(fraction=1.0, shuffle=True, seed=1)), points([("B", 3), ("A", 4), ("A", 0)]), plain("x"), 3
    )
    values, there = windows.batch(slice(None))
    assert values[:, :, 0].tolist() == [[0.0, 200.0, 300.0], [2.0, 3.0, 4.0], [0.0, 0.0, 0.0]]
    assert there.tolist() == [[False, True, True], [True, True, True], [False, False, True]]
    some, _ = windows.batch(np.array([2, 1]))
    assert (some == values[[2, 1]]).all() and values.dtype == np.float32


def test_no_window_reaches_beyond_its_days():
    # Of 5 rows the oldest may be 20 days before the decision: what lies behind a long halt is not there.
    assert lookback_days(5) == 20
    rows = price({"A": [0, 1, 30, 31, 49, 50]})
    values, there = windows_of(sorted_rows(rows), points([("A", 50), ("A", 31)]), plain("x"), 5).batch(slice(None))
    assert values[0, there[0], 0].tolist() == [30.0, 31.0, 49.0, 50.0] and values[1, there[1], 0].tolist() == [30.0, 31.0]
    late = windows_of(sorted_rows(rows.filter(pl.col("x") > 20)), points([("A", 50)]), plain("x"), 5)
    assert (late.batch(slice(None))[0] == values[:1]).all()  # whatever else was read


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.integers(0, 60), min_size=1, max_size=30),
    st.sets(st.integers(0, 60), min_size=1, max_size=30),
    st.integers(2, 9),
)
def test_windows_are_the_latest_rows_of_their_symbol(a, b, length):
    """Against a slice a decision, taken one by one."""
    days = {"A": sorted(a), "B": sorted(b)}
    asked = [(symbol, day) for symbol in days for day in days[symbol]]
    values, there = windows_of(sorted_rows(price(days)), points(asked), plain("x"), length).batch(slice(None))
    for place, (symbol, day) in enumerate(asked):
        seen = [d for d in days[symbol] if day - lookback_days(length) <= d <= day][-length:]
        assert values[place, there[place], 0].tolist() == [d * (1.0 if symbol == "A" else 100.0) for d in seen]
        assert there[place].tolist() == [False] * (length - len(seen)) + [True] * len(seen)


def test_what_comes_after_a_decision_changes_no_bit_of_its_window():
    rng = np.random.default_rng(0)
    rows = price({"A": list(range(60)), "B": list(range(60))}).with_columns(y=pl.Series(rng.normal(size=120)))
    asked = points([(s, d) for s in "AB" for d in range(0, 40, 3)])
    before = windows_of(sorted_rows(rows), asked, plain("x", "y"), 8).batch(slice(None))
    for cut in (7, 22, 39):
        later = pl.col("decision_at") > FIRST + timedelta(days=cut)
        changed = rows.with_columns(
            pl.when(later).then(pl.col(c) * -3.0 + 1.0).otherwise(pl.col(c)).alias(c) for c in ("x", "y")
        )
        fewer = [sorted_rows(some) for some in (changed, rows.filter(~later))]
        kept = asked.filter(pl.col("decision_at") <= FIRST + timedelta(days=cut))
        place = np.flatnonzero((asked["decision_at"] <= FIRST + timedelta(days=cut)).to_numpy())
        for some in fewer:
            values, there = windows_of(some, kept, plain("x", "y"), 8).batch(slice(None))
            assert values.tobytes() == before[0][place].tobytes() and (there == before[1][place]).all()


def test_a_row_known_after_its_decision_is_refused():
    rows = price({"A": [0, 1, 2]}).with_columns(
        known_at=pl.col("known_at") + pl.when(pl.col("x") == 1).then(timedelta(hours=2)).otherwise(timedelta())
    )
    with pytest.raises(
        TapehouseError, match=r"features.price: 1 rows are known after their decision, the first \('A', '1d'\) of 2024-01-02"
    ):
        sorted_rows(rows)


def test_a_decision_without_a_row_and_a_feature_that_is_not_there_are_named():
    rows = sorted_rows(price({"A": [0, 1]}))
    with pytest.raises(TapehouseError, match=r"features.price: no row of \('B', '1d'\) at 2024-01-02"):
        windows_of(rows, points([("A", 1), ("B", 1)]), plain("x"), 4)
    with pytest.raises(TapehouseError, match=r"encoder.features: features.price has no \['z'\]"):
        fitted_scaler(rows, points([("A", 1)]), ["x", "z"], 5.0)


def test_memory_does_not_grow_with_the_length_of_windows():
    """10,000 decisions of 400 rows of 20 features would be 320 MB as one array; the rows are 0.8 MB, held once."""
    days = list(range(10_000))
    values = np.random.default_rng(0).normal(size=(len(days), 20))
    frame = price({"A": days}).with_columns(pl.Series(f"f{i}", values[:, i]) for i in range(20))
    rows, asked = sorted_rows(frame), points([("A", d) for d in days])
    scaler = plain(*[f"f{i}" for i in range(20)])
    held = []
    for length in (2, 400):
        tracemalloc.start()
        windows = windows_of(rows, asked, scaler, length)
        for start in range(0, len(windows), 64):
            windows.batch(np.arange(start, min(start + 64, len(windows))))
        held.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert sum(x.nbytes for x in (windows.rows, windows.last, windows.first)) < 1.1 * len(days) * (20 * 4 + 16)
    # The longer windows cost what one batch of them takes, some copies of it, and no more.
    assert held[1] - held[0] < 4 * 64 * 400 * 20 * 4 < 0.1 * len(days) * 400 * 20 * 4


def test_scaler_by_hand_and_on_its_own_rows_alone(tmp_path):
    values = np.array([[1.0, np.nan, 7.0, 3.0], [3.0, np.nan, 7.0, np.nan], [5.0, np.nan, 7.0, 5.0]])
    scaler = Scaler.fitted(["a", "never", "still", "gaps"], values, 1.2)
    assert scaler.mean == (3.0, 0.0, 7.0, 4.0)
    assert scaler.deviation == pytest.approx(((8 / 3) ** 0.5, 1.0, 1.0, 1.0))
    scaled = scaler.scaled(values)
    assert scaled[:, 0] == pytest.approx([-1.2, 0.0, 1.2]) and scaled[:, 3].tolist() == [-1.0, 0.0, 1.0]  # cut at 1.2
    assert not scaled[:, 1:3].any() and scaled.dtype == np.float32
    known = scaler.with_known(values)
    assert known.shape == (3, 8) and known[:, 4:].tolist() == [[1, 0, 1, 1], [1, 0, 1, 0], [1, 0, 1, 1]]
    scaler.save(tmp_path)
    assert Scaler.load(tmp_path) == scaler
    with pytest.raises(TapehouseError, match=r"scaler\.json: no such file; materialise the model again"):
        Scaler.load(tmp_path / "none")
    rows = sorted_rows(price({"A": list(range(10))}))
    asked = points([("A", d) for d in range(5)])
    mutated = rows.with_columns(x=pl.when(pl.col("x") >= 5).then(1e6).otherwise(pl.col("x")))
    assert fitted_scaler(rows, asked, ["x"], 5.0) == fitted_scaler(mutated, asked, ["x"], 5.0)
    assert fitted_scaler(rows, asked, ["x"], 5.0).mean == (2.0,)


def test_a_window_is_a_view_of_rows_that_it_does_not_copy():
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    windows = Windows(rows, np.array([5, 2]), np.array([0, 1]), 3)
    assert windows.rows is rows and len(windows) == 2
    values, there = windows.batch(np.array([1]))
    assert values[0].tolist() == [[0.0, 0.0], [2.0, 3.0], [4.0, 5.0]] and there[0].tolist() == [False, True, True]
