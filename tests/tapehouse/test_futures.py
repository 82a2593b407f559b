"""Another future of records: it is valid, shares the past to the bit, and has every kind of change."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.futures import ACTIONS, RECORDS, STREAMS, mutated_records
from tapehouse.hashing import frame_hash
from tapehouse.leakage import CHANGED_HERE, mutate
from tests.house import ROOT

STAMP = pl.Datetime("us", "UTC")
FIRST = datetime(2020, 1, 1, tzinfo=UTC)
TEXTS = {
    "raw.news": ("headline", "summary"),
    "raw.filings": ("text",),
    "raw.theses": ("reasoning",),
}


def rows(name: str, count: int = 400) -> pl.DataFrame:
    """A record every hour, some of them known late."""
    event_at = [FIRST + timedelta(hours=i) for i in range(count)]
    known_at = [at + timedelta(hours=30 * (i % 5 == 0)) for i, at in enumerate(event_at)]
    keys = {"id": list(range(count)), "event_at": event_at, "known_at": known_at, "source": ["a"] * count}
    content: dict[str, list] = {column: ["said"] * count for column in TEXTS.get(name, ())}
    if name == "raw.theses":
        content["action"] = ["hold"] * count
    if name == "raw.macro_observations":
        content["value"] = [1.5] * (count - 1) + [None]
    if name == "raw.trades":
        content |= {"price": [100.0] * count, "size": [2.0] * count}
    if name == "raw.funding":
        content |= {"rate": [1e-4] * count, "mark_price": [100.0] * count}
    if name == "raw.fundamentals":
        content["value"] = [1.5] * count
    if name == "raw.insider_trades":
        content |= {"code": ["P", "A"] * (count // 2), "acquired_disposed": ["A"] * count, "shares": [9.0] * count}
    if name == "raw.calendar_events":
        content["ends_at"] = [at + timedelta(hours=6) for at in event_at]
    if name == "raw.book_events":
        content |= {"bid_sizes": [[1.0, 0.0]] * count, "ask_sizes": [[]] * count}
    types = (
        {"event_at": STAMP, "known_at": STAMP}
        | {c: STAMP for c in content if c == "ends_at"}
        | {c: pl.List(pl.Float64) for c in content if c.endswith("_sizes")}
    )
    return pl.DataFrame(keys | content, schema_overrides=types)


@pytest.mark.parametrize("name", RECORDS)
@settings(max_examples=10, deadline=None)
@given(hours=st.integers(0, 420), seed=st.integers(0, 2**31))
def test_the_past_is_shared_to_the_bit(name, hours, seed):
    before, cut = rows(name), FIRST + timedelta(hours=hours, minutes=30)
    after = mutate({name: before}, cut, seed)[name]
    known = pl.col("known_at") <= cut
    assert frame_hash(after.filter(known)) == frame_hash(before.filter(known))
    assert after.schema == before.schema
    assert not after.select("id", "known_at", "source").is_duplicated().any()
    assert after.filter(pl.col("known_at") < pl.col("event_at")).is_empty()


@pytest.mark.parametrize("name", RECORDS)
def test_the_future_is_another_and_valid(name):
    before, cut = rows(name), FIRST + timedelta(hours=200, minutes=30)
    after = mutate({name: before}, cut, 1)[name].filter(pl.col("known_at") > cut)
    future = before.filter(pl.col("known_at") > cut)
    assert future.join(after, on=["id"], how="anti").height > 0  # vanished
    changed = future.join(after, on=["id", "known_at", "source"], how="inner", suffix="_after")
    content = [c for c in before.columns if c not in ("id", "event_at", "known_at", "source", "ask_sizes")]
    assert any((changed[c] != changed[f"{c}_after"]).any() for c in content)
    old = after.filter((pl.col("event_at") <= cut) & ~pl.col("id").is_in(future["id"].implode()))
    assert (old.height > 0) == (name not in STREAMS)  # corrected, or arrived, late
    if name not in STREAMS:
        assert set(old["source"]) == {"a", "late"}
    if name == "raw.theses":
        assert set(after["action"]) <= set(ACTIONS)
    if name == "raw.insider_trades":
        sold = after.filter(pl.col("acquired_disposed") == "D")
        assert set(sold["code"]) == {"S", "A"}
    if name == "raw.calendar_events":
        assert after.filter(pl.col("ends_at") <= pl.col("event_at")).is_empty()
    if name == "raw.book_events":
        assert after["bid_sizes"].list.last().unique().to_list() == [0.0]  # a level that is taken away stays so
        assert after["bid_sizes"].list.first().min() > 0


def test_nothing_to_change_stays_nothing():
    empty = rows("raw.news").clear()
    assert mutated_records(empty, RECORDS["raw.news"], FIRST, np.random.default_rng(1)).is_empty()


def test_every_raw_table_has_another_future():
    """What is left as it was hides a leak through it."""
    declared = {path.stem for path in (ROOT / "checks" / "raw").glob("*.yaml")} - {"quarantine"}
    assert {f"raw.{name}" for name in declared} == {*RECORDS, *CHANGED_HERE}


def test_a_raw_table_that_nobody_declared_has_one_too():
    ours = rows("raw.macro_observations").drop("source")
    (after,) = mutate({"raw.ours": ours}, FIRST, 1).values()
    assert after.filter(pl.col("known_at") <= FIRST).equals(ours.filter(pl.col("known_at") <= FIRST))
    later = pl.col("known_at") > FIRST
    assert not after.filter(later)["value"].is_in(ours["value"].implode()).any()
    words = rows("raw.news").rename({"headline": "rumour"})
    (fewer,) = mutate({"raw.rumours": words}, FIRST, 1).values()
    assert 0 < fewer.filter(later).join(words, on=words.columns, how="semi").height < words.filter(later).height
