"""CPU seconds that one more day of 500 simulated symbols costs behind 20 years of bars (ours) and behind 4 (peer).

Both stand beside each other in one run; ratio = peer / ours.

First the history is backfilled from raw to staging in one range of months: the bars per second of that and the peak memory
of its process are printed beside. Then days are added one by one, on one thread; what has become stale is found and made
again, and the least of several days counts. In both warehouses only the last month is made, and the rows that adding days
one by one leads to equal those of that month made at once.

Measured on 2 cores shared with other work: 2,515,530 bars in 20 s (124,000 a second, raw and staged), peak memory 1.9 GB, of
which 0.3 GB before the first row.

With --quick 60 symbols, 5 years against 2, three days, and without Great Expectations' checks.
"""

import os

os.environ["POLARS_MAX_THREADS"] = "1"  # read once, when polars is imported

import logging
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.harness import report  # noqa: E402
from bench.lake import Lake  # noqa: E402
from tapehouse.declarations import load_project  # noqa: E402
from tapehouse.settings import load_settings  # noqa: E402
from tapehouse.sources.simulator import Declaration, universe_lines  # noqa: E402
from tapehouse.warehouse import LAKE, Warehouse  # noqa: E402

AIM = 0.77  # at most 1.3 times the cost
END = date(2025, 1, 1)
DAYS = [date(2024, 12, day) for day in (19, 20, 23, 24, 26, 27, 30)]  # sessions; the history ends before the second
TABLES = ("raw.bars", "staging.bars")
FILES = (
    "assets/raw/bars.py",
    "sql/staging/bars.sql",
    "checks/raw/bars.yaml",
    "checks/raw/quarantine.yaml",
    "checks/staging/bars.yaml",
)
SIMULATOR = {"kind": "simulator", "seed": 7, "missing": 0.001, "delisted_per_year": 0.0}


@dataclass(frozen=True)
class Load:
    """How large a warehouse is: symbols, first day, whether contracts and quality are checked."""

    symbols: int
    start: date
    checked: bool


@dataclass(frozen=True)
class Backfilled:
    """What a backfill cost: bars made raw and staged, seconds, and the peak memory of the process before and after, in MiB."""

    bars: int
    seconds: float
    peak: float
    before: float


class House(Lake):
    """A project of the bars alone, whose simulation ends with a given day."""

    def __init__(self, folder: Path, load: Load, last: date):
        self.folder, self.load = folder, load
        if not (folder / "workspace.yaml").exists():
            for name in (*FILES, "workspace.yaml"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
            for file in [] if load.checked else folder.glob("checks/*/*.yaml"):
                declared = yaml.safe_load(file.read_text())
                kept = {key: value for key, value in declared.items() if key not in ("contract", "quality")}
                file.write_text(yaml.safe_dump(kept, sort_keys=False))
            (folder / "models_registry").mkdir()
            (folder / "models_registry" / "folds.yaml").write_text("{count: 1}\n")  # the span must hold one; nothing reads it
        self.receive(last)
        self.lake.initialise()

    def receive(self, last: date) -> None:
        """The source as it is on the evening of `last`; declarations are read again."""
        content = yaml.safe_load((ROOT / "sources.yaml").read_text())
        simulator = SIMULATOR | {
            "start": self.load.start,
            "end": date.fromordinal(last.toordinal() + 1),
            "equities": self.load.symbols,
        }
        lines = universe_lines(Declaration(**simulator), "simulator")
        content |= {"span": {"start": self.load.start, "end": END}, "benchmark": "SIM:INDEX", "feeds": {}}
        content |= {"universe": lines, "sources": {"simulator": simulator}}
        (self.folder / "sources.yaml").write_text(yaml.safe_dump(content))
        self.settings = load_settings(self.folder, warehouse=self.folder / "warehouse", threads=1)
        self.project, self.lake = load_project(self.settings), Warehouse(self.settings)


def backfill(folder: Path, load: Load, last: date) -> Backfilled:
    """Raw to staging in one range of months, in a process of its own: its peak memory is that of the backfill."""
    _quiet()
    house = House(folder, load, last)
    before = _peak()
    started = time.perf_counter()
    for name in TABLES:
        house.make(name)
    seconds = time.perf_counter() - started
    with house.lake.reading() as (cursor, _):
        counts = [cursor.execute(f"select count(*) from {LAKE}.{name}").fetchone()[0] for name in TABLES]
    assert counts[0] == counts[1], counts
    return Backfilled(counts[0], seconds, _peak(), before)


def add_days(folders: dict[Load, Path], days: list[date]) -> dict[Load, float]:
    """Least processor seconds of a further day in each warehouse, day by day in turn."""
    _quiet()
    houses = {load: House(folder, load, days[0]) for load, folder in folders.items()}
    seconds: dict[Load, list[float]] = {load: [] for load in houses}
    for number, day in enumerate(days[1:]):
        for load, house in list(houses.items())[:: -1 if number % 2 else 1]:
            house.receive(day)
            started = time.process_time()
            made = house.refresh()
            seconds[load].append(time.process_time() - started)
            assert made == {(name, "2024-12-01") for name in TABLES}, f"{day}: made {len(made)}: {sorted(made)[:4]} …"
    for load, house in houses.items():
        whole = House(folders[load].with_suffix(".whole"), load, days[-1])
        for name in TABLES:
            whole.make(name, [days[-1].replace(day=1).isoformat()])
        assert whole.hashes().items() <= house.hashes().items(), "day by day and at once differ"
    return {load: min(found) for load, found in seconds.items()}


def compare(quick: bool) -> tuple[float, float, float]:
    """Least seconds of a day behind the long and the short history, and short over long."""
    symbols, years = (60, (5, 2)) if quick else (500, (20, 4))
    long, short = (Load(symbols, END.replace(year=END.year - n), not quick) for n in years)
    days = DAYS[-4:] if quick else DAYS
    with tempfile.TemporaryDirectory(prefix="tapehouse-bench-") as home:
        folders = {load: Path(home) / str(load.start) for load in (long, short)}
        for load, folder in folders.items():
            done = _apart(backfill, folder, load, days[0])
            print(
                f"{load.symbols} symbols from {load.start}: {done.bars:,} bars in {done.seconds:.1f} s, "
                f"{done.bars / done.seconds:,.0f} bars/s, peak memory {done.peak:,.0f} MiB ({done.before:,.0f} before)",
                file=sys.stderr,
            )
        seconds = _apart(add_days, folders, days)
    return seconds[long], seconds[short], seconds[short] / seconds[long]


def _apart(function, *arguments):
    """The function's result, from a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _quiet() -> None:
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


if __name__ == "__main__":
    _quiet()
    report("backfill", AIM, compare, __doc__)
