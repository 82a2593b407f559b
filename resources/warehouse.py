"""The warehouse as a Dagster resource: dagster-duckdb's, with connections that see the lake."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import duckdb
from dagster_duckdb import DuckDBResource

from tapehouse.settings import load_settings
from tapehouse.warehouse import Warehouse


@lru_cache(maxsize=8)
def open_warehouse(home: Path, folder: Path) -> Warehouse:
    """The process's one `Warehouse` for a project folder and a warehouse folder."""
    return Warehouse(load_settings(home, warehouse=folder))


class WarehouseResource(DuckDBResource):
    """`get_connection` gives a read-only cursor on the lake; `lake` is the `Warehouse` that writes.

    `database` is the warehouse folder, `home` the project folder.
    """

    home: str

    @property
    def lake(self) -> Warehouse:
        """The warehouse object of this process."""
        return open_warehouse(Path(self.home), Path(self.database))

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-only cursor at the newest snapshot, closed at the end of the block."""
        cursor = self.lake.connect()
        try:
            yield cursor
        finally:
            cursor.close()

    @classmethod
    def _is_dagster_maintained(cls) -> bool:
        return False
