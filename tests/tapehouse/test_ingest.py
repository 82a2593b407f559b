import gzip
import json
import random
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse import ingest
from tapehouse.ingest import BAR_COLUMNS, CONFLICT, REJECT_COLUMNS, Screened, screen_bars
from tapehouse.screening import joined, with_fields
from tapehouse.sources.delimited import read_delimited

SPAN_START = datetime(2000, 3, 1, tzinfo=UTC)
HEADER = "Ticker,Date,Open,High,Low,Close,Volume,Adj Close"
COLUMNS = {
    "symbol": "Ticker",
    "session": "Date",
    "open": "Open",
    "high": "High",
    "low": "Low",
    "close": "Close",
    "volume": "Volume",
    "vendor_adj_close": "Adj Close",
}
GOOD = [
    "AAPL,2000-03-01,118.56,132.06,118.5,130.31,9616100,4.186662803811",
    "AAPL,2000-03-02,127.0,127.94,120.69,122.0,2779100,3.9196750983419",
    "IBM,2000-03-01,102.0,105.5,100.06,100.25,9807800,81.1",
    "IBM,2000-03-02,100.5,105.44,99.5,103.12,9770000,83.4",
    "FB,2012-11-23,24.08,24.12,23.8,24.0,23451300,24.0",
]


def screen(*lines: str, header: str = HEADER, tmp_path: Path, **options) -> Screened:
    path = tmp_path / "bars.csv"
    path.write_text("\n".join([header, *lines, ""]))
    records = read_delimited(path, COLUMNS, "vendor")
    screened = screen_bars(records, undated_at=SPAN_START, holds=["AAPL", "IBM", "FB"], **options)
    assert screened.accepted.height + screened.rejected.height + screened.duplicates == records.height == len(lines)
    return screened


def test_good_bars_by_hand(tmp_path):
    screened = screen(*GOOD, tmp_path=tmp_path)
    assert screened.accepted.columns == list(BAR_COLUMNS) and screened.rejected.columns == list(REJECT_COLUMNS)
    assert screened.rejected.is_empty() and screened.duplicates == 0
    assert screened.accepted.row(0, named=True) == {
        "symbol": "AAPL",
        "interval": "1d",
        "session": date(2000, 3, 1),
        "event_at": datetime(2000, 3, 1, 21, tzinfo=UTC),
        "known_at": datetime(2000, 3, 1, 21, tzinfo=UTC),
        "open": 118.56,
        "high": 132.06,
        "low": 118.5,
        "close": 130.31,
        "volume": 9616100,
        "vendor_adj_close": 4.186662803811,
        "source": "vendor",
    }
    half_day = screened.accepted.filter(symbol="FB")
    assert half_day["event_at"].item() == datetime(2012, 11, 23, 18, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("IBM,2000-03-03,105,104,105,104.5,1,1", "high below low; open outside [low, high]; close outside [low, high]"),
        ("IBM,2000-03-03,106,105,100,104,1,1", "open outside [low, high]"),
        ("IBM,2000-03-03,101,105,100,99.99,1,1", "close outside [low, high]"),
        ("IBM,2000-03-03,-101,105,100,102,1,1", "open is not above zero; open outside [low, high]"),
        ("IBM,2000-03-03,101,105,0,102,1,1", "low is not above zero"),
        ("IBM,2000-03-03,101,105,,102,1,1", "missing low"),
        ("IBM,2000-03-03,101,105,nan,102,1,1", "low is not finite"),
        ("IBM,2000-03-03,101,inf,100,102,1,1", "high is not finite"),
        ("IBM,2000-03-03,101,1O5,100,102,1,1", "unreadable high"),
        ("IBM,2000-03-03,101,105,100,102,,1", "missing volume"),
        ("IBM,2000-03-03,101,105,100,102,-1,1", "volume below zero"),
        ("IBM,2000-03-03,101,105,100,102,1.5,1", "volume is not a whole number"),
        ("IBM,2000-03-03,101,105,100,102,1e30,1", "volume is not a whole number"),
        ("IBM,2000-03-03,101,105,100,102,nan,1", "volume is not a whole number"),
        ("IBM,2000-03-03,101,105,100,102,1,", "missing vendor_adj_close"),
        ("IBM,2000-03-03,101,105,100,102,1,0", "vendor_adj_close is not above zero"),
        ("IBM,2000-03-04,101,105,100,102,1,1", "no session of XNYS on this date"),
        ("IBM,2001-09-11,101,105,100,102,1,1", "no session of XNYS on this date"),
        ("IBM,2000-13-03,101,105,100,102,1,1", "unreadable date"),
        ("IBM,2099-01-05,101,105,100,102,1,1", "unreadable date"),
        ("IBM,,101,105,100,102,1,1", "missing date"),
        ("IBM,2000-03-03 16:00:00,101,105,100,102,1,1", "naive timestamp: it has no UTC offset"),
        ("IBM,2000-03-03T21:00,101,105,100,102,1,1", "naive timestamp: it has no UTC offset"),
        ("IBM,2000-03-03T00:00:00Z,101,105,100,102,1,1", "timestamp is no edge of the session"),
        ("IBN,2000-03-03,101,105,100,102,1,1", "unknown symbol"),
        (",2000-03-03,101,105,100,102,1,1", "missing symbol"),
        ("IBM,2000-03-03,101,105", "short row: 4 of 8 fields"),
        ("IBM,2000-03-03,101,105,100,102,1,1,7", "long row: 9 fields for 8 columns"),
        ('IBM,2000-03-03,101,"105,100,102,1,1', "short row: 4 of 8 fields"),
    ],
)
def test_bad_records_say_why(tmp_path, line, reason):
    screened = screen(*GOOD, line, tmp_path=tmp_path)
    assert screened.accepted.height == len(GOOD)
    reject = screened.rejected.row(0, named=True)
    assert (reject["reason"], reject["origin"], reject["table_name"]) == (reason, "bars.csv:7", "raw.bars")
    assert json.loads(reject["record"])["line"] == line
    undated = "date" in reason.replace("this date", "") or "naive" in reason or "row" in reason
    assert reject["filed_at"] == SPAN_START if undated and reject["event_at"] is None else reject["event_at"]


def test_a_reject_is_filed_under_its_date(tmp_path):
    lines = ["IBM,2000-03-03,101,105,,102,1,1", "IBM,2000-03-04,101,105,100,102,1,1", "IBM,soon,101,105,100,102,1,1"]
    assert screen(*lines, tmp_path=tmp_path).rejected.select("event_at", "filed_at").rows() == [
        (datetime(2000, 3, 3, 21, tzinfo=UTC), datetime(2000, 3, 3, 21, tzinfo=UTC)),
        (datetime(2000, 3, 4, 5, tzinfo=UTC), datetime(2000, 3, 4, 5, tzinfo=UTC)),
        (None, SPAN_START),
    ]


def test_timestamps_with_an_offset_are_sessions(tmp_path):
    tail = ",101,105,100,102,1,1"
    lines = [
        "IBM,2000-03-03T21:00:00Z" + tail,
        "IBM,2000-03-06T16:00:00-05:00" + tail,
        "IBM,2000-03-07 09:30:00-05:00" + tail,
        "IBM,2000-03-08T05:00:00Z" + tail,
    ]
    screened = screen(*lines, tmp_path=tmp_path)
    assert screened.accepted["session"].to_list() == [date(2000, 3, day) for day in (3, 6, 7, 8)]
    assert set(screened.accepted["event_at"].dt.hour()) == {21}


def test_duplicates_are_counted_and_conflicts_believed_neither(tmp_path):
    same = "IBM,2000-03-01,102.00,105.5,100.06,100.25,9807800.0,81.1"  # the same numbers, written otherwise
    other = "AAPL,2000-03-02,127.0,127.94,120.69,122.5,2779100,3.9"
    screened = screen(*GOOD, same, other, GOOD[2], tmp_path=tmp_path)
    assert screened.duplicates == 2
    assert screened.rejected.select("origin", "reason").rows() == [("bars.csv:3", CONFLICT), ("bars.csv:8", CONFLICT)]
    assert screened.accepted.select("symbol", "session").rows() == [
        ("AAPL", date(2000, 3, 1)),
        ("FB", date(2012, 11, 23)),
        ("IBM", date(2000, 3, 1)),
        ("IBM", date(2000, 3, 2)),
    ]


def test_a_bad_record_does_not_spoil_the_good_one_beside_it(tmp_path):
    screened = screen(*GOOD, "IBM,2000-03-01,102.0,105.5,100.06,,9807800,81.1", tmp_path=tmp_path)
    assert (screened.accepted.height, screened.rejected["reason"].to_list()) == (5, ["missing close"])


@pytest.mark.parametrize("name", ["VWAP", "close", "source", "fault", "Close"])
def test_an_unknown_column_makes_its_records_unusable(tmp_path, name):
    screened = screen(*(f"{line},1.5" for line in GOOD), header=f"{HEADER},{name}", tmp_path=tmp_path)
    assert screened.accepted.is_empty()
    (reason,) = set(screened.rejected["reason"])
    assert reason.startswith("unknown column '") and name in reason


def test_a_missing_column_is_a_missing_field(tmp_path):
    lines = [",".join(line.split(",")[:-2]) for line in GOOD]
    screened = screen(*lines, header=HEADER.rsplit(",", 2)[0], tmp_path=tmp_path)
    assert set(screened.rejected["reason"]) == {"missing vendor_adj_close; missing volume"}
    screened = screen(
        *(line.rsplit(",", 1)[0] for line in GOOD), header=HEADER.rsplit(",", 1)[0], tmp_path=tmp_path, adjusted=False
    )
    assert screened.accepted["vendor_adj_close"].null_count() == len(GOOD)


def test_records_of_any_origin_are_screened():
    """A source that is no file need not fill the columns of one."""
    records = pl.DataFrame([dict(zip(COLUMNS, line.split(","), strict=True)) for line in GOOD]).with_columns(
        source=pl.lit("vendor"), origin=pl.lit("api page 1")
    )
    assert screen_bars(records, undated_at=SPAN_START).accepted.height == len(GOOD)
    extra = records.with_columns(vwap=pl.Series([None, "1", None, None, None]))
    screened = screen_bars(extra, undated_at=SPAN_START)
    assert (screened.accepted.height, screened.rejected["reason"].to_list()) == (4, ["unknown column 'vwap'"])
    assert screen_bars(records.clear(), undated_at=SPAN_START).accepted.is_empty()


def corrupted(lines: list[str], rng: random.Random) -> list[str]:
    """One random damage to a file's lines."""
    lines = list(lines)
    at = rng.randrange(len(lines))
    damage = rng.choice(["character", "cell", "delete", "repeat", "alter", "cut", "swap", "blank", "quote", "header"])
    if damage == "character":
        text = lines[at]
        place = rng.randrange(len(text) + 1)
        lines[at] = text[:place] + rng.choice('0-9.,xé\x00\r"/ T+∞') + text[place + 1 :]
    elif damage == "cell":
        cells = lines[at].split(",")
        cells[rng.randrange(len(cells))] = rng.choice(["", "nan", "-1", "inf", "0", "1e400", "x", "2000-03-02", "IBM"])
        lines[at] = ",".join(cells)
    elif damage == "delete" and len(lines) > 2:
        del lines[at]
    elif damage == "repeat":
        lines.insert(rng.randrange(1, len(lines) + 1), lines[at])
    elif damage == "alter":
        lines.insert(rng.randrange(1, len(lines) + 1), lines[at].replace("1", "2", 1))
    elif damage == "cut":
        lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
    elif damage == "swap":
        other = rng.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif damage == "blank":
        lines.insert(at, rng.choice(["", "  ", "\r"]))
    elif damage == "quote":
        lines[at] = '"' + lines[at]
    elif damage == "header":
        lines[0] = lines[0] + rng.choice([",More", "", ",Close", ","])
    return lines


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), damages=st.integers(0, 6), packed=st.booleans(), loss=st.integers(0, 60))
def test_nothing_is_lost_under_any_damage(tmp_path_factory, seed, damages, packed, loss):
    rng = random.Random(seed)
    lines = [HEADER, *GOOD]
    for _ in range(damages):
        lines = corrupted(lines, rng)
    content = "\n".join([*lines, ""]).encode()
    if packed:
        content = gzip.compress(content, mtime=0)
        content = content[: len(content) - loss]
    path = tmp_path_factory.getbasetemp() / ("damaged.csv.gz" if packed else "damaged.csv")
    path.write_bytes(content)

    records = read_delimited(path, COLUMNS, "vendor")
    if not packed:
        assert records.height == sum(bool(line.strip()) for line in "\n".join(lines).split("\n")[1:])
    screened = screen_bars(records, undated_at=SPAN_START, holds=["AAPL", "IBM", "FB"])
    assert screened.accepted.height + screened.rejected.height + screened.duplicates == records.height
    assert screened.rejected["reason"].null_count() == 0 and screened.rejected["filed_at"].null_count() == 0
    assert (screened.rejected["reason"].str.len_chars() > 0).all()
    taken = screened.accepted
    assert not taken.select(pl.struct("symbol", "session").is_duplicated().any()).item()
    assert taken.filter(
        (pl.col("low") <= 0)
        | (pl.min_horizontal("open", "close") < pl.col("low"))
        | (pl.max_horizontal("open", "close") > pl.col("high"))
        | ~pl.all_horizontal(pl.col("open", "high", "low", "close", "vendor_adj_close").is_finite())
        | (pl.col("volume") < 0)
    ).is_empty()
    assert taken.null_count().sum_horizontal().item() == 0


CELL = st.sampled_from(
    ["", " 105 ", "100", "105", "99.5", "0", "-1", "nan", "inf", "1e400", "1.5", "x", "2000-03-03", " IBM", "IBN"]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), CELL), max_size=4), st.booleans(), st.booleans())
def test_a_fault_is_found_wherever_it_is(cells, adjusted, listed):
    """Reasons are looked for in doubtful records alone: no record that has one may pass for plain."""
    line = ["IBM", "2000-03-03", "101", "105", "100", "102", "1", "1"]
    for at, text in cells:
        line[at] = text
    holds = ["AAPL", "IBM", "FB"] if listed else None
    record = dict(zip(COLUMNS, line, strict=True))
    records = pl.DataFrame([record], schema=dict.fromkeys(COLUMNS, pl.String)).with_columns(source=pl.lit("x"))
    parsed = ingest._parse(with_fields(records, ingest.FIELDS)[0], "%Y-%m-%d", "XNYS")
    faults = parsed.select(joined(ingest._faults([], holds, "XNYS", adjusted))).item()
    screened = screen_bars(records, undated_at=SPAN_START, holds=holds, adjusted=adjusted)
    assert screened.rejected["reason"].to_list() == ([faults] if faults else [])
