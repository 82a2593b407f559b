"""Results for the terminal: queries, the DuckDB client, and the summary that ends a run."""

import json
import re
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import polars as pl
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table as RichTable

from tapehouse.errors import TapehouseError
from tapehouse.settings import Settings
from tapehouse.warehouse import LAKE, Warehouse

if TYPE_CHECKING:
    from tapehouse.report.board import Group

TABLE_ROWS = 100
PIPE_WIDTH = 200
# Column of reports.verdicts: heading and format, short enough for 80 characters.
SUMMARY = {
    "subject": ("subject", ""),
    "verdict": ("verdict", ""),
    "return": ("return", ".1%"),
    "sharpe": ("sharpe", ".2f"),
    "difference": ("less best", "+.2f"),
    "deflated_sharpe": ("deflated", ".2f"),
    "max_drawdown": ("max dd", ".1%"),
    "trades": ("trades", "d"),
}
MARKS = {"baseline": " *", "control": " °", "strategy": " +"}
ACCOUNTS = ("reports.verdicts", "reports.backtest_equity", "reports.backtest_trades")
NEXT = """[bold]Next[/]
  tapehouse report [NAME]                          the page of the run, or of a recipe or strategy, in the browser
  tapehouse compare A B                            two of them beside each other
  make dev                                         the graph, its checks and backfills, in the browser
  tapehouse sql "select * from reports.leaderboard"    any table, also --at SNAPSHOT
  make sql                                         the DuckDB client on the warehouse
  make mlflow                                      every training run"""


def run_query(
    settings: Settings, query: str | None, file: Path | None, start: str | None, end: str | None, snapshot: int | None
) -> pl.DataFrame:
    """Rows of a query, or of a SQL asset's file with its range bound (dates, `end` inclusive).

    Raises:
        TapehouseError: neither or both of query and file, a bad date, or DuckDB's own words about the query.
    """
    if (query is None) == (file is None):
        raise TapehouseError('give one query, such as tapehouse sql "select * from reports.leaderboard", or --file F')
    if file is not None:
        try:
            query = file.read_text()
        except OSError as error:
            raise TapehouseError(f"{file}: {error.strerror}") from None
    assert query is not None
    bound = {}
    if re.search(r"\$(start|end)\b", query):
        span = settings.universe.span
        first = _date(start, "--from") or span.start
        last = _date(end, "--to") or span.end - timedelta(days=1)
        values = {"start": _midnight(first), "end": _midnight(last) + timedelta(days=1)}
        bound = {k: v for k, v in values.items() if re.search(rf"\${k}\b", query)}
    try:
        cursor = Warehouse(settings).connect(snapshot)
        result = cursor.execute(query, bound) if bound else cursor.execute(query)
        return result.pl()
    except duckdb.Error as error:
        raise TapehouseError(str(error)) from None
    except pl.exceptions.PolarsError as error:  # an interval, for one
        raise TapehouseError(f"the result has a column that cannot be shown; cast it to varchar ({error})") from None


def write_rows(rows: pl.DataFrame, form: str, out: Console) -> None:
    """Print rows as a table (DuckDB's own, at most 100 rows, and it says so), CSV or JSON (all of them)."""
    if form == "json":
        sys.stdout.write(_as_text(rows).write_json() + "\n")
    elif form == "csv":
        flat = _as_text(rows)
        nested = [pl.Series(c, [_json(v) for v in flat[c]], pl.String) for c, t in flat.schema.items() if t.is_nested()]
        sys.stdout.write(flat.with_columns(nested).write_csv())
    else:
        width = out.width if out.is_terminal else PIPE_WIDTH
        con = duckdb.connect()
        con.execute("set timezone = 'UTC'")
        con.from_arrow(rows.to_arrow()).show(max_rows=TABLE_ROWS, max_width=width)


def client_command(settings: Settings) -> list[str]:
    """The DuckDB client with the warehouse attached read-only."""
    lake = Warehouse(settings)
    if not lake.exists():
        raise TapehouseError(f"{settings.root}: no warehouse here yet; `make run` makes one")
    client = Path(sys.executable).parent / "duckdb"
    opening = f"{lake.load_sql()}{lake.attach_sql(read_only=True)}; use {LAKE}; set timezone = 'UTC';"
    return [str(client), "-cmd", opening]


def print_summary(settings: Settings, out: Console) -> None:
    """The leaderboard as on the page of the run, where that lies, and what to type next."""
    from tapehouse.judging_rules import load_rules
    from tapehouse.report.board import groups
    from tapehouse.report.verdict import records

    with Warehouse(settings).reading() as (cursor, snapshot):
        known = {r[0] for r in cursor.execute("select schema_name || '.' || table_name from duckdb_tables()").fetchall()}
        if known.issuperset(ACCOUNTS):
            rules = load_rules(settings.home)
            verdicts, equity, trades = (cursor.execute(f"select * from {table}").pl() for table in ACCOUNTS)
            for group in groups(records(verdicts, equity, rules.baselines, rules.controls), equity, trades):
                out.print(_leaderboard(group))
    report = settings.reports_dir / "index.html"
    if report.exists():
        out.print(f"[bold]Report[/]    {report}", soft_wrap=True)
    out.print(f"[bold]Snapshot[/]  {snapshot}")
    out.print(NEXT, highlight=False, soft_wrap=True)


def _leaderboard(group: "Group") -> RichTable:
    table = RichTable(title=group.title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for name, (heading, _) in SUMMARY.items():
        table.add_column(heading, justify="left" if name in ("subject", "verdict") else "right", no_wrap=True)
    for record in group.found:
        row = record.row
        values = [row["subject"] + MARKS.get(record.role, "")]
        for name, (_, form) in list(SUMMARY.items())[1:]:
            values.append("–" if row[name] is None else format(row[name], form).replace("-", "\N{MINUS SIGN}"))
        table.add_row(*values)
    table.caption = "* baseline, ° control, + strategy; less best: Sharpe ratio less the strongest baseline's"
    table.caption_justify = "left"
    return table


def _as_text(rows: pl.DataFrame) -> pl.DataFrame:
    """Bytes, which neither form of text can hold, as hexadecimal digits."""
    return rows.with_columns(pl.col(c).bin.encode("hex") for c, t in rows.schema.items() if t == pl.Binary)


def _json(value: object) -> str | None:
    if value is None:
        return None
    return json.dumps(value.to_list() if isinstance(value, pl.Series) else value, default=str)


def _date(text: str | None, option: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise TapehouseError(f"{option} {text}: not a date; write it as 2008-01-31") from None


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
