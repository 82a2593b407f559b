"""CPU seconds that one new day of bars costs behind 13 years of history (ours) and behind 4 years (peer); ratio = peer / ours.

Both warehouses end on the same sessions and hold the tables from raw bars to preference pairs. A day is appended to the
source files, and what has become stale is found and made again, on one thread; the least of several days counts, because
noise only adds. Only the partitions that a day can reach are made, and the state this leads to equals that of a warehouse
made at once from the complete files.

With --quick three days, without Great Expectations' checks (half of a day's cost, however long the history), and the shorter
history alone is made again to compare.

The time is that of the processor: other work on the machine disturbs it less than the clock.
"""

import os

os.environ["POLARS_MAX_THREADS"] = "1"  # read once, when polars is imported

import gzip
import logging
import shutil
import sys
import tempfile
import time
import warnings
from datetime import date, datetime
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.harness import report  # noqa: E402
from bench.lake import Lake  # noqa: E402
from tapehouse.declarations import load_project  # noqa: E402
from tapehouse.settings import load_settings  # noqa: E402
from tapehouse.sources.files import locate  # noqa: E402
from tapehouse.warehouse import Warehouse  # noqa: E402

AIM = 0.77  # at most 1.3 times the cost
END = date(2013, 4, 1)
LONG, SHORT = date(2000, 3, 1), date(2009, 4, 1)
DAYS = [date(2013, 3, day) for day in (20, 21, 22, 25, 26, 27, 28)]  # sessions; the last month of the span
FILES = ("objectives.yaml", "prompts.yaml", "workspace.yaml")
DECLARED = (
    "assets/raw",
    "assets/features",
    "assets/labels",
    "assets/staging",
    "sql/staging",
    "sql/features",
    *FILES,
)
PAIRS = ("assets/datasets/preference_pairs.py", "checks/datasets/preference_pairs.yaml")
CHECKS = ("checks/raw", "checks/staging", "checks/features", "checks/labels")
NOW, BEFORE = "2013-03-01", "2013-02-01"
EARLIER = ("2012-12-01", "2013-01-01")
OF_A_DAY = ("raw.bars", "raw.corporate_actions", "staging.bars")
FEATURES = (
    "price",
    "decision_points",
    "company",
    "policy_state",
    "cusum_events",
    "fractional",
    "macro",
    "normalised",
    "regime",
    "text",
)
# Their windows end after the month of the decision.
AHEAD = ("labels.triple_barrier", "labels.signal", "labels.concurrency", "labels.forward_returns", "datasets.preference_pairs")
# A day reaches its own month, the labels and pairs of the month before, whose windows end in it, forward returns of 30
# sessions, and the macro series, which look at the decisions of three months for periods that end after they are known.
REACHED = {
    *((name, NOW) for name in (*OF_A_DAY, *(f"features.{name}" for name in FEATURES))),
    *((name, month) for name in AHEAD for month in (BEFORE, NOW)),
    ("labels.forward_returns", EARLIER[-1]),
    *(("features.macro_series", month) for month in (*EARLIER, BEFORE, NOW)),
}


class House(Lake):
    """A project of the data tables alone over [start, END), fed from text files that end with a given day."""

    def __init__(self, folder: Path, start: date, last: date, checked: bool):
        for name in (*DECLARED, *PAIRS, *CHECKS):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, target)
        for file in [] if checked else folder.glob("checks/*/*.yaml"):
            declared = yaml.safe_load(file.read_text())
            declared = {key: value for key, value in declared.items() if key not in ("contract", "quality")}
            file.write_text(yaml.safe_dump(declared, sort_keys=False))
        content = yaml.safe_load((ROOT / "sources.yaml").read_text())
        used = {instrument["source"] for instrument in content["universe"].values()}
        content |= {"sources": {name: content["sources"][name] for name in used}, "feeds": {}}  # bars, and what is made of them
        self.sources = {}
        for name, source in content["sources"].items():
            packed = locate(source["file"], ROOT)
            header, *lines = gzip.decompress(packed.read_bytes()).decode().splitlines(keepends=True)
            column = header.strip().split(",").index(source["columns"]["session"])
            form = source.get("date_format", "%Y-%m-%d")
            dated = [(datetime.strptime(line.split(",")[column], form).date(), line) for line in lines]
            source["file"] = f"{name}.csv"
            self.sources[folder / source["file"]] = header, [(day, line) for day, line in dated if start <= day < END]
        content["span"] = {"start": start, "end": END}
        (folder / "sources.yaml").write_text(yaml.safe_dump(content))
        (folder / "models_registry").mkdir()
        (folder / "models_registry" / "folds.yaml").write_text("{count: 1}\n")  # the span must hold one; no table here reads it
        self.receive(last)
        self.settings = load_settings(folder, warehouse=folder / "warehouse", threads=1)
        self.project, self.lake = load_project(self.settings), Warehouse(self.settings)
        self.lake.initialise()

    def receive(self, last: date) -> None:
        """The source files as they are on the evening of `last`."""
        for path, (header, lines) in self.sources.items():
            path.write_text(header + "".join(line for day, line in lines if day <= last))


def compare(quick: bool) -> tuple[float, float, float]:
    """Least CPU seconds of a day behind the long and the short history, day by day in turn, and short over long."""
    days = DAYS[-4:] if quick else DAYS
    with tempfile.TemporaryDirectory(prefix="tapehouse-bench-") as folder:
        long, short = (House(Path(folder) / str(start), start, days[0], not quick) for start in (LONG, SHORT))
        for house in (short, long):
            house.refresh()
        seconds: dict[House, list[float]] = {long: [], short: []}
        for number, day in enumerate(days[1:]):
            for house in (long, short) if number % 2 else (short, long):
                house.receive(day)
                started = time.process_time()
                made = house.refresh()
                seconds[house].append(time.process_time() - started)
                assert made == REACHED, f"{day}: made {sorted(made - REACHED)}, left out {sorted(REACHED - made)}"
        by_day = {house: house.hashes() for house in (long, short)}
        if quick:
            for name in short.project.assets:
                short.make(name)
            assert short.hashes() == by_day[short], "day by day and in one range differ"
        else:
            for start, house in ((SHORT, short), (LONG, long)):
                whole = House(Path(folder) / f"whole-{start}", start, days[-1], True)
                whole.refresh()
                assert whole.hashes() == by_day[house], "day by day and all at once differ"
        ours, peer = min(seconds[long]), min(seconds[short])
    return ours, peer, peer / ours


if __name__ == "__main__":
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    report("new_day", AIM, compare, __doc__)
