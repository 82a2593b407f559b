"""Theses in XML: read back as written, everything else refused with its reason, made-up numbers found."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.prompts.answers import Rejection
from tapehouse.prompts.thesis import (
    ACTIONS,
    CLAIMS,
    ENTITY,
    LONGEST,
    LONGEST_TEXT,
    SECTIONS,
    STATES,
    TAGS,
    TOO_LONG,
    UNKNOWN_ACTION,
    WRONG_CLAIM,
    WRONG_SECTION,
    Claim,
    Thesis,
    cited,
    numbers_not_shown,
    parse_theses,
    parse_thesis,
    thesis_text,
)

PROMPT = "thesis on IBM\nclose 82.87 day -0.6%\nten days +3.7% thirty days -1.4%\nrsi 62 macd +0.38\ntone of articles +0.50\n"
SAID = {"trend": "Price turns up, +3.7% in ten days against -1.4% in thirty.", "risk": "Calm.", "news": "Kind, 0.5."}
HELD = {
    "sentiment": Claim(True, ("tone of articles +0.50",)),
    "momentum_10d": Claim(True, ("ten days +3.7%",)),
    "momentum_30d": Claim(False, ("thirty days -1.4%",)),
    "divergence": Claim(True, ("thirty days -1.4%", "tone of articles +0.50")),
}
THESIS = Thesis({name: SAID.get(name) for name in SECTIONS}, {name: HELD.get(name, Claim(None)) for name in CLAIMS}, "buy")
TEXT = (
    "<thesis><reasoning><trend>Price turns up, +3.7% in ten days against -1.4% in thirty.</trend><risk>Calm.</risk>"
    "<market>unknown</market><macro>unknown</macro><company>unknown</company><news>Kind, 0.5.</news></reasoning><support>"
    "<claim>quality unknown</claim><claim>sentiment yes: tone of articles +0.50</claim><claim>momentum unknown</claim>"
    "<claim>insider_buying unknown</claim><claim>volatility unknown</claim><claim>momentum_10d yes: ten days +3.7%</claim>"
    "<claim>momentum_30d no: thirty days -1.4%</claim><claim>divergence yes: thirty days -1.4%; tone of articles +0.50</claim>"
    "</support><action>buy</action></thesis>"
)
plain = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="<>&;"), min_size=1, max_size=30)
claims = st.one_of(st.just(Claim(None)), st.builds(Claim, st.booleans(), st.lists(plain, min_size=1, max_size=3).map(tuple)))
theses = st.builds(
    Thesis,
    st.fixed_dictionaries({name: st.none() | plain.filter(lambda t: t != "unknown") for name in SECTIONS}),
    st.fixed_dictionaries(dict.fromkeys(CLAIMS, claims)),
    st.sampled_from(ACTIONS),
)


def test_a_thesis_by_hand():
    assert thesis_text(THESIS) == TEXT
    assert parse_thesis(TEXT) == THESIS
    spaced = TEXT.replace("><", ">\n  <")
    assert parse_thesis(f"\n{spaced}\n") == THESIS
    assert cited(THESIS, PROMPT) == dict.fromkeys(HELD, True)
    assert numbers_not_shown(THESIS, PROMPT) == []


@given(theses)
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_back(thesis):
    assert parse_thesis(thesis_text(thesis)) == thesis


@pytest.mark.parametrize(
    ("old", "new", "state"),
    [
        ("Calm.", "Calm &amp; quiet.", ENTITY),
        ("Calm.", "Calm &#38; quiet.", ENTITY),
        ("<thesis>", '<!DOCTYPE t [<!ENTITY x "y">]><thesis>', ENTITY),
        ("Calm.", "<!-- calm -->Calm.", ENTITY),
        ("Calm.", "<![CDATA[Calm.]]>", ENTITY),
        ("<thesis>", "<?xml version='1.0'?><thesis>", ENTITY),
        ("Calm.", "", WRONG_SECTION),
        ("Calm.", " Calm.", WRONG_SECTION),
        ("Calm.", "Ca\nlm.", WRONG_SECTION),
        ("Calm.", "Ca\ud800lm.", WRONG_SECTION),
        ("Calm.", "<b>Calm.</b>", WRONG_SECTION),
        ("Calm.", "C" * (LONGEST_TEXT + 1), WRONG_SECTION),
        ("<risk>Calm.</risk>", "", WRONG_SECTION),
        ("<risk>Calm.</risk>", "<risk>Calm.</risk><risk>Calm.</risk>", WRONG_SECTION),
        ("<macro>unknown</macro>", "<macros>unknown</macros>", WRONG_SECTION),
        ("<trend>", "<trend sure='yes'>", WRONG_SECTION),
        ("quality unknown", "quality yes", WRONG_CLAIM),
        ("quality unknown", "quality maybe: rsi 62", WRONG_CLAIM),
        ("quality unknown", "wisdom unknown", WRONG_CLAIM),
        ("quality unknown", "quality unknown: rsi 62", WRONG_CLAIM),
        ("<claim>quality unknown</claim>", "", WRONG_CLAIM),
        ("thirty days -1.4%; tone", "thirty days -1.4%; ; tone", WRONG_CLAIM),
        ("<action>buy<", "<action>BUY<", UNKNOWN_ACTION),
        ("<action>buy<", "<action> buy<", UNKNOWN_ACTION),
        ("<action>buy<", "<action><", UNKNOWN_ACTION),
        ("<action>buy<", "<action>accumulate<", UNKNOWN_ACTION),
        ("<action>buy</action>", "<action>buy</action><action>buy</action>", "unparseable"),
        ("</thesis>", "", "unparseable"),
        ("</thesis>", "</thesis> I hope this helps.", "unparseable"),
        ("<support>", "<SUPPORT>", "unparseable"),
        ("<support>", "\x1c<support>", "unparseable"),
        ("<support>", "\u2003<support>", "unparseable"),
    ],
)
def test_what_is_no_thesis_is_refused_with_its_reason(old, new, state):
    assert old in TEXT
    refused = parse_thesis(TEXT.replace(old, new, 1))
    assert isinstance(refused, Rejection)
    assert refused.state == state, refused.why


@pytest.mark.parametrize("thing", [None, b"<thesis/>", 7, [TEXT], float("nan")])
def test_what_is_no_text_is_refused(thing):
    assert parse_thesis(thing).state == "not_text"


def test_what_has_no_end_is_refused_unread():
    for filler in ("<thesis>", "<reasoning></reasoning><support>", "</reasoning><support></support><action>", " ", "&lt;"):
        refused = parse_thesis("<thesis><reasoning>" + filler * (LONGEST // len(filler) + 1))
        assert refused.state == TOO_LONG
        assert isinstance(parse_thesis(("<thesis><reasoning>" + filler * LONGEST)[:LONGEST]), Rejection)


pieces = st.sampled_from(
    [*TAGS, *(f"{name} unknown" for name in CLAIMS), *ACTIONS, "yes: ", "; ", "&amp;", "<!--", " ", "\n", "x"]
)


@given(st.one_of(st.text(), st.lists(pieces, max_size=60).map("".join)))
@settings(max_examples=300, deadline=None)
def test_any_text_gives_a_thesis_or_a_reason(text):
    parsed = parse_thesis(text)
    assert isinstance(parsed, Thesis) or parsed.state in STATES


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_thesis_gives_a_thesis_or_a_reason(data):
    at = data.draw(st.integers(0, len(TEXT)))
    until = data.draw(st.integers(at, min(at + 40, len(TEXT))))
    put = data.draw(st.one_of(st.text(max_size=5), pieces))
    parsed = parse_thesis(TEXT[:at] + put + TEXT[until:])
    if isinstance(parsed, Rejection):
        assert parsed.state in STATES and parsed.why
    else:
        assert parse_thesis(thesis_text(parsed)) == parsed  # what is taken says what it says


def test_no_thesis_is_written_that_would_be_read_otherwise():
    for text in ("unknown", "a < b", "two\nlines", ""):
        with pytest.raises(ValueError, match="no thesis can be written"):
            thesis_text(Thesis(THESIS.sections | {"trend": text}, THESIS.claims, "buy"))
    with pytest.raises(ValueError, match="no thesis can be written"):
        thesis_text(Thesis(THESIS.sections, THESIS.claims, "accumulate"))


@pytest.mark.parametrize(
    ("text", "foreign"),
    [
        ("made +3.7%, 3.7% or 3.70 %", []),
        ("fell 1.4%", []),  # the sign is in the word
        ("rose +1.4%", ["+1.4%"]),
        ("fell -3.7%", ["-3.7%"]),
        ("fell \u22121.4%", []),
        ("rsi 62 and rsi +62", []),
        ("rsi 63", ["63"]),
        ("rsi 62%", ["62%"]),
        ("close 82.870", []),
        ("close 82.9 in Q3 2016, USD120", ["82.9", "3", "2016", "120"]),
        ("mid-62 and 62-82.87", []),
        ("1,082.87", ["1,082.87"]),
        (".5", []),
        ("٦٢", []),
        ("٦٣", ["٦٣"]),
    ],
)
def test_numbers_that_a_prompt_does_not_show(text, foreign):
    thesis = Thesis(THESIS.sections | {"macro": text}, THESIS.claims, "buy")
    assert numbers_not_shown(thesis, PROMPT) == foreign
    evidence = Thesis(THESIS.sections, THESIS.claims | {"quality": Claim(True, (text,))}, "buy")
    assert numbers_not_shown(evidence, PROMPT) == foreign


@pytest.mark.parametrize(
    "piece", ["ten days +3.8%", "n days +3.7%", "ten days +3.7", "ten days -1.4%", "ten days", "thesis", ""]
)
def test_evidence_stands_in_the_prompt_as_it_is_and_has_a_number(piece):
    thesis = Thesis(THESIS.sections, THESIS.claims | {"quality": Claim(True, ("rsi 62", piece))}, "buy")
    assert cited(thesis, PROMPT)["quality"] is False
    assert cited(THESIS, PROMPT)["divergence"] is True


def test_answers_of_a_model_as_a_frame():
    found = parse_theses(pl.Series(["", TEXT, None]))
    assert found["parse_state"].to_list() == ["unparseable", "ok", "not_text"]
    assert found["action"].to_list() == ["hold", "buy", "hold"]
    assert found["claim_momentum_30d"].to_list() == [None, False, None]
