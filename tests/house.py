"""Project folders for tests: copies of the real declarations over a short span, and a tiny project of toy tables."""

import shutil
import textwrap
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl

from tapehouse.declarations import load_project
from tapehouse.engine import Outcome, materialise
from tapehouse.lineage import State, read_state
from tapehouse.partitions import FOLDED
from tapehouse.planning import Wave, next_wave, plan
from tapehouse.project import Asset, Project
from tapehouse.settings import load_settings
from tapehouse.warehouse import LAKE, Warehouse

ROOT = Path(__file__).parents[1]
FOLDERS = ("assets", "sql", "checks", "models_registry")
FILES = (*sorted(file.name for file in ROOT.glob("*.yaml")), "definitions.py")
CLOCK = datetime(2026, 1, 1, tzinfo=UTC)
DATA = ("raw.", "staging.", "features.", "labels.", "datasets.")
TOY_FOLDS = (
    "{min_train_sessions: 60, test_sessions: 30, min_test_sessions: 20, purge_sessions: 12, embargo_sessions: 2, count: 2}\n"
)


class House:
    """A project folder and its warehouse. `project` is read again by `reload` after its files have changed."""

    def __init__(self, home: Path, warehouse: Path | None = None):
        self.home = home
        self.settings = load_settings(home, warehouse=warehouse or home / "warehouse", threads=1)
        self.project: Project = load_project(self.settings)
        self.warehouse = Warehouse(self.settings)
        self.warehouse.initialise()

    def reload(self) -> Project:
        """Read the declarations again, as a new process would."""
        self.settings = load_settings(self.home, warehouse=self.settings.root, threads=1)
        self.project = load_project(self.settings)
        return self.project

    def write(self, path: str, text: str) -> Path:
        """Write a file of the project, dedented."""
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).lstrip("\n"))
        return file

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace the one occurrence of `old`."""
        file = self.home / path
        text = file.read_text()
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {path}"
        file.write_text(text.replace(old, new))

    def make(self, name: str, partitions: list[str] | None = None, **options) -> Outcome:
        """Make one asset through the engine."""
        return materialise(self.project, self.warehouse, name, partitions, ingested_at=CLOCK, **options)

    def make_data(self) -> None:
        """Every table from raw to datasets, each as one range, and the tokenizer between them."""
        for name in self.data_assets():
            outcome = self.make(name)
            assert not outcome.failed, outcome.failed

    def data_assets(self) -> list[str]:
        """Assets from raw to datasets that no fold is behind, with the tokenizer that token tables read, in order."""
        assets = self.project.assets
        return [n for n, a in assets.items() if (n.startswith(DATA) and a.by not in FOLDED) or n == "models.tokenizer"]

    def monthly(self, *prefixes: str) -> list[Asset]:
        """Assets made by month whose names start with one of `prefixes` (default: all)."""
        return [a for a in self.project.assets.values() if a.by == "months" and a.name.startswith(prefixes or "")]

    def state(self) -> State:
        """`meta.partitions` now."""
        with self.warehouse.reading() as (cursor, _):
            return read_state(cursor)

    def rows(self, query: str) -> list[tuple]:
        """Rows of a query on the newest state."""
        cursor = self.warehouse.connect()
        try:
            return cursor.execute(query).fetchall()
        finally:
            cursor.close()

    def frame(self, name: str, start: datetime | None = None, end: datetime | None = None) -> pl.DataFrame:
        """A table's rows in [start, end), sorted by its grain, in the order of its columns."""
        table = self.project.tables[name]
        order = ", ".join(f'"{c}"' for c in table.doc.grain)
        where = "" if start is None else f"where {table.time} >= '{start.isoformat()}' and {table.time} < '{end.isoformat()}'"
        with self.warehouse.reading() as (cursor, _):
            return cursor.execute(f"select * from {LAKE}.{name} {where} order by {order}").pl().select(list(table.types))

    def refresh(self, names: set[str] | None = None) -> list[tuple[str, str]]:
        """Make whatever is stale, as `tapehouse run` does but without Dagster; (asset, partition) in the order made."""
        made: list[tuple[str, str]] = []
        while (wave := self._next(names)) is not None:
            for name in wave.assets:
                partitions = wave.partitions(self.project)
                outcome = self.make(name, partitions)
                assert not outcome.failed, outcome.failed
                again = {(name, p) for p in partitions} & set(made)
                assert not again, f"made twice: {sorted(again)}"
                made += [(name, p) for p in partitions]
        return made

    def _next(self, names: set[str] | None) -> Wave | None:
        return next_wave(self.project, plan(self.project, self.state(), names))


def copy_project(home: Path, start: date, end: date, folds: str | None = None) -> Path:
    """A copy of the real declarations at `home`, over [start, end) alone."""
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, home / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, home)
    set_span(home, start, end)
    if folds:
        (home / "models_registry" / "folds.yaml").write_text(folds)
    return home


def set_span(home: Path, start: date, end: date) -> None:
    """Change the span that `sources.yaml` declares."""
    file = home / "sources.yaml"
    lines = [f"span: {{start: {start}, end: {end}}}" if x.startswith("span:") else x for x in file.read_text().splitlines()]
    file.write_text("\n".join(lines) + "\n")


TICKS = '''
"""One row per (symbol, event_at): a price as the file ticks.csv gives it."""

from tapehouse.tables import table


def ticks(settings, start, end):
    import polars as pl

    rows = pl.read_csv(settings.home / "ticks.csv", try_parse_dates=True)
    stamps = pl.col("event_at", "known_at").cast(pl.Datetime("us", "UTC"))
    return rows.with_columns(stamps).filter(pl.col("event_at").is_between(start, end, closed="left"))


def fingerprint(settings, start, end):
    from tapehouse.hashing import frame_hash

    return frame_hash(ticks(settings, start, end))


@table(fingerprint=fingerprint)
def build(b):
    return ticks(b.settings, b.start, b.end)
'''

TOY = {
    "assets/raw/ticks.py": TICKS,
    "checks/raw/ticks.yaml": """
        time: event_at
        owner: team:toys
        columns:
          symbol: {type: varchar, doc: "Ticker."}
          event_at: {type: timestamptz, doc: "When it was paid, UTC."}
          known_at: {type: timestamptz, doc: "When it was printed, UTC."}
          price: {type: double, doc: "Price paid."}
        """,
    "sql/staging/ticks.sql": """
        -- One row per (symbol, event_at): a price above nothing.
        select symbol, event_at, known_at, price
        from raw.ticks
        where event_at >= $start and event_at < $end
        """,
    "checks/staging/ticks.yaml": """
        time: event_at
        owner: team:toys
        columns:
          price: {doc: "Price paid."}
        contract:
          - expect_column_values_to_be_between: {column: price, min_value: 0, strict_min: true}
        quality:
          - expect_column_mean_to_be_between: {column: price, min_value: 1, max_value: 500}
        """,
    "sql/features/change.sql": """
        -- One row per (symbol, decision_at): the price and the one before it.
        -- lookback: 1 months
        with

        ticks as (
            select symbol, event_at, known_at, price, lag(price) over (partition by symbol order by event_at) as price_before
            from staging.ticks
            where event_at >= $start - interval 1 month and event_at < $end
        )

        select symbol, known_at + interval 5 minute as decision_at, known_at, price, price_before
        from ticks
        where known_at + interval 5 minute >= $start
        """,
    "sql/features/whole.sql": """
        -- One row per (symbol, decision_at): the price in whole units.
        select symbol, decision_at, cast(floor(price) as bigint) as units
        from features.change
        where decision_at >= $start and decision_at < $end
        """,
    "sql/labels/dear.sql": """
        -- One row per (symbol, decision_at): whether the price has two digits or more.
        select symbol, decision_at, units >= 10 as dear
        from features.whole
        where decision_at >= $start and decision_at < $end
        """,
    "sql/features/cents.sql": """
        -- One row per (symbol, event_at): the price in cents, from the raw ticks.
        select symbol, event_at, cast(round(price * 100) as bigint) as cents
        from raw.ticks
        where event_at >= $start and event_at < $end
        """,
    "sql/reports/totals.sql": """
        -- One row per (symbol): how many decisions there were.
        select symbol, count(*) as decisions
        from features.change
        group by symbol
        """,
}


def dataset_check(columns: str, contract: str = "", cutoff: bool = True) -> str:
    """The check file of a toy dataset by (symbol, interval, decision_at): further columns, a line each, and its contract."""
    lines = ["time: decision_at", *(["cutoff: label_known_at"] if cutoff else []), "grain: [symbol, interval, decision_at]"]
    lines += ["owner: team:toys", "columns:", '  symbol: {type: varchar, doc: "Ticker."}']
    lines += ['  interval: {type: varchar, doc: "Bars."}', '  decision_at: {type: timestamptz, doc: "When, UTC."}']
    lines += [f"  {line.strip()}" for line in columns.strip().splitlines()]
    if cutoff:
        lines.append('  label_known_at: {type: timestamptz, doc: "When that was known, UTC."}')
    lines += ['  template: {type: varchar, doc: "Version of the template."}', *contract.strip().splitlines()]
    return "\n".join(lines) + "\n"


# A table that says it is trained, which leaves behind by which process each fold was made.
TRAINED = """
'One row per (fold, symbol): the dearest tick before the fold, as if that took minutes to find.'
import os
from pathlib import Path

from tapehouse.tables import reads, table


@table(reads("staging.ticks", window="train"), trains=True)
def build(b):
    import polars as pl

    made = b.settings.root / f"made_{b.fold.id}"
    if not made.exists():  # the checks of a run make a fold again, which may be that of another process
        made.write_text(str(os.getpid()))
    return b.read("staging.ticks").group_by("symbol").agg(dearest=pl.col("price").max()).select(
        pl.lit(b.fold.id).alias("fold"), "symbol", "dearest", pl.lit(b.fold.train_end).alias("known_at")
    )
"""
TRAINED_CHECKS = """
grain: [fold, symbol]
partition: fold
cutoff: known_at
columns:
  fold: {type: varchar, doc: "Fold."}
  symbol: {type: varchar, doc: "Ticker."}
  dearest: {type: double, doc: "Dollars."}
  known_at: {type: timestamptz, doc: "When that was known."}
"""

TOY_MONTHS = ("2005-01-01", "2005-02-01", "2005-03-01", "2005-04-01", "2005-05-01", "2005-06-01")


def toy_project(home: Path) -> Path:
    """A project of toy tables over the first half of 2005: three ticks a month for AAA (10 dollars up) and BBB (20 up)."""
    home.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        shutil.copy(ROOT / file, home)
    set_span(home, date(2005, 1, 1), date(2005, 7, 1))
    for path, text in TOY.items():
        file = home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).lstrip("\n"))
    (home / "models_registry" / "adapters").mkdir(parents=True)
    (home / "models_registry" / "folds.yaml").write_text(TOY_FOLDS)
    lines = ["symbol,event_at,known_at,price"]
    for number, month in enumerate(TOY_MONTHS):
        for place, day in enumerate(("05", "15", "25")):
            stamp = f"{month[:7]}-{day}T21:00:00Z"
            lines += [f"{symbol},{stamp},{stamp},{base + number + place / 4}" for symbol, base in (("AAA", 10), ("BBB", 20))]
    (home / "ticks.csv").write_text("\n".join(lines) + "\n")
    return home
