"""The engine of evaluations: by hand, against resampling rows one by one, and against what a part alone would say."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.bootstrap import resample, tail
from tapehouse.evaluations.core import FIGURES, Derived, Part, Ratio, Slice, Stated, Term, measure, slice_of
from tapehouse.evaluations.drawing import intervals
from tapehouse.evaluations.rows import Rows

NAN = np.nan


def terms(rows: Rows) -> list[Term]:
    return [Term("x", rows["x"]), Term("y", rows["y"]), Term("product", rows["x"] * rows["y"])]


RATIO, MEAN = Ratio("ratio", "x", "y"), Ratio("mean", "x")
COVERED = Derived("product_over_x", ("product", "x"), lambda product, x: product / x)
COUNT = Derived("count", ("y",), lambda y: y, chance=None, interval=False)
PART = Part(terms, (RATIO, MEAN, COVERED, COUNT))


def rows_of(x, y, dates, sessions=None, outcomes=frozenset({"y"})) -> Rows:
    dates = np.asarray(dates, np.int64)
    return Rows({"x": np.asarray(x, float), "y": np.asarray(y, float)}, dates, sessions or int(dates.max()) + 1, outcomes)


def random_rows(seed: int, sessions: int, a_day: int) -> Rows:
    rng = np.random.default_rng(seed)
    dates = np.repeat(np.arange(sessions), a_day)
    x = np.where(rng.random(len(dates)) < 0.1, NAN, rng.normal(1, 1, len(dates)))
    return rows_of(x, rng.integers(1, 4, len(dates)), dates)


def by_metric(figures: pl.DataFrame, column: str, **where) -> dict:
    return dict(figures.filter(**where).select("metric", column).rows())


def test_by_hand():
    """x is not known of the third row: the ratio still divides by its y, the mean does not count it."""
    rows = rows_of([1, 2, NAN, 5], [1, 1, 2, 4], [0, 0, 1, 2])
    halves = Slice("half", ("a", "b"), np.array([0, 0, 1, -1]))
    figures = measure(rows, [PART], [halves])
    assert figures.schema == FIGURES
    whole = {"slice": "all", "level": ""}
    # Products 1, 2 and 20 over x of 8.
    assert by_metric(figures, "value", **whole) == {"ratio": 1.0, "mean": 8 / 3, "product_over_x": 23 / 8, "count": 8.0}
    assert by_metric(figures, "n", **whole) == {"ratio": 4, "mean": 3, "product_over_x": 3, "count": 4}
    assert figures["low"].is_null().all() and figures["high"].is_null().all()  # fewer than 30
    assert by_metric(figures, "value", slice="half", level="a") == {
        "ratio": 1.5, "mean": 1.5, "product_over_x": 1.0, "count": 2.0,
    }  # fmt: skip
    # Nothing is known of x there: figures without an observation are left out, those with one are null or 0.
    assert by_metric(figures, "value", slice="half", level="b") == {"ratio": 0.0, "count": 2.0}
    assert figures.filter(slice="all", metric="count")["shuffled"].is_null().all()


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(75, 110), st.integers(1, 3), st.sampled_from([10, 20, 25]))
def test_intervals_are_those_of_resampling_the_rows_themselves(seed, sessions, a_day, horizon):
    rows = random_rows(seed, sessions, a_day)
    part = Part(terms, tuple(replace(m, horizon=horizon) for m in (RATIO, MEAN, COVERED)))
    figures = measure(rows, [part])
    resamples = resample(sessions, horizon)
    drawn = resamples.indices[:, :, None] * a_day + np.arange(a_day)
    x, y = (rows[name][drawn.reshape(len(drawn), -1)] for name in "xy")
    known = ~np.isnan(x)
    expected = {
        "ratio": np.nansum(x, axis=1) / y.sum(axis=1),
        "mean": np.nansum(x, axis=1) / known.sum(axis=1),
        "product_over_x": np.nansum(x * y, axis=1) / np.nansum(x, axis=1),
    }
    (there,) = np.nonzero(~np.isnan(rows["x"]).reshape(sessions, a_day).all(axis=1))
    carried = {"ratio": sessions, "mean": int(np.ptp(there)) + 1, "product_over_x": int(np.ptp(there)) + 1}
    for name, low, high in figures.select("metric", "low", "high").rows():
        if carried[name] >= 4 * horizon:
            beyond = tail(replace(resamples, sessions=carried[name]))
            expected_ends = np.quantile(expected[name], [beyond, 1 - beyond])
            assert (low, high) == pytest.approx(expected_ends, rel=1e-9, abs=1e-12)
        else:
            assert low is None and high is None


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_a_slice_says_what_its_rows_alone_would_say(seed, levels):
    rows = random_rows(seed, 50, 3)
    codes = np.random.default_rng(seed).integers(-1, levels, len(rows))
    names = tuple("abcd"[:levels])
    figures = measure(rows, [PART], [Slice("part", names, codes)]).drop("shuffled")
    for code, level in enumerate(names):
        own = codes == code
        alone = replace(rows, columns={k: v[own] for k, v in rows.columns.items()}, dates=rows.dates[own], groups=None)
        expected = measure(alone, [PART]).drop("slice", "level", "shuffled").filter(pl.col("n") > 0)
        assert figures.filter(slice="part", level=level).drop("slice", "level").equals(expected)


def test_intervals_cover_what_is_true_as_often_as_they_say():
    """200 worlds of shares that come true half of the time, alike within sessions: about 190 intervals should cover 1/2."""
    covered = 0
    for world in range(200):
        rng = np.random.default_rng(world)
        right = rng.random((120, 1)) < 0.5  # one draw a session
        kept = rng.random((120, 5)) < 0.7
        hit = np.where(kept, right, rng.random((120, 5)) < 0.5).ravel()
        rows = rows_of(hit, np.ones(600), np.repeat(np.arange(120), 5), outcomes=frozenset())
        low, high = measure(rows, [Part(terms, (MEAN,))]).select("low", "high").row(0)
        covered += low <= 0.5 <= high
    assert 183 <= covered <= 197


def fresh_means(observed: np.ndarray, horizon: int, worlds: int = 100) -> tuple[int, int]:
    """Worlds in which the mean of what five names alike return over `horizon` sessions has an interval, and covers 0."""
    told = covered = 0
    for world in range(worlds):
        rng = np.random.default_rng(world)
        daily = rng.normal(size=(150, 1)) + rng.normal(size=(150, 5))
        ret = np.stack([daily[i : i + horizon].sum(axis=0) for i in range(120)])
        x = np.where(observed[:, None], ret, NAN).ravel()
        rows = rows_of(x, np.ones(600), np.repeat(np.arange(120), 5), outcomes=frozenset())
        mean = replace(MEAN, chance=None, horizon=horizon)
        low, high = measure(rows, [Part(terms, (mean,))]).select("low", "high").row(0)
        told += low is not None
        covered += low is not None and low <= 0 <= high
    return told, covered


def test_spells_far_apart_are_not_as_sure_as_what_lies_between_them():
    """Of two spells of eight sessions an interval would cover 0 too seldom; of three of fifteen it does."""
    two, three, seldom = np.zeros((3, 120), bool)
    for first, spell, sessions in ((10, two, 8), (70, two, 8), (5, three, 15), (50, three, 15), (100, three, 15)):
        spell[first : first + sessions] = True
    seldom[::11] = True
    assert fresh_means(two, 10) == (0, 0)  # 80 observations in 25 sessions
    for observed in (three, seldom):
        told, covered = fresh_means(observed, 10)
        assert told == 100 and covered >= 90


def test_an_interval_of_a_slice_is_as_wide_as_its_own_sessions_make_it():
    """Sessions 10 to 59 alone are five blocks of ten, whether 60 others without an observation surround them or none."""
    rng = np.random.default_rng(2)
    rows = rows_of(rng.normal(size=600), np.ones(600), np.repeat(np.arange(120), 5))
    inside = Slice("spell", ("a",), np.where((rows.dates >= 10) & (rows.dates < 60), 0, -1))
    (row,) = measure(rows, [Part(terms, (MEAN,))], [inside]).filter(slice="spell").rows(named=True)
    resamples = resample(120, 10)
    kept = (inside.codes == 0).astype(float)
    sums, counts = (np.bincount(rows.dates, of * kept) for of in (rows["x"], np.ones(600)))
    drawn = resamples.sums(sums) / np.where(resamples.sums(counts) > 0, resamples.sums(counts), NAN)  # few draw none of it
    beyond = tail(resample(50, 10))
    assert (row["low"], row["high"]) == pytest.approx(np.nanquantile(drawn, [beyond, 1 - beyond]), rel=1e-9)


@pytest.mark.parametrize(("sessions", "horizon", "some"), [(39, 10, False), (40, 10, True), (119, 30, False), (120, 30, True)])
def test_no_interval_stands_on_fewer_than_four_horizons(sessions, horizon, some):
    rows = rows_of(np.random.default_rng(4).normal(size=sessions), np.ones(sessions), np.arange(sessions))
    (row,) = measure(rows, [Part(terms, (replace(MEAN, horizon=horizon),))]).rows(named=True)
    assert row["n"] == sessions >= 30 and (row["low"] is not None) == some == (row["high"] is not None)


def test_few_blocks_widen_an_interval():
    """Twelve blocks: Student's 2.201 of eleven degrees of freedom, times the root of 12/11, is the normal tail of 1.08 %."""
    assert tail(resample(120, 10)) == pytest.approx(0.010757, abs=1e-6)
    assert tail(resample(10**6, 1, draws=1)) == pytest.approx(0.025, abs=1e-5)
    assert tail(resample(3, 3)) < tail(resample(120, 30)) < tail(resample(120, 10))


def test_blocks_are_as_long_as_the_main_series_remembers():
    """Runs of 20 alike sessions: the rule asks for longer blocks than ten, and the interval widens."""
    runs = np.repeat(np.random.default_rng(1).random(9) < 0.5, 20).astype(float)
    rows = rows_of(runs, np.ones(180), np.arange(180))
    short, long = (measure(rows, [PART], main=main).filter(metric="mean").row(0, named=True) for main in (None, "x"))
    assert long["high"] - long["low"] > 1.1 * (short["high"] - short["low"])


def test_chance_is_what_permuted_outcomes_score():
    """Ten of 100 said, 30 came: by chance 3 of the ten come true, whatever is in fact true."""
    said, came = np.arange(100) < 10, np.arange(100) < 30
    rows = Rows({"said": said, "came": came, "twin": came * 2}, np.arange(100) // 5, 20, frozenset({"came", "twin"}))

    def both(rows: Rows) -> list[Term]:
        assert (rows["twin"] == rows["came"] * 2).all()  # outcomes stay together
        assert (np.bincount(rows.groups, rows["came"]) == 30).all() and (np.bincount(rows.groups, rows["said"]) == 10).all()
        return [Term("right", np.where(rows["said"], rows["came"], NAN))]

    known = Ratio("known", "right", chance=0.25)
    figures = measure(rows, [Part(both, (Ratio("hit", "right"), known))])
    assert by_metric(figures, "value") == {"hit": 1.0, "known": 1.0}
    chance = by_metric(figures, "shuffled")
    assert chance["known"] == 0.25 and 0.15 < chance["hit"] < 0.45
    assert figures.equals(measure(rows, [Part(both, (Ratio("hit", "right"), known))]))


def test_what_is_stated_has_no_interval():
    rows = random_rows(3, 40, 2)
    stated = Stated("widest", lambda rows: (np.array([np.nanmax(rows["x"])]), np.array([float(len(rows))])))
    (row,) = measure(rows, [Part(terms, (stated,))]).rows(named=True)
    assert row["value"] == np.nanmax(rows["x"]) and row["n"] == 80
    assert row["low"] is None and row["high"] is None and row["shuffled"] is None


def test_parts_are_measured_where_they_say():
    rows = random_rows(3, 40, 1)
    halves, bins = (Slice(name, ("a",), np.zeros(40, np.int64), own=name == "bins") for name in ("half", "bins"))
    whole_alone = Part(terms, (RATIO,), frozenset({"all"}))
    of_bins = Part(terms, (MEAN,), frozenset({"all", "bins"}))
    figures = measure(rows, [whole_alone, of_bins, Part(terms, (COUNT,))], [halves, bins])
    assert figures.select("slice", "metric").rows() == [
        ("all", "ratio"), ("all", "mean"), ("all", "count"), ("half", "count"), ("bins", "mean"),
    ]  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-3, 3)), min_size=1, max_size=40))
def test_ranks_are_scipys_within_groups(pairs):
    from scipy.stats import rankdata

    groups, values = (np.array(column) for column in zip(*pairs, strict=True))
    rows = Rows({}, np.zeros(len(pairs), np.int64), 1, groups=groups.astype(np.int64), group_count=3)
    found = rows.ranks(np.where(values == -3, NAN, values.astype(float)))
    for group in np.unique(groups):
        own = (groups == group) & (values > -3)
        assert found[own].tolist() == (rankdata(values[own]) - (own.sum() + 1) / 2).tolist()
    assert np.isnan(found[values == -3]).all()


def test_few_draws_without_a_value_are_left_out_and_many_leave_no_interval():
    values = np.arange(41.0)
    draws = np.array([values, np.where(values == 0, NAN, values), np.where(values < 2, NAN, values), np.full(41, NAN)])
    low, high = intervals(draws, 0.025)
    assert low[:2] == pytest.approx([1, 1 + 39 * 0.025]) and high[:2] == pytest.approx([39, 40 - 39 * 0.025])
    assert np.isnan([low[2:], high[2:]]).all()
    each = intervals(np.array([values, values]), np.array([0.025, 0.1]))
    assert np.array(each) == pytest.approx(np.array([[1, 4], [39, 36]]))


def test_what_cannot_be_measured_is_refused():
    rows = random_rows(1, 40, 1)
    with pytest.raises(ValueError, match="asks for the term 'z'; its part has product, x, y"):
        measure(rows, [Part(terms, (Ratio("odd", "z"),))])
    with pytest.raises(ValueError, match="two figures of one name in slice all"):
        measure(rows, [PART, PART])
    with pytest.raises(ValueError, match="no part has a term 'z'"):
        measure(rows, [PART], main="z")
    with pytest.raises(ValueError, match="one value of each column a row; 2 rows, but"):
        rows_of([1.0], [1.0, 2.0], [0, 1])


def test_levels_are_sorted_and_null_is_none():
    found = slice_of("regime", pl.Series(["b", None, "a", "b"]))
    assert found.levels == ("a", "b") and found.codes.tolist() == [1, -1, 0, 1]
