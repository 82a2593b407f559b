"""The warehouse: DuckLake on DuckDB. The only place that opens a connection.

Tables are Parquet files, a small SQL catalog holds snapshots. Readers are never blocked; writers take one lock, and
each change is one transaction that ends in one new snapshot of every table at once.
"""

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.extensions import load_statement
from tapehouse.settings import Settings
from tapehouse.writerlock import WriterLock

LAKE = "lake"
EXTENSIONS = ("ducklake", "sqlite_scanner", "postgres_scanner")

META_TABLES = {
    "meta.partitions": {
        "asset": "varchar",
        "partition": "varchar",
        "rows": "bigint",
        "out_hash": "varchar",
        "in_hash": "varchar",
        "code_version": "varchar",
        "snapshot": "bigint",
        "run_id": "varchar",
        "made_at": "timestamptz",
    },
    "meta.pins": {
        "snapshot": "bigint",
        "asset": "varchar",
        "partition": "varchar",
        "run_id": "varchar",
        "made_at": "timestamptz",
    },
}


@dataclass(frozen=True)
class Change:
    """Replace the rows of `table` that the SQL predicate `where` selects by `rows` (columns matched by name)."""

    table: str
    rows: pl.DataFrame
    where: str = "true"


class Warehouse:
    """One lake. Keep one object a process: opening costs about 0.4 s, a cursor nothing."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.root = settings.root
        self._lock = WriterLock(self.root, settings.catalog)
        self._opened: dict[object, duckdb.DuckDBPyConnection] = {}
        self._guard = threading.RLock()
        self._known: tuple[int, dict[str, dict[str, str]]] | None = None  # a version of the schema, and its tables
        self.kept_state: tuple[int, Any, bool] | None = None  # see `tapehouse.lineage.newest_state`

    # ------------------------------------------------------------------ reading

    def connect(
        self, snapshot: int | None = None, read_only: bool = True, begin: bool = False
    ) -> duckdb.DuckDBPyConnection:
        """A cursor on the lake, read-only unless asked otherwise, at the latest state or at a `snapshot`.

        With `begin` inside a transaction: what is read of the catalog for its first statement serves the next ones.

        Raises:
            TapehouseError: there is no warehouse yet, or no such snapshot.
        """
        key = "write" if not read_only else snapshot
        with self._guard:
            if key not in self._opened:
                if read_only:
                    self._require_catalog()
                self._opened[key] = self._open(read_only, snapshot)
            cursor = self._opened[key].cursor()
        if begin:
            cursor.begin()
        cursor.execute(f"use {LAKE}; set timezone = 'UTC'")
        return cursor

    @contextmanager
    def reading(self, snapshot: int | None = None) -> Iterator[tuple[duckdb.DuckDBPyConnection, int]]:
        """A cursor whose every query sees one snapshot, and that snapshot's id, for the length of the block."""
        cursor = self.connect(snapshot, begin=True)
        try:
            yield cursor, snapshot if snapshot is not None else self.snapshot(cursor)
        finally:
            cursor.rollback()
            cursor.close()

    def snapshot(self, cursor: duckdb.DuckDBPyConnection | None = None) -> int:
        """The id of the newest snapshot, as the cursor's transaction sees it."""
        cursor = cursor or self.connect()
        return cursor.execute(f"from ducklake_current_snapshot('{LAKE}')").fetchone()[0]

    def exists(self) -> bool:
        """Whether the catalog has been created (a PostgreSQL catalog is assumed to be there)."""
        return self.settings.catalog != "sqlite" or (self.root / "catalog.sqlite").exists()

    def tables(self, cursor: duckdb.DuckDBPyConnection | None = None) -> dict[str, dict[str, str]]:
        """`{schema.table: {column: DuckDB type in lower case}}` of the lake's newest state, or as the cursor sees it."""
        found: dict[str, dict[str, str]] = {}
        rows = (
            (cursor or self.connect(read_only=False))
            .execute(
                "select schema_name || '.' || table_name, column_name, lower(data_type) from duckdb_columns() "
                f"where database_name = '{LAKE}' and not internal order by 1, column_index"
            )
            .fetchall()
        )
        for table, column, kind in rows:
            found.setdefault(table, {})[column] = short_type(kind)
        return found

    # ------------------------------------------------------------------ writing

    @contextmanager
    def writing(self, who: str, message: str, extra: dict | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction under the writer lock: committed with its message at the block's end, rolled back if it raises.

        Raises:
            TapehouseError: another writer holds the lock for longer than ten minutes.
        """
        with self._lock.held():
            cursor = self.connect(read_only=False, begin=True)
            try:
                yield cursor
                cursor.execute(
                    f"call {LAKE}.set_commit_message(?, ?, extra_info => ?)", [who, message, json.dumps(extra or {})]
                )
                cursor.commit()
            except BaseException:
                cursor.rollback()
                raise
            finally:
                cursor.close()

    def committed(self) -> int | None:
        """The snapshot that this process made last; None before its first."""
        cursor = self.connect(read_only=False)
        try:
            return cursor.execute(f"from ducklake_last_committed_snapshot('{LAKE}')").fetchone()[0]
        finally:
            cursor.close()

    def knows(self, tables: Iterable[str]) -> bool:
        """Whether the tables were all there when this process looked last."""
        return self._known is not None and self._known[1].keys() >= set(tables)

    def known(self) -> dict[str, dict[str, str]]:
        """`tables` of the newest state, as `look` keeps them."""
        cursor = self.connect(read_only=False, begin=True)
        try:
            return self.look(cursor, self.snapshot(cursor))[0]
        finally:
            cursor.rollback()
            cursor.close()

    def look(self, cursor: duckdb.DuckDBPyConnection, snapshot: int) -> tuple[dict[str, dict[str, str]], set[str]]:
        """`tables` at the `snapshot` that the cursor sees, and those of them that have ever been given rows.

        One question, where to ask each table by itself costs several times as much; the columns are kept as long as no
        table's have changed. Do not change the result.
        """
        meta = f"__ducklake_metadata_{LAKE}"
        version, filled = cursor.execute(
            f"select (select schema_version from {meta}.ducklake_snapshot where snapshot_id = {snapshot}), "
            f"list(s.schema_name || '.' || t.table_name) from {meta}.ducklake_table_stats c "
            f"join {meta}.ducklake_table t using (table_id) join {meta}.ducklake_schema s using (schema_id) "
            "where t.end_snapshot is null and c.record_count > 0"
        ).fetchone()
        if self._known is None or self._known[0] != version:
            self._known = version, self.tables(cursor)
        return self._known[1], set(filled or ())

    def overwrite(
        self, changes: Sequence[Change], who: str = "tapehouse", message: str = "", extra: dict | None = None
    ) -> None:
        """Make all `changes` in ONE transaction: readers see all of them or none. Compute the rows before calling."""
        with self.writing(who, message or ", ".join(c.table for c in changes), extra) as cursor:
            for change in changes:
                apply_change(cursor, change)

    def append(self, table: str, rows: pl.DataFrame, who: str = "tapehouse", message: str = "") -> None:
        """Add rows to a table, in one transaction."""
        self.overwrite([Change(table, rows, where="false")], who, message)

    def ensure(
        self, table: str, columns: dict[str, str], partitioned_by: str | None = None, macro: str | None = None
    ) -> None:
        """Create `schema.table` with `columns` (name to DuckDB type) where it is missing, else `adapt` it; `macro` with it."""
        wanted = {c: short_type(t) for c, t in columns.items()}
        if self.exists() and self.tables().get(table) == wanted:
            return
        with self.writing("tapehouse", f"define {table}") as cursor:
            self.adapt(cursor, table, columns, partitioned_by)
            if macro:
                cursor.execute(macro)

    def adapt(
        self,
        cursor: duckdb.DuckDBPyConnection,
        table: str,
        columns: dict[str, str],
        partitioned_by: str | None = None,
    ) -> bool:
        """Create a table or give it the declared columns, inside the cursor's open transaction.

        A new column is added (null in older rows), a removed one dropped, a changed type replaced. The caller answers for the
        rows that it does not write again. Raw tables hold what cannot be made again, so from them nothing is dropped.

        Returns:
            Whether an existing table has changed.

        Raises:
            TapehouseError: a raw table's column was removed or changed its type.
        """
        schema = table.split(".")[0]
        wanted = {c: short_type(t) for c, t in columns.items()}
        have = self.tables(cursor).get(table)  # under the lock: another process may have been faster
        if have is None:
            cursor.execute(f"create schema if not exists {schema}")
            body = ", ".join(f'"{c}" {t}' for c, t in wanted.items())
            cursor.execute(f"create table if not exists {table} ({body})")
            if partitioned_by:
                cursor.execute(f"alter table {table} set partitioned by ({partitioned_by})")
            return False
        gone = [c for c, t in have.items() if wanted.get(c) != t]
        if gone and schema == "raw":
            raise TapehouseError(
                f"{table}: columns {gone} were removed or changed type, but raw rows cannot be made again; "
                "keep the column, or add one under a new name"
            )
        for column in [c for c in wanted if c not in have]:
            cursor.execute(f'alter table {table} add column "{column}" {wanted[column]}')
        for column in gone:
            cursor.execute(f'alter table {table} drop column "{column}"')
            if column in wanted:
                cursor.execute(f'alter table {table} add column "{column}" {wanted[column]}')
        return have != wanted

    def initialise(self) -> None:
        """Create the catalog and the bookkeeping tables where they are missing."""
        self.root.mkdir(parents=True, exist_ok=True)
        for table, columns in META_TABLES.items():
            self.ensure(table, columns)

    # ------------------------------------------------------------------ upkeep

    def pinned(self) -> set[int]:
        """Snapshots that a model or report was made from."""
        return {row[0] for row in self.connect().execute("select distinct snapshot from meta.pins").fetchall()}

    def compact(self) -> None:
        """Merge small files; every snapshot stays readable. Run it while nothing else writes."""
        with self._lock.held():
            self.connect(read_only=False).execute(f"call ducklake_merge_adjacent_files('{LAKE}')")

    def expire(self, keep_last: int = 100) -> list[int]:
        """Forget old snapshots and delete files that no snapshot needs.

        The last `keep_last` (at least the newest) and every pinned one are kept.

        Returns:
            The ids of the snapshots that were expired.
        """
        with self._lock.held():
            cursor = self.connect(read_only=False)
            ids = [r[0] for r in cursor.execute(f"select snapshot_id from ducklake_snapshots('{LAKE}') order by 1").fetchall()]
            pinned = self.pinned()
            old = [i for i in ids[: -max(1, keep_last)] if i not in pinned]
            if old:
                cursor.execute(f"call ducklake_expire_snapshots('{LAKE}', versions => {old})")
            cursor.execute(f"call ducklake_cleanup_old_files('{LAKE}', cleanup_all => true)")
            cursor.execute(f"call ducklake_delete_orphaned_files('{LAKE}', cleanup_all => true)")
        return old

    def close(self) -> None:
        """Close every connection of this process."""
        with self._guard:
            for connection in self._opened.values():
                connection.close()
            self._opened.clear()
            self._known = None
            self.kept_state = None
            self._lock.close()

    # ------------------------------------------------------------------ opening

    def attach_sql(self, read_only: bool = True, snapshot: int | None = None) -> str:
        """The statement that attaches the lake, for the DuckDB client too."""
        options = [f"DATA_PATH '{self._data_path()}'", "DATA_INLINING_ROW_LIMIT 0"]
        if read_only:
            options.append("READ_ONLY")
        if snapshot is not None:
            options.append(f"SNAPSHOT_VERSION {int(snapshot)}")
        if self.settings.catalog == "sqlite":
            source = f"sqlite:{self.root / 'catalog.sqlite'}"
            options += ["META_JOURNAL_MODE 'WAL'", "META_BUSY_TIMEOUT 10000"]
        else:
            source = self.settings.catalog
        return f"attach 'ducklake:{source}' as {LAKE} ({', '.join(options)})"

    def load_sql(self) -> str:
        """Statements that load the extensions: from their PyPI packages (offline), else by installing them."""
        wanted = [e for e in EXTENSIONS if e != "postgres_scanner" or self.settings.catalog != "sqlite"]
        if str(self._data_path()).startswith("s3://"):
            wanted.append("httpfs")
        return "".join(f"{load_statement(name)}; " for name in wanted)

    def _data_path(self) -> str:
        return self.settings.data_path or f"{self.root / 'data'}/"

    def _require_catalog(self) -> None:
        if not self.exists():
            raise TapehouseError(f"{self.root}: no warehouse here yet; `make run` makes one")

    def _open(self, read_only: bool, snapshot: int | None) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(config={"threads": self.settings.threads})
        try:
            connection.execute(self.load_sql())
            connection.execute(self.attach_sql(read_only, snapshot))
        except duckdb.Error as error:
            connection.close()
            if snapshot is not None and "snapshot" in str(error).lower():
                raise TapehouseError(
                    f"{self.root}: no snapshot {snapshot}; `tapehouse snapshots` lists those that exist"
                ) from error
            if "DATA_PATH" in str(error):
                raise TapehouseError(
                    f"{self.root}: its catalog names another folder for the data than {self._data_path()}; a warehouse cannot "
                    "be moved or copied: move it back (or set TAPEHOUSE_DATA_PATH to where the data are), or make a new one"
                ) from error
            raise
        return connection


def apply_change(cursor: duckdb.DuckDBPyConnection, change: Change, filled: bool | None = None) -> None:
    """Delete what `change.where` selects and insert `change.rows`, inside the cursor's open transaction.

    Args:
        filled: whether the table has rows; None where that is not known.
    """
    if change.where != "false" and (not is_empty(cursor, change.table) if filled is None else filled):
        cursor.execute(f"delete from {change.table} where {change.where}")
    if change.rows.height:
        names = ", ".join(f'"{c}"' for c in change.rows.columns)
        cursor.register("incoming_rows", change.rows.to_arrow())
        cursor.execute(f"insert into {change.table} ({names}) select {names} from incoming_rows")
        cursor.unregister("incoming_rows")


def is_empty(cursor: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Whether a table has no rows at all. To select or delete by a range costs several times as much where it has none:
    DuckLake then looks for the statistics of every column, one after the other."""
    return cursor.execute(f"select 1 from {table} limit 1").fetchone() is None


def short_type(name: str) -> str:
    """DuckDB's long type names as they are written in `checks/`: `timestamp with time zone` is `timestamptz`."""
    return name.lower().strip().replace("timestamp with time zone", "timestamptz").replace("int32", "integer")
