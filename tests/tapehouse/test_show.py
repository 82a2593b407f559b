import json
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tapehouse.errors import TapehouseError
from tapehouse.report.board import Group
from tapehouse.report.verdict import Record
from tapehouse.settings import Settings, load_settings
from tapehouse.show import SUMMARY, _leaderboard, client_command, run_query, write_rows
from tapehouse.warehouse import Warehouse

HOME = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Settings:
    """Settings of a warehouse with one table of sessions."""
    settings = load_settings(HOME, warehouse=tmp_path_factory.mktemp("show"), catalog="sqlite", threads=1)
    warehouse = Warehouse(settings)
    warehouse.initialise()
    warehouse.ensure("raw.days", {"day": "date", "event_at": "timestamptz"})
    days = [date(2005, 2, d) for d in (1, 2, 3)]
    stamps = [datetime(d.year, d.month, d.day, 21, tzinfo=UTC) for d in days]
    warehouse.append("raw.days", pl.DataFrame({"day": days, "event_at": stamps}))
    warehouse.close()
    return settings


def ask(settings: Settings, query: str | None = None, file=None, start=None, end=None, snapshot=None) -> list[tuple]:
    return run_query(settings, query, file, start, end, snapshot).rows()


def test_dates_bind_a_half_open_range_whose_last_day_is_inside(lake, tmp_path):
    file = tmp_path / "q.sql"
    file.write_text("select day from raw.days where event_at >= $start and event_at < $end order by day")
    assert ask(lake, file=file, start="2005-02-02", end="2005-02-03") == [(date(2005, 2, 2),), (date(2005, 2, 3),)]
    assert ask(lake, file=file, start="2005-02-02", end="2005-02-02") == [(date(2005, 2, 2),)]
    # Only what the query uses is bound; the rest of the span is the default.
    assert ask(lake, "select count(*) from raw.days where event_at >= $start") == [(3,)]
    assert ask(lake, "select $end::date") == [(lake.universe.span.end,)]


def test_one_query_or_one_file(lake, tmp_path):
    for query, file in ((None, None), ("select 1", tmp_path / "q.sql")):
        with pytest.raises(TapehouseError, match="give one query"):
            ask(lake, query, file)


def test_times_are_in_utc(lake):
    assert ask(lake, "select event_at from raw.days limit 1") == [(datetime(2005, 2, 1, 21, tzinfo=UTC),)]
    assert ask(lake, "select event_at::varchar from raw.days limit 1") == [("2005-02-01 21:00:00+00",)]


VALUES = pl.DataFrame(
    {
        "text": ['a,"b"\n[red]', None],
        "list": [[1, None], []],
        "bytes": [b"\x00\xff", None],
        "struct": [{"k": "v"}, {"k": None}],
        "number": [float("nan"), 0.1],
    }
)


def test_json_is_json(capsys):
    write_rows(VALUES, "json", Console())
    rows = json.loads(capsys.readouterr().out)
    assert rows[0] == {"text": 'a,"b"\n[red]', "list": [1, None], "bytes": "00ff", "struct": {"k": "v"}, "number": None}
    assert rows[1] == {"text": None, "list": [], "bytes": None, "struct": {"k": None}, "number": 0.1}


def test_csv_is_csv(capsys, tmp_path):
    write_rows(VALUES, "csv", Console())
    (tmp_path / "out.csv").write_text(capsys.readouterr().out)
    rows = pl.read_csv(tmp_path / "out.csv", infer_schema=False).rows()
    assert rows == [('a,"b"\n[red]', "[1, null]", "00ff", '{"k": "v"}', "NaN"), (None, "[]", None, '{"k": null}', "0.1")]


def test_a_table_shows_a_hundred_rows_and_says_how_many_there_are(capsys):
    write_rows(pl.DataFrame({"n": range(250)}), "table", Console())
    out = capsys.readouterr().out
    shown = [line for line in out.splitlines() if line.strip("│ ").isdigit()]
    assert len(shown) == 100 and "250 rows" in out


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-(2**63), 2**63 - 1), st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs"))))
    )
)
def test_json_returns_what_went_in(rows):
    frame = pl.DataFrame(rows, schema={"n": pl.Int64, "t": pl.String}, orient="row")
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as out:
        write_rows(frame, "json", Console())
    assert [(r["n"], r["t"]) for r in json.loads(out.getvalue())] == rows


def test_the_client_needs_a_warehouse(lake, tmp_path):
    program, option, opening = client_command(lake)
    assert Path(program).is_file() and option == "-cmd"
    assert "READ_ONLY" in opening and str(lake.root) in opening
    with pytest.raises(TapehouseError, match="no warehouse here yet"):
        client_command(load_settings(HOME, warehouse=tmp_path / "none", catalog="sqlite"))


def test_the_board_names_roles_as_the_pages_do():
    row = dict.fromkeys(SUMMARY) | {"verdict": "LOSES", "return": -0.123, "sharpe": -0.5, "max_drawdown": -0.2, "trades": 7}
    days = dict.fromkeys(("first_session", "last_session"), date(2020, 1, 2))
    roles = {"rule": (True, False), "toss": (True, True), "ours": (False, False)}
    found = tuple(
        Record(name, "strategy", np.zeros(1), (date(2020, 1, 2),), row | days | {"subject": name}, *role)
        for name, role in roles.items()
    )
    console = Console(width=100, record=True)
    console.print(_leaderboard(Group(found, ("2020-01-02",))))
    said = console.export_text()
    assert all(name in said for name in ("rule * ", "toss ° ", "ours + ", "1 test block, 2020-01-02"))
    assert "\N{MINUS SIGN}12.3%" in said and "-12.3%" not in said
