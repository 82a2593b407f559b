"""The project: every table that the folders declare, in dependency order, with partitions, code versions and lineage.

`tapehouse.declarations` reads it from the folders; Dagster's definitions, the command line, staleness and the leakage
proof are all derived from the one `Project`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import duckdb
from dateutil.relativedelta import relativedelta

from tapehouse.errors import TapehouseError
from tapehouse.folds import Fold, first_fitted_until
from tapehouse.partitions import DATED, FOLDED, key_of, key_span, keys_between
from tapehouse.settings import Settings
from tapehouse.sqlfile import AS_KNOWN, Lineage, SqlFile, analyse, described
from tapehouse.tables import TIME_COLUMNS, Cadence, Read, TableDoc, header_grain

ONCE = ""  # the partition of what is made once


@dataclass(frozen=True)
class Output:
    """One table that an asset writes: all of it, or the rows that `key` selects (an adapter's, a subject's)."""

    asset: str
    table: str
    key: tuple[tuple[str, str], ...] = ()
    doc: str = ""  # what these rows are, where that is not what the asset says of itself


@dataclass(frozen=True)
class Asset:
    """One step: inputs, a build function, and the tables it writes in one transaction."""

    name: str
    doc: str
    by: Cadence
    reads: tuple[Read, ...]
    outputs: tuple[Output, ...]
    build: Callable = field(compare=False)
    code_version: str = ""
    fingerprint: Callable[..., str] | None = field(default=None, compare=False)
    source: Path | None = None
    sql: SqlFile | None = None
    kind: str = "python"
    most_rows: int | None = None  # a range is made in slices that read at most so many rows
    fitted: bool = False  # versions of the packages that fit models, and the number of threads, decide its bits
    optional: bool = False  # made when it is asked for by name; who reads the tables of all writers does without it

    @property
    def trains(self) -> bool:
        """Whether making it starts a training process, which may take minutes."""
        return self.kind == "torch"

    @property
    def pinned(self) -> bool:
        """Models and reports are made from one snapshot, which is kept."""
        return self.name.startswith(("models.", "reports."))


@dataclass
class Table:
    """What is known of a table's rows: the check file's words and, for SQL, the query's types and lineage."""

    name: str
    doc: TableDoc
    types: dict[str, str] = field(default_factory=dict)
    lineage: Lineage | None = None

    @property
    def time(self) -> str | None:
        """The column that places a row in a partition."""
        return self.doc.time

    @property
    def as_known(self) -> str | None:
        """The macro that gives a staging table as it was known at an instant; None without `known_at`.

        It returns the versions in force: of a table with spans of validity those whose span holds the instant, without
        `superseded_at`, which no one could know; of any other the last known of each key. Names are those of the schema that
        is in use.
        """
        if not self.name.startswith("staging.") or "known_at" not in self.types:
            return None
        head = f"create or replace macro {self.name}{AS_KNOWN}(instant) as table select"
        if "superseded_at" in self.types:
            in_force = "known_at <= instant and (superseded_at is null or superseded_at > instant)"
            return f"{head} * exclude (superseded_at) from {self.name} where {in_force}"
        keys = ", ".join(column for column in self.doc.grain if column != "known_at")
        latest = f"row_number() over (partition by {keys} order by known_at desc) = 1" if keys else "true"
        return f"{head} * from {self.name} where known_at <= instant qualify {latest}"


class Project:
    """All declarations of one project folder. Read it with `tapehouse.declarations.load_project`."""

    def __init__(
        self, settings: Settings, assets: Iterable[Asset], docs: dict[str, TableDoc], folds: list[Fold], late: int = 0
    ):
        self.settings = settings
        self.folds = {f.id: f for f in folds}
        self.adapter_folds = [f.id for f in folds][-late:]  # all of them for 0
        self.assets: dict[str, Asset] = {}
        self.tables: dict[str, Table] = {}
        self.writers: dict[str, list[str]] = {}
        self._ancestors: dict[str, set[str]] = {}
        self._upstream: dict[tuple[str, str], list[tuple[str, str]]] = {}
        found = list(assets)
        for asset in found:
            for output in asset.outputs:
                self.writers.setdefault(output.table, []).append(asset.name)
        for asset in _sorted(found, self.writers):
            self.assets[asset.name] = asset
            for output in asset.outputs:
                if output.table not in self.tables:
                    self.tables[output.table] = Table(output.table, docs.get(output.table, TableDoc()))
        self._type_tables()

    # ------------------------------------------------------------------ partitions

    @cached_property
    def months(self) -> list[str]:
        """Every month of the span, as the ISO date of its first day."""
        return keys_between("months", *self.whole("months"))

    @cached_property
    def days(self) -> list[str]:
        """Every day of the tables made by day, as its ISO date."""
        return keys_between("days", *self.whole("days"))

    @cached_property
    def _places(self) -> dict[str, dict[str, int]]:
        return {by: {key: at for at, key in enumerate(getattr(self, by))} for by in DATED}

    def whole(self, by: str) -> tuple[datetime, datetime]:
        """[start, end) in UTC of the tables made by days; of all others, the declared span."""
        universe = self.settings.universe
        return (universe.first_day, universe.last_day) if by == "days" else (universe.start, universe.end)

    def partitions(self, asset: Asset) -> list[str]:
        """All partitions of an asset in order."""
        if asset.by in DATED:
            return getattr(self, asset.by)
        return self.folds_of(asset.by) if asset.by in FOLDED else [ONCE]

    def folds_of(self, by: str) -> list[str]:
        """All folds in order, or those for which adapters are trained."""
        return self.adapter_folds if by == "adapter_folds" else list(self.folds)

    def span(self, first: str, last: str, by: str = "months") -> tuple[datetime, datetime]:
        """[start, end) in UTC of the partitions `first` to `last`."""
        return key_span(by, first, last)

    def window(self, read: Read, asset: Asset, partition: str) -> tuple[datetime, datetime]:
        """[start, end) in UTC of the rows of a dated table that `asset` reads for one of its partitions."""
        return self.window_of(read, asset, partition, partition)

    def window_of(self, read: Read, asset: Asset, first: str, last: str) -> tuple[datetime, datetime]:
        """The same for the range of partitions `first` to `last`; of folds, what any of them reads."""
        if asset.by in FOLDED and first != last:
            windows = [self.window(read, asset, fold) for fold in self.folds_of(asset.by) if first <= fold <= last]
            return min(start for start, _ in windows), max(end for _, end in windows)
        whole = self.whole(self.assets[self.writers_of(read)[0]].by)
        if asset.by in DATED:
            start, end = self.span(first, last, asset.by)
        elif read.window == "before_folds":
            start, end = whole[0], self.first_fitted_until
        elif asset.by in FOLDED and read.window in ("train", "test"):
            fold = self.folds[first]
            start, end = getattr(fold, f"{read.window}_start"), getattr(fold, f"{read.window}_end")
        elif asset.by in FOLDED and read.window == "fold":
            start, end = self.folds[first].train_start, self.folds[first].test_end
        elif asset.by in FOLDED and read.window == "judged":
            start, end = self.folds[first].validation_start or self.folds[first].test_start, self.folds[first].test_end
        else:
            return whole
        start -= relativedelta(months=read.lookback_months, days=read.lookback_days)
        end += relativedelta(months=read.lookahead_months, days=read.lookahead_days)
        return max(start, whole[0]), min(end, whole[1])

    @property
    def first_fitted_until(self) -> datetime:
        """By when a base or a tokenizer, made once for all adapters, must have known its text: before any of them is fitted."""
        return first_fitted_until([self.folds[f] for f in self.adapter_folds])

    def ancestors(self, name: str) -> set[str]:
        """Names of all assets behind an asset."""
        if name not in self._ancestors:
            direct = {w for read in self.assets[name].reads for w in self.writers_of(read)}
            self._ancestors[name] = direct.union(*(self.ancestors(d) for d in direct)) if direct else set()
        return self._ancestors[name]

    def upstream(self, asset: Asset, partition: str) -> list[tuple[str, str]]:
        """(asset output, partition) pairs whose rows one partition of `asset` reads."""
        key = (asset.name, partition)
        if key not in self._upstream:
            self._upstream[key] = self._find_upstream(asset, partition)
        return self._upstream[key]

    def _find_upstream(self, asset: Asset, partition: str) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for read in asset.reads:
            for name in self.writers_of(read):
                writer = self.assets[name]
                output = self.output_of(read, name).asset
                if writer.by == asset.by == "months" and not (read.lookback_days or read.lookahead_days):
                    at = self._places["months"][partition]  # as below, by counting: it is done for every partition
                    months = self.months[max(0, at - read.lookback_months) : at + 1 + read.lookahead_months]
                    found += [(output, m) for m in months]
                elif writer.by in DATED:
                    start, end = self.window(read, asset, partition)
                    found += [(output, key) for key in self._keys_between(writer.by, start, end)]
                elif writer.by in FOLDED:
                    folds = self.partitions(writer)
                    found += [(output, f) for f in folds if f == partition or asset.by not in FOLDED]
                else:
                    found.append((output, ONCE))
        return found

    def may_lack(self, asset: Asset) -> set[tuple[str, str]]:
        """(asset output, partition) pairs that `asset` does without: of optional writers, where it reads a table of many."""
        found = self.__dict__.setdefault("_may_lack", {})
        if asset.name not in found:
            found[asset.name] = {
                (self.output_of(read, name).asset, partition)
                for read in asset.reads
                if read.writer is None
                for name in self.writers_of(read)
                if self.assets[name].optional
                for partition in self.partitions(self.assets[name])
            }
        return found[asset.name]

    def writers_of(self, read: Read) -> list[str]:
        """Assets whose rows an input reads: the one it names, or all writers of the table."""
        return [read.writer] if read.writer else self.writers[read.table]

    def output_of(self, read: Read, writer: str) -> Output:
        """What `writer` puts into the table that is read."""
        return next(o for o in self.assets[writer].outputs if o.table == read.table)

    def _keys_between(self, by: str, start: datetime, end: datetime) -> list[str]:
        if end <= start:
            return []
        keys, last = getattr(self, by), (end - timedelta(microseconds=1)).date().isoformat()
        return keys[bisect_left(keys, key_of(by, start)) : bisect_right(keys, last)]

    # ------------------------------------------------------------------ types

    def _type_tables(self) -> None:
        con = duckdb.connect()
        for asset in self.assets.values():
            for output in asset.outputs:
                table = self.tables[output.table]
                if asset.sql is not None:
                    self._type_sql(asset, table, con)
                else:
                    table.types = table.doc.types
                if table.types:
                    schema = table.name.split(".")[0]
                    con.execute(f"create schema if not exists {schema}")
                    body = ", ".join(f'"{c}" {t}' for c, t in table.types.items())
                    con.execute(f"create table if not exists {table.name} ({body})")
                table.doc = _completed(table, asset)
                if table.as_known:
                    con.execute(table.as_known)
        con.close()

    def _type_sql(self, asset: Asset, table: Table, con: duckdb.DuckDBPyConnection) -> None:
        assert asset.sql is not None
        table.types = described(asset.sql, con)
        table.lineage = analyse(asset.sql, {n: t.types for n, t in self.tables.items() if t.types})
        unknown = sorted(set(table.doc.columns) - set(table.types))
        if unknown:
            where = self.settings.home / "checks" / Path(*table.name.split(".")).with_suffix(".yaml")
            raise TapehouseError(f"{where}: columns {unknown} are not in {asset.source}; it returns {list(table.types)}")


def _completed(table: Table, asset: Asset) -> TableDoc:
    """The table's doc with grain and time column from the header where the check file is silent."""
    doc, grain = table.doc, header_grain(asset.doc)
    where = asset.source or asset.name
    if doc.grain and grain and len(asset.outputs) == 1 and set(doc.grain) != set(grain):
        raise TapehouseError(f"{where}: the first line says the grain {grain}, its check file {doc.grain}; make them agree")
    grain = doc.grain or grain
    if not grain:
        raise TapehouseError(f"{where}: say the grain: start the first line with 'One row per (column, …): '")
    time = doc.time
    if asset.sql is not None and asset.by == "once" and (time or any(c in TIME_COLUMNS for c in grain)):
        raise TapehouseError(f"{where}: its rows have a time, so it is made by month: bind $start and $end in the query")
    if asset.by in DATED and time is None:
        time = next((c for c in TIME_COLUMNS if c in (table.types or grain)), None)
        if time is None:
            raise TapehouseError(f"{where}: a table made by {asset.by} needs a column {' or '.join(TIME_COLUMNS)}, or `time:`")
    missing = [c for c in (*grain, *([time] if time else [])) if table.types and c not in table.types]
    if missing:
        checks = f"checks/{table.name.replace('.', '/')}.yaml"
        raise TapehouseError(
            f"{where} with {checks}: grain or time names {missing}, which are no columns; there are {list(table.types)}"
        )
    return doc.model_copy(update={"grain": grain, "time": time})


def _sorted(assets: list[Asset], writers: dict[str, list[str]]) -> list[Asset]:
    by_name = {a.name: a for a in sorted(assets, key=lambda a: a.name)}
    graph = {
        name: sorted({w for r in asset.reads for w in ([r.writer] if r.writer else writers[r.table])})
        for name, asset in by_name.items()
    }
    try:
        return [by_name[n] for n in TopologicalSorter(graph).static_order()]
    except CycleError as error:
        raise TapehouseError(f"tables depend on each other in a circle: {' -> '.join(error.args[1])}") from None
