"""Recorded streams as a source: what belongs to a day, copies and contradictions, and when a day is to be made again."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.book_messages import BOOK_SCHEMA, TRADE_KEY, TRADE_SCHEMA
from tapehouse.errors import TapehouseError
from tapehouse.ingest import REJECT_COLUMNS
from tapehouse.merging import merge_new
from tapehouse.settings import Settings
from tapehouse.simulated_books import StreamShape, simulate_day
from tapehouse.simulated_streams import corrupt, stream_lines, write_stream
from tapehouse.sources import binance
from tapehouse.sources.base import Ask, Delivery
from tapehouse.sources.binance import Declaration, deliver, fingerprint
from tests.tapehouse.file_asks import settings_of

FIRST, LAST = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 5, tzinfo=UTC)
SHAPE = StreamShape(messages_per_second=0.01)


def lines_of(day: int, shape: StreamShape = SHAPE) -> list[bytes]:
    made = simulate_day(1, "SIM:A", date(2024, 1, day), shape)
    return list(stream_lines(made.book, made.trades))


@pytest.fixture
def home(tmp_path) -> Settings:
    return settings_of(tmp_path, days={"start": FIRST.date(), "end": LAST.date()})


def declare(file: str | tuple[str, ...] = "*.gz", **keys) -> Declaration:
    return Declaration(kind="binance", file=file, **keys)


def asked(home: Settings, offer: str = "book", day: int | None = None, *symbols: str, days: int = 1) -> Ask:
    start = FIRST if day is None else datetime(2024, 1, day, tzinfo=UTC)
    return Ask(offer, "recorded", symbols, start, LAST if day is None else start + timedelta(days=days), home)


def delivered(home: Settings, declared: Declaration, ask: Ask) -> Delivery:
    delivery = deliver(declared, ask)
    counts = delivery.counts
    parts = ("accepted", "outside_span", "quarantined", "duplicates")
    assert counts["received"] == sum(counts[part] for part in parts), counts
    assert dict(delivery.rows.schema) == (BOOK_SCHEMA if ask.offer == "book" else TRADE_SCHEMA)
    assert delivery.rejected.columns == list(REJECT_COLUMNS)
    for frame, column in ((delivery.rows, "known_at"), (delivery.rejected, "filed_at")):
        assert frame[column].is_between(ask.start, ask.end, closed="left").all()
    return delivery


def test_a_day_is_what_was_received_on_it(home, tmp_path):
    write_stream(tmp_path / "a.gz", [*lines_of(1), *lines_of(2)[:500]])
    write_stream(tmp_path / "b.gz", [*lines_of(2)[500:], *lines_of(3)])
    for offer in ("book", "trades"):
        whole = delivered(home, declare(), asked(home, offer))
        days = [delivered(home, declare(), asked(home, offer, day)) for day in (1, 2, 3, 4)]
        assert pl.concat([d.rows for d in days]).equals(whole.rows)
        assert [d.rows.height > 0 for d in days] == [True, True, True, False]
        simulated = simulate_day(1, "SIM:A", date(2024, 1, 2), SHAPE)
        truth = simulated.book if offer == "book" else simulated.trades
        assert days[1].rows.drop("source").equals(truth.drop("source"))
        assert set(whole.rows["source"]) == {"recorded"}


def test_copies_are_counted_and_contradictions_refused(home, tmp_path):
    lines = lines_of(1)
    trade = next(line for line in lines if b'"e":"trade"' in line)
    ticker = next(line for line in lines if b"bookTicker" in line)
    stamp, _, message = trade.partition(b" ")
    again = b"%d %s" % (int(stamp) + 5_000_000_000, message)  # sent twice
    write_stream(tmp_path / "a.gz", lines)
    write_stream(tmp_path / "copy.gz", lines[:200])
    write_stream(tmp_path / "sent_again.gz", [again])
    book, trades = (delivered(home, declare(), asked(home, offer)) for offer in ("book", "trades"))
    made = simulate_day(1, "SIM:A", date(2024, 1, 1), SHAPE)
    assert book.rows.drop("source").equals(made.book.drop("source"))
    assert trades.rows.drop("source").equals(made.trades.drop("source"))
    assert book.counts["duplicates"] + trades.counts["duplicates"] == 201
    other = trade.replace(b'"q":"', b'"q":"1')
    elsewise = ticker.replace(b'"B":"', b'"B":"1')
    write_stream(tmp_path / "other.gz", [elsewise, other])
    book, trades = (delivered(home, declare(), asked(home, offer)) for offer in ("book", "trades"))
    assert set(book.rejected["reason"]) == {"conflicting records for one message"}
    assert set(trades.rejected["reason"]) == {"conflicting records for one trade"}
    assert book.rows.height == made.book.height - 1
    assert trades.rows.height == made.trades.height - 1


def resent(lines: list[bytes], after_ns: int) -> list[bytes]:
    """The trades among the lines, received again."""
    parts = (line.partition(b" ") for line in lines if b'"e":"trade"' in line)
    return [b"%d %s" % (int(stamp) + after_ns, message) for stamp, _, message in parts]


def in_one_of(folder: Path, **recordings: list[bytes]) -> Settings:
    folder.mkdir()
    home = settings_of(folder, days={"start": FIRST.date(), "end": LAST.date()})
    for name, lines in recordings.items():
        write_stream(folder / f"{name}.gz", lines)
    return home


@pytest.mark.parametrize("name", ["a_second_recorder", "z_second_recorder"])
def test_a_second_recording_adds_no_trade_whatever_it_is_called(home, tmp_path, name):
    write_stream(tmp_path / "m.gz", lines_of(1))
    alone = delivered(home, declare(), asked(home, "trades", 1)).rows
    write_stream(tmp_path / f"{name}.gz", resent(lines_of(1), 5_000_000))
    both = delivered(home, declare(), asked(home, "trades", 1))
    assert both.rows.equals(alone) and both.counts["duplicates"] == alone.height > 100
    stored = merge_new(alone.clear(), alone, TRADE_KEY, FIRST)
    assert merge_new(stored, both.rows, TRADE_KEY, LAST).equals(stored)


def test_an_earlier_receipt_that_comes_later_leaves_the_stored_row_as_it_is(home, tmp_path):
    write_stream(tmp_path / "late.gz", resent(lines_of(1), 5_000_000))
    stored = delivered(home, declare(), asked(home, "trades", 1)).rows
    stored = merge_new(stored.clear(), stored, TRADE_KEY, FIRST)
    write_stream(tmp_path / "m.gz", lines_of(1))
    rows = delivered(home, declare(), asked(home, "trades", 1)).rows
    assert (rows["known_at"] < stored["known_at"]).all()
    assert merge_new(stored, rows, TRADE_KEY, LAST).equals(stored)


def test_a_trade_sent_again_after_midnight_is_of_the_day_before(tmp_path):
    trades = resent(lines_of(1), 0)
    day = 86_400_000_000_000
    again = resent(trades[-3:], day)
    plain = in_one_of(tmp_path / "plain", a=lines_of(1), b=lines_of(2))
    home = in_one_of(tmp_path / "again", a=lines_of(1), b=[*lines_of(2), *again, *resent(again, day)])
    first, second, third = (delivered(home, declare(), asked(home, "trades", number)) for number in (1, 2, 3))
    for got, number in ((first, 1), (second, 2)):
        assert got.rows.equals(delivered(plain, declare(), asked(plain, "trades", number)).rows)
    assert second.counts["duplicates"] == third.counts["duplicates"] == 3 and not third.rows.height
    # Contradicted on the next day, a trade stays, and the other is refused, there and on any day after.
    other = [line.replace(b'"q":"', b'"q":"1') for line in again]
    home = in_one_of(tmp_path / "other", a=lines_of(1), b=[*other, *lines_of(2)], c=resent(again, day))
    days = [delivered(home, declare(), asked(home, "trades", number)) for number in (1, 2, 3)]
    whole = delivered(home, declare(), asked(home, "trades"))
    assert [one.rejected.height for one in days] == [0, 3, 3]
    assert days[0].rows.equals(first.rows) and days[1].rows.equals(second.rows)
    assert pl.concat([one.rows for one in days]).equals(whole.rows)


def test_a_day_of_trades_is_told_of_those_of_its_trades_that_were_received_before(tmp_path):
    again = resent(lines_of(1), 86_400_000_000_000)[-1:]
    home = in_one_of(tmp_path / "again", a=lines_of(1), b=[*lines_of(2), *again], c=lines_of(3))

    def prints(offer: str = "trades") -> list[str]:
        return [fingerprint(declare(), asked(home, offer, day)) for day in (1, 2, 3)]

    before, book = prints(), prints("book")
    write_stream(tmp_path / "again" / "a.gz", lines_of(1)[1:])
    assert [a == b for a, b in zip(before, prints(), strict=True)] == [False, False, True]
    assert [a == b for a, b in zip(book, prints("book"), strict=True)] == [False, True, True]


@pytest.mark.parametrize("damage", [lambda text: text[:20], lambda text: b"", lambda text: b"\xff", lambda text: b"[]"])
def test_a_damaged_summary_is_made_again(home, tmp_path, damage):
    write_stream(tmp_path / "a.gz", lines_of(1))
    made = fingerprint(declare(), asked(home, "trades", 1))
    (summary,) = (home.root / "cache" / "recorded").iterdir()
    whole = summary.read_bytes()
    binance._summarised.cache_clear()  # as another process would find it
    assert fingerprint(declare(), asked(home, "trades", 1)) == made
    summary.write_bytes(damage(whole))
    binance._summarised.cache_clear()
    assert fingerprint(declare(), asked(home, "trades", 1)) == made
    assert summary.read_bytes() == whole
    assert [path.name for path in summary.parent.iterdir()] == [summary.name]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_two_ingests_store_what_one_does_however_trades_are_spread_over_files(tmp_path_factory, seed):
    random = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("spread")
    home = settings_of(folder, days={"start": FIRST.date(), "end": LAST.date()})
    trades = resent([*lines_of(1), *lines_of(2)], 0)[100:250]
    copies = [resent([line], int(random.integers(1, 2 * 10**14)))[0] for line in trades if random.random() < 0.5]
    write_stream(folder / "m.gz", sorted(trades))
    first = delivered(home, declare(), asked(home, "trades")).rows
    stored = merge_new(first.clear(), first, TRADE_KEY, FIRST)
    write_stream(folder / f"{random.choice(['a', 'z'])}.gz", sorted(copies))
    whole = delivered(home, declare(), asked(home, "trades"))
    assert whole.counts["duplicates"] == len(copies)
    assert merge_new(stored, whole.rows, TRADE_KEY, FIRST).equals(stored)
    days = [delivered(home, declare(), asked(home, "trades", day)).rows for day in (1, 2, 3, 4)]
    assert pl.concat(days).sort("trade_id").equals(whole.rows)


def test_markets_and_symbols_as_declared(home, tmp_path):
    write_stream(tmp_path / "spot.gz", lines_of(1, StreamShape("spot", 0.01)))
    write_stream(tmp_path / "usdm.gz", lines_of(1))
    both = delivered(home, declare(), asked(home))
    assert set(both.rows["market"]) == {"spot", "futures"}
    named = declare("usdm.gz", market="futures", holds={"SIM:A": "SIM:PERP"})
    assert named.symbols == ("SIM:PERP",)
    assert set(delivered(home, named, asked(home, "book", None, "SIM:PERP")).rows["symbol"]) == {"SIM:PERP"}
    wrong = delivered(home, declare("spot.gz", market="futures"), asked(home))
    assert not wrong.rows.height
    assert wrong.rejected["reason"].str.contains("of the spot market").all()
    none = delivered(home, declare("usdm.gz"), asked(home, "book", None, "ELSE"))
    assert none.counts["outside_span"] == none.counts["received"] > 0


def test_what_has_no_day_is_filed_on_the_first(home, tmp_path):
    lines = lines_of(2)
    dated, undated = lines[5].replace(b'"u":', b'"w":'), b"nothing at all"
    early = b"946684800000000000 {}"
    write_stream(tmp_path / "a.gz", [*lines, dated, undated, early])
    first, second = (delivered(home, declare(), asked(home, "book", day)) for day in (1, 2))
    assert first.rejected.select("origin", "filed_at").rows() == [(f"a.gz:{len(lines) + n}", FIRST) for n in (2, 3)]
    assert first.rejected["event_at"].to_list() == [None, datetime(2000, 1, 1, tzinfo=UTC)]
    assert [r.split(":")[0] for r in second.rejected["origin"]] == ["a.gz"]
    assert second.rejected["filed_at"][0].date() == date(2024, 1, 2)


@pytest.mark.parametrize("kept", [12, 48, -40])
def test_a_file_that_is_cut_off_says_so_even_if_nothing_came_before(home, tmp_path, kept):
    path = write_stream(tmp_path / "a.gz", lines_of(1)[:300])
    whole = fingerprint(declare(), asked(home, "book", 1))
    path.write_bytes(path.read_bytes()[:kept])
    got = delivered(home, declare(), asked(home, "book", 1))
    assert got.rejected["reason"].to_list() == ["the gzip stream is cut off: the rest of the file is lost"]
    assert fingerprint(declare(), asked(home, "book", 1)) != whole


def test_the_fingerprint_changes_with_the_days_own_lines_alone(home, tmp_path):
    def prints(**keys) -> list[str]:
        return [fingerprint(declare(**keys), asked(home, "book", day)) for day in (1, 2, 3, 4)]

    write_stream(tmp_path / "a.gz", [*lines_of(1), *lines_of(2), *lines_of(3)])
    before = prints()
    assert before == prints()
    changed = lines_of(2)
    changed[40] = changed[40].replace(b"9", b"8")
    write_stream(tmp_path / "a.gz", [*lines_of(1), *changed, *lines_of(3)])
    assert [a == b for a, b in zip(before, prints(), strict=True)] == [True, False, True, True]
    write_stream(tmp_path / "a.gz", [*lines_of(1), *lines_of(2), *lines_of(3), b"no line"])
    assert [a == b for a, b in zip(before, prints(), strict=True)] == [False, True, True, True]
    write_stream(tmp_path / "a.gz", [*lines_of(1), *lines_of(2), *lines_of(3)])
    write_stream(tmp_path / "b.gz", lines_of(4))
    assert [a == b for a, b in zip(before, prints(), strict=True)] == [True, True, True, False]
    assert prints(market="spot") != prints()


def test_a_file_that_is_not_there_is_named(home):
    with pytest.raises(TapehouseError, match=r"nowhere\.gz"):
        deliver(declare("nowhere.gz"), asked(home))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 0.3))
def test_in_is_accepted_and_quarantined_and_copies_under_random_corruption(tmp_path_factory, seed, share):
    folder = tmp_path_factory.mktemp("corrupted")
    home = settings_of(folder, days={"start": FIRST.date(), "end": LAST.date()})
    random = np.random.default_rng(seed)
    lines = [line for line in lines_of(1) if random.random() < 0.3]
    lines = [corrupt(line, random) if random.random() < share else line for line in lines]
    lines += [lines[int(at)] for at in random.integers(0, len(lines), 5)] if lines else []
    path = write_stream(folder / "a.gz", lines)
    if random.random() < 0.3:
        path.write_bytes(path.read_bytes()[: int(random.integers(1, path.stat().st_size))])
    book, trades = (delivered(home, declare(), asked(home, offer)) for offer in ("book", "trades"))
    for offer, whole in (("book", book), ("trades", trades)):
        days = [delivered(home, declare(), asked(home, offer, day)) for day in (1, 2, 3, 4)]
        assert pl.concat([day.rows for day in days]).equals(whole.rows)
        order = ["filed_at", "origin"]
        assert pl.concat([day.rejected for day in days]).sort(order).equals(whole.rejected.sort(order))
    received = book.counts["received"] + trades.counts["received"]
    whole = b"".join(line + b"\n" for line in lines).count(b"\n")
    cut = sum("cut off" in reason or "damaged" in reason for reason in book.rejected["reason"])
    assert received == whole if not cut else received <= whole + 1
    assert Path(folder / "warehouse" / "cache" / "recorded").is_dir()
