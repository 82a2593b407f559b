from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.calendars import TIMESTAMP
from tapehouse.errors import TapehouseError
from tapehouse.ingest import REJECT_COLUMNS
from tapehouse.merging import merge_rejects, merge_versions, mirror_declaration, refused_as_rejects

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
    with pytest.raises(TapehouseError, match=r"changed a version that it had already published.*'key': 'a'"):
        merge(first, rewritten, 12)


def test_a_changed_version_that_a_later_one_has_replaced_is_refused():
    """Its neighbours are taken, and what is stored stays."""
    first = merge(pl.DataFrame(), rows(("a", 1.0, CLOSE), ("a", 2.0, CLOSE + DAY), ("b", 5.0, CLOSE)), 10)
    arrived = rows(("a", 1.5, CLOSE), ("a", 3.0, CLOSE + 2 * DAY), ("a", 2.0, CLOSE + DAY), ("b", 6.0, CLOSE))
    for dated in (False, True):
        refused = []
        merged = merge_versions(first, arrived, KEY, CLOSE + 11 * DAY, dated=dated, refused=refused)
        assert [(row["key"], row["value"], row["known_at"]) for row in refused] == [("a", 1.5, CLOSE)]
        added = merged.join(first, on=first.columns, how="anti")
        assert added.select("key", "value", "known_at").rows() == [
            ("a", 3.0, CLOSE + 2 * DAY),
            ("b", 6.0, CLOSE + 11 * DAY),
        ]
    rejects = refused_as_rejects([row | {"event_at": CLOSE, "source": "s"} for row in refused], "raw.x")
    assert rejects.columns == list(REJECT_COLUMNS)
    assert rejects.select("origin", "event_at").row(0) == ("version known at 2000-03-01T21:00:00+00:00", CLOSE)
    assert "already published" in rejects["reason"][0] and '"value": 1.5' in rejects["record"][0]
    assert "ingested_at" not in rejects["record"][0], "the same change arriving again is the same record"
    assert refused_as_rejects([], "raw.x").columns == list(REJECT_COLUMNS)


def merge_dated(stored: pl.DataFrame, incoming: pl.DataFrame, day: int) -> pl.DataFrame:
    return merge_versions(stored, incoming, KEY, CLOSE + day * DAY, dated=True)


def test_a_vintage_that_fails_to_come_takes_nothing_back():
    history = rows(("a", 1.0, CLOSE), ("a", 2.0, CLOSE + DAY), ("a", 3.0, CLOSE + 2 * DAY))
    stored = merge_dated(pl.DataFrame(), history, 10)
    for few in (history.head(1), history.head(2), history.slice(1, 1)):
        assert merge_dated(stored, few, 11).equals(stored)
    assert merge(stored, history.head(2), 11).height == 4, "what is not dated is what the record is like now"
    by_row = pl.col("value") != 1
    assert merge_versions(stored, history.head(2), KEY, CLOSE + 11 * DAY, dated=by_row).equals(stored)
    assert merge_versions(stored, history.head(1), KEY, CLOSE + 11 * DAY, dated=by_row).height == 4


def test_the_newest_vintage_corrected_and_replaced():
    stored = merge_dated(pl.DataFrame(), rows(("a", 1.0, CLOSE), ("a", 2.0, CLOSE + DAY)), 10)
    history = rows(("a", 1.0, CLOSE), ("a", 2.5, CLOSE + DAY))
    corrected = merge_dated(stored, history, 11)
    assert corrected.rows()[2:] == [("a", 2.5, CLOSE + 11 * DAY, CLOSE + 11 * DAY)]
    assert merge_dated(corrected, history, 12).equals(corrected)
    assert merge_dated(corrected, history.head(1), 12).equals(corrected)
    # The next one had been published before the correction arrived: known since, and in force again from its arrival.
    late = pl.concat([history, rows(("a", 3.0, CLOSE + 5 * DAY))])
    third = merge_dated(corrected, late, 12)
    assert third.join(corrected, on=corrected.columns, how="anti").rows() == [
        ("a", 3.0, CLOSE + 5 * DAY, CLOSE + 12 * DAY),
        ("a", 3.0, CLOSE + 12 * DAY, CLOSE + 12 * DAY),
    ]
    for few in (late, late.head(2), late.head(1)):
        assert merge_dated(third, few, 13).equals(third)
    # A correction that is taken back is one again.
    back = merge_dated(corrected, rows(("a", 1.0, CLOSE), ("a", 2.0, CLOSE + DAY)), 14)
    assert back.rows()[3:] == [("a", 2.0, CLOSE + 14 * DAY, CLOSE + 14 * DAY)]


def test_where_a_record_was_found_is_not_what_it_says():
    def found(value: float, origin: str) -> pl.DataFrame:
        return rows(("a", value, CLOSE)).with_columns(origin=pl.lit(origin))

    first = merge(pl.DataFrame(), found(1.0, "x.xml"), 10)
    assert merge(first, found(1.0, "y.xml"), 11).equals(first)
    assert merge(first, found(2.0, "y.xml"), 11)["origin"].to_list() == ["x.xml", "y.xml"]
    strict = merge_versions(first, found(1.0, "y.xml"), KEY, CLOSE + 11 * DAY, provenance=())
    assert strict.height == 2


def test_what_is_not_a_number_repeats_itself():
    nan = float("nan")
    for history in (rows(("a", nan, CLOSE)), rows(("a", nan, CLOSE), ("a", 1.0, CLOSE + DAY), ("a", nan, CLOSE + 2 * DAY))):
        first = merge(pl.DataFrame(), history, 10)
        assert merge(first, history, 11).equals(first) and merge_dated(first, history, 11).equals(first)


def test_a_key_may_hold_null():
    for history in (rows((None, 1.0, CLOSE)), rows((None, 1.0, CLOSE), (None, 2.0, CLOSE + DAY))):
        first = merge(pl.DataFrame(), history, 10)
        assert merge(first, history, 11).equals(first) and merge_dated(first, history, 11).equals(first)


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


@settings(max_examples=150, deadline=None)
@given(history=DELIVERY, arrivals=st.lists(st.sets(st.integers(0, 7)), max_size=4))
def test_parts_of_a_history_in_any_order_keep_the_latest(history, arrivals):
    """Whatever of a dated history arrives, or fails to, nothing is a correction, and each version that came is in force from
    its own time on: once all has come, what was known at any time is what one delivery of it says."""
    whole = delivery(history)
    stored = pl.DataFrame()
    for number, places in enumerate([*arrivals, set(range(8))]):
        part = whole.with_row_index("at").filter(pl.col("at").is_in(sorted(places))).drop("at")
        stored = merge_dated(stored, part, 10 + number)
        assert merge_dated(stored, part, 11 + number).equals(stored)
    once = merge_dated(pl.DataFrame(), whole, 10)
    assert (stored["known_at"] != stored["ingested_at"]).all()
    for known in range(4):
        then = [
            frame.filter(pl.col("known_at") <= CLOSE + known * DAY).group_by("key", maintain_order=True).last()
            for frame in (stored, once)
        ]
        assert then[0].select("key", "value").equals(then[1].select("key", "value"))


CHANGING = st.lists(st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=1, max_size=4), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(CHANGING)
def test_a_dated_history_that_is_rewritten(deliveries):
    """Whatever a source makes of its past: what it says of its newest version is in force, and of each other version it is
    told, stored or refused."""
    stored, longest = pl.DataFrame(), 0
    for number, values in enumerate(deliveries):
        incoming = rows(*(("a", value, CLOSE + known * DAY) for known, value in enumerate(values)))
        refused = []
        merged = merge_versions(stored, incoming, KEY, CLOSE + (10 + number) * DAY, dated=True, refused=refused)
        if stored.height:
            assert stored.join(merged, on=stored.columns, how="anti").is_empty()
        again = []
        late = merge_versions(merged, incoming, KEY, CLOSE + (11 + number) * DAY, dated=True, refused=again)
        assert late.equals(merged) and {row["known_at"] for row in again} <= {row["known_at"] for row in refused}
        if len(values) >= longest:
            assert merged["value"][-1] == values[-1]
        for row in incoming.filter(~pl.col("known_at").is_in([row["known_at"] for row in refused])).rows(named=True):
            told = merged.filter((pl.col("known_at") <= row["known_at"]) | (pl.col("known_at") == pl.col("ingested_at")))
            assert row["value"] in told["value"].to_list()
        stored, longest = merged, max(longest, len(values))


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
