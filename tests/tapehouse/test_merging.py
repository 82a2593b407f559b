from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.calendars import TIMESTAMP
from tapehouse.errors import TapehouseError
from tapehouse.ingest import REJECT_COLUMNS
from tapehouse.merging import merge_rejects, merge_versions, mirror_declaration

CLOSE = datetime(2000, 3, 1, 21, tzinfo=UTC)
DAY = timedelta(days=1)
KEY = ["key"]
SCHEMA = {"key": pl.String, "value": pl.Float64, "known_at": TIMESTAMP}


def rows(*records: tuple) -> pl.DataFrame:
    return pl.DataFrame(records, schema=SCHEMA, orient="row")


def merge(stored: pl.DataFrame, incoming: pl.DataFrame, day: int) -> pl.DataFrame:
    return merge_versions(stored, incoming, KEY, CLOSE + day * DAY)


def test_a_life_of_one_record():
    first = merge(pl.DataFrame(), rows(("a", 1.0, CLOSE)), 10)
    assert first.rows() == [("a", 1.0, CLOSE, CLOSE + 10 * DAY)]
    assert merge(first, rows(("a", 1.0, CLOSE)), 11).equals(first)
    # A correction without a vintage is known when it reached us; one with a vintage, when the source says.
    second = merge(first, rows(("a", 2.0, CLOSE)), 12)
    assert second.rows()[1:] == [("a", 2.0, CLOSE + 12 * DAY, CLOSE + 12 * DAY)]
    third = merge(second, rows(("a", 3.0, CLOSE + 13 * DAY)), 20)
    assert third.rows()[2:] == [("a", 3.0, CLOSE + 13 * DAY, CLOSE + 20 * DAY)]
    # Back to what it was at first: that is new as well.
    fourth = merge(third, rows(("a", 1.0, CLOSE)), 21)
    assert fourth.rows()[3:] == [("a", 1.0, CLOSE + 21 * DAY, CLOSE + 21 * DAY)]
    assert merge(fourth, rows(("a", 1.0, CLOSE)), 22).equals(fourth)
    assert fourth.head(3).equals(third)


def test_several_vintages_at_once():
    history = rows(("a", 1.0, CLOSE), ("a", 1.0, CLOSE + DAY), ("a", 2.0, CLOSE + 2 * DAY), ("b", 5.0, CLOSE))
    first = merge(pl.DataFrame(), history, 10)
    assert first.select("key", "value", "known_at").rows() == [
        ("a", 1.0, CLOSE),
        ("a", 2.0, CLOSE + 2 * DAY),
        ("b", 5.0, CLOSE),
    ]
    assert merge(first, history, 11).equals(first)
    longer = pl.concat([history, rows(("a", 3.0, CLOSE + 4 * DAY))])
    assert merge(first, longer, 12).rows()[2] == ("a", 3.0, CLOSE + 4 * DAY, CLOSE + 12 * DAY)
    # Vintages from before the ones stored arrive later: they are added where they belong.
    late = merge(merge(pl.DataFrame(), rows(("a", 2.0, CLOSE + 2 * DAY)), 9), history, 12)
    assert late.filter(key="a")["known_at"].to_list() == [CLOSE, CLOSE + 2 * DAY]
    rewritten = rows(("a", 1.5, CLOSE), ("a", 2.0, CLOSE + 2 * DAY))
    with pytest.raises(TapehouseError, match=r"changed a vintage that it had already published.*'key': 'a'"):
        merge(first, rewritten, 12)


def test_nulls_are_content():
    first = merge(pl.DataFrame(), rows(("a", None, CLOSE)), 10)
    assert merge(first, rows(("a", None, CLOSE)), 11).equals(first)
    assert merge(first, rows(("a", 1.0, CLOSE)), 11)["value"].to_list() == [None, 1.0]


def test_bad_input_is_refused():
    with pytest.raises(TapehouseError, match=r"two incoming rows share.*'key': 'a'"):
        merge(pl.DataFrame(), rows(("a", 1.0, CLOSE), ("a", 2.0, CLOSE)), 10)
    first = merge(pl.DataFrame(), rows(("a", 1.0, CLOSE)), 10)
    with pytest.raises(TapehouseError, match="check the clock"):
        merge(first, rows(("a", 2.0, CLOSE)), 0)


def test_nothing_received_changes_nothing():
    first = merge(pl.DataFrame(), rows(("a", 1.0, CLOSE)), 10)
    assert merge(first, rows(), 11).equals(first)
    assert merge(pl.DataFrame(), rows(), 11).is_empty()


KEYS, VALUES = st.sampled_from("abc"), st.sampled_from([None, 1.0, 2.0, 3.0])
DELIVERY = st.dictionaries(st.tuples(KEYS, st.integers(0, 3)), VALUES, max_size=8)
SNAPSHOT = st.dictionaries(st.tuples(KEYS, st.just(0)), VALUES, max_size=3)


def delivery(content: dict) -> pl.DataFrame:
    return rows(*((key, value, CLOSE + known * DAY) for (key, known), value in content.items()))


def check(stored: pl.DataFrame, merged: pl.DataFrame, incoming: pl.DataFrame, day: int) -> None:
    if stored.height:  # nothing stored is lost or changed
        assert stored.join(merged, on=stored.columns, how="anti", nulls_equal=True).is_empty()
    assert merged.height >= stored.height
    assert not merged.select(pl.struct("key", "known_at").is_duplicated().any()).item()
    ordered = merged.sort("key", "known_at")
    assert merged.equals(ordered)
    assert merge(merged, incoming, day + 1).equals(merged)  # the same again adds nothing
    latest = merged.group_by("key", maintain_order=True).last().select("key", "value")
    current = incoming.sort("key", "known_at").group_by("key", maintain_order=True).last().select("key", "value")
    assert current.join(latest, on=["key", "value"], how="anti", nulls_equal=True).is_empty()


@settings(max_examples=150, deadline=None)
@given(st.lists(SNAPSHOT, min_size=1, max_size=5))
def test_snapshots_without_vintages(deliveries):
    stored = pl.DataFrame()
    for number, content in enumerate(deliveries):
        incoming = delivery(content)
        merged = merge(stored, incoming, 10 + 2 * number)
        check(stored, merged, incoming, 10 + 2 * number)
        stored = merged


@settings(max_examples=150, deadline=None)
@given(history=DELIVERY, order=st.randoms(use_true_random=False))
def test_a_history_in_pieces_is_the_history(history, order):
    """A source with vintages that delivers all it has so far, time after time, ends up where one delivery would."""
    whole = delivery(history)
    stored = pl.DataFrame()
    for known in range(4):
        incoming = whole.filter(pl.col("known_at") <= CLOSE + known * DAY).sample(
            fraction=1, shuffle=True, seed=order.randint(0, 99)
        )
        merged = merge(stored, incoming, 10 + 2 * known)
        check(stored, merged, incoming, 10 + 2 * known)
        stored = merged
    once = merge(pl.DataFrame(), whole, 10)
    if whole.height:
        assert stored.drop("ingested_at").equals(once.drop("ingested_at"))


def test_a_declaration_is_mirrored():
    first = mirror_declaration(pl.DataFrame(), rows(("a", 1.0, CLOSE), ("b", None, CLOSE)), CLOSE + DAY)
    assert first["ingested_at"].to_list() == [CLOSE + DAY] * 2
    later = mirror_declaration(first, rows(("a", 2.0, CLOSE), ("b", None, CLOSE)), CLOSE + 2 * DAY)
    assert later.rows() == [("a", 2.0, CLOSE, CLOSE + 2 * DAY), ("b", None, CLOSE, CLOSE + DAY)]


def test_rejects_keep_their_first_arrival():
    def reject(origin: str, reason: str) -> pl.DataFrame:
        row = ("raw.bars", "vendor", origin, None, None, CLOSE, reason, "{}")
        times = {"event_at": TIMESTAMP, "filed_at": TIMESTAMP}
        return pl.DataFrame([row], schema={c: times.get(c, pl.String) for c in REJECT_COLUMNS}, orient="row")

    first = merge_rejects(pl.DataFrame(), reject("f:2", "missing open"), CLOSE + DAY)
    assert merge_rejects(first, reject("f:2", "missing open"), CLOSE + 2 * DAY).equals(first)
    second = merge_rejects(first, pl.concat([reject("f:2", "missing open"), reject("f:3", "high below low")]), CLOSE + 2 * DAY)
    assert second["ingested_at"].to_list() == [CLOSE + DAY, CLOSE + 2 * DAY]
    assert merge_rejects(second, reject("f:2", "missing open").clear(), CLOSE + 3 * DAY).equals(second)
