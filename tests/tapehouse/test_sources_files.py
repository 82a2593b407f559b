import gzip
import random
import subprocess
import sys
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tapehouse.errors import TapehouseError
from tapehouse.ingest import BAR_COLUMNS
from tapehouse.observations import MACRO_COLUMNS
from tapehouse.records import ACTION_COLUMNS, TRADE_COLUMNS
from tapehouse.screening import REJECT_COLUMNS
from tapehouse.sources import files
from tests.shared_data import shared
from tests.tapehouse.file_asks import END, START, TEXTS, ask, declare, delivered, settings_of

ROOT = Path(__file__).parents[2]
COLUMNS = {"bars": BAR_COLUMNS, "macro": MACRO_COLUMNS, "trades": TRADE_COLUMNS, "actions": ACTION_COLUMNS}
OFFERS = tuple(COLUMNS)
EXPECTED = {"bars": (5, 1), "macro": (6, 1), "trades": (3, 1), "actions": (4, 1)}  # accepted, outside the span


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("packing", ["plain", "gzip", "parquet", "typed parquet"])
def test_each_offer_in_each_format(tmp_path, offer, packing):
    name = write(tmp_path, offer, TEXTS[offer].encode(), packing)
    declared, own = declare(offer, name), settings_of(tmp_path)
    delivery = delivered(declared, own)
    assert delivery.rows.columns == list(COLUMNS[offer]) and delivery.rejected.columns == list(REJECT_COLUMNS)
    assert (delivery.counts["accepted"], delivery.counts["outside_span"]) == EXPECTED[offer]
    assert (delivery.rejected.height, delivery.counts["duplicates"], delivery.rows.height) == (0, 0, EXPECTED[offer][0])
    plain = delivered(declare(offer, write(tmp_path, offer, TEXTS[offer].encode(), "plain")), own)
    assert plain.rows.equals(delivery.rows)


def write(folder: Path, offer: str, content: bytes, packing: str) -> str:
    """A file of one kind; its name."""
    name = f"{offer}.{'parquet' if 'parquet' in packing else 'csv'}{'.gz' if packing == 'gzip' else ''}"
    if "parquet" in packing:
        typed = packing.startswith("typed")
        frame = pl.read_csv(content, infer_schema=typed, try_parse_dates=typed, infer_schema_length=None)
        frame.write_parquet(folder / name, row_group_size=3)
    else:
        (folder / name).write_bytes(gzip.compress(content, mtime=0) if packing == "gzip" else content)
    return name


def test_the_packaged_bars():
    own = files_settings()
    universe = own.universe
    counted: dict[str, int] = {}
    for name in ("bokeh-sampledata", "arch-sp500", "arch-nasdaq"):
        declared = files.Declaration.model_validate(universe.sources[name].model_dump())
        symbols = tuple(s for s, i in universe.universe.items() if i.source == (name,))
        delivery = delivered(declared, own, *symbols)
        assert delivery.rejected.is_empty()
        counted |= dict(delivery.rows.group_by("symbol").len().rows())
        for (_symbol,), rows in delivery.rows.group_by("symbol"):
            from tapehouse.calendars import sessions

            first, last = rows["session"].min(), rows["session"].max()
            days = sessions(first, date.fromordinal(last.toordinal() + 1))
            assert rows["session"].sort().equals(days["session"]), "a session without its bar"
        if name == "bokeh-sampledata":
            first = delivery.rows.filter(symbol="AAPL").sort("session").row(0, named=True)
            assert (first["session"], first["close"], first["vendor_adj_close"]) == (date(2000, 3, 1), 130.31, 4.186662803811)
            assert delivery.counts["received"] == 12154
            firsts = files.first_sessions(declared, ask(declared, own, *symbols))
            assert (firsts["GOOG"], firsts["FB"]) == (date(2004, 8, 19), date(2012, 5, 18))
    stocks = {"AAPL": 3270, "IBM": 3270, "MSFT": 3270, "GOOG": 2148, "FB": 196}
    assert counted == stocks | {"^GSPC": 3289, "^IXIC": 3289}


def files_settings():
    from tapehouse.settings import load_settings

    return load_settings(ROOT)


# What Yahoo has worked into these prices. PPL's is the spin-off of Talen, NGG's a consolidation with a special dividend.
SHARED_SPLITS = [
    {"symbol": "AAPL", "ex_date": "2014-06-09", "ratio": 7},
    {"symbol": "MA", "ex_date": "2014-01-22", "ratio": 10},
    {"symbol": "CMCSA", "ex_date": "2017-02-21", "ratio": 2},
    {"symbol": "NGG", "ex_date": "2017-05-22", "ratio": 0.916, "volumes": False},
    {"symbol": "PPL", "ex_date": "2015-06-02", "ratio": 1.073653, "volumes": False},
]
SPAN = {"start": utc(2012, 9, 1), "end": utc(2017, 10, 1)}


def shared_prices(tmp_path: Path, **keys) -> pl.DataFrame:
    folder = shared("prices")
    symbols = pl.read_csv(folder / "us_equities_2012_2017.csv.gz")["Ticker"].unique().to_list()
    declared = declare("bars", str(folder), holds=symbols, adj_close_decimals=6, **keys)
    delivery = delivered(declared, settings_of(tmp_path, **SPAN), **SPAN)
    assert delivery.counts["accepted"] == delivery.counts["received"] == delivery.rows.height == 53240
    assert delivery.rejected.is_empty()
    return delivery.rows


def off_cents(bars: pl.DataFrame) -> dict[str, float]:
    """Symbol to the share of its prices that are no whole cents, beyond what six decimals of a 32-bit float explain."""
    prices = bars.select("symbol", pl.concat_list("open", "high", "low", "close").alias("price")).explode("price")
    cents = pl.col("price") * 100
    off = (cents - cents.round()).abs() > pl.col("price") * 2.4e-5 + 1e-3
    return dict(prices.group_by("symbol").agg(off.mean()).rows())


def test_the_shared_prices_as_they_were_paid(tmp_path):
    raw = shared_prices(tmp_path, split_adjusted_by=SHARED_SPLITS)
    as_sent = shared_prices(tmp_path)
    # Shares are quoted in cents, and so are all prices once the splits are out; a few thin ones traded between.
    adjusted = {symbol for symbol, share in off_cents(as_sent).items() if share > 0.06}
    assert adjusted == {split["symbol"] for split in SHARED_SPLITS}
    assert {off_cents(raw)[symbol] for symbol in adjusted} == {0.0}
    untouched = ~pl.col("symbol").is_in(list(adjusted))
    assert as_sent.filter(untouched).equals(raw.filter(untouched))
    # In round lots, as volumes of these years are.
    assert (raw.filter(~untouched)["volume"] % 100 == 0).all()


def test_the_shared_prices_of_apple(tmp_path):
    bars = shared_prices(tmp_path, split_adjusted_by=SHARED_SPLITS, price_decimals=2)
    # What was paid on these days: 665.76 at the open of 2012-09-04, 645.57 at the close before the split, 93.70 after it.
    rows = {row["session"]: row for row in bars.filter(symbol="AAPL").to_dicts()}
    first, before, after = (rows[date(*day)] for day in ((2012, 9, 4), (2014, 6, 6), (2014, 6, 9)))
    assert (first["open"], first["high"], first["low"], first["close"]) == (665.76, 675.14, 664.50, 674.97)
    assert (first["volume"], before["volume"], after["volume"]) == (13_139_000, 12_497_800, 75_415_000)
    assert (before["close"], after["close"]) == (645.57, 93.699997)
    # The adjustment factor now steps by the split, which can be derived like any other.
    step = before["close"] / before["vendor_adj_close"] / (after["close"] / after["vendor_adj_close"])
    assert step == pytest.approx(7, rel=1e-4)


def test_the_shared_macro_vintages(tmp_path):
    folder = shared("macro")
    series = pl.read_csv(folder / "nowcast_vintages.csv.gz")["series_id"].unique().to_list()
    own = settings_of(tmp_path, utc(2016, 1, 1), utc(2017, 3, 1))
    keys = {
        "columns": {"symbol": "series_id", "period": "observation_date", "vintage": "vintage", "value": "value"},
        "holds": series,
        "frequencies": dict.fromkeys(["GDPC1", "A261RX1Q020SBEA", "ULCNFB"], "q"),
        "quarter_named_by": "last_month",
    }
    delivery = delivered(declare("macro", str(folder), **keys), own, start=utc(2016, 1, 1), end=utc(2017, 3, 1))
    assert delivery.counts["received"] == 9889 and delivery.counts["quarantined"] == delivery.counts["duplicates"] == 0
    june = delivery.rows.filter(series_id="PAYEMS", period=date(2016, 6, 1))
    # Known at the end of the vintage's day in New York: 04:00 UTC in summer.
    assert june.select("value", "known_at", "known_as").rows() == [
        (144175.0, utc(2016, 7, 9, 4), "vintage"),
        (144193.0, utc(2016, 8, 6, 4), "vintage"),
        (144172.0, utc(2016, 9, 3, 4), "vintage"),
    ]
    assert set(june["event_at"]) == {utc(2016, 7, 1, 4)}
    bound = delivery.rows.filter(known_as="upper_bound")
    assert set(bound["vintage"]) == {date(2016, 6, 29)} == set(delivery.rows.filter(vintage=date(2016, 6, 29))["vintage"])
    # The file names a quarter by its last month: the second of 2016 is 2016-06-01 there.
    quarter = delivery.rows.filter(series_id="GDPC1", vintage=date(2016, 7, 29)).sort("period").row(-1, named=True)
    assert (quarter["period"], quarter["event_at"], quarter["value"]) == (date(2016, 4, 1), utc(2016, 7, 1, 4), 16575.1)
    assert not delivery.rows["revised"].any()


PACKAGED_MACRO = {
    "arch-vix": ("VIXCLS", "vix/vix.csv.gz", "vix", "d", {"at": "16:15"}, False, ()),
    "arch-wti": ("DCOILWTICO", "wti/wti.csv.gz", "DCOILWTICO", "d", {"lag_days": 7}, False, ()),
    "arch-aaa": ("AAA", "default/default.csv.gz", "AAA", "m", {"lag_days": 7}, False, ("BAA",)),
    "arch-baa": ("BAA", "default/default.csv.gz", "BAA", "m", {"lag_days": 7}, False, ("AAA",)),
    "arch-core-cpi": ("CPILFESL", "core_cpi/core-cpi.csv.gz", "CPILFESL", "m", {"lag_days": 20}, True, ()),
}
FIRST_KNOWN = {  # the first observation of 2014: its value, the end of its period and when it was known
    "arch-vix": (13.76, utc(2014, 1, 4, 5), utc(2014, 1, 3, 21, 15)),
    "arch-wti": (95.14, utc(2014, 1, 3, 5), utc(2014, 1, 10, 5)),
    "arch-aaa": (4.49, utc(2014, 2, 1, 5), utc(2014, 2, 8, 5)),
    "arch-baa": (5.19, utc(2014, 2, 1, 5), utc(2014, 2, 8, 5)),
    "arch-core-cpi": (235.983, utc(2014, 2, 1, 5), utc(2014, 2, 21, 5)),
}


@pytest.mark.parametrize("name", PACKAGED_MACRO)
def test_the_packaged_macro_series(tmp_path, name):
    series, file, column, frequency, release, revised, ignored = PACKAGED_MACRO[name]
    declared = files.Declaration(
        kind="files",
        offer="macro",
        file=f"package:arch/data/{file}",
        symbol=series,
        date_format="%m/%d/%Y",
        frequency=frequency,
        columns={"period": "Date", "value": column},
        ignore=ignored,
        release=release,
        revised=revised,
    )
    delivery = delivered(
        declared, settings_of(tmp_path, utc(2014, 1, 1), utc(2019, 2, 1)), start=utc(2014, 1, 2), end=utc(2019, 2, 1)
    )
    assert set(delivery.rejected["reason"]) <= {"no value was published"} and delivery.counts["duplicates"] == 0
    first = delivery.rows.filter(pl.col("period") >= date(2014, 1, 1)).sort("period").row(0, named=True)
    assert (first["value"], first["event_at"], first["known_at"]) == FIRST_KNOWN[name]
    assert set(delivery.rows["revised"]) == {revised} and set(delivery.rows["known_as"]) == {"rule"}
    assert set(delivery.rows["series_id"]) == {series} and delivery.rows["vintage"].null_count() == delivery.rows.height


def test_ranges_add_up_and_fingerprints_follow_content(tmp_path):
    (tmp_path / "bars.csv").write_text(TEXTS["bars"] + "IBM,someday,1,1,1,1,1,1\nIBM,2000-04-03,1,2,3,1,1,1\n")
    declared, own = declare("bars", "bars.csv"), settings_of(tmp_path)
    march, april, later = (START, utc(2000, 4, 1)), (utc(2000, 4, 1), utc(2000, 5, 1)), (utc(2012, 11, 1), utc(2012, 12, 1))

    def prints() -> list[str]:
        return [files.fingerprint(declared, ask(declared, own, start=a, end=b)) for a, b in (march, april, later)]

    def rejects(start: datetime, end: datetime) -> list[tuple]:
        return delivered(declared, own, start=start, end=end).rejected.select("origin", "event_at", "filed_at", "reason").rows()

    close = utc(2000, 4, 3, 20)
    reason = "high below low; open outside [low, high]; close outside [low, high]"
    assert rejects(*march) == [("bars.csv:8", None, START, "unreadable date")]
    assert rejects(*april) == [("bars.csv:9", close, close, reason)]
    whole = delivered(declared, own)
    parts = [delivered(declared, own, start=a, end=b) for a, b in pairwise([START, utc(2000, 4, 1), utc(2012, 11, 1), END])]
    assert pl.concat([part.rows for part in parts]).sort("event_at").equals(whole.rows.sort("event_at"))
    assert pl.concat([part.rejected for part in parts]).sort("origin").equals(whole.rejected.sort("origin"))

    before = prints()
    assert prints() == before
    (tmp_path / "bars.csv").write_text((tmp_path / "bars.csv").read_text().replace("23451300", "23451301"))
    assert [a == b for a, b in zip(before, prints(), strict=True)] == [True, True, False]
    (tmp_path / "bars.csv").write_text((tmp_path / "bars.csv").read_text().replace("someday", "one day"))
    assert [a == b for a, b in zip(before, prints(), strict=True)] == [False, True, False]


def test_what_is_not_asked_for_is_counted_and_a_cut_is_filed_where_it_is_seen(tmp_path):
    (tmp_path / "bars.csv").write_text(TEXTS["bars"].replace("IBM,2013", "IBN,2013")[: -len("205.3\n")])
    declared, own = declare("bars", "bars.csv"), settings_of(tmp_path)
    delivery = delivered(declared, own, "IBM")
    assert set(delivery.rows["symbol"]) == {"IBM"}
    assert (delivery.counts["received"], delivery.counts["not_asked"]) == (3, 3)
    # Cut in the line of a symbol that may not even occur.
    assert delivery.rejected.select("origin", "symbol", "filed_at", "reason").rows() == [
        ("bars.csv:7", None, START, "cut off: the last line has no line end")
    ]


def test_a_folder_of_files_is_one_source(tmp_path):
    own = settings_of(tmp_path)
    (tmp_path / "bars").mkdir()
    header, *lines = TEXTS["bars"].splitlines(keepends=True)
    write(tmp_path / "bars", "a", (header + "".join(lines[:3])).encode(), "plain")
    write(tmp_path / "bars", "b", (header + "".join(lines[2:])).encode(), "typed parquet")
    (tmp_path / "bars" / "LICENSE").write_text("free")
    delivery = delivered(declare("bars", "bars"), own)
    assert (delivery.counts["received"], delivery.counts["duplicates"], delivery.counts["accepted"]) == (7, 1, 5)
    by_pattern = delivered(declare("bars", "ba*/?.*"), own)
    assert by_pattern.rows.equals(delivery.rows)
    damaged = bytearray((tmp_path / "bars" / "b.parquet").read_bytes())
    damaged[-20] ^= 255
    (tmp_path / "bars" / "b.parquet").write_bytes(damaged)
    left = delivered(declare("bars", "bars"), own)
    assert left.rows.height == 3 and left.rejected["origin"].to_list() == ["b.parquet:1"]
    with pytest.raises(TapehouseError, match=r"no file of \.csv"):
        delivered(declare("bars", "*.txt"), own)


def test_a_file_for_each_symbol(tmp_path):
    (tmp_path / "bars").mkdir()
    header, *lines = TEXTS["bars"].splitlines()
    for symbol in ("AAPL", "IBM", "FB"):
        mine = [line.partition(",")[2] for line in lines if line.startswith(symbol)]
        (tmp_path / "bars" / f"{symbol}.csv").write_text("\n".join([header.partition(",")[2], *mine, ""]))
    columns = {field: name for field, name in declare("bars", "x").columns.items() if field != "symbol"}
    declared = declare("bars", "bars", symbol="{stem}", holds=None, columns=columns)
    delivery = delivered(declared, settings_of(tmp_path), "IBM", "FB")
    assert delivery.rows.group_by("symbol").len().sort("symbol").rows() == [("FB", 1), ("IBM", 2)]
    assert delivery.counts["not_asked"] == 2 and declared.symbols is None


def test_symbols_have_their_own_calendars(tmp_path):
    line = {"name": "x", "kind": "equity", "tradable": True, "source": "here"}
    universe = {"AAPL": {"id": "1", **line}, "IBM": {"id": "2", **line, "calendar": "24/7"}}
    own = settings_of(tmp_path, universe=universe)
    saturday = "{},2000-03-04,100.5,105.44,99.5,103.12,9770000,83.4\n"
    (tmp_path / "bars.csv").write_text(TEXTS["bars"] + saturday.format("AAPL") + saturday.format("IBM"))
    delivery = delivered(declare("bars", "bars.csv"), own, "AAPL", "IBM")
    assert delivery.rejected.select("symbol", "reason").rows() == [("AAPL", "no session of XNYS on this date")]
    ibm = delivery.rows.filter(symbol="IBM").sort("session")
    assert ibm["session"][-1] == date(2000, 3, 4) and ibm["event_at"][-1] == utc(2000, 3, 5)
    first = delivery.rows.filter(symbol="AAPL").sort("session")["event_at"][0]
    assert first == utc(2000, 3, 1, 21) and ibm["event_at"][0] == utc(2000, 3, 2)


def test_known_splits_are_taken_out_again(tmp_path):
    lines = ["AAPL,2000-03-01,10.0,11.0,9.5,10.5,700,10.5", "AAPL,2000-03-02,10.1,11.2,9.8,10.6,350,10.6"]
    lines.append("IBM,2000-03-01,10.0,11.0,9.5,10.5,700,10.5")
    (tmp_path / "bars.csv").write_text("\n".join([TEXTS["bars"].splitlines()[0], *lines, ""]))
    splits = [
        {"symbol": "AAPL", "ex_date": "2000-03-02", "ratio": 7},
        {"symbol": "AAPL", "ex_date": "2000-03-03", "ratio": 0.5},
    ]
    delivery = delivered(declare("bars", "bars.csv", split_adjusted_by=splits), settings_of(tmp_path))
    rows = delivery.rows.sort("symbol", "session").select("open", "high", "low", "close", "volume", "vendor_adj_close").rows()
    assert rows == [
        (35.0, 38.5, 33.25, 36.75, 200, 10.5),  # by 7 / 2
        (5.05, 5.6, 4.9, 5.3, 700, 10.6),
        (10.0, 11.0, 9.5, 10.5, 700, 10.5),
    ]


@pytest.mark.parametrize(
    ("offer", "keys", "said"),
    [
        ("bars", {"columns": {"opn": "Open"}}, r"columns names \['opn'\]; the fields of a bar are"),
        ("bars", {"columns": {"symbol": "T", "session": "D"}}, r"columns lacks \['close', 'high', 'low', 'open', 'volume'\]"),
        ("bars", {"symbol": "AAPL"}, "give either symbol, or columns.symbol with holds"),
        ("bars", {"holds": None}, "holds must list the symbols"),
        ("bars", {"fil": "x"}, "Extra inputs"),
        ("bars", {"release": {"lag_days": 1}, "revised": False}, "release, revised: not for bars, only for macro"),
        ("bars", {"split_adjusted_by": [{"symbol": "A", "ex_date": "2000-03-01", "ratio": 0}]}, "greater than 0"),
        ("trades", {"price_decimals": 2}, "price_decimals: not for trades, only for bars"),
        ("macro", {"release": {}, "revised": True}, "give either columns.vintage, or release"),
        ("macro", {"columns": {"symbol": "s", "period": "p", "value": "v"}}, "give either columns.vintage, or release"),
        ("macro", {"columns": {"symbol": "s", "period": "p", "value": "v"}, "release": {}}, "say whether the values"),
        ("macro", {"columns": {"symbol": "s", "period": "p", "value": "v"}, "release": {"at": 975}}, "in quotes"),
        ("news", {}, "Input should be 'bars', 'actions', 'trades' or 'macro'"),
    ],
)
def test_a_declaration_that_cannot_be_meant(offer, keys, said):
    with pytest.raises((ValidationError, KeyError), match=said):
        content = {"kind": "files", "offer": offer, "file": "x.csv"}
        declare(offer, "x.csv", **keys) if offer != "news" else files.Declaration.model_validate(content)


def test_a_declaration_survives_its_text():
    for offer in OFFERS:
        declared = declare(offer, "x.csv")
        assert files.Declaration.model_validate_json(declared.model_dump_json()) == declared


def test_the_declarations_of_the_docs_can_be_made():
    page = (ROOT / "docs" / "source_files.md").read_text()
    declared = yaml.safe_load(page.split("```yaml")[1].split("```")[0])["sources"]
    prices, nowcast = (files.Declaration.model_validate(declared[name]) for name in ("prices", "nowcast"))
    assert [split.model_dump(mode="json") for split in prices.split_adjusted_by] == [
        {"volumes": True, **split} for split in SHARED_SPLITS
    ]
    assert nowcast.offers == ("macro",) and nowcast.first_vintage_is_snapshot


def test_finding_a_file_imports_nothing_heavy(tmp_path):
    code = (
        "import sys; from pathlib import Path; from tapehouse.sources.files import locate;"
        "print(locate('package:arch/data/sp500/sp500.csv.gz', Path()));"
        "sys.exit(any(name in sys.modules for name in ('arch', 'statsmodels', 'bokeh_sampledata', 'torch', 'dagster')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("sp500.csv.gz")
    with pytest.raises(TapehouseError, match="package 'no_such_package'"):
        files.locate("package:no_such_package/x.csv", tmp_path)
    with pytest.raises(TapehouseError, match=r"no file .*bars\.csv"):
        files.locate("bars.csv", tmp_path)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A file after one random damage."""
    lines = content.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    byte = rng.randrange(len(content)) if content else 0
    kind = rng.choice(["flip", "cut", "drop", "double", "swap", "insert", "column", "cell", "header"])
    if not content:
        return content
    if kind == "flip":
        return content[:byte] + bytes([content[byte] ^ 1 << rng.randrange(8)]) + content[byte + 1 :]
    if kind == "cut":
        return content[:byte]
    if kind == "insert":
        return (
            content[:byte] + rng.choice([b"\x00", b'"', b"\n", b"\r", b",", b"\xff", "é".encode(), b"9" * 30]) + content[byte:]
        )
    if kind == "drop":
        del lines[at]
    elif kind == "double":
        lines.insert(other, lines[at])
    elif kind == "swap":
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == "header":
        lines[0] = rng.choice([b"", lines[0] + b",more", lines[0][: len(lines[0]) // 2], lines[0].replace(b"e", b"E")])
    else:
        cells = lines[at].split(b",")
        place = rng.randrange(len(cells))
        if kind == "column":
            cells.insert(place, b"x") if rng.random() < 0.5 else cells.pop(place)
        else:
            cells[place] = rng.choice([b"", b"nan", b"-1", b"inf", b"0", b"1e400", b"2000-03-01", b"99999999999999999999"])
        lines[at] = b",".join(cells)
    return b"\n".join(lines)


@settings(max_examples=120, deadline=None)
@given(
    offer=st.sampled_from(OFFERS),
    packing=st.sampled_from(["plain", "gzip", "parquet"]),
    seed=st.integers(0, 2**32),
    damages=st.integers(0, 5),
    after=st.integers(0, 3),
)
def test_nothing_is_lost_under_any_damage(tmp_path_factory, offer, packing, seed, damages, after):
    """Received = accepted + outside + quarantined + duplicates, and as many records as the file has, whatever befalls it."""
    rng, folder = random.Random(seed), tmp_path_factory.getbasetemp()
    content = TEXTS[offer].encode()
    for _ in range(damages):
        content = damaged(content, rng)
    if packing == "parquet":
        header, *lines = [line.split(b",") for line in content.split(b"\n") if line] or [[b"x"]]
        names = dict.fromkeys(cell.decode(errors="replace") for cell in header)
        cells = [[line[at].decode(errors="replace") if at < len(line) else None for line in lines] for at in range(len(names))]
        frame = pl.DataFrame(dict(zip(names, cells, strict=True)), schema=dict.fromkeys(names, pl.String))
        frame.write_parquet(folder / "damaged.parquet", row_group_size=2)
        packed = (folder / "damaged.parquet").read_bytes()
    else:
        packed = gzip.compress(content, mtime=0) if packing == "gzip" else content
    for _ in range(after if packing != "plain" else 0):
        byte = rng.randrange(len(packed))
        packed = (
            packed[:byte]
            if rng.random() < 0.2
            else packed[:byte] + bytes([packed[byte] ^ 1 << rng.randrange(8)]) + packed[byte + 1 :]
        )
        packed = packed or b"x"
    name = {"plain": "damaged.csv", "gzip": "damaged.csv.gz", "parquet": "damaged.parquet"}[packing]
    (folder / name).write_bytes(packed)
    delivery = delivered(declare(offer, name), settings_of(folder))
    counts = delivery.counts
    assert delivery.rows.height == counts["accepted"] and delivery.rejected.height == counts["quarantined"]
    assert delivery.rejected["reason"].str.len_chars().min() != 0 and delivery.rejected["reason"].null_count() == 0
    assert delivery.rejected["filed_at"].is_between(START, END, closed="left").all()
    origins = delivery.rejected.select("origin", "record", "reason")
    assert not origins.is_duplicated().any()
    if packing == "plain":
        lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        some = sum(bool(line.decode(errors="replace").strip()) for line in lines[1:-1])
        assert counts["received"] + counts["not_asked"] == some + bool(lines[-1] or len(lines) == 1)
