"""A writer process for the tests: commits two tables that must agree, and prints each number once its commit has returned.

Usage: warehouse_writer.py FOLDER CATALOG DATA NAME COMMITS ROWS; the number of its first commit comes on the standard input.
"""

import sys
from pathlib import Path

import polars as pl

from tapehouse.settings import load_settings
from tapehouse.warehouse import Change, Warehouse

HOME = Path(__file__).parents[2]


def open_lake(folder: Path, catalog: str, data: Path) -> Warehouse:
    """The warehouse of the tests, its two tables made where they are missing."""
    lake = Warehouse(load_settings(HOME, warehouse=folder, catalog=catalog, data_path=f"{data}/", threads=1))
    lake.initialise()
    for table in ("t.a", "t.b"):
        lake.ensure(table, {"writer": "varchar", "number": "bigint", "row": "bigint"})
    return lake


def changes(writer: str, number: int, rows: int) -> list[Change]:
    """One state of both tables: so many rows of the writer's own, and of a partition that all writers overwrite."""
    return [
        Change(
            table,
            pl.DataFrame({"number": [number] * rows, "row": range(rows)}).select(
                pl.lit(owner).alias("writer"), "number", "row"
            ),
            f"writer = '{owner}'",
        )
        for table in ("t.a", "t.b")
        for owner in (writer, "shared")
    ]


if __name__ == "__main__":
    folder, catalog, data, name = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4]
    commits, rows = map(int, sys.argv[5:])
    lake = open_lake(folder, catalog, data)
    print("ready", flush=True)
    first = int(sys.stdin.readline())
    for number in range(first, first + commits):
        lake.overwrite(changes(name, number, rows), who=name, message=str(number))
        print(number, flush=True)
