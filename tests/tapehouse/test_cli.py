"""The command line as a user meets it: in a process of its own, in a toy project, on a warehouse built by the engine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tapehouse.warehouse import Change, apply_change
from tests.house import House, toy_project

PROGRAM = Path(sys.executable).parent / "tapehouse"
MADE = ("raw.ticks", "staging.ticks")


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> House:
    """Ticks of half a year; in a second snapshot the first of them costs 99."""
    house = House(toy_project(tmp_path_factory.mktemp("cli") / "home"))
    for name in MADE:
        house.make(name)
    return house


@pytest.fixture(scope="module")
def before(house) -> int:
    """A snapshot from before the correction."""
    snapshot = house.warehouse.snapshot()
    house.edit(
        "ticks.csv",
        "AAA,2005-01-05T21:00:00Z,2005-01-05T21:00:00Z,10.0\n",
        "AAA,2005-01-05T21:00:00Z,2005-01-05T21:00:00Z,99.0\n",
    )
    for name in MADE:
        house.make(name, ["2005-01-01"])
    return snapshot


def tapehouse(house: House, *arguments: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess:
    variables = {k: v for k, v in os.environ.items() if not k.startswith("TAPEHOUSE_")}
    variables |= {"TAPEHOUSE_WAREHOUSE": str(house.settings.root), "COLUMNS": "120", "TAPEHOUSE_THREADS": "1"} | environment
    return subprocess.run(
        [str(PROGRAM), *arguments], cwd=house.home, env=variables, input=stdin, capture_output=True, text=True, timeout=120
    )


def good(done: subprocess.CompletedProcess) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def cells(text: str) -> list[list[str]]:
    """What a drawn table shows, line by line."""
    lines = (line.strip("│┃ ").replace("┃", "│") for line in text.splitlines() if line.startswith(("│", "┃")))
    return [[cell.strip() for cell in line.split("│")] for line in lines]


def test_sql_prints_a_table(house):
    query = "select symbol, count(*) as ticks, null as nothing from staging.ticks group by symbol order by symbol"
    names, _, *rows = cells(good(tapehouse(house, "sql", query)))
    assert names == ["symbol", "ticks", "nothing"]
    assert rows == [["AAA", "18", "NULL"], ["BBB", "18", "NULL"]]


def test_sql_prints_csv_and_json(house):
    query = (
        "select symbol, event_at, price, [1, 2] as l, {'k': 'a,b'} as s from staging.ticks order by event_at desc, 1 limit 2"
    )
    lines = good(tapehouse(house, "sql", query, "--format", "csv")).splitlines()
    assert lines[0] == "symbol,event_at,price,l,s"
    assert lines[1] == 'AAA,2005-06-25T21:00:00.000000+0000,15.5,"[1, 2]","{""k"": ""a,b""}"'
    rows = json.loads(good(tapehouse(house, "sql", query, "--format", "json")))
    assert [row["price"] for row in rows] == [15.5, 25.5]
    assert rows[0]["l"] == [1, 2] and rows[0]["s"] == {"k": "a,b"}


def test_sql_at_a_snapshot_reads_the_old_rows(house, before):
    query = "select max(price) as highest from staging.ticks"
    assert good(tapehouse(house, "sql", query, "--format", "csv")) == "highest\n99.0\n"
    assert good(tapehouse(house, "sql", query, "--format", "csv", "--at", str(before))) == "highest\n25.5\n"


def test_sql_runs_an_assets_file_over_a_range(house):
    file = ["sql", "--file", "sql/staging/ticks.sql", "--format", "csv"]
    march = good(tapehouse(house, *file, "--from", "2005-03-01", "--to", "2005-03-15")).splitlines()
    assert len(march) == 1 + 2 * 2  # the last day is inside
    assert len(good(tapehouse(house, *file)).splitlines()) == 1 + 36


def test_sql_works_while_a_run_is_writing(house):
    extra = pl.DataFrame({"symbol": ["ZZZ"], "price": [1.0]})
    with pytest.raises(KeyboardInterrupt), house.warehouse.writing("test", "a long transaction") as cursor:
        apply_change(cursor, Change("staging.ticks", extra, "symbol = 'AAA'"))
        seen = good(tapehouse(house, "sql", "select count(*) as n from staging.ticks", "--format", "csv"))
        shell = good(tapehouse(house, "shell", stdin=".mode csv\nselect count(*) as n from staging.ticks;\n"))
        raise KeyboardInterrupt
    assert seen.splitlines() == shell.splitlines() == ["n", "36"]


def test_the_shell_reads_and_refuses_to_write(house):
    done = tapehouse(house, "shell", stdin=".mode csv\nselect symbol, count(*) from staging.ticks group by 1 order by 1;\n")
    assert good(done).splitlines()[1:] == ["AAA,18", "BBB,18"]
    for statement in ("delete from staging.ticks;", "drop table raw.ticks;", "create table raw.mine (a int);"):
        done = tapehouse(house, "shell", stdin=statement + "\n")
        assert "read-only" in done.stderr + done.stdout
    assert house.rows("select count(*) from staging.ticks") == [(36,)]


def test_assets_lists_what_there_is(house):
    text = " ".join(good(tapehouse(house, "assets", COLUMNS="200")).split())
    for name, doc in (("staging/ticks", "a price above nothing"), ("reports/totals", "how many decisions there were")):
        assert name in text and doc in text


def test_snapshots_lists_the_newest_first(house, before):
    text = good(tapehouse(house, "snapshots", "--limit", "2"))
    newest = house.warehouse.snapshot()
    assert [row[0] for row in cells(text) if row[0].isdigit()] == [str(newest), str(newest - 1)]


def test_stale_says_what_and_why(house, before):
    text = good(tapehouse(house, "stale", "--select", "raw/*,staging/*"))
    assert text == "Nothing is stale.\n"
    text = good(tapehouse(house, "stale"))
    assert "features/change" in text and "missing" in text and "2005-01-01 … 2005-06-01" in text
    file = house.home / "ticks.csv"
    kept = file.read_text()
    house.edit(
        "ticks.csv",
        "AAA,2005-03-05T21:00:00Z,2005-03-05T21:00:00Z,12.0\n",
        "AAA,2005-03-05T21:00:00Z,2005-03-05T21:00:00Z,12.5\n",
    )
    text = good(tapehouse(house, "stale", "--select", "raw/*,staging/*"))
    file.write_text(kept)
    assert cells(text) == [["asset", "why", "partitions"], ["raw/ticks", "inputs", "2005-03-01"]]


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["sql", "select price from staging.tics"], {}, "Table with name tics does not exist"),
        (["sql", "select '[/red]' frm [bold]"], {}, "[/red]' frm [bold]"),
        (["sql", "delete from staging.ticks"], {}, "read-only"),
        (["sql"], {}, "give one query, such as tapehouse sql"),
        (["sql", "select 1", "--at", "99999"], {}, "no snapshot 99999; `tapehouse snapshots` lists those that exist"),
        (["sql", "--file", "missing.sql"], {}, "missing.sql: No such file or directory"),
        (["sql", "--file", "sql/staging/ticks.sql", "--from", "March"], {}, "--from March: not a date; write it as 2008-01-31"),
        (["sql", "select interval 3 day as i"], {}, "cast it to varchar"),
        (["stale", "--select", "features/prise"], {}, "--select features/prise: no such asset; `tapehouse assets` lists them"),
        (["stale"], {"TAPEHOUSE_THREADS": "many"}, "TAPEHOUSE_THREADS: "),
        (["shell"], {"TAPEHOUSE_WAREHOUSE": "elsewhere"}, "elsewhere: no warehouse here yet; `make run` makes one"),
        (["sql", "select 1"], {"TAPEHOUSE_WAREHOUSE": "elsewhere"}, "elsewhere: no warehouse here yet; `make run` makes one"),
        (["stale"], {"TAPEHOUSE_WAREHOUSE": "elsewhere"}, "elsewhere: no warehouse here yet; `make run` makes one"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(house, arguments, environment, said):
    done = tapehouse(house, *arguments, **environment)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_does_not_parse_names_file_and_line(house):
    file = house.write(
        "sql/features/broken.sql", "-- One row per (symbol): broken.\nselect symbol\nfrom staging.ticks where (\n"
    )
    done = tapehouse(house, "assets")
    file.unlink()
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {file}:3: does not parse")
