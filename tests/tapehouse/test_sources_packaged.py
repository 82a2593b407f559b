import gzip
import subprocess
import sys
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.sources import packaged
from tapehouse.sources.delimited import read_delimited
from tapehouse.universe import load_universe

DEFAULT = Path(__file__).parents[2] / "sources.yaml"
CONTENT = b"Date,Close\n2000-03-01,1\n2000-03-02,2\n"
FIELDS = {"session": "Date", "close": "Close"}


@pytest.fixture(scope="module")
def universe():
    return load_universe(DEFAULT)


def with_stocks(tmp_path: Path, text: str, **keys):
    """The default universe, with another file for the stocks."""
    content = yaml.safe_load(DEFAULT.read_text())
    content["sources"]["bokeh-sampledata"]["file"] = "stocks.csv"
    content.update(keys)
    (tmp_path / "stocks.csv").write_text(text)
    (tmp_path / "sources.yaml").write_text(yaml.safe_dump(content))
    return load_universe(tmp_path / "sources.yaml")


def test_the_packaged_files(universe):
    bars = packaged.bars(universe, universe.start, universe.end)
    assert dict(bars.group_by("symbol").len().rows()) == {
        "AAPL": 3270,
        "IBM": 3270,
        "MSFT": 3270,
        "GOOG": 2148,
        "FB": 196,
        "^GSPC": 3289,
        "^IXIC": 3289,
    }
    first = bars.filter(symbol="AAPL").row(0, named=True)
    assert (first["session"], first["close"], first["vendor_adj_close"]) == (date(2000, 3, 1), 130.31, 4.186662803811)
    index = bars.filter(symbol="^GSPC").row(0, named=True)
    assert (index["session"], index["close"]) == (date(2000, 3, 1), 1379.189941)
    assert packaged.rejects(universe, universe.start, universe.end).is_empty()
    totals = packaged.totals(universe)
    assert (totals["received"], totals["quarantined"], totals["duplicates"], totals["not_asked"]) == (22216, 0, 0, 0)
    assert totals["accepted"] == bars.height and totals["accepted"] + totals["outside_span"] == 22216


def test_every_session_has_its_bar(universe):
    from tapehouse.calendars import sessions

    bars = packaged.bars(universe, universe.start, universe.end)
    for (_symbol,), rows in bars.group_by("symbol"):
        first, last = rows["session"].min(), rows["session"].max()
        days = sessions(first, date.fromordinal(last.toordinal() + 1))
        assert rows["session"].sort().equals(days["session"])


def test_instruments(universe):
    rows = packaged.instruments(universe)
    assert rows["instrument_id"].is_unique().all() and rows.height == 7
    valid_from = dict(rows.select("symbol", "valid_from").rows())
    assert valid_from["GOOG"] == date(2004, 8, 19) and valid_from["FB"] == date(2012, 5, 18)
    assert rows.filter("tradable")["symbol"].to_list() == list(universe.tradable)
    assert rows.filter("benchmark")["symbol"].to_list() == ["^GSPC"]


def test_another_benchmark(tmp_path):
    universe = with_stocks(tmp_path, LINES, benchmark="^IXIC")
    assert packaged.instruments(universe).filter("benchmark")["symbol"].to_list() == ["^IXIC"]


def test_finding_a_file_imports_nothing_heavy():
    code = (
        "import sys; from pathlib import Path; from tapehouse.sources.packaged import locate;"
        "print(locate('package:arch/data/sp500/sp500.csv.gz', Path()));"
        "sys.exit(any(name in sys.modules for name in ('arch', 'statsmodels', 'bokeh_sampledata')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=DEFAULT.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("sp500.csv.gz")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(TapehouseError, match="package 'no_such_package'"):
        packaged.locate("package:no_such_package/x.csv", tmp_path)
    with pytest.raises(TapehouseError, match=r"no file .*bars\.csv"):
        packaged.locate("bars.csv", tmp_path)


MONTHS = pl.datetime_range(datetime(2000, 3, 1, tzinfo=UTC), datetime(2013, 4, 1, tzinfo=UTC), "1mo", eager=True).to_list()


@settings(max_examples=20, deadline=None)
@given(cuts=st.sets(st.sampled_from(MONTHS), min_size=2, max_size=8))
def test_ranges_add_up(cuts):
    universe = load_universe(DEFAULT)
    edges = sorted(cuts)
    whole = packaged.bars(universe, edges[0], edges[-1])
    parts = [packaged.bars(universe, a, b) for a, b in pairwise(edges)]
    assert pl.concat(parts).sort("symbol", "session").equals(whole)


LINES = """Ticker,Date,Open,High,Low,Close,Volume,Adj Close
IBM,2000-03-01,102.0,105.5,100.06,100.25,9807800,81.1
FB,2012-11-23,24.08,24.12,23.8,24.0,23451300,24.0
IBM,2000-04-03,102.0,101.5,100.06,100.25,9807800,81.1
IBN,2000-04-03,102.0,105.5,100.06,100.25,9807800,81.1
IBM,someday,102.0,105.5,100.06,100.25,9807800,81.1
"""


def test_a_file_of_ones_own(tmp_path):
    universe = with_stocks(tmp_path, LINES)
    april = datetime(2000, 4, 1, tzinfo=UTC), datetime(2000, 5, 1, tzinfo=UTC)
    march = datetime(2000, 3, 1, tzinfo=UTC), april[0]
    assert packaged.bars(universe, *march).filter(symbol="IBM")["close"].to_list() == [100.25]
    assert packaged.rejects(universe, *april).select("origin", "reason").rows() == [
        ("stocks.csv:4", "open outside [low, high]"),
        ("stocks.csv:5", "unknown symbol"),
    ]
    assert packaged.rejects(universe, *march).select("origin", "event_at", "filed_at").rows() == [
        ("stocks.csv:6", None, universe.start)
    ]
    assert packaged.receive(universe, "bokeh-sampledata").asked == 5


def test_a_cut_is_filed_where_it_is_seen(tmp_path):
    content = yaml.safe_load(DEFAULT.read_text())
    del content["universe"]["FB"]
    cut = LINES[: LINES.index("23451300")]  # in the line of a symbol that is not asked for
    universe = with_stocks(tmp_path, cut, universe=content["universe"])
    march = packaged.rejects(universe, universe.start, datetime(2000, 4, 1, tzinfo=UTC))
    assert march.select("origin", "symbol", "reason").rows() == [
        ("stocks.csv:3", None, "cut off: the last line has no line end")
    ]


def test_what_the_universe_leaves_out_is_counted_as_not_asked(tmp_path):
    content = yaml.safe_load(DEFAULT.read_text())
    del content["universe"]["FB"]
    universe = with_stocks(tmp_path, LINES, universe=content["universe"])
    received = packaged.receive(universe, "bokeh-sampledata")
    assert (received.asked, received.not_asked) == (4, 1)
    assert "FB" not in packaged.bars(universe, universe.start, universe.end)["symbol"]


def test_a_changed_file_is_read_again_and_changes_only_its_month(tmp_path):
    universe = with_stocks(tmp_path, LINES)
    own = SimpleNamespace(universe=universe)
    march = datetime(2000, 3, 1, tzinfo=UTC), datetime(2000, 4, 1, tzinfo=UTC)
    late = datetime(2012, 11, 1, tzinfo=UTC), datetime(2012, 12, 1, tzinfo=UTC)
    before = [packaged.bars_fingerprint(own, *march), packaged.bars_fingerprint(own, *late)]
    (tmp_path / "stocks.csv").write_text(LINES.replace("100.25,9807800", "100.26,9807800", 1))
    after = [packaged.bars_fingerprint(own, *march), packaged.bars_fingerprint(own, *late)]
    assert before[0] != after[0] and before[1] == after[1]
    assert packaged.rejects_fingerprint(own, *march) != packaged.rejects_fingerprint(own, *late)
    assert packaged.instruments_fingerprint(own) == packaged.instruments_fingerprint(own)


def read(tmp_path: Path, content: bytes, name: str = "bars.csv") -> list[tuple]:
    path = tmp_path / name
    path.write_bytes(content)
    return read_delimited(path, FIELDS, "vendor", symbol="X").select("session", "close", "origin", "fault").rows()


def test_reading_by_hand(tmp_path):
    whole = [("2000-03-01", "1", "bars.csv:2", None), ("2000-03-02", "2", "bars.csv:3", None)]
    assert read(tmp_path, CONTENT) == whole
    assert read(tmp_path, CONTENT.replace(b"\n", b"\r\n")) == whole
    assert read(tmp_path, b"\xef\xbb\xbf" + CONTENT) == whole
    assert read(tmp_path, gzip.compress(CONTENT)) == whole
    assert read(tmp_path, gzip.compress(CONTENT[:20]) + gzip.compress(CONTENT[20:])) == whole
    assert read(tmp_path, CONTENT.replace(b"\n2000-03-02", b"\n\n2000-03-02"))[1][2] == "bars.csv:4"


def test_a_cut_is_seen(tmp_path):
    assert [row[3] for row in read(tmp_path, CONTENT[:-3])] == [None, "cut off: the last line has no line end"]
    cut = gzip.compress(CONTENT)[:-9]
    rows = read(tmp_path, cut)
    assert rows[-1][3] == "cut off: the gzip stream ends too early"
    damaged = bytearray(gzip.compress(CONTENT))
    damaged[-6] ^= 255  # the checksum
    assert "the gzip stream is damaged" in read(tmp_path, bytes(damaged))[-1][3]
    for content in (b"", CONTENT[:5], gzip.compress(b"")):
        assert [row[3][:7] for row in read(tmp_path, content)] == ["cut off"]


@settings(max_examples=60, deadline=None)
@given(lost=st.integers(1, 400))
def test_a_gzip_cut_anywhere_keeps_what_could_be_read(tmp_path_factory, lost):
    lines = [f"2000-03-{day:02d},{day * 1.37:.4f}" for day in range(1, 29)]
    content = gzip.compress("\n".join(["Date,Close", *lines, ""]).encode(), mtime=0)
    path = tmp_path_factory.getbasetemp() / "cut.csv.gz"
    path.write_bytes(content[: max(3, len(content) - lost)])
    rows = read_delimited(path, FIELDS, "vendor", symbol="X")
    whole = rows.filter(pl.col("fault").is_null())["record"].to_list()
    assert whole == lines[: len(whole)]
    assert rows.height == len(whole) + 1 and rows["fault"][-1].startswith("cut off")
