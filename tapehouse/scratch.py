"""The chain without a warehouse: rebuild tables in memory from given raw rows, through the same build functions."""

from collections.abc import Iterable
from datetime import datetime

import duckdb
import polars as pl
from dateutil.relativedelta import relativedelta

from tapehouse.building import make_build, run_build
from tapehouse.partitions import FOLDED, key_of, key_start
from tapehouse.project import ONCE, Asset, Project
from tapehouse.tables import Read
from tapehouse.warehouse import LAKE

Frames = dict[str, pl.DataFrame]


def needed_months(project: Project, targets: Iterable[str], first: str, last: str) -> dict[str, tuple[str, str]]:
    """For every table behind `targets`, the range of keys (months; days; folds) that their keys `first` to `last` read,
    directly or not. What raw tables leave in quarantine is read by nobody."""
    wanted = set(targets)
    ranges: dict[str, tuple[str, str]] = {}
    for asset in reversed(list(project.assets.values())):
        tables = [o.table for o in asset.outputs if not o.key or o.table in wanted]
        own = [ranges[t] for t in tables if t in ranges] + ([(first, last)] if wanted & set(tables) else [])
        if not own:
            continue
        span = min(r[0] for r in own), max(r[1] for r in own)
        for table in tables:
            ranges[table] = span
        for read in asset.reads:
            keys = _keys_read(project, read, asset, span)
            before = ranges.get(read.table, keys)
            ranges[read.table] = min(before[0], keys[0]), max(before[1], keys[1])
    return ranges


def _keys_read(project: Project, read: Read, asset: Asset, span: tuple[str, str]) -> tuple[str, str]:
    by = project.assets[project.writers_of(read)[0]].by
    if by in FOLDED:  # of what is fitted, a fold reads its own; anything else, all of it
        return span if asset.by in FOLDED else (min(project.folds), max(project.folds))
    keys = [k for k in project.folds if span[0] <= k <= span[1]] if asset.by in FOLDED else None
    windows = [project.window_of(read, asset, k, k) for k in keys] if keys else [project.window_of(read, asset, *span)]
    start, end = min(w[0] for w in windows), max(w[1] for w in windows)
    step = "days" if by == "days" else "months"
    return key_of(step, start), key_of(step, end - relativedelta(microseconds=1))


def rebuild(project: Project, raw: Frames, targets: Iterable[str], first: str, last: str) -> Frames:
    """Tables behind and including `targets`, over their needed months, computed from the `raw` frames alone.

    Args:
        raw: rows of every raw table that the targets need; a raw table that is absent is empty.
        targets: names of tables that are made by one and the same cadence.
        first, last: months, days or folds that the targets are wanted for.

    Returns:
        Table name to its rows over the keys that were needed.
    """
    ranges = needed_months(project, targets, first, last)
    con = duckdb.connect(config={"threads": 1})
    try:
        con.execute(f"attach ':memory:' as {LAKE}; use {LAKE}; set timezone = 'UTC'")
        frames: Frames = {}
        for asset in project.assets.values():
            names = [o.table for o in asset.outputs if o.table in ranges]
            if not names:
                continue
            for output in asset.outputs:  # also the quarantine, whose rows a build may ask for
                _create(con, project, output.table)
            if names[0].startswith("raw."):
                frames |= {name: raw[name] for name in names if name in raw}
            else:
                frames |= build_months(project, asset, con, *ranges[names[0]])
            for name in names:
                if name in frames:
                    _insert(con, name, frames[name])
        return frames
    finally:
        con.close()


def build_months(project: Project, asset: Asset, con: duckdb.DuckDBPyConnection, first: str, last: str) -> Frames:
    """What an asset's build function returns for the months (days, folds) `first` to `last`, reading from `con`."""
    keys = [k for k in project.partitions(asset) if first <= k <= last or k == ONCE]
    if not keys:  # a table by day that months without such days read
        return {}
    if asset.by not in FOLDED:
        return run_build(make_build(project, asset, keys, con))
    built = [run_build(make_build(project, asset, [key], con)) for key in keys]
    return {name: pl.concat(frames[name] for frames in built) for name in built[0]}


def read_raw(con: duckdb.DuckDBPyConnection, project: Project, targets: Iterable[str], first: str, last: str) -> Frames:
    """The raw rows that `rebuild` needs for the same arguments, from a warehouse cursor."""
    frames: Frames = {}
    stored = f"select table_schema || '.' || table_name from information_schema.tables where table_catalog = '{LAKE}'"
    made = {row[0] for row in con.execute(stored).fetchall()}
    for name, (begin, end) in needed_months(project, targets, first, last).items():
        if not name.startswith("raw.") or name not in made:  # what has not been made yet is empty
            continue
        table = project.tables[name]
        where = ""
        if table.time:
            start, stop = project.span(begin, end, project.assets[project.writers[name][0]].by)
            begin_sql, stop_sql = (f"timestamptz '{at.isoformat()}'" for at in (start, stop))
            where = f" where {table.time} >= {begin_sql} and {table.time} < {stop_sql}"
        frames[name] = con.execute(f"select * from {LAKE}.{name}{where} order by all").pl().select(list(table.types))
    return frames


def month_of(at: datetime) -> str:
    """The month partition that an instant lies in."""
    return key_of("months", at)


def shift_month(month: str, by: int) -> str:
    """The month `by` months later."""
    return month_of(key_start(month) + relativedelta(months=by))


def _create(con: duckdb.DuckDBPyConnection, project: Project, name: str) -> None:
    body = ", ".join(f'"{c}" {t}' for c, t in project.tables[name].types.items())
    con.execute(f"create schema if not exists {LAKE}.{name.split('.')[0]}")
    con.execute(f"create table if not exists {LAKE}.{name} ({body})")


def _insert(con: duckdb.DuckDBPyConnection, name: str, frame: pl.DataFrame) -> None:
    con.register("incoming_rows", frame.to_arrow())
    con.execute(f"insert into {LAKE}.{name} by name select * from incoming_rows")
    con.unregister("incoming_rows")
