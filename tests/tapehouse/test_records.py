import json
from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.records import ACTION_COLUMNS, TRADE_COLUMNS, screen_actions, screen_trades
from tapehouse.screening import Screened

START = datetime(2000, 1, 1, tzinfo=UTC)
TRADE = ("symbol", "trade_id", "event_at", "known_at", "price", "size", "side")
ACTION = ("symbol", "kind", "ex_date", "ratio", "amount")
GOOD = ("BTCUSDT", "11", "1723075200000", "1723075200003", "55100.1", "0.010", "buy")


def frame(fields: tuple, rows: tuple) -> pl.DataFrame:
    texts = pl.DataFrame(rows, schema=dict.fromkeys(fields, pl.String), orient="row").with_row_index("at", offset=2)
    line = pl.concat_str(fields, separator=",", ignore_nulls=True)
    origin = pl.format("x.csv:{}", "at")
    return texts.select(*fields, source=pl.lit("here"), origin=origin, record=line, fault=pl.lit(None, pl.String))


def trades(*rows: tuple, fields: tuple = TRADE, **options) -> Screened:
    keys = {"undated_at": START, "market": "futures", "time_unit": "ms", "holds": ["BTCUSDT"]} | options
    screened = screen_trades(frame(fields, rows), **keys)
    assert screened.accepted.height + screened.rejected.height + screened.duplicates == len(rows)
    return screened


def actions(*rows: tuple) -> Screened:
    screened = screen_actions(frame(ACTION, rows), undated_at=START, holds=["AAPL", "MSFT"])
    assert screened.accepted.height + screened.rejected.height + screened.duplicates == len(rows)
    return screened


def test_a_trade_by_hand():
    accepted = trades(GOOD).accepted
    assert accepted.columns == list(TRADE_COLUMNS)
    assert accepted.row(0) == (
        *("BTCUSDT", "futures", 11),
        datetime(2024, 8, 8, tzinfo=UTC),
        datetime(2024, 8, 8, 0, 0, 0, 3000, tzinfo=UTC),
        *(1723075200003000000, 55100.1, 0.01, "buy", "here"),
    )


def test_units_of_time():
    ns = trades((*GOOD[:2], "1723075200000000001", "1723075200000000999", *GOOD[4:]), time_unit="ns").accepted.row(
        0, named=True
    )
    assert (ns["received_ns"], ns["known_at"]) == (1723075200000000999, datetime(2024, 8, 8, tzinfo=UTC))
    iso = trades((*GOOD[:2], "2024-08-08T02:00:00.5+02:00", "2024-08-08T00:00:01Z", *GOOD[4:]), time_unit="iso").accepted
    assert iso.select("event_at", "known_at", "received_ns").row(0) == (
        datetime(2024, 8, 8, 0, 0, 0, 500000, tzinfo=UTC),
        datetime(2024, 8, 8, 0, 0, 1, tzinfo=UTC),
        1723075201000000000,
    )
    # Without a time of receipt a trade is known when it happened, and nothing is made up.
    alone = trades((*GOOD[:3], *GOOD[4:]), fields=(*TRADE[:3], *TRADE[4:])).accepted.row(0, named=True)
    assert alone["known_at"] == alone["event_at"] and alone["received_ns"] is None


def test_words_for_sides():
    screened = trades((*GOOD[:6], "true"), (GOOD[0], "12", *GOOD[2:6], "false"), sides={"true": "sell", "false": "buy"})
    assert screened.accepted["side"].to_list() == ["sell", "buy"]


@pytest.mark.parametrize(
    ("at", "text", "reason"),
    [
        (0, "BTCUSD", "unknown symbol"),
        (0, None, "missing symbol"),
        (1, "1.5", "unreadable trade_id"),
        (1, "", "missing trade_id"),
        (2, "soon", "unreadable event_at"),
        (2, "-1", "unreadable event_at"),
        (2, "9223372036854775807", "unreadable event_at"),
        (3, "", "missing known_at"),
        (4, "0", "price is not above zero"),
        (4, "nan", "price is not finite"),
        (4, "1e", "unreadable price"),
        (5, "-1", "size is not above zero"),
        (5, "", "missing size"),
        (6, "B", "unreadable side"),
        (6, "", "missing side"),
    ],
)
def test_bad_trades_say_why(at, text, reason):
    bad = (*GOOD[:at], text, *GOOD[at + 1 :])
    screened = trades((GOOD[0], "10", *GOOD[2:]), bad)
    reject = screened.rejected.row(0, named=True)
    assert (reject["reason"], reject["origin"], reject["table_name"]) == (reason, "x.csv:3", "raw.trades")
    assert reject["filed_at"] == (START if at == 3 else datetime(2024, 8, 8, 0, 0, 0, 3000, tzinfo=UTC))
    assert json.loads(reject["record"])["line"] == ",".join(cell for cell in bad if cell is not None)


def test_a_time_without_its_zone_is_no_time():
    naive = (*GOOD[:2], "2024-08-08 00:00:00", "2024-08-08T00:00:01Z", *GOOD[4:])
    assert trades(naive, time_unit="iso").rejected["reason"].to_list() == ["naive event_at: it has no UTC offset"]


def test_trades_are_counted_once_and_conflicts_believed_neither():
    other = ("BTCUSDT", "12", *GOOD[2:])
    screened = trades(GOOD, other, (*GOOD[:4], "55100.10", "0.01", "buy"), (*other[:6], "sell"))
    assert screened.duplicates == 1 and screened.accepted["trade_id"].to_list() == [11]
    assert screened.rejected.select("origin", "reason").rows() == [
        ("x.csv:3", "conflicting records for one trade"),
        ("x.csv:5", "conflicting records for one trade"),
    ]


def test_a_trade_in_two_recordings_is_known_from_its_first_receipt_on():
    later, earlier = ((*GOOD[:3], received, *GOOD[4:]) for received in ("1723161600001", "1723075200001"))
    first = trades(earlier).accepted
    for order in ((GOOD, later, earlier), (earlier, GOOD, later), (later, earlier, GOOD)):
        screened = trades(*order)
        assert screened.accepted.equals(first) and screened.duplicates == 2


TEXT = st.sampled_from(["", "x", "-1", "0", "1", "1e400", "nan", "buy", "BTCUSDT", "1723075200000", "99999999999999999999"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[TEXT] * 7), max_size=6))
def test_no_trade_is_lost_whatever_it_says(rows):
    screened = trades(GOOD, *rows)
    assert screened.accepted.null_count().sum_horizontal().item() == 0
    assert screened.rejected["reason"].null_count() == 0


def test_actions_by_hand():
    screened = actions(
        ("AAPL", "Split", "2005-02-28", "2", ""),
        ("MSFT", "dividend", "2004-11-15", None, "3.08"),
        ("AAPL", "split", "2005-02-28", "2.0", "0"),
    )
    assert screened.duplicates == 1 and screened.accepted.columns == list(ACTION_COLUMNS)
    midnight = datetime(2005, 2, 28, 5, tzinfo=UTC)  # of New York
    assert screened.accepted.rows() == [
        ("AAPL", "split", date(2005, 2, 28), 2.0, 0.0, midnight, midnight, "here"),
        ("MSFT", "dividend", date(2004, 11, 15), 1.0, 3.08, *[datetime(2004, 11, 15, 5, tzinfo=UTC)] * 2, "here"),
    ]


def test_two_dividends_of_a_day_add_up():
    regular, special = ("MSFT", "dividend", "2012-02-10", None, "0.1"), ("MSFT", "dividend", "2012-02-10", None, "0.2")
    screened = actions(regular, special, regular, ("AAPL", *special[1:]))
    assert screened.accepted.select("symbol", "amount").rows() == [("AAPL", 0.2), ("MSFT", 0.3)]
    assert screened.duplicates == 2 and screened.rejected.is_empty()
    assert actions(special, regular).accepted.equals(actions(regular, special).accepted)
    # Two splits of a day are one too many.
    splits = [("AAPL", "split", "2005-02-28", ratio, "") for ratio in ("2", "3")]
    assert actions(*splits).rejected["reason"].to_list() == ["conflicting records for one symbol, kind and ex-date"] * 2


@pytest.mark.parametrize(
    ("texts", "amount"),
    [
        (('{"value": 0.5, "declared": "2012-01-03"}', '{"value": 0.5, "declared": "2012-01-10"}'), 1.0),
        (('{"value": 0.5, "declared": "2012-01-03"}', '{"value": 0.5, "declared": "2012-01-03"}'), 0.5),
        (("F,2012-02-10,0.5", "F,2012-02-10,0.5"), 0.5),
        (("F,2012-02-10,0.5", "F, 2012-02-10,.500"), 0.5),
        (("F,2012-02-10,0.5,special", "F,2012-02-10,0.5,regular"), 1.0),
        ((None, None), 0.5),
    ],
)
def test_a_dividend_is_what_its_whole_record_says(texts, amount):
    twice = frame(ACTION, (("F", "dividend", "2012-02-10", None, "0.5"),) * 2)
    screened = screen_actions(twice.with_columns(record=pl.Series(texts, dtype=pl.String)), undated_at=START)
    assert screened.accepted["amount"].to_list() == [amount] and screened.duplicates == 1


@given(st.lists(st.decimals("0.01", "9", places=2), min_size=1, max_size=4, unique=True), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_dividends_of_a_day_add_up_exactly_in_any_order(amounts, order):
    rows = [("MSFT", "dividend", "2012-02-10", None, str(amount)) for amount in (*amounts, amounts[0])]
    order.shuffle(rows)
    assert actions(*rows).accepted["amount"].to_list() == [float(sum(amounts))]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("AAPL", "merger", "2005-02-28", "2", ""), "kind is neither split nor dividend"),
        (("AAPL", "", "2005-02-28", "2", ""), "missing kind"),
        (("AAPL", "split", "", "2", ""), "missing ex_date"),
        (("AAPL", "split", "2005-02-30", "2", ""), "unreadable ex_date"),
        (("AAPL", "split", "2005-02-28", "", ""), "a split whose ratio is 1 or missing"),
        (("AAPL", "split", "2005-02-28", "-2", ""), "ratio of a split is not a number above zero"),
        (("AAPL", "split", "2005-02-28", "2:1", ""), "unreadable ratio"),
        (("AAPL", "split", "2005-02-28", "2", "1"), "a split with an amount"),
        (("AAPL", "dividend", "2005-02-28", "", ""), "amount of a dividend is not a number above zero"),
        (("AAPL", "dividend", "2005-02-28", "2", "1"), "a dividend with a ratio"),
        (("AAPL", "dividend", "2005-02-28", "", "inf"), "amount of a dividend is not a number above zero"),
        (("IBM", "dividend", "2005-02-28", "", "1"), "unknown symbol"),
    ],
)
def test_bad_actions_say_why(row, reason):
    screened = actions(row)
    assert screened.rejected.select("table_name", "reason").rows() == [("raw.corporate_actions", reason)]
    assert screened.accepted.is_empty()
