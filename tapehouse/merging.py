"""Merging what a source delivers into raw tables: append-only and bitemporal, rows are added and never changed."""

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from tapehouse.calendars import TIMESTAMP
from tapehouse.errors import TapehouseError
from tapehouse.ingest import REJECT_COLUMNS, REJECT_KEY


def merge_versions(existing: pl.DataFrame, incoming: pl.DataFrame, key: Sequence[str], ingested_at: datetime) -> pl.DataFrame:
    """The stored rows and, after them in time, what `incoming` adds: raw tables grow and never change.

    For each key the records are taken in the order of `known_at`. One that repeats the version before it, or a stored
    one known at the same time, adds nothing. Other content is a new row: known when the source says, or, where the
    source says no later time than that of the latest stored version (a correction without a vintage), when it reached
    this warehouse. So ingesting the same input again gives the same rows.

    Args:
        existing: stored rows of the range, with `known_at` and `ingested_at`; an empty frame may lack columns.
        incoming: rows received for the same range, with every column but `ingested_at`.
        key: columns that identify a record, whatever its version.
        ingested_at: the ingestion clock, UTC.

    Returns:
        All rows, with the columns of `incoming` and `ingested_at`, sorted by the key and `known_at`.

    Raises:
        TapehouseError: two incoming rows share key and `known_at`; or a correction without a vintage arrives at a clock
            that is not after the version it corrects.
    """
    columns = [*incoming.columns, "ingested_at"]
    schema = {**incoming.schema, "ingested_at": TIMESTAMP}
    stored = existing.select(columns).cast(schema) if existing.height else pl.DataFrame(schema=schema)
    content = [name for name in incoming.columns if name not in (*key, "known_at")]
    versions = incoming.select(key).is_duplicated().any()
    if versions:
        _refuse_repeated(incoming, [*key, "known_at"])
    incoming = incoming.with_columns(ingested_at=pl.lit(ingested_at).cast(TIMESTAMP)).sort([*key, "known_at"])
    if not stored.height and not versions:
        return incoming  # a first arrival, each record in one version: nothing to compare with
    latest = stored.sort([*key, "known_at"]).unique(subset=list(key), keep="last", maintain_order=True)
    held = incoming.with_columns(versions=pl.len().over(key)).join(
        latest.select(*key, "known_at", *content, stored=pl.lit(True)),
        on=list(key),
        how="left",
        suffix="_stored",
        maintain_order="left",
    )
    single = held.filter(pl.col("versions") == 1)
    unseen = single.filter(pl.col("stored").is_null())
    differs = pl.any_horizontal([pl.col(name).ne_missing(pl.col(f"{name}_stored")) for name in content])
    changed = single.filter(pl.col("stored") & differs)
    _refuse_stale_clock(changed, key)
    changed = changed.with_columns(
        known_at=pl.when(pl.col("known_at") > pl.col("known_at_stored")).then("known_at").otherwise("ingested_at")
    )
    vintages = incoming.filter(pl.len().over(key) > 1)
    added = _added_vintages(stored, vintages, key, content)
    return pl.concat([stored, unseen.select(columns), changed.select(columns), added]).sort([*key, "known_at"])


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


def _added_vintages(stored: pl.DataFrame, vintages: pl.DataFrame, key: Sequence[str], content: Sequence[str]) -> pl.DataFrame:
    """Rows to add for keys that arrive in several vintages at once; a key's last is what the source now holds."""
    if not vintages.height:
        return vintages
    held: dict[tuple, list[dict]] = {}
    for row in stored.join(vintages.select(key).unique(), on=list(key), how="semi").sort("known_at").to_dicts():
        held.setdefault(tuple(row[name] for name in key), []).append(row)
    added: list[dict] = []
    for which, group in vintages.group_by(list(key), maintain_order=True):
        known = held.get(which, [])
        rows = group.to_dicts()
        for row in rows:
            new = _addition(row, known, row is rows[-1], content, key)
            if new is not None:
                added.append(new)
                known = sorted([*known, new], key=lambda version: version["known_at"])
    return pl.DataFrame(added, schema=vintages.schema)


def _addition(row: dict, known: list[dict], is_last: bool, content: Sequence[str], key: Sequence[str]) -> dict | None:
    def same(version: dict) -> bool:
        return all(version[name] == row[name] for name in content)

    before = [version for version in known if version["known_at"] <= row["known_at"]]
    if len(before) == len(known):  # nothing stored is known later
        is_new = not known or not same(known[-1])
        if is_new and known and known[-1]["known_at"] == row["known_at"]:
            return _corrected(row, known[-1], key) if is_last else _rewritten(row, key)
        return row if is_new else None
    if is_last:
        return None if same(known[-1]) else _corrected(row, known[-1], key)
    if before and before[-1]["known_at"] == row["known_at"]:
        return None if same(before[-1]) else _rewritten(row, key)
    return None if before and same(before[-1]) else row


def _corrected(row: dict, latest: dict, key: Sequence[str]) -> dict:
    if row["ingested_at"] <= latest["known_at"]:
        raise TapehouseError(_stale(row, latest["known_at"], row["ingested_at"], key))
    return row | {"known_at": row["ingested_at"]}


def _rewritten(row: dict, key: Sequence[str]) -> None:
    which = {name: str(row[name]) for name in (*key, "known_at")}
    raise TapehouseError(f"the source changed a vintage that it had already published: {which}; raw rows never change")
