"""`tapehouse report` and `tapehouse compare` as a user meets them: in a process of its own, on a warehouse of a few rows."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tapehouse.cli_reports import compare, report
from tapehouse.errors import TapehouseError
from tapehouse.report.shell import figures_of
from tapehouse.subject_differences import difference_rows
from tapehouse.verdicts import curves
from tests.house import House, toy_project

PROGRAM = Path(sys.executable).parent / "tapehouse"
FOLD = "2024-01-01"


def accounts() -> dict[str, pl.DataFrame]:
    """What the commands read, of subjects `one` and `other`: 40 sessions and a trade of each."""
    rng = np.random.default_rng(0)
    start = date.fromisoformat(FOLD)
    days = pl.concat(
        pl.DataFrame(
            {"subject": name, "fold": FOLD, "session": [start + timedelta(days=i) for i in range(40)],
             "ret": [0.0, *rng.normal(0, 0.01, 39)], "gross_exposure": 0.5, "net_exposure": 0.5, "turnover": 0.1}
        )
        for name in ("one", "other")
    )  # fmt: skip
    trades = pl.DataFrame(
        {"subject": ["one", "other"], "fold": FOLD, "symbol": "X", "side": ["BUY", "SELL"],
         "entry_session": start + timedelta(days=1), "exit_session": start + timedelta(days=9), "pnl": [10.0, -10.0],
         "shares": 1.0, "entry_price": 100.0}
    )  # fmt: skip
    at = pl.datetime(2024, 1, 1, time_zone="UTC")
    spans = [at.alias(name) for name in ("train_start", "train_end", "test_start", "test_end")]
    answers = pl.DataFrame(
        {"adapter": ["one"], "fold": FOLD, "split": "test", "symbol": "X", "interval": "1d", "action": "BUY"}
    )
    return {
        "reports.backtest_equity": days,
        "reports.backtest_trades": trades,
        "reports.differences": difference_rows(curves(days, {"one": 1, "other": 1})),
        "reports.verdicts": pl.DataFrame({"subject": ["one", "other"], "verdict": ["INCONCLUSIVE", "LOSES"]}),
        "reports.pages": pl.DataFrame({"page": ["index", "one"], "path": ["reports/index.html", "reports/one.html"]}),
        "models.folds": pl.DataFrame({"fold": [FOLD]}).with_columns(*spans),
        "models.predictions": answers.with_columns(at.alias("decision_at")),
    }


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> House:
    house = House(toy_project(tmp_path_factory.mktemp("reports") / "home"))
    with house.warehouse.writing("test", "accounts of two") as cursor:
        for name, rows in accounts().items():
            cursor.execute(f"create schema if not exists {name.split('.')[0]}")
            cursor.register("made", rows.to_arrow())
            cursor.execute(f"create table {name} as select * from made")
            cursor.unregister("made")
    house.settings.reports_dir.mkdir(parents=True, exist_ok=True)
    (house.settings.reports_dir / "one.html").write_text("<p>one</p>")
    return house


def tapehouse(house: House, *arguments: str, browser: str = "true") -> subprocess.CompletedProcess:
    variables = {k: v for k, v in os.environ.items() if not k.startswith("TAPEHOUSE_")}
    variables |= {"TAPEHOUSE_WAREHOUSE": str(house.settings.root), "TAPEHOUSE_THREADS": "1", "BROWSER": browser}
    return subprocess.run(
        [str(PROGRAM), *arguments], cwd=house.home, env=variables, capture_output=True, text=True, timeout=120
    )


@contextmanager
def refused(house: House, monkeypatch: pytest.MonkeyPatch, *words: str) -> Iterator[None]:
    """In the project's folder, on its warehouse: a message with all of `words`, which the command line prints."""
    monkeypatch.chdir(house.home)
    monkeypatch.setenv("TAPEHOUSE_WAREHOUSE", str(house.settings.root))
    with pytest.raises(TapehouseError) as found:
        yield
    assert all(word in str(found.value) for word in words), found.value


def test_a_page_is_opened_and_its_path_printed(house, tmp_path):
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    done = tapehouse(house, "report", "one", browser=f"{browser} %s")
    page = house.settings.reports_dir / "one.html"
    assert (done.returncode, done.stderr, done.stdout.strip()) == (0, "", str(page))
    assert opened.read_text().strip() == page.resolve().as_uri()


def test_a_page_that_is_not_there_is_named_with_those_that_are(house, monkeypatch):
    with refused(house, monkeypatch, "onne: no page of this name; did you mean one?"):
        report("onne")
    with pytest.raises(TapehouseError, match=r"did you mean one\?$"):  # no command for what nothing declares
        report("onne")
    declared = house.home / "models_registry/adapters/late.yaml"
    declared.parent.mkdir(parents=True, exist_ok=True)
    declared.touch()
    with refused(house, monkeypatch, "late: its page was not made yet; `tapehouse run --select reports/pages/late` makes it"):
        report("late")
    declared.unlink()
    with refused(house, monkeypatch, "index.html is gone; `tapehouse run --select reports/pages` makes it again"):
        report("index")


def test_two_subjects_are_printed_and_get_a_page(house):
    done = tapehouse(house, "compare", "one", "other")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 test blocks of both" not in done.stdout and "1 test block of both" in done.stdout
    assert "one and other cannot be told apart. Sharpe ratio" in done.stdout and "over the 39 sessions" in done.stdout
    assert "Where either held something, both held the same at 0% of closes" in done.stdout  # 8, always on opposite sides
    assert "longest drawdown, sessions" in done.stdout
    assert "INCONCLUSIVE" in done.stdout and "LOSES" in done.stdout
    page = house.settings.reports_dir / "compare" / "one--other.html"
    assert str(page) in done.stdout
    assert set(figures_of(page.read_text())) == {"equity", "blocks"}


def test_a_subject_that_is_not_there_is_named_with_those_that_are(house, monkeypatch):
    with refused(house, monkeypatch, "zzz: no traded subject of this name; there are one, other"):
        compare("one", "zzz")


def test_a_warehouse_without_reports_is_told_what_to_do(tmp_path, monkeypatch):
    bare = House(toy_project(tmp_path / "home"))
    with refused(bare, monkeypatch, "reports.pages cannot be read", "`tapehouse run` makes"):
        report("index")
    with refused(bare, monkeypatch, "reports.backtest_equity cannot be read", "`tapehouse run` makes"):
        compare("a", "b")
