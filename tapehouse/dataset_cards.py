"""Cards of datasets: what a table of `datasets` holds, told in one page of Markdown beside the warehouse.

Rows and span, balances, templates and tokenizers, the sources behind it with their licences, the snapshot, and every column
with its meaning. All of it follows from the declarations and from the rows: nothing is written by hand, so nothing is
out of date. A card is written with each materialisation of its table, and goes with each export.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import duckdb

from tapehouse.files import replace_file
from tapehouse.project import Project, Table
from tapehouse.sources.base import OFFERS
from tapehouse.warehouse import LAKE, Warehouse

SCHEMA: Final = "datasets."
DECIDED: Final = "decision_at"
NAMED_IN: Final = ("template", "tokenizer")  # columns that say what rows were made with
BALANCES: Final = ("regime", "objective", "side", "symbol")  # told first, where a table has them
# By when a row's outcome was known, which training rows are purged by: a table by fold is itself known after training alone.
OUTCOME_KNOWN: Final = ("label_known_at", "reward_known_at")
LEVELS: Final = 12  # of a balance; the rest is one line
NOT_DECLARED: Final = "not declared"


def is_carded(table: str) -> bool:
    """Whether a table has a card."""
    return table.startswith(SCHEMA)


def outcome_known(table: Table) -> str | None:
    """The column that training rows are purged by: when a row's outcome was known."""
    return next((column for column in OUTCOME_KNOWN if column in table.types), table.doc.cutoff)


def card_path(project: Project, table: str) -> Path:
    """Where a table's card lies: in the folder of the reports."""
    return project.settings.reports_dir / "cards" / f"{table}.md"


def write_card(project: Project, warehouse: Warehouse, table: str) -> str:
    """Write a table's card as it is now, and return it."""
    with warehouse.reading() as (cursor, snapshot):
        text = card(project, table, cursor, snapshot)
    replace_file(card_path(project, table), text.encode())
    return text


def card(
    project: Project,
    name: str,
    cursor: duckdb.DuckDBPyConnection,
    snapshot: int,
    rows_of: str | None = None,
    extra: Sequence[tuple[str, Any]] = (),
) -> str:
    """The card of a table's rows, as Markdown.

    Args:
        cursor: sees the snapshot.
        rows_of: what to read the card's rows from, where they are not all of the table's, as in an export.
        extra: names and values that stand at the head, such as an export's fold.
    """
    rows_of = rows_of or f"{LAKE}.{name}"
    stored = {row[0] for row in cursor.execute(f"describe {rows_of}").fetchall()}
    # A column that is declared since, of a table whose new rows were refused, is not there yet.
    table = replace(project.tables[name], types={c: t for c, t in project.tables[name].types.items() if c in stored})
    rows = cursor.execute(f"select count(*) from {rows_of}").fetchone()[0]
    doc = " ".join(line.strip() for line in project.assets[project.writers[name][0]].doc.splitlines() if line.strip())
    head = [
        ("rows", f"{rows:,}"),
        *extra,
        *_spans(table, cursor, rows_of),
        ("snapshot", str(snapshot)),
        *_made(project, name, cursor),
        ("grain", ", ".join(table.doc.grain)),
        *([("purged by", outcome_known(table))] if outcome_known(table) else []),
    ]
    parts = [f"# {name}", doc, _table(("", ""), head)]
    parts += _balances(table, rows, cursor, rows_of)
    parts += ["## Sources", _table(("table", "source", "licence"), licences(project, name))]
    told = [
        (column, kind, table.doc.columns[column].doc if column in table.doc.columns else "")
        for column, kind in table.types.items()
    ]
    parts += ["## Columns", _table(("column", "type", "meaning"), told)]
    return "\n\n".join(parts) + "\n"


def licences(project: Project, name: str) -> list[tuple[str, str, str]]:
    """(raw table, source, licence) of every source that is declared for a table behind `name`."""
    universe = project.settings.universe
    behind = project.ancestors(project.writers[name][0])
    found = []
    for offer, raw in OFFERS.items():
        if raw not in behind:
            continue
        names = dict.fromkeys(source for line in universe.lines(offer) for source in line.source)
        found += [(raw, source, universe.sources[source].licence or NOT_DECLARED) for source in names]
    if "raw.corporate_actions" in behind and not universe.lines("actions"):
        names = dict.fromkeys(source for line in universe.lines("bars") for source in line.source)
        found += [("raw.corporate_actions", source, universe.sources[source].licence or NOT_DECLARED) for source in names]
    return found


def balance_columns(table: Table) -> list[str]:
    """Columns whose few values a balance tells: text in the grain, what a contract holds to a set, and true or false."""
    held = {
        arguments.get("column") for entry in table.doc.contract for kind, arguments in entry.items() if kind.endswith("_in_set")
    }
    few = [
        column
        for column, kind in table.types.items()
        if kind == "boolean" or (kind == "varchar" and (column in held or column in table.doc.grain or column in BALANCES))
    ]
    return [*(c for c in BALANCES if c in few), *(c for c in few if c not in BALANCES)]


def _spans(table: Table, cursor: duckdb.DuckDBPyConnection, rows_of: str) -> list[tuple[str, str]]:
    spans = []
    for what, column in (("decided", table.time or DECIDED), ("outcomes known", outcome_known(table))):
        if column is not None and column in table.types:
            query = f'select min("{column}"), max("{column}") from {rows_of}'
            first, last = cursor.execute(query).fetchone()
            if first is not None:
                spans.append((what, f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"))
    return spans


def _made(project: Project, name: str, cursor: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    """How many partitions there are, by which code, and when the last was made."""
    outputs = [o.asset for writer in project.writers[name] for o in project.assets[writer].outputs if o.table == name]
    count, versions, last = cursor.execute(
        "select count(*), string_agg(distinct code_version, ', ' order by code_version), max(made_at) "
        f"from {LAKE}.meta.partitions where asset in ({', '.join('?' for _ in outputs)})",
        outputs,
    ).fetchone()
    if not count:
        return []
    return [("partitions", str(count)), ("code versions", versions), ("last made", f"{last:%Y-%m-%d %H:%M} UTC")]


def _balances(table: Table, rows: int, cursor: duckdb.DuckDBPyConnection, rows_of: str) -> list[str]:
    columns = [*balance_columns(table), *(c for c in NAMED_IN if c in table.types)]
    if not columns or not rows:
        return []
    names = ", ".join(f'"{c}"' for c in columns)
    sets = ", ".join(f'("{c}")' for c in columns)
    grouping = f"grouping({names})" if len(columns) > 1 else "0"
    # One pass over the columns, whatever their number.
    counted = cursor.execute(f"select {grouping}, {names}, count(*) from {rows_of} group by grouping sets ({sets})").fetchall()
    parts: list[str] = []
    for place, column in enumerate(columns):
        # A bit of the grouping is 0 where its column is grouped by; the first column's is the highest.
        mine = sum(1 << (len(columns) - 1 - other) for other in range(len(columns)) if other != place)
        levels = sorted(((row[place + 1], row[-1]) for row in counted if row[0] == mine), key=lambda x: (-x[1], str(x[0])))
        if len(levels) == 1 and column not in NAMED_IN:
            continue  # one value has no balance
        shown = [(str(level), f"{count:,}", f"{count / rows:.1%}") for level, count in levels[:LEVELS]]
        if len(levels) > LEVELS:
            rest = sum(count for _, count in levels[LEVELS:])
            shown.append((f"{len(levels) - LEVELS} more", f"{rest:,}", f"{rest / rows:.1%}"))
        parts.append(_table((column, "rows", "share"), shown))
    return ["## Balances", *parts] if parts else []


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    lines += [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
