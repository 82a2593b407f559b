"""Merging what a source delivers into raw tables: append-only and bitemporal, rows are added and never changed."""

import json
from collections.abc import Sequence
from datetime import datetime

import polars as pl

from tapehouse.calendars import TIMESTAMP
from tapehouse.errors import TapehouseError
from tapehouse.ingest import REJECT_COLUMNS, REJECT_KEY

# Where a record was found. Moving it (a file is renamed) changes nothing that it says.
PROVENANCE = ("origin",)


def merge_versions(
    existing: pl.DataFrame,
    incoming: pl.DataFrame,
    key: Sequence[str],
    ingested_at: datetime,
    *,
    dated: bool | pl.Expr = False,
    provenance: Sequence[str] = PROVENANCE,
    refused: list[dict] | None = None,
) -> pl.DataFrame:
    """The stored rows and, after them in time, what `incoming` adds: raw tables grow and never change.

    For each key the records are taken in the order of `known_at`. One that repeats the version before it, or a stored
    one known at the same time, adds nothing. Other content is a new row: known when the source says, or, where the
    source says no later time than that of the latest stored version (a correction without a vintage), when it reached
    this warehouse. So ingesting the same input again gives the same rows.

    A record that is `dated` carries the time at which its source published this very version. It corrects nothing by
    being the last one received: a later version may have failed to come. One that is stored already under its own
    `known_at` adds nothing, and one that is not is added there; only the newest version can be corrected, by other content
    under its own `known_at`.

    A version with a later one behind it cannot be corrected, since the correction would displace that; see `refused`.

    Args:
        existing: stored rows of the range, with `known_at` and `ingested_at`; an empty frame may lack columns.
        incoming: rows received for the same range, with every column but `ingested_at`.
        key: columns that identify a record, whatever its version.
        ingested_at: the ingestion clock, UTC.
        dated: whether `known_at` belongs to the version rather than to the record; an expression says so row by row.
        provenance: columns that are kept and not compared, as far as there are such.
        refused: takes, as dicts with `reason` added, incoming rows that change a version which has a later one behind it.

    Returns:
        All rows, with the columns of `incoming` and `ingested_at`, sorted by the key and `known_at`.

    Raises:
        TapehouseError: two incoming rows share key and `known_at`; a correction without a vintage arrives at a clock
            that is not after the version it corrects; or a row would be refused and `refused` is None.
    """
    columns, key = [*incoming.columns, "ingested_at"], list(key)
    schema = {**incoming.schema, "ingested_at": TIMESTAMP}
    stored = existing.select(columns).cast(schema) if existing.height else pl.DataFrame(schema=schema)
    content = [name for name in incoming.columns if name not in (*key, "known_at", *provenance)]
    incoming = incoming.with_columns(ingested_at=pl.lit(ingested_at).cast(TIMESTAMP)).sort([*key, "known_at"])
    like_last = pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift(1)) for name in key)
    versions = incoming.select(like_last)[key[0]].slice(1).any()  # sorted by them, equal keys stand side by side
    if versions:
        _refuse_repeated(incoming, [*key, "known_at"])
    if not stored.height and not versions:
        return incoming  # a first arrival, each record in one version: nothing to compare with
    latest = stored.sort([*key, "known_at"]).unique(subset=key, keep="last", maintain_order=True)
    dated = pl.lit(dated) if isinstance(dated, bool) else dated.fill_null(False)
    held = incoming.with_columns(versions=pl.len().over(key), dated=dated).join(
        latest.select(*key, "known_at", *content, stored=pl.lit(True)),
        on=key,
        how="left",
        suffix="_stored",
        nulls_equal=True,
        maintain_order="left",
    )
    differs = pl.any_horizontal([pl.col(name).ne_missing(pl.col(f"{name}_stored")) for name in content])
    differs |= pl.col("dated") & (pl.col("known_at") != pl.col("known_at_stored"))
    seen = pl.col("stored").fill_null(False)
    one_by_one = (pl.col("versions") > 1) | (pl.col("dated") & seen & differs)
    unseen = held.filter(~one_by_one & ~seen)
    changed = held.filter(~one_by_one & seen & differs)
    _refuse_stale_clock(changed, key)
    changed = changed.with_columns(
        known_at=pl.when(pl.col("known_at") > pl.col("known_at_stored")).then("known_at").otherwise("ingested_at")
    )
    added = _added_vintages(stored, held.filter(one_by_one).select(*columns, "dated"), key, content, refused)
    return pl.concat([stored, unseen.select(columns), changed.select(columns), added]).sort([*key, "known_at"])


def refused_as_rejects(refused: Sequence[dict], table: str) -> pl.DataFrame:
    """What `merge_versions` refused, in the columns of `REJECT_COLUMNS`, each row filed at its `event_at`."""
    times = dict.fromkeys(("event_at", "filed_at"), TIMESTAMP)
    rows = []
    for row in refused:
        received = {name: value for name, value in row.items() if name not in ("reason", "ingested_at")}
        rows.append(
            {
                "table_name": table,
                "source": row.get("source"),
                "origin": f"version known at {row['known_at'].isoformat()}",
                "symbol": row.get("symbol") or row.get("series_id"),
                "event_at": row["event_at"],
                "filed_at": row["event_at"],
                "reason": row["reason"],
                "record": json.dumps(received, ensure_ascii=False, default=str),
            }
        )
    return pl.DataFrame(rows, schema={name: times.get(name, pl.String()) for name in REJECT_COLUMNS})


def merge_new(existing: pl.DataFrame, incoming: pl.DataFrame, key: Sequence[str], ingested_at: datetime) -> pl.DataFrame:
    """The stored rows and those of `incoming` whose key is not among them; arguments and result as in `merge_versions`.

    For streams of messages, which are never corrected: what was received stays what it is.

    Raises:
        TapehouseError: two incoming rows share a key.
    """
    _refuse_repeated(incoming, key)
    incoming = incoming.with_columns(ingested_at=pl.lit(ingested_at).cast(TIMESTAMP))
    if not existing.height:
        return incoming.sort(key)
    stored = existing.select(incoming.columns).cast(incoming.schema)
    fresh = incoming.join(stored.select(key), on=list(key), how="anti", nulls_equal=True)
    return pl.concat([stored, fresh]).sort(key)


def mirror_declaration(existing: pl.DataFrame, incoming: pl.DataFrame, ingested_at: datetime) -> pl.DataFrame:
    """The rows of `incoming`, each with the `ingested_at` of the equal stored row if there is one.

    For what this project declares itself rather than receives: the declaration's own history is in version control, and
    a change of mind (an instrument no longer traded) holds for all dates at once.
    """
    if not existing.height:
        return incoming.with_columns(ingested_at=pl.lit(ingested_at).cast(TIMESTAMP))
    stored = existing.cast({**incoming.schema, "ingested_at": TIMESTAMP})
    joined = incoming.join(stored, on=incoming.columns, how="left", nulls_equal=True, maintain_order="left")
    return joined.with_columns(pl.col("ingested_at").fill_null(pl.lit(ingested_at).cast(TIMESTAMP)))


def merge_rejects(existing: pl.DataFrame, incoming: pl.DataFrame, ingested_at: datetime) -> pl.DataFrame:
    """Quarantined records of a range: the stored ones and those not seen before, in the order of `REJECT_KEY`.

    A record is the same when table, origin, text and reason are; `ingested_at` stays that of its first arrival.
    """
    columns = [*REJECT_COLUMNS, "ingested_at"]
    incoming = incoming.with_columns(ingested_at=pl.lit(ingested_at).cast(TIMESTAMP)).select(columns)
    stored = existing.select(columns).cast(incoming.schema) if existing.height else incoming.clear()
    fresh = incoming.unique(subset=list(REJECT_KEY), keep="first", maintain_order=True)
    fresh = fresh.join(stored, on=list(REJECT_KEY), how="anti", nulls_equal=True)
    return pl.concat([stored, fresh]).sort("filed_at", *REJECT_KEY, nulls_last=True)


def _refuse_repeated(incoming: pl.DataFrame, key: Sequence[str]) -> None:
    repeated = incoming.filter(incoming.select(key).is_duplicated())
    if repeated.height:
        raise TapehouseError(f"two incoming rows share {dict(repeated.select(key).row(0, named=True))}; screen them first")


def _refuse_stale_clock(changed: pl.DataFrame, key: Sequence[str]) -> None:
    stale = changed.filter(
        (pl.col("known_at") <= pl.col("known_at_stored")) & (pl.col("ingested_at") <= pl.col("known_at_stored"))
    )
    if stale.height:
        row = stale.row(0, named=True)
        raise TapehouseError(_stale(row, row["known_at_stored"], row["ingested_at"], key))


def _stale(row: dict, stored: datetime, clock: datetime, key: Sequence[str]) -> str:
    which = {name: str(row[name]) for name in key}
    return f"correction of {which} arrives at {clock}, not after the version it corrects ({stored}); check the clock"


def _added_vintages(
    stored: pl.DataFrame, vintages: pl.DataFrame, key: list[str], content: Sequence[str], refused: list[dict] | None
) -> pl.DataFrame:
    """Rows to add for keys of which one version alone does not tell what is new."""
    if not vintages.height:
        return stored.clear()
    held: dict[tuple, list[dict]] = {}
    those = stored.join(vintages.select(key).unique(), on=key, how="semi", nulls_equal=True)
    for row in those.sort("known_at").to_dicts():
        held.setdefault(tuple(row[name] for name in key), []).append(row)
    added: list[dict] = []
    for which, group in vintages.group_by(key, maintain_order=True):
        known = held.get(which, [])
        rows = group.to_dicts()
        for row in rows:
            judge = _dated_addition if row.pop("dated") else _addition
            new = judge(row, known, row is rows[-1], content, key)
            if new is None:
                _refuse_change(row, key, refused)
            else:
                added += new
                known = sorted([*known, *new], key=lambda version: version["known_at"])
    return pl.DataFrame(added, schema=stored.schema)


def _dated_addition(
    row: dict, known: list[dict], is_last: bool, content: Sequence[str], key: Sequence[str]
) -> list[dict] | None:
    """What a row adds whose `known_at` is that of its version; None where it changes a version with a later one behind it."""
    published = {version["known_at"]: version for version in known if version["known_at"] != version["ingested_at"]}
    corrections = [version for version in known if version["known_at"] == version["ingested_at"]]
    there, before = published.get(row["known_at"]), [v for v in known if v["known_at"] <= row["known_at"]]
    if not is_last or any(at > row["known_at"] for at in published):
        if there is not None:
            return [] if any(_same(row, version, content) for version in (there, *corrections)) else None
        return [] if before and _same(row, before[-1], content) else [row]
    if known and _same(row, known[-1], content):
        return []
    if there is not None:
        return [_corrected(row, known[-1], key)]
    # A correction of the version before arrived when this one was out already: it holds again from now on.
    after = [_corrected(row, known[-1], key)] if len(before) < len(known) else []
    return [*([] if before and _same(row, before[-1], content) else [row]), *after]


def _addition(row: dict, known: list[dict], is_last: bool, content: Sequence[str], key: Sequence[str]) -> list[dict] | None:
    """What a row adds that says what its record is like now; None where it changes a version with a later one behind it."""
    before = [version for version in known if version["known_at"] <= row["known_at"]]
    if len(before) < len(known) and is_last:
        return [] if _same(row, known[-1], content) else [_corrected(row, known[-1], key)]
    if before and _same(row, before[-1], content):
        return []
    if not before or before[-1]["known_at"] < row["known_at"]:
        return [row]
    if is_last:
        return [_corrected(row, before[-1], key)]
    corrections = (version for version in known if version["known_at"] == version["ingested_at"])
    return [] if any(_same(row, version, content) for version in corrections) else None


def _same(row: dict, version: dict, content: Sequence[str]) -> bool:
    """Equal content; a value that is not a number equals another such."""
    pairs = [(row[name], version[name]) for name in content]
    return all(one == other or (one != one and other != other) for one, other in pairs)


def _corrected(row: dict, latest: dict, key: Sequence[str]) -> dict:
    if row["ingested_at"] <= latest["known_at"]:
        raise TapehouseError(_stale(row, latest["known_at"], row["ingested_at"], key))
    return row | {"known_at": row["ingested_at"]}


def _refuse_change(row: dict, key: Sequence[str], refused: list[dict] | None) -> None:
    reason = "the source changed a version that it had already published, and that a later one has replaced"
    if refused is None:
        which = {name: str(row[name]) for name in (*key, "known_at")}
        raise TapehouseError(f"{reason}: {which}; raw rows never change")
    refused.append(row | {"reason": reason})
