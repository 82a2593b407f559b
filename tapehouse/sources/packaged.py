"""Daily bars from the files that `sources.yaml` declares, screened once per process and handed out by range."""

import hashlib
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from tapehouse.actions import Adjustment
from tapehouse.calendars import TIMESTAMP
from tapehouse.errors import TapehouseError
from tapehouse.hashing import frame_hash, text_hash
from tapehouse.ingest import Screened, screen_bars
from tapehouse.sources.delimited import read_delimited
from tapehouse.universe import Universe

PACKAGE = "package:"


def locate(file: str, folder: Path) -> Path:
    """Path of a declared file: relative to `folder`, or inside an installed package for 'package:NAME/path'.

    The package is found without being imported: `arch` would bring statsmodels with it.

    Raises:
        TapehouseError: no such package or file.
    """
    if not file.startswith(PACKAGE):
        path = folder / file
    else:
        name, _, inside = file.removeprefix(PACKAGE).partition("/")
        spec = find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise TapehouseError(f"sources.yaml: package {name!r} of file {file!r} is not installed; run make install")
        path = Path(spec.submodule_search_locations[0]) / inside
    if not path.is_file():
        raise TapehouseError(f"sources.yaml: no file {path} for {file!r}")
    return path


@dataclass(frozen=True)
class Received:
    """What one file held for the universe, over its whole length: `asked + not_asked` records came in.

    `not_asked` counts records of symbols that the file is declared to hold and the universe leaves out.
    """

    asked: int
    not_asked: int
    screened: Screened


def receive(universe: Universe, source: str) -> Received:
    """Read and screen one declared file, all of it. Cached per process by the file's content and its declaration."""
    path, digest = _identity(universe, source)
    return _receive(universe.declaration, source, path, digest)


def bars(universe: Universe, start: datetime, end: datetime) -> pl.DataFrame:
    """Accepted bars of the universe with `start` <= event_at < `end`, within the span: `ingest.BAR_COLUMNS`, sorted by
    symbol and session."""
    files = (receive(universe, source).screened.accepted for source in _used(universe))
    found = [_within(file, "event_at", start, end, universe) for file in files]
    return pl.concat(found).sort("symbol", "session", "source")


def rejects(universe: Universe, start: datetime, end: datetime) -> pl.DataFrame:
    """Records that cannot be used with `start` <= filed_at < `end`, within the span: `ingest.REJECT_COLUMNS`.

    One without a usable date, or dated outside the span, is filed at the start of the span: no month lies elsewhere.
    """
    files = (receive(universe, source).screened.rejected for source in _used(universe))
    found = [_within(file, "filed_at", start, end, universe) for file in files]
    return pl.concat(found).sort("filed_at", "origin")


def totals(universe: Universe) -> dict[str, int]:
    """Records in the declared files, over their whole length, and what became of them.

    `received` = `accepted` + `outside_span` + `quarantined` + `duplicates`. `accepted` bars are in `raw.bars`; good ones
    dated outside the declared span (`outside_span`) are in no table, and nor are second copies of a bar (`duplicates`).
    `not_asked` counts records of symbols outside the universe, and is no part of `received`.
    """
    found = [receive(universe, source) for source in _used(universe)]
    good = sum(file.screened.accepted.height for file in found)
    accepted = bars(universe, universe.start, universe.end).height
    return {
        "received": sum(file.asked for file in found),
        "accepted": accepted,
        "outside_span": good - accepted,
        "quarantined": sum(file.screened.rejected.height for file in found),
        "duplicates": sum(file.screened.duplicates for file in found),
        "not_asked": sum(file.not_asked for file in found),
    }


def instruments(universe: Universe) -> pl.DataFrame:
    """One row per instrument of the universe with bars in its file, valid from its first bar, even one before the span.

    Columns as `raw.instruments`, without `ingested_at`. `event_at` and `known_at` are the open of the first session.
    """
    from tapehouse.calendars import all_sessions

    rows = []
    for symbol, instrument in universe.universe.items():
        accepted = receive(universe, instrument.source[0]).screened.accepted.filter(pl.col("symbol") == symbol)
        if accepted.height:
            about = instrument.model_dump(exclude={"id", "calendar"}) | {"source": instrument.source[0]}
            rows.append({"instrument_id": instrument.id, "symbol": symbol, **about, "valid_from": accepted["session"][0]})
    return (
        pl.DataFrame(rows, schema_overrides={"valid_from": pl.Date})
        .join(all_sessions(universe.calendar), left_on="valid_from", right_on="session", maintain_order="left")
        .select(
            *("instrument_id", "symbol", "name", "kind", "tradable"),
            (pl.col("symbol") == universe.benchmark).alias("benchmark"),
            "currency",
            pl.lit(universe.calendar).alias("calendar"),
            *("tick_size", pl.col("lot_size").cast(pl.Int64), "multiplier", "valid_from"),
            pl.lit(None, pl.Date).alias("valid_to"),
            "source",
            pl.col("open_at").alias("event_at"),
            pl.col("open_at").alias("known_at"),
        )
    )


def adjustments(universe: Universe) -> dict[str, Adjustment]:
    """How each source adjusts its closes, as declared."""
    return {
        name: Adjustment(file.close_decimals, file.adj_close_decimals, file.dividend_factor)
        for name, file in universe.sources.items()
    }


def bars_fingerprint(settings, start: datetime, end: datetime) -> str:
    """Hash of the bars that the files hold for [start, end)."""
    return _content(settings.universe, "accepted", "event_at").between(start, end)


def rejects_fingerprint(settings, start: datetime, end: datetime) -> str:
    """Hash of what is filed in quarantine for [start, end), bars apart: records, and how sources adjust."""
    found = _content(settings.universe, "rejected", "filed_at").between(start, end)
    return text_hash(found, adjustment_fingerprint(settings, start, end))


def instruments_fingerprint(settings, start: datetime | None = None, end: datetime | None = None) -> str:
    """Hash of the instruments; they have no range."""
    return frame_hash(instruments(settings.universe))


def adjustment_fingerprint(settings, start: datetime, end: datetime) -> str:
    """Hash of what deriving corporate actions takes from `sources.yaml`: it has no range."""
    return text_hash(settings.universe.calendar, repr(sorted(adjustments(settings.universe).items())))


@dataclass(frozen=True)
class _Content:
    """Screened rows as text in order of time, so that the hash of each of many months costs the rows of that month."""

    times: list[datetime]
    rows: list[str]
    hashes: dict[tuple[datetime, datetime], str] = field(default_factory=dict)

    def between(self, start: datetime, end: datetime) -> str:
        if (start, end) not in self.hashes:  # asked for again each time that something else has been made
            first, last = bisect_left(self.times, start), bisect_left(self.times, end)
            self.hashes[start, end] = text_hash(*self.rows[first:last])
        return self.hashes[start, end]


def _content(universe: Universe, part: str, column: str) -> _Content:
    """The `accepted` or `rejected` rows of all files within the span, by the time in `column`."""
    files = tuple((source, *_identity(universe, source)) for source in _used(universe))
    return _content_of(universe.declaration, files, part, column)


def _identity(universe: Universe, source: str) -> tuple[Path, str]:
    """A declared file's path, and a hash of its content."""
    file = universe.sources[source].file
    path = _located(file, universe.folder)
    try:
        stat = path.stat()
    except FileNotFoundError:
        path = locate(file, universe.folder)  # says what is missing
        stat = path.stat()
    return path, _digest(path, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size)


def _used(universe: Universe) -> list[str]:
    return list(dict.fromkeys(source for instrument in universe.universe.values() for source in instrument.source))


_located = lru_cache(maxsize=64)(locate)


@lru_cache(maxsize=64)
def _digest(path: Path, *stat: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache(maxsize=8)
def _content_of(universe_json: str, files: tuple[tuple[str, Path, str], ...], part: str, column: str) -> _Content:
    universe = Universe.model_validate_json(universe_json)
    found = [getattr(_receive(universe_json, *file).screened, part) for file in files]
    rows = _within(pl.concat(found), column, universe.start, universe.end, universe)
    # A null is told from the text of any value by a character that no line of text holds.
    text = pl.concat_str(pl.all().cast(pl.String).fill_null("\0"), separator="\x1f")
    texts = rows.with_columns(text=text).sort(column, "text")
    return _Content(texts[column].to_list(), texts["text"].to_list())


@lru_cache(maxsize=64)
def _receive(universe_json: str, source: str, path: Path, digest: str) -> Received:
    universe = Universe.model_validate_json(universe_json)
    file = universe.sources[source]
    records = read_delimited(path, file.columns, source, file.symbol)
    left_out = set(file.symbols) - {s for s, i in universe.universe.items() if source in i.source}
    whole = pl.col("fault").is_null()  # a broken line may hide any symbol: it is never passed over
    asked = records.filter(~(whole & pl.col("symbol").str.strip_chars().is_in(left_out).fill_null(False)))
    screened = screen_bars(
        asked,
        undated_at=universe.start,
        date_format=file.date_format,
        calendar=universe.calendar,
        interval=universe.interval,
        holds=file.symbols,
        adjusted="vendor_adj_close" in file.columns,
    )
    # Filed under its own date, a record from outside the span would be in no month, and so in no table.
    inside = pl.col("filed_at").is_between(universe.start, universe.end, closed="left")
    filed_at = pl.when(inside).then("filed_at").otherwise(pl.lit(universe.start).cast(TIMESTAMP))
    return Received(
        asked=asked.height,
        not_asked=records.height - asked.height,
        screened=replace(screened, rejected=screened.rejected.with_columns(filed_at=filed_at)),
    )


def _within(frame: pl.DataFrame, column: str, start: datetime, end: datetime, universe: Universe) -> pl.DataFrame:
    first, last = max(start, universe.start), min(end, universe.end)
    return frame.filter((pl.col(column) >= first) & (pl.col(column) < last))
