"""One writer at a time: a lock that its holder's death releases, on one machine and on many."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
from filelock import FileLock, Timeout

from tapehouse.errors import TapehouseError
from tapehouse.extensions import load_statement

LOCK_SECONDS = 600
SERVER_LOCK = 7_201_301  # any number that nothing else in the catalog's database takes


class WriterLock:
    """The lock of the warehouse in `folder`. With a catalog on PostgreSQL its server holds a second one.

    Writers on one machine meet at the lock file. Writers on several share the catalog alone, and DuckLake lets two of them
    fill the same empty partition.
    """

    def __init__(self, folder: Path, catalog: str):
        self._file = FileLock(str(folder / ".writer.lock"), timeout=LOCK_SECONDS)
        self._server = None if catalog == "sqlite" else catalog.removeprefix("postgres:")
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._guard = threading.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for the length of the block.

        Raises:
            TapehouseError: another writer holds it for longer than `LOCK_SECONDS`.
        """
        try:
            self._file.acquire()
        except Timeout:
            raise TapehouseError(
                f"{self._file.lock_file}: another writer has held the lock for {LOCK_SECONDS} s; is a run stuck?"
            ) from None
        try:
            if self._server is None:
                yield
            else:
                with self._held_by_server():
                    yield
        finally:
            self._file.release()

    def close(self) -> None:
        """Close the connection to the server, where there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _held_by_server(self) -> Iterator[None]:
        with self._guard:
            self._connection = self._connection or self._connect()
            cursor = self._connection.cursor()
        cursor.begin()  # the lock lasts as long as this transaction, which dies with its process
        try:
            cursor.execute(f"call postgres_execute('server', 'set local lock_timeout = {int(LOCK_SECONDS * 1000)}')")
            try:
                cursor.execute(f"call postgres_execute('server', 'select pg_advisory_xact_lock({SERVER_LOCK})')")
            except duckdb.Error as error:
                raise TapehouseError(
                    f"the catalog's writer lock could not be had within {LOCK_SECONDS} s; is a run stuck? ({error})"
                ) from error
            yield
        finally:
            cursor.rollback()
            cursor.close()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect()
        connection.execute(f"{load_statement('postgres_scanner')}; attach '{self._server}' as server (type postgres)")
        return connection
