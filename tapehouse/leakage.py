"""The leakage proof: change everything known after a cut, make all again, and compare the rows decided before it, bit by bit.

A row's cutoff is the time by which all it says must have been known: the decision for features, `label_known_at` for labels
(`cutoff:` in the check file). The changes are valid ones, which nothing would screen out: other prices and volumes, bars
that vanish, late corrections and late arrivals of old bars, splits and dividends that come, go and change; other values of
macro series, other articles, filings and theses (`tapehouse.futures`); delistings that are announced late.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.futures import RECORDS, STREAMS, change_of, mutated_records, restamped
from tapehouse.partitions import FOLDED, STEPS, key_of, key_start
from tapehouse.project import Project, Table
from tapehouse.scratch import Frames, rebuild

CHANGED_HERE = ("raw.bars", "raw.corporate_actions", "raw.instruments")
KEYS_BEFORE = 2  # rows of so many months (days) before the cut's own are compared


@dataclass(frozen=True)
class Leak:
    """A row decided before the cut that changed when only what was known after it did."""

    table: str
    column: str
    cut: datetime
    row: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.table}.{self.column} of {self.row}: {self.before} became {self.after} by what was known after {self.cut}"


def find_leaks(
    project: Project,
    raw: Frames,
    targets: Iterable[str],
    cut: datetime,
    seed: int,
    stored: Callable[[str, str, str], pl.DataFrame] | None = None,
) -> list[Leak]:
    """Leaks of the tables `targets` at one cut: over the cut's month (day) and the two before it, or over the fold that was
    fitted last before it.

    Args:
        raw: raw rows over what the targets need for those keys (`around` gives them, `tapehouse.scratch.read_raw` the rows).
        targets: tables that are made by one and the same cadence.
        cut: what is known after this instant is changed.
        seed: of the changes.
        stored: `stored(table, first, last)` gives the rows to compare with; default: a rebuild from the unchanged rows.

    Returns:
        At most one leak for each column of each table, empty where none is found.
    """
    names = list(targets)
    first, last = around(project, names, cut)
    changed = rebuild(project, mutate(raw, cut, seed), names, first, last)
    before = {n: stored(n, first, last) for n in names} if stored else rebuild(project, raw, names, first, last)
    leaks: list[Leak] = []
    for name in names:
        table = project.tables[name]
        inside = _inside(project, table, first, last)
        leaks += _differences(table, before[name].filter(inside), changed[name].filter(inside), cut)
    return leaks


def around(project: Project, targets: Iterable[str], cut: datetime) -> tuple[str, str]:
    """The first and last key (month, day or fold) of the rows that are compared at a cut.

    Raises:
        TapehouseError: the targets are made by different cadences, or no fold's training ends before the cut.
    """
    names = list(targets)
    cadences = {project.assets[project.writers[name][0]].by for name in names}
    if cadences == set(FOLDED):  # what is made for every fold too, for those that both are made for
        cadences = {"adapter_folds"}
    if len(cadences) != 1 or cadences == {"once"}:
        raise TapehouseError(f"leaks of {names} are looked for at once, but they are made by {sorted(cadences)}")
    (by,) = cadences
    if by in FOLDED:
        fitted = [fold for fold in project.folds_of(by) if project.folds[fold].train_end <= cut]
        if not fitted:
            raise TapehouseError(f"no fold's training ends before the cut {cut}: nothing of {names} was known by then")
        return max(fitted), max(fitted)
    last = key_of(by, cut)
    first = key_of(by, key_start(last) - KEYS_BEFORE * STEPS[by])
    return max(first, (project.days if by == "days" else project.months)[0]), last


def _inside(project: Project, table: Table, first: str, last: str) -> pl.Expr:
    if table.time is None:
        return pl.col(table.doc.partition or "fold").is_between(pl.lit(first), pl.lit(last))
    start, end = project.span(first, last, project.assets[project.writers[table.name][0]].by)
    return pl.col(table.time).is_between(start, end, closed="left")


def mutate(raw: Frames, cut: datetime, seed: int) -> Frames:
    """The raw rows with all that is known after `cut` changed to other valid values; what was known by then is untouched."""
    rng = np.random.default_rng(seed)
    out = dict(raw)
    if "raw.bars" in raw:
        out["raw.bars"] = _mutated_bars(raw["raw.bars"], cut, rng)
    if "raw.corporate_actions" in raw:
        out["raw.corporate_actions"] = _mutated_actions(raw["raw.corporate_actions"], raw.get("raw.bars"), cut, rng)
    for name, rows in raw.items():
        if name not in CHANGED_HERE and {"known_at", "event_at"} <= set(rows.columns):
            # Whether a table that nobody declared keeps versions is not known, so none of its records is corrected.
            once = name in STREAMS or name not in RECORDS
            out[name] = mutated_records(rows, change_of(name, rows), cut, rng, stream=once)
    if "raw.instruments" in raw:
        out["raw.instruments"] = _mutated_instruments(raw["raw.instruments"], cut, rng)
    return out


def _mutated_bars(bars: pl.DataFrame, cut: datetime, rng: np.random.Generator) -> pl.DataFrame:
    past, future = bars.filter(pl.col("known_at") <= cut), bars.filter(pl.col("known_at") > cut)
    kept = future.filter(pl.Series(rng.random(future.height) > 0.1))
    late = past.filter(pl.col("event_at") > cut - timedelta(days=400))
    corrected = late.filter(pl.Series(rng.random(late.height) < 0.15))
    corrected = restamped(_repriced(corrected, rng), cut, rng)
    # A bar that nobody had sent by the cut: another source's bar of a past day, first known long after it.
    arrived = restamped(_repriced(late.filter(pl.Series(rng.random(late.height) < 0.02)), rng), cut, rng)
    arrived = arrived.with_columns(source=pl.lit("late"))
    return pl.concat([past, _repriced(kept, rng), corrected, arrived]).select(bars.columns)


def _repriced(bars: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Other prices with the order of low, open, close and high kept, and another volume."""
    factor = pl.Series(np.exp(rng.normal(0.0, 0.2, bars.height)))
    volume = pl.Series(rng.uniform(0.2, 5.0, bars.height))
    prices = [c for c in ("open", "high", "low", "close") if c in bars.columns]
    return bars.with_columns(
        *(pl.col(c) * factor for c in prices), (pl.col("volume") * volume).cast(pl.Int64).clip(lower_bound=1)
    )


def _mutated_actions(actions: pl.DataFrame, bars: pl.DataFrame | None, cut: datetime, rng: np.random.Generator) -> pl.DataFrame:
    past, future = actions.filter(pl.col("known_at") <= cut), actions.filter(pl.col("known_at") > cut)
    kept = future.filter(pl.Series(rng.random(future.height) > 0.3))
    kept = kept.with_columns(ratio=pl.col("ratio") * 2, amount=pl.col("amount") * 3)
    frames = [past, kept]
    if past.height:
        frames.append(restamped(past.with_columns(ratio=pl.col("ratio") * 3, amount=pl.col("amount") * 2), cut, rng))
    if bars is not None:
        after = bars.filter(pl.col("event_at") > cut).unique("symbol", keep="first", maintain_order=True)
        local = pl.col("session").cast(pl.Datetime("us")).dt.replace_time_zone("America/New_York")
        midnight = local.dt.convert_time_zone("UTC")
        new = after.select(
            symbol="symbol",
            kind=pl.lit("split"),
            ex_date="session",
            ratio=pl.lit(2.0),
            amount=pl.lit(0.0),
            event_at=midnight,
            known_at=midnight,
            source=pl.lit("late"),
            ingested_at=midnight,
        )
        frames.append(new.filter(pl.col("known_at") > cut).select(actions.columns))
    return pl.concat(frames)


def _mutated_instruments(instruments: pl.DataFrame, cut: datetime, rng: np.random.Generator) -> pl.DataFrame:
    """No end and no listing that was known after the cut; instead, every instrument is told to have ended weeks before it."""
    past = instruments.filter(pl.col("known_at") <= cut)
    latest = past.sort("known_at").unique(["instrument_id", "valid_from"], keep="last", maintain_order=True)
    days = rng.integers(5, 60, latest.height)
    ended = latest.with_columns(valid_to=pl.Series([(cut - timedelta(days=int(day))).date() for day in days], dtype=pl.Date))
    return pl.concat([past, restamped(ended.filter(pl.col("valid_to") >= pl.col("valid_from")), cut, rng)])


def _differences(table: Table, before: pl.DataFrame, after: pl.DataFrame, cut: datetime) -> list[Leak]:
    grain, cutoff = list(table.doc.grain), table.doc.cutoff or table.time
    if cutoff is None:
        file = f"checks/{table.name.replace('.', '/')}.yaml"
        raise TapehouseError(f"{file}: by when a row was known is not said; name the column, as in `cutoff: known_at`")
    columns = [c for c in table.types if c not in grain]
    keys = [pl.col(c) for c in grain]
    decided = [frame.filter(pl.col(cutoff) <= cut) for frame in (before, after)]
    leaks = []
    for missing_from, present, what in ((after, decided[0], "vanished"), (before, decided[1], "appeared")):
        gone = present.join(missing_from, on=keys, how="anti", nulls_equal=True)
        if gone.height:
            leaks.append(Leak(table.name, "(row)", cut, str(gone.select(grain).row(0)), what, f"{gone.height} rows"))
    # A changed value may itself move a row's cutoff: decided before the cut on either side is enough.
    cutoffs = {cutoff} if cutoff in grain else {cutoff, f"{cutoff}__after"}
    pairs = before.join(after, on=keys, how="inner", nulls_equal=True, suffix="__after", maintain_order="left")
    pairs = pairs.filter(pl.any_horizontal(pl.col(name) <= cut for name in sorted(cutoffs)))
    for column in columns:
        unlike = _unlike(pairs[column], pairs[f"{column}__after"])
        if unlike.any():
            row = pairs.filter(unlike).row(0, named=True)
            key, was, became = (str(x) for x in (tuple(row[c] for c in grain), row[column], row[f"{column}__after"]))
            leaks.append(Leak(table.name, column, cut, key, was, became))
    return leaks


def _unlike(a: pl.Series, b: pl.Series) -> pl.Series:
    """Where two columns differ in any bit."""
    if a.dtype == pl.Float64:
        a, b = a.reinterpret(signed=True), b.reinterpret(signed=True)
    return ~a.eq_missing(b)
