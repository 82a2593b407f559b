"""As-of join of 5 million decisions to 5 million records, in seconds: ours and polars'; ratio: the worst of three over its aim.

500 symbols, both sides in random order, one payload column of floats. Each peer does first what it needs: polars
`join_asof` and pandas `merge_asof` sort both sides by time, DuckDB's ASOF join sorts by itself, from its own tables. Ours
keeps the order of the decisions; the peers' orders are put right off the clock, and all four must say the same of every
decision. The aims are 1 times polars, 2 times pandas and 5 times DuckDB; `ratio` is the least of the three ratios over
their aims. All ratios and the peak of memory go to the error stream. One thread each; the least CPU time of three runs in
turn. With --quick 1 million by 1 million.
"""

import os

os.environ["POLARS_MAX_THREADS"] = "1"  # read once, when polars is imported

import math
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.harness import report  # noqa: E402
from tapehouse.pit import as_of_join  # noqa: E402

AIM = 1.0
AIMS = {"polars": 1.0, "pandas": 2.0, "duckdb": 5.0}
ROWS, QUICK_ROWS, SYMBOLS, RUNS = 5_000_000, 1_000_000, 500, 3
STAMP = pl.Datetime("us", "UTC")


def inputs(rows: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Decisions and records over ten years, in random order; the records' times differ within a symbol."""
    rng = np.random.default_rng(11)
    names = pl.Series([f"S{i:03d}" for i in range(SYMBOLS)])
    span = 10 * 365 * 86_400 * 1_000_000
    # No two records share a time: which of them counts would have to be said.
    known = rng.permutation(rows) * (span // rows)
    decisions = pl.DataFrame({"symbol": names[rng.integers(0, SYMBOLS, rows)], "decision_at": rng.integers(0, span, rows)})
    records = pl.DataFrame({"symbol": names[rng.integers(0, SYMBOLS, rows)], "known_at": known, "value": rng.random(rows)})
    return decisions.with_columns(pl.col("decision_at").cast(STAMP)), records.with_columns(pl.col("known_at").cast(STAMP))


def ours(decisions: pl.DataFrame, records: pl.DataFrame) -> pl.DataFrame:
    """`tapehouse.pit`."""
    return as_of_join(decisions, records, by=("symbol",))


def by_polars(decisions: pl.DataFrame, records: pl.DataFrame) -> pl.DataFrame:
    """`join_asof` after its sorts."""
    return decisions.sort("decision_at").join_asof(
        records.sort("known_at"), left_on="decision_at", right_on="known_at", by="symbol", check_sortedness=False
    )


def by_pandas(decisions, records):
    """`merge_asof` after its sorts; frames of pandas, symbols as categories of one dtype, which is its fastest form."""
    import pandas as pd

    return pd.merge_asof(
        decisions.sort_values("decision_at"),
        records.sort_values("known_at"),
        left_on="decision_at",
        right_on="known_at",
        by="symbol",
    )


def by_duckdb(connection):
    """DuckDB's ASOF LEFT JOIN of two of its own tables."""
    return connection.execute(
        "select d.symbol, d.decision_at, r.value from decisions d asof left join records r "
        "on d.symbol = r.symbol and d.decision_at >= r.known_at"
    ).to_arrow_table()


def least(steps: dict[str, Callable]) -> tuple[dict[str, float], dict[str, object]]:
    """Least CPU seconds of each step over the runs, in turn, and its last result."""
    seconds, results = dict.fromkeys(steps, math.inf), {}
    for _ in range(RUNS):
        for name, step in steps.items():
            results.pop(name, None)
            started = time.process_time()
            results[name] = step()
            seconds[name] = min(seconds[name], time.process_time() - started)
    return seconds, results


def compare(quick: bool) -> tuple[float, float, float]:
    """Seconds of ours and of polars, and the smallest of the three ratios, each over its aim."""
    import duckdb

    decisions, records = inputs(QUICK_ROWS if quick else ROWS)
    ours(decisions.head(1000), records.head(1000))  # machine code is made or loaded before the clock starts
    connection = duckdb.connect(config={"threads": 1})
    for name, frame in (("decisions", decisions), ("records", records)):
        connection.register("frame", frame.to_arrow())
        connection.execute(f"create table {name} as from frame")
        connection.unregister("frame")
    symbols = pl.Enum(records["symbol"].unique().sort())
    pandas_frames = [frame.with_columns(pl.col("symbol").cast(symbols)).to_pandas() for frame in (decisions, records)]
    seconds, results = least(
        {
            "ours": lambda: ours(decisions, records),
            "polars": lambda: by_polars(decisions, records),
            "pandas": lambda: by_pandas(*pandas_frames),
            "duckdb": lambda: by_duckdb(connection),
        }
    )
    mine = settled(results["ours"])
    for name in AIMS:
        result = results.pop(name)
        theirs = settled(result if name == "polars" else pl.from_pandas(result) if name == "pandas" else pl.from_arrow(result))
        assert mine.equals(theirs), f"{name} and ours differ"
    ratios = {name: seconds[name] / seconds["ours"] for name in AIMS}
    print(" ".join(f"{name}: {seconds[name]:.2f} s" for name in seconds), file=sys.stderr)
    print(" ".join(f"{name} / ours: {ratio:.2f}" for name, ratio in ratios.items()), file=sys.stderr)
    print(f"peak of memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB", file=sys.stderr)
    return seconds["ours"], seconds["polars"], min(ratios[name] / aim for name, aim in AIMS.items())


def settled(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows in one order, with one type a column."""
    return frame.select(
        pl.col("symbol").cast(pl.String).alias("symbol"), pl.col("decision_at").cast(pl.Int64), pl.col("value").fill_nan(None)
    ).sort("symbol", "decision_at", "value")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    report("pit_join", AIM, compare, __doc__)
