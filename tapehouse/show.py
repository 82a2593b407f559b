"""Results for the terminal: queries, the DuckDB client, and the summary that ends a run."""

import re
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
from rich.console import Console
from rich.table import Table as RichTable

from tapehouse.errors import TapehouseError
from tapehouse.settings import Settings
from tapehouse.warehouse import LAKE, Warehouse

TABLE_ROWS = 100
NEXT = """[bold]Next[/]
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


def write_rows(rows: pl.DataFrame, form: str, out: Console) -> None:
    """Print rows as a table (at most 100, and it says so), CSV or JSON (all of them)."""
    if form == "json":
        sys.stdout.write(_printable(rows).write_json() + "\n")
    elif form == "csv":
        sys.stdout.write(_printable(rows).write_csv())
    else:
        out.print(table_of(rows))
        more = f"; {TABLE_ROWS} shown, --format csv prints all" if rows.height > TABLE_ROWS else ""
        out.print(f"[dim]{rows.height} rows{more}[/]")


def table_of(rows: pl.DataFrame) -> RichTable:
    """A rich table of the first rows, numbers to the right."""
    table = RichTable()
    for name, kind in rows.schema.items():
        table.add_column(name, justify="right" if kind.is_numeric() else "left", overflow="fold")
    for row in rows.head(TABLE_ROWS).iter_rows():
        table.add_row(*(_cell(value) for value in row))
    return table


def client_command(settings: Settings) -> list[str]:
    """The DuckDB client with the warehouse attached read-only."""
    lake = Warehouse(settings)
    if not lake.exists():
        raise TapehouseError(f"{settings.root}: no warehouse here yet; `make run` makes one")
    client = Path(sys.executable).parent / "duckdb"
    opening = f"{lake.load_sql()}{lake.attach_sql(read_only=True)}; use {LAKE}; set timezone = 'UTC';"
    return [str(client), "-cmd", opening]


def print_summary(settings: Settings, out: Console) -> None:
    """The leaderboard, where the report lies, and what to type next."""
    with Warehouse(settings).reading() as (cursor, snapshot):
        known = {r[0] for r in cursor.execute("select schema_name || '.' || table_name from duckdb_tables()").fetchall()}
        if "reports.leaderboard" in known:
            rows = cursor.execute("select * from reports.leaderboard order by fold, sharpe desc nulls last, subject").pl()
            out.print(table_of(rows))
    report = settings.reports_dir / "index.html"
    if report.exists():
        out.print(f"[bold]Report[/]    {report}")
    out.print(f"[bold]Snapshot[/]  {snapshot}")
    out.print(NEXT, highlight=False)


def _cell(value: object) -> str:
    if value is None:
        return "[dim]null[/]"
    if isinstance(value, float):
        return f"{value:,.4f}" if abs(value) < 1e6 else f"{value:,.0f}"
    text = value.isoformat(sep=" ") if isinstance(value, datetime) else str(value)
    return text.replace("[", "\\[") if len(text) <= 300 else text[:297].replace("[", "\\[") + "…"


def _printable(rows: pl.DataFrame) -> pl.DataFrame:
    nested = [c for c, t in rows.schema.items() if t.is_nested()]
    return rows.with_columns(pl.Series(c, [None if v is None else str(list(v)) for v in rows[c]], dtype=pl.String) for c in nested)


def _date(text: str | None, option: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise TapehouseError(f"{option} {text}: not a date; write it as 2008-01-31") from None


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
