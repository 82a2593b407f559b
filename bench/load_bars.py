"""CPU seconds to load 53,240 real daily bars from a gzip CSV into the warehouse (ours), and to turn it into Parquet with
`polars.read_csv` and `write_parquet` (peer); ratio = peer / ours.

Ours reads the text line by line, judges each record, hashes what every month would read, merges it with what is stored, holds
the new rows to the table's contract and quality checks by Great Expectations, hashes each month, and commits them with their
books and the quarantine to a DuckLake warehouse. The least of several runs counts on both sides, each of ours into a new
warehouse; imports and the opening of the warehouse are not counted. One thread. The time is that of the processor, which other
work on the machine disturbs less than the clock; what is waited for the disk (some 6 ms of ours) is not in it.

The bars are those of ../shared/data/prices (44 US tickers, 2012 to 2017); without that folder, as many under 44 names from the
packaged sample. What was stored is compared with what polars read.
"""

import os

os.environ["POLARS_MAX_THREADS"] = "1"  # read once, when polars is imported

import logging
import shutil
import sys
import tempfile
import time
import warnings
from datetime import date
from pathlib import Path

import polars as pl
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.harness import report  # noqa: E402
from tapehouse.declarations import load_project  # noqa: E402
from tapehouse.engine import create_tables, materialise  # noqa: E402
from tapehouse.settings import load_settings  # noqa: E402
from tapehouse.sources import files, located  # noqa: E402
from tapehouse.warehouse import LAKE, Warehouse  # noqa: E402

AIM = 0.2  # at most five times the seconds
RUNS, QUICK_RUNS = 12, 5
ROWS = 53_240
SHARED = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared" / "data")) / "prices" / "us_equities_2012_2017.csv.gz"
PACKAGED = "package:bokeh_sampledata/_data/stocks.csv.gz"
COLUMNS = {
    "symbol": "Ticker",
    "session": "Date",
    "open": "Open",
    "high": "High",
    "low": "Low",
    "close": "Close",
    "volume": "Volume",
    "vendor_adj_close": "Adj Close",
}
TABLES = ("raw.bars", "raw.quarantine")


def sample(folder: Path) -> Path:
    """As many bars as the shared file has, from the packaged one: the same bars under further names."""
    own = pl.read_csv(located.locate(PACKAGED, ROOT)).select(list(COLUMNS.values())).filter(pl.col("Date") >= "2008-03-01")
    copies = [own.with_columns(pl.col("Ticker") + (f".{number}" if number else "")) for number in range(11)]
    path = folder / "bars.csv.gz"
    pl.concat(copies).head(ROWS).write_csv(path, compression="gzip")
    return path


class Load:
    """A project of the one table `raw.bars`, and a new warehouse for each time that it is loaded."""

    def __init__(self, folder: Path, bars: pl.DataFrame, path: Path):
        self.home = folder / "project"
        for name in ("assets/raw/bars.py", *(f"checks/{table.replace('.', '/')}.yaml" for table in TABLES)):
            (self.home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.home / name)
        # The packaged sample's bound on a good price is 20,000; one of these stocks is dearer, and always was.
        checks = self.home / "checks" / "raw" / "bars.yaml"
        checks.write_text(checks.read_text().replace("max_value: 20000}", "max_value: 1000000}"))
        for name in ("objectives.yaml", "prompts.yaml", "workspace.yaml"):
            shutil.copy(ROOT / name, self.home / name)
        (self.home / "models_registry").mkdir()
        (self.home / "models_registry" / "folds.yaml").write_text("{count: 1}\n")
        symbols = bars["Ticker"].unique().sort().to_list()
        first, last = (date.fromisoformat(day) for day in (bars["Date"].min(), bars["Date"].max()))
        end = date(last.year + last.month // 12, last.month % 12 + 1, 1)
        content = yaml.safe_load((ROOT / "sources.yaml").read_text()) | {
            "span": {"start": first.replace(day=1), "end": end},
            "benchmark": symbols[0],
            "universe": {s: {"id": s, "name": s, "kind": "equity", "tradable": True, "source": "prices"} for s in symbols},
            "sources": {"prices": {"kind": "files", "file": str(path), "columns": COLUMNS, "holds": symbols}},
            "feeds": {},
        }
        (self.home / "sources.yaml").write_text(yaml.safe_dump(content))
        self.runs = 0

    def seconds(self) -> float:
        """Seconds of one load into a warehouse of its own."""
        self.runs += 1
        settings = load_settings(self.home, warehouse=self.home / f"warehouse-{self.runs}", threads=1)
        project, lake = load_project(settings), Warehouse(settings)
        lake.initialise()
        create_tables(project, lake, TABLES)
        lake.connect().close()
        files.forget()
        started = time.process_time()
        outcome = materialise(project, lake, "raw.bars")
        seconds = time.process_time() - started
        assert not outcome.failed, outcome.failed
        stored = lake.connect().execute(f"select symbol, session, close, volume from {LAKE}.raw.bars order by all").pl()
        lake.close()
        assert stored.equals(self.expected), "what was stored is not what was read"
        return seconds


def compare(quick: bool) -> tuple[float, float, float]:
    """Least seconds of ours and of the peer, and the peer's over ours."""
    with tempfile.TemporaryDirectory(prefix="tapehouse-bench-") as folder:
        path = SHARED if SHARED.is_file() else sample(Path(folder))
        bars = pl.read_csv(path)
        assert bars.height == ROWS
        load = Load(Path(folder), bars, path)
        day = pl.col("Date").str.to_date()
        load.expected = bars.select(symbol="Ticker", session=day, close="Close", volume="Volume").sort(pl.all())
        ours, peer = [], []
        for _ in range(QUICK_RUNS if quick else RUNS):
            ours.append(load.seconds())
            started = time.process_time()
            pl.read_csv(path).write_parquet(Path(folder) / "peer.parquet")
            peer.append(time.process_time() - started)
        return min(ours), min(peer), min(peer) / min(ours)


if __name__ == "__main__":
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    report("load_bars", AIM, compare, __doc__)
