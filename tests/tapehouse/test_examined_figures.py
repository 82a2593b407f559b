"""What pages say of importance, paths and blocks that differ: the numbers of the tables, and nothing where there are none."""

import json
from dataclasses import replace

import polars as pl
import pytest

from tapehouse.adversarial import ADVERSARIAL
from tapehouse.combinatorial import PATHS
from tapehouse.importance import IMPORTANCE
from tapehouse.report.importance_figure import adversarial_figure, importance_figure, paths_figure, tells_apart
from tapehouse.report.section import Subject
from tapehouse.report.subject_examined import adversarial_section, importance_section, paths_section


def importance() -> pl.DataFrame:
    whole = {"deviation": 0.001, "blocks": 5, "n": 900, "log_loss": 1.02, "base_log_loss": 1.03}
    side = {"side_log_loss": 0.70, "base_side_log_loss": 0.69}
    levels = [("all", "", 2, 0.004), ("feature", "rsi_14", 1, 0.001), ("feature", "ret_1d", 1, -0.002)]
    rows = [
        {"subject": "gbm", "fold": fold, "kind": kind, "level": level, "features": count, "value": value + extra,
         "low": value + extra - 0.001, "high": value + extra + 0.003, **whole, **side}
        for fold, extra in (("2020-01-02", 0.5), ("2020-07-01", 0.0))
        for kind, level, count, value in levels
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=IMPORTANCE)


def paths(subject: str = "gbm", count: int = 2) -> pl.DataFrame:
    days = (pl.date(2001, 1, 3), pl.date(2004, 5, 6))
    rows = pl.DataFrame(
        [(subject, path, part, None, 10, 5, 0.1, ratio and ratio + path, 0.2, -0.1) for path in range(count)
         for part, ratio in (("all", 0.25), ("0", 0.5), ("1", None))],
        schema={k: v for k, v in PATHS.items() if not k.endswith("_session")}, orient="row",
    )  # fmt: skip
    return rows.with_columns(first_session=days[0], last_session=days[1]).select(list(PATHS))


def adversarial() -> pl.DataFrame:
    rows = [
        ("2020-01-02", "all", "", 0.9, 0.8, 0.95, None, 100, 50),
        ("2020-01-02", "inside", "", 0.6, 0.5, 0.7, None, None, None),
        ("2020-01-02", "feature", "vol", 0.3, 0.2, 0.4, 0.75, 100, 50),
        ("2020-01-02", "feature", "ret", 0.5, 0.4, 0.6, 0.25, 100, 50),
        ("2020-07-01", "all", "", 0.6, 0.5, 0.7, None, 100, 50),
        ("2020-07-01", "inside", "", 0.7, 0.6, 0.8, None, None, None),
        ("2021-01-04", "all", "", None, None, None, None, 10, 5),
    ]
    return pl.DataFrame(rows, schema=ADVERSARIAL, orient="row")


def subject(**tables: pl.DataFrame) -> Subject:
    """A recipe that was fitted on 500 rows."""
    fitted = pl.DataFrame({"adapter": ["gbm"], "rows": [500]})
    named = {"models.adapters": fitted} | {f"reports.{name}": rows for name, rows in tables.items()}
    return Subject("gbm", "baseline", "d", "y", "s", {}, None, {}, named, pl.DataFrame())


def test_importance_is_of_the_last_fold_in_thousandths():
    figure = importance_figure(importance())
    points = {y: x for trace in figure["data"] for y, x in zip(trace["y"], trace["x"], strict=True)}
    assert points == {"all features": 4.0, "rsi_14": 1.0, "ret_1d": -2.0}
    assert figure["data"][0]["error_x"]["array"] == [3.0] and figure["data"][0]["error_x"]["arrayminus"] == [1.0]
    assert figure["layout"]["yaxis"]["categoryarray"] == ["ret_1d", "rsi_14", "all features"]
    said = importance_section(subject(importance=importance()))
    assert "1.0200, 0.0100 below" in said.body and "0.7000, 0.0100 above" in said.body and "2020-07-01" in said.note


def test_paths_are_points_and_never_a_mean():
    figure = paths_figure(paths(), walk_forward=-0.5)
    points, walk = figure["data"]
    assert sorted(points["x"]) == [0.25, 0.5, 1.25, 1.5] and walk["x"] == [-0.5]
    assert points["text"] == ["path 0", "path 0", "path 1", "path 1"]
    assert figure["layout"]["yaxis"]["categoryarray"][-1] == "the span"
    assert "between 0.25 and 1.25" in paths_section(subject(paths=paths())).body
    assert paths_section(subject(paths=paths(count=1))) is None  # a rule has one path, and nothing to spread


def test_blocks_stand_beside_stretches_of_their_windows():
    inside, blocks = adversarial_figure(adversarial())["data"]
    assert blocks["x"] == ["2020-01-02", "2020-07-01"] and blocks["y"] == [0.9, 0.6]
    assert blocks["error_y"]["array"] == [0.05, 0.1] and inside["error_y"]["arrayminus"] == pytest.approx([0.1, 0.1])
    assert tells_apart(adversarial()) == [("vol", 0.75), ("ret", 0.25)]
    said = adversarial_section(subject(adversarial=adversarial()))
    assert "1 of 2 blocks" in said.body and "vol (75\u00a0%), ret (25\u00a0%)" in said.body
    rule = {"models.adapters": pl.DataFrame({"adapter": ["gbm"], "rows": [0]})}  # nothing was fitted, so nothing was known
    known = subject(adversarial=adversarial())
    assert adversarial_section(replace(known, tables=known.tables | rule)) is None


def test_without_rows_there_is_no_section_and_figures_are_json():
    nothing = subject(importance=importance().clear(), paths=paths().clear(), adversarial=adversarial().clear())
    assert [make(nothing) for make in (importance_section, paths_section, adversarial_section)] == [None] * 3
    assert [make(subject()) for make in (importance_section, paths_section, adversarial_section)] == [None] * 3
    for figure in (importance_figure(importance()), paths_figure(paths()), adversarial_figure(adversarial())):
        assert json.dumps(figure, allow_nan=False, sort_keys=True) == json.dumps(figure, allow_nan=False, sort_keys=True)
