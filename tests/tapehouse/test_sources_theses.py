import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from xml.sax.saxutils import escape

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.ingest import REJECT_COLUMNS
from tapehouse.merging import merge_rejects, merge_versions
from tapehouse.sources.base import Ask, Delivery
from tapehouse.sources.theses import SCHEMA, Declaration, deliver, fingerprint

START, END = datetime(2016, 1, 1, tzinfo=UTC), datetime(2017, 1, 1, tzinfo=UTC)
KEY = ("thesis_id", "source")
CLOCK = datetime(2020, 1, 1, tzinfo=UTC)


def thesis(day="2016-06-30", action="buy", reasoning="why", support="proof", attributes="") -> str:
    return (
        f"<thesis{attributes}><as-of-date>{day}</as-of-date><reasoning>{reasoning}</reasoning>"
        f"<action>{action}</action><support>{support}</support></thesis>"
    )


def file_of(*records: str, ticker="AAPL", head="") -> str:
    body = "\n".join(records)
    return f'{head}<stock-theses ticker="{ticker}" generated-by="desk" version="1">\n{body}\n</stock-theses>\n'


def ask(home: Path, start=START, end=END, symbols=()) -> Ask:
    universe = SimpleNamespace(folder=home, start=START, end=END)
    return Ask("theses", "desk", symbols, start, end, SimpleNamespace(universe=universe))


def given_files(home: Path, **files: str | bytes) -> Delivery:
    """What a folder of the files (name without suffix -> content) delivers; every record is accounted for."""
    folder = home / "theses"
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.xml").write_bytes(content.encode() if isinstance(content, str) else content)
    return delivered(home)


def delivered(home: Path, **keys) -> Delivery:
    found = deliver(Declaration(**{"files": "theses", **keys}), ask(home))
    counts = found.counts
    parts = ("accepted", "outside_span", "quarantined", "duplicates")
    assert counts["received"] == sum(counts[name] for name in parts)
    assert (counts["accepted"], counts["quarantined"]) == (found.rows.height, found.rejected.height)
    assert found.rows.columns == list(SCHEMA) and found.rejected.columns == list(REJECT_COLUMNS)
    assert found.rejected["filed_at"].is_between(START, END, closed="left").all()
    return found


def test_a_file_by_hand(tmp_path):
    found = given_files(
        tmp_path,
        apple=file_of(
            "<!-- <thesis>not this one</thesis> -->",
            thesis("June 30, 2016", "Strong Buy", "Margins &amp; <![CDATA[<growth>]]>", " 10-Q\n"),
            thesis("12/01/2015", "sell"),
            thesis("2016-11-30", "Neutral", support=""),
            head='<?xml version="1.0" encoding="UTF-8"?>\n<!-- a day\'s work -->\n',
        ),
    )
    assert found.counts["outside_span"] == 0 and found.counts["quarantined"] == 1  # 12/01/2015 can be read both ways
    assert found.rows.drop("thesis_id").rows(named=True) == [
        {
            "symbol": "AAPL",
            "as_of": date(2016, 6, 30),
            "event_at": datetime(2016, 7, 1, 4, tzinfo=UTC),  # midnight in New York, summer time
            "known_at": datetime(2016, 7, 1, 4, tzinfo=UTC),
            "action": "strong_buy",
            "reasoning": "Margins & <growth>",
            "support": "10-Q",
            "generated_by": "desk",
            "version": "1",
            "origin": "apple.xml",
            "source": "desk",
        },
        {
            "symbol": "AAPL",
            "as_of": date(2016, 11, 30),
            "event_at": datetime(2016, 12, 1, 5, tzinfo=UTC),  # winter time
            "known_at": datetime(2016, 12, 1, 5, tzinfo=UTC),
            "action": "hold",
            "reasoning": "why",
            "support": None,
            "generated_by": "desk",
            "version": "1",
            "origin": "apple.xml",
            "source": "desk",
        },
    ]
    assert delivered(tmp_path, date_order="month_first").counts["outside_span"] == 1


GOOD = thesis(reasoning="good before"), thesis(reasoning="good after")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (thesis(day="31 June 2016"), "no such day"),
        (thesis(day=""), "empty date"),
        (thesis(action="perhaps"), "unknown action 'perhaps'"),
        (thesis(reasoning=" "), "empty reasoning"),
        (thesis().replace("<support>proof</support>", ""), "missing <support>"),
        (thesis().replace("<support>", "<target>9</target><support>"), "unknown element <target>; list it under `ignore`"),
        (thesis().replace("<support>", "<action>sell</action><support>"), "<action> is given more than once"),
        (thesis().replace("<support>", "stray<support>"), "text outside the elements"),
        (thesis(attributes=' weight="2"'), "unknown attribute 'weight'"),
        (thesis().replace("<support>", '<support weight="2">'), "unknown attribute 'weight'"),
        ("<thesis/>", "missing <as-of-date>"),
        (thesis(reasoning="AT&T"), "broken XML: "),
        (thesis(reasoning="a < b"), "broken XML: "),
        (thesis(reasoning="&nbsp;"), "broken XML: Entity 'nbsp' not defined"),
        (thesis(reasoning="\x0b"), "broken XML: "),
        (thesis(reasoning="<![CDATA[never closed"), "broken XML: "),
        (thesis(reasoning="<!-- never closed"), "broken XML: "),
        (thesis(reasoning="<!DOCTYPE x [<!ENTITY a 'b'>]>&a;"), "broken XML: "),
        (thesis().replace("</reasoning>", ""), "broken XML: "),
        (thesis().replace("</thesis>", ""), "broken XML: "),
        (thesis().replace("</thesis>", "</thesi"), "broken XML: "),
        (thesis().replace("<thesis>", "<thes"), "text outside a <thesis> record"),
        ("<note>for later</note>", "text outside a <thesis> record"),
        ("loose words", "text outside a <thesis> record"),
    ],
)
def test_a_malformed_record_leaves_its_neighbours_alone(tmp_path, record, reason):
    found = given_files(tmp_path, apple=file_of(GOOD[0], record, GOOD[1]), ibm=file_of(*GOOD, ticker="IBM"))
    assert found.rows.sort("symbol", "reasoning").select("symbol", "reasoning").rows() == [
        (ticker, text) for ticker in ("AAPL", "IBM") for text in ("good after", "good before")
    ]
    (reject,) = found.rejected.rows(named=True)
    assert reject["reason"].startswith(reason) or reason in reject["reason"]
    assert (reject["table_name"], reject["origin"], reject["symbol"]) == ("raw.theses", "apple.xml:3", "AAPL")
    received = json.loads(reject["record"])
    assert received["number"] == 2 and received["xml"].strip() == record


def test_markup_in_comments_and_cdata_of_a_damaged_file(tmp_path):
    """A file that no parser takes whole: the end tag in CDATA or a comment does not end its record."""
    quoted = thesis(reasoning="<![CDATA[say </thesis><thesis>]]> it<!-- </thesis> -->")
    found = given_files(tmp_path, apple=file_of(thesis(reasoning="AT&T"), quoted, "<!--" + thesis() + "-->", *GOOD))
    assert found.rows.height == 3 and found.rejected.height == 1
    assert "say </thesis><thesis> it" in found.rows["reasoning"]


BOMB = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (file_of(thesis(reasoning="&l9;"), head=f'<!DOCTYPE s [<!ENTITY l0 "lol">{BOMB}]>'), "a DTD is refused"),
        (file_of(thesis(), ticker="&l9;", head=f'<!DOCTYPE s [<!ENTITY l0 "lol">{BOMB}]>'), "a DTD is refused"),
        (file_of(thesis(reasoning="&x;"), head='<!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]>'), "a DTD is refused"),
        (file_of(thesis(), head='<!DOCTYPE s SYSTEM "http://127.0.0.1:9/x.dtd">'), "a DTD is refused"),
        (file_of(thesis(), head="<?xml version='1.0'?>\n<!-- x -->\n<!doctype s>"), "a DTD is refused"),
        (file_of(thesis(), head="junk <!DOCTYPE s [<!ENTITY a 'b'>]>"), "a DTD is refused"),
        (file_of(thesis(), head="<!DOCTYPE s>").encode("utf-16"), "a DTD is refused"),
        ("", "no <stock-theses> file"),
        ("<html><body>Not found</body></html>", "no <stock-theses> file"),
        (file_of(thesis()).replace('ticker="', "ticker="), "no <stock-theses> file"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "no <stock-theses> file"),
        (file_of(thesis(), head="<?xml version='1.0' encoding='klingon'?>"), "unknown encoding 'klingon'"),
        (file_of(thesis(), head="<?xml version='1.0' encoding='base64'?>"), "unknown encoding 'base64'"),
        (file_of(thesis(), head="<?xml version='1.0' encoding='UTF-16'?>"), "declares the encoding UTF-16, and is not in it"),
    ],
)
def test_a_refused_file_leaves_the_others_alone(tmp_path, content, reason):
    found = given_files(tmp_path, bad=content, ibm=file_of(*GOOD, ticker="IBM"))
    assert found.rows["symbol"].to_list() == ["IBM", "IBM"]
    (reject,) = found.rejected.rows(named=True)
    assert reason in reject["reason"] and reject["origin"] == "bad.xml:1" and reject["symbol"] is None
    raw = content if isinstance(content, bytes) else content.encode()
    assert json.loads(reject["record"])["bytes"] == len(raw)
    assert reject["filed_at"] == START and "root:" not in reject["record"]


def test_a_file_without_ticker_or_end(tmp_path):
    found = given_files(
        tmp_path,
        nameless=file_of(thesis(), thesis("2016-07-01"), ticker=" "),
        torn=file_of(*GOOD).replace("</stock-theses>", ""),
        after=file_of(thesis(), ticker="IBM") + thesis("2016-07-02"),
    )
    assert found.rows.select("symbol", "as_of").sort("symbol").rows() == [
        *[("AAPL", date(2016, 6, 30))] * 2,
        ("IBM", date(2016, 6, 30)),
        ("IBM", date(2016, 7, 2)),
    ]
    reasons = found.rejected.select("origin", "reason").sort("origin", "reason").rows()
    assert reasons == [
        ("after.xml:3", "text outside a <thesis> record"),
        ("after.xml:4", "the file is cut off: it does not end with </stock-theses>"),
        ("nameless.xml:2", "<stock-theses> has no ticker"),
        ("nameless.xml:3", "<stock-theses> has no ticker"),
        ("torn.xml:5", "the file is cut off: it does not end with </stock-theses>"),
    ]


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "windows-1252"])
def test_encodings(tmp_path, codec):
    declared = {"utf-8-sig": "utf-8", "utf-16-le": "utf-16", "utf-16-be": "utf-16"}.get(codec, codec)
    text = file_of(thesis(reasoning="naïve – 5 €"), head=f'<?xml version="1.0" encoding="{declared}"?>')
    assert given_files(tmp_path, apple=text.encode(codec)).rows["reasoning"].to_list() == ["naïve – 5 €"]


def test_bytes_that_are_no_text_cost_their_own_record(tmp_path):
    content = file_of(*GOOD, thesis(reasoning="na?ve")).encode().replace(b"?", b"\xef")
    found = given_files(tmp_path, apple=content)
    assert found.rows.height == 2
    assert found.rejected["reason"].to_list() == ["bytes that are not utf-8"]
    assert r"na\xefve" in json.loads(found.rejected["record"][0])["xml"]


def test_namespaces(tmp_path):
    text = re.sub(r"<(/?)(?=[a-z])", r"<\1t:", file_of(*GOOD)).replace(" ticker", ' xmlns:t="urn:theses" ticker')
    assert text.startswith("<t:stock-theses xmlns:t=")
    assert sorted(given_files(tmp_path, apple=text).rows["reasoning"]) == ["good after", "good before"]


def test_long_texts(tmp_path):
    long = "word " * 3_000_000  # beyond the parser's default limit of ten million characters
    assert given_files(tmp_path, apple=file_of(thesis(reasoning=long))).rows["reasoning"][0] == long.strip()


def test_what_is_ignored_by_declaration_and_markup_inside_a_text(tmp_path):
    known = thesis(reasoning="a <b>bold</b> step").replace("<support>", '<target unit="USD">9</target><support lang="en">')
    given_files(tmp_path, apple=file_of(known, head="<!-- x -->").replace(' version="1"', ' version="1" license="MIT"'))
    assert (
        "unknown attribute 'license' of <stock-theses>; unknown element <target>" in delivered(tmp_path).rejected["reason"][0]
    )
    taken = delivered(tmp_path, ignore=["target", "unit", "lang", "license"])
    assert taken.rows.select("reasoning", "support").rows() == [("a bold step", "proof")]


def test_two_theses_of_a_day_copies_and_corrections(tmp_path):
    first = given_files(
        tmp_path, a=file_of(thesis(reasoning="one"), thesis(reasoning="two")), b=file_of(thesis(reasoning="one"))
    )
    assert first.counts["duplicates"] == 1 and first.rows["thesis_id"].n_unique() == 2
    stored = merge_versions(pl.DataFrame(), first.rows, KEY, CLOCK)

    corrected = given_files(tmp_path, a=file_of("", thesis(reasoning="one, better"), thesis(reasoning="two")), b=file_of())
    assert set(corrected.rows["thesis_id"]) == set(first.rows["thesis_id"])
    later = merge_versions(stored, corrected.rows, KEY, CLOCK + timedelta(days=1))
    assert later.height == 3
    added = later.join(stored, on=["thesis_id", "known_at"], how="anti")
    assert added.select("reasoning", "known_at").rows() == [("one, better", CLOCK + timedelta(days=1))]
    assert merge_versions(later, corrected.rows, KEY, CLOCK + timedelta(days=2)).equals(later)


def test_renaming_a_file_corrects_nothing(tmp_path):
    theses = [thesis(reasoning=f"reason {number}") for number in range(20)]
    first = given_files(tmp_path, apple=file_of(*theses))
    stored = merge_versions(pl.DataFrame(), first.rows, KEY, CLOCK)
    (path,) = tmp_path.rglob("apple.xml")
    path.rename(path.with_name("archive.xml"))
    moved = delivered(tmp_path)
    assert set(moved.rows["origin"]) == {"archive.xml"} and set(first.rows["origin"]) == {"apple.xml"}
    assert merge_versions(stored, moved.rows, KEY, CLOCK + timedelta(days=1)).equals(stored)


def test_mending_a_record_moves_no_other(tmp_path):
    broken = given_files(tmp_path, a=file_of(thesis(action="?"), thesis(reasoning="two")))
    mended = given_files(tmp_path, a=file_of(thesis(), thesis(reasoning="two")))
    assert set(broken.rows["thesis_id"]) < set(mended.rows["thesis_id"])


def test_an_id_of_its_own(tmp_path):
    def named(number: int, text: str) -> str:
        return thesis(reasoning=text, attributes=f' id="{number}"')

    first = given_files(tmp_path, a=file_of(named(1, "one"), named(2, "two"), named(1, "one"))).rows
    moved = given_files(tmp_path, a=file_of(named(2, "two"), named(1, "other"))).rows
    assert first.height == 2 and set(first["thesis_id"]) == set(moved["thesis_id"])
    found = given_files(tmp_path, a=file_of(named(1, "one"), named(1, "other")))
    assert found.rows.height == 1 and "has the id '1'" in found.rejected["reason"][0]


def test_ranges_symbols_and_fingerprints(tmp_path):
    given_files(tmp_path, a=file_of(thesis("2016-06-30"), thesis("2016-08-15")), b=file_of(thesis(), ticker="IBM"))
    declared, july = Declaration(files="theses/*.xml"), datetime(2016, 7, 1, tzinfo=UTC)
    august = datetime(2016, 8, 1, tzinfo=UTC)
    assert deliver(declared, ask(tmp_path, july, august)).rows.height == 2
    only = deliver(declared, ask(tmp_path, symbols=("aapl",)))
    assert only.rows["symbol"].unique().to_list() == ["AAPL"] and only.counts["not_asked"] == 1
    before = [fingerprint(declared, ask(tmp_path, july, august)), fingerprint(declared, ask(tmp_path, august, END))]
    given_files(tmp_path, b=file_of(thesis(reasoning="other"), ticker="IBM"))
    after = [fingerprint(declared, ask(tmp_path, july, august)), fingerprint(declared, ask(tmp_path, august, END))]
    assert before[0] != after[0] and before[1] == after[1]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(TapehouseError, match=r"no folder .*nowhere for the theses"):
        deliver(Declaration(files="nowhere"), ask(tmp_path))
    assert given_files(tmp_path).counts["files"] == 0


DAYS = st.dates(date(2016, 1, 1), date(2016, 12, 30)).map(lambda day: f"{day:%B %d, %Y}")
RECORDS = st.lists(
    st.builds(
        thesis,
        day=DAYS,
        action=st.sampled_from(["buy", "Strong Sell", "HOLD", "nonsense"]),
        reasoning=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).map(escape),
    ),
    min_size=1,
    max_size=6,
)
TOKENS = [b"<thesis>", b"</thesis>", b"<", b">", b"&", b"<!--", b"-->", b"<![CDATA[", b"]]>", b"</stock-theses>", b"<?", b"?>"]
TOKENS += [
    b"<!DOCTYPE x [<!ENTITY a 'b'>]>",
    b"&a;",
    b'"',
    b"\x00",
    b"\xff",
    b"\xe2\x82",
    b"\n",
    b"2016",
    b"<action>buy</action>",
]
QUIET = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def marked(records: list[str]) -> list[str]:
    return [record.replace("<support>proof", f"<support>mark{number:03d}") for number, record in enumerate(records)]


@QUIET
@given(RECORDS, st.data())
def test_nothing_is_lost_under_corruption(tmp_path, records, data):
    """Wherever a file is damaged, each record that still bears its mark is taken, quarantined, or counted."""
    content = file_of(*marked(records)).encode()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        cut = data.draw(st.integers(0, 30))
        content = content[:at] + data.draw(st.sampled_from([b"", *TOKENS])) + content[at + cut :]
    found = given_files(tmp_path, apple=content)
    kept = " ".join([*found.rows["support"].drop_nulls(), *found.rejected["record"]]).encode()
    # No record is meant by what stands in a comment, in the frame's own tags, or in a file that is refused as a whole.
    beside = b" ".join(re.findall(rb"<!--.*?-->|<\?.*?\?>|</?stock-theses[^>]*>?", content, re.DOTALL))
    refused = found.rejected["origin"].to_list() == ["apple.xml:1"]
    lost = {mark for mark in re.findall(rb"mark\d{3}", content) if mark not in kept and mark not in beside}
    assert not lost or refused or len(lost) <= found.counts["duplicates"] + found.counts["outside_span"]
    stored = merge_rejects(pl.DataFrame(), found.rejected, CLOCK)
    assert stored.height == found.rejected.height  # no two rejects are taken for one


@QUIET
@given(RECORDS, st.integers(0, 5), st.data())
def test_damage_inside_one_record_costs_that_record_alone(tmp_path, records, which, data):
    which %= len(records)
    whole = given_files(tmp_path, apple=file_of(*marked(records)))
    victim = marked(records)[which]
    at = data.draw(st.integers(len("<thesis>"), len(victim.encode()) - len("</thesis>")))
    token = data.draw(st.sampled_from([token for token in TOKENS if b"thes" not in token]))
    before, after = file_of(*marked(records)[:which], "|", *marked(records)[which + 1 :]).encode().split(b"\n|\n")
    damaged = victim.encode()[:at] + token + victim.encode()[at:]
    found = given_files(tmp_path, apple=before + b"\n" + damaged + b"\n" + after)
    others = pl.col("support") != f"mark{which:03d}"
    assert set(whole.rows.filter(others)["support"]) <= set(found.rows["support"])
    assert found.counts["received"] >= whole.counts["received"]


@QUIET
@given(st.binary(max_size=300), st.booleans())
def test_bytes_of_any_kind_are_accounted_for(tmp_path, content, framed):
    head, tail = file_of("|").encode().split(b"|")
    found = given_files(tmp_path, apple=head + content + tail if framed else content, ibm=file_of(*GOOD, ticker="IBM"))
    assert found.rows.filter(symbol="IBM").height == 2
    if content.strip() and not framed:
        assert found.rejected.height == 1
