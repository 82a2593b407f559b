"""The thesis family: prompts that show what was known of a share by a decision, and theses in XML that answer them.

A thesis is one line of elements in a fixed order; between elements there may be white space::

    <thesis><reasoning><trend>…</trend><risk>…</risk><market>…</market><macro>…</macro><company>…</company><news>…</news>
    </reasoning><support><claim>quality unknown</claim>…<claim>momentum_10d yes: ten days +3.2%</claim>…</support>
    <action>buy</action></thesis>

All six sections and all eight claims are there. A section about which nothing was known is the word `unknown`. A claim holds
(`yes`) or not (`no`), and then cites its evidence as the prompt shows it, several pieces set apart by `; `; or it is
`unknown` and cites nothing. A section and a piece of evidence are plain text: no markup, no entities, no line breaks.

Numbers are what is easiest to make up, so that `numbers_not_shown` finds those of a thesis that its prompt does not show.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Final

import polars as pl

from tapehouse.prompts import templates
from tapehouse.prompts.answers import NOT_TEXT, UNKNOWN_ACTION, UNPARSEABLE, Rejection, no_text

SECTIONS: Final = ("trend", "risk", "market", "macro", "company", "news")
CLAIMS: Final = (
    "quality",  # a positive return on assets
    "sentiment",  # what is written about the company is of a good tone
    "momentum",  # a positive return over a quarter
    "insider_buying",  # an insider has bought within three months
    "volatility",  # a day's returns deviate by more than 2 %
    "momentum_10d",  # a positive return over ten sessions
    "momentum_30d",  # and over thirty
    "divergence",  # momentum over thirty sessions and sentiment are of opposite sign
)
ACTIONS: Final = ("strong_sell", "sell", "hold", "buy", "strong_buy")
UNKNOWN: Final = "unknown"
LONGEST_TEXT: Final = 600  # characters of one section, or of one claim's evidence
LONGEST: Final = 12_000  # of an answer: more than the parts of one can have, so that nothing endless is searched

# Own states of a rejection, beside those of `tapehouse.prompts.answers`.
TOO_LONG: Final = "too_long"
ENTITY: Final = "entity"  # an entity, a comment, a processing instruction, a DTD or CDATA: refused, never expanded
WRONG_SECTION: Final = "wrong_section"  # one of the six is missing, empty, too long, out of order or not of the six
WRONG_CLAIM: Final = "wrong_claim"  # one of the eight is missing, out of order, not of the eight, or not of its form
STATES: Final = (NOT_TEXT, TOO_LONG, ENTITY, WRONG_SECTION, WRONG_CLAIM, UNKNOWN_ACTION, UNPARSEABLE)

ELEMENTS: Final = ("thesis", "reasoning", *SECTIONS, "support", "claim", "action")
TAGS: Final = tuple(tag for name in ELEMENTS for tag in (f"<{name}>", f"</{name}>"))

# Neither markup nor controls, line breaks or halves of a surrogate pair, which no file can hold.
_CHARACTER = r"[^<>&\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
_TEXT = rf"(?=\S){_CHARACTER}{{1,{LONGEST_TEXT}}}+(?<=\S)"
_GAP = r"[ \t\r\n]*+"  # what XML calls white space
_SECTION = re.compile("".join(rf"<{name}>({_TEXT})</{name}>{_GAP}" for name in SECTIONS))
_CLAIM = "".join(rf"<claim>{name} (?:(yes|no): ({_TEXT})|unknown)</claim>{_GAP}" for name in CLAIMS)
_CLAIMS = re.compile(_CLAIM)
_THESIS = re.compile(
    rf"{_GAP}<thesis>{_GAP}<reasoning>{_GAP}{_SECTION.pattern}</reasoning>{_GAP}"
    rf"<support>{_GAP}{_CLAIM}</support>{_GAP}<action>({'|'.join(ACTIONS)})</action>{_GAP}</thesis>{_GAP}"
)
_FRAME = re.compile(
    rf"{_GAP}<thesis>{_GAP}<reasoning>{_GAP}((?:(?!</reasoning>)[^&])*+)</reasoning>{_GAP}"
    rf"<support>{_GAP}((?:(?!</support>)[^&])*+)</support>{_GAP}<action>([^<>&]*+)</action>{_GAP}</thesis>{_GAP}"
)
_NUMBER = re.compile(r"(?<![\d.])((?<!\w)[-+\u2212])?(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(%?)")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a thesis says of one claim: that it holds, that it does not (False), or that it is not known (None, no evidence)."""

    holds: bool | None
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Thesis:
    """A parsed thesis: `sections` by name (None where unknown), `claims` by name, and the action, one of `ACTIONS`."""

    sections: Mapping[str, str | None]
    claims: Mapping[str, Claim]
    action: str


def render_theses(points: pl.DataFrame, template: str, mask: Collection[str] = ()) -> pl.Series:
    """Prompts of decision points, one string a row.

    `points` has the columns of the template: those of `features.decision_points` and of `features.company`, in raw units.
    Raises ValueError where a column is missing, or a value outside the optional lines is null or not finite.
    """
    return templates.render(points, template, mask)


def thesis_text(thesis: Thesis) -> str:
    """The answer that states a thesis. Raises ValueError where it would not be read back as the same."""
    sections = "".join(f"<{name}>{thesis.sections[name] or UNKNOWN}</{name}>" for name in SECTIONS)
    claims = "".join(f"<claim>{_claim_text(name, thesis.claims[name])}</claim>" for name in CLAIMS)
    text = f"<thesis><reasoning>{sections}</reasoning><support>{claims}</support><action>{thesis.action}</action></thesis>"
    parsed = parse_thesis(text)
    if parsed != thesis:
        why = parsed.why if isinstance(parsed, Rejection) else "it reads as another thesis"
        raise ValueError(f"prompts: no thesis can be written of {thesis}: {why}")
    return text


def parse_thesis(text: object) -> Thesis | Rejection:
    """The thesis that an answer states, or why it states none. Total and strict: never raises, never guesses."""
    if not isinstance(text, str):
        return no_text(text)
    if len(text) > LONGEST:
        return Rejection(TOO_LONG, f"{len(text):,} characters; a thesis has at most {LONGEST:,}")
    found = _THESIS.fullmatch(text)
    if found is None:
        return _rejection(text)
    parts = found.groups()
    sections = {name: None if part == UNKNOWN else part for name, part in zip(SECTIONS, parts, strict=False)}
    told = parts[len(SECTIONS) : -1]
    claims = {}
    for name, holds, evidence in zip(CLAIMS, told[::2], told[1::2], strict=True):
        pieces = () if evidence is None else tuple(evidence.split("; "))
        if any(not piece or piece != piece.strip() for piece in pieces):
            return Rejection(WRONG_CLAIM, f"the evidence of {name} has an empty piece: {evidence[:80]!r}")
        claims[name] = Claim(None if holds is None else holds == "yes", pieces)
    return Thesis(sections, claims, parts[-1])


def parse_theses(texts: pl.Series) -> pl.DataFrame:
    """One row an answer: `parse_state` ('ok', or that of a rejection), `action`, and of each claim whether it holds.

    What is no thesis acts as hold, and says nothing of any claim.
    """
    rows = []
    for text in texts:
        parsed = parse_thesis(text)
        if isinstance(parsed, Thesis):
            rows.append(("ok", parsed.action, *(parsed.claims[name].holds for name in CLAIMS)))
        else:
            rows.append((parsed.state, "hold", *([None] * len(CLAIMS))))
    schema = {"parse_state": pl.String, "action": pl.String} | {f"claim_{name}": pl.Boolean for name in CLAIMS}
    return pl.DataFrame(rows, schema=schema, orient="row")


def cited(thesis: Thesis, prompt: str) -> dict[str, bool]:
    """Of each claim that is not unknown: whether each piece of its evidence stands in the prompt as it is, and has a number."""
    return {
        name: all(_stands_in(piece, prompt) for piece in claim.evidence)
        for name, claim in thesis.claims.items()
        if claim.holds is not None
    }


def numbers_not_shown(thesis: Thesis, prompt: str) -> list[str]:
    """Numbers of a thesis that its prompt does not show, as they are written, in their order.

    A number is shown where the prompt has its value, whatever zeros follow it; with a sign it is shown only under that sign
    (one without a sign is positive in the prompt), and with a per cent sign only as a percentage.
    """
    shown = _shown_numbers(prompt)
    texts = [*(text for text in thesis.sections.values() if text), *(p for c in thesis.claims.values() for p in c.evidence)]
    return [found[0] for text in texts for found in _NUMBER.finditer(text) if _form(found) not in shown]


def _claim_text(name: str, claim: Claim) -> str:
    if claim.holds is None:
        return f"{name} {UNKNOWN}"
    return f"{name} {'yes' if claim.holds else 'no'}: {'; '.join(claim.evidence)}"


def _rejection(text: str) -> Rejection:
    """Why a text is no thesis."""
    for mark, what in (("&", "an entity"), ("<!", "a comment, CDATA or a DTD"), ("<?", "a processing instruction")):
        if mark in text:
            return Rejection(ENTITY, f"it has {what} ({mark}); a thesis is plain text in its elements")
    frame = _FRAME.fullmatch(text)
    if frame is None:
        return Rejection(UNPARSEABLE, "not <thesis> with <reasoning>, <support> and <action>, each once and in this order")
    reasoning, support, action = frame.groups()
    if not _SECTION.fullmatch(reasoning):
        form = f"{', '.join(SECTIONS)}, each once, in this order, with 1 to {LONGEST_TEXT} characters"
        return Rejection(WRONG_SECTION, f"<reasoning> has {form}")
    if not _CLAIMS.fullmatch(support):
        form = "'<name> yes: <evidence>', '<name> no: <evidence>' or '<name> unknown'"
        return Rejection(WRONG_CLAIM, f"<support> has a <claim> on each of {', '.join(CLAIMS)}, in this order: {form}")
    if action not in ACTIONS:
        return Rejection(UNKNOWN_ACTION, f"the action {action[:40]!r} is none of {', '.join(ACTIONS)}")
    return Rejection(UNPARSEABLE, "not of the form of a thesis")


def _stands_in(piece: str, prompt: str) -> bool:
    place = prompt.find(piece) if _NUMBER.search(piece) else -1
    while place >= 0:
        before, after = prompt[:place][-1:], prompt[place + len(piece) :][:1]
        if not before.strip() and not after.strip():
            return True
        place = prompt.find(piece, place + 1)
    return False


@lru_cache(maxsize=4096)
def _shown_numbers(prompt: str) -> frozenset[tuple[str, Decimal, str]]:
    shown = set()
    for found in _NUMBER.finditer(prompt):
        sign, value, unit = _form(found)
        shown |= {(s, value, u) for s in ("", sign or "+") for u in ("", unit)}
    return frozenset(shown)


def _form(found: re.Match[str]) -> tuple[str, Decimal, str]:
    sign, digits, unit = found.groups()
    return (sign or "").replace("\u2212", "-"), Decimal(digits.replace(",", "")).normalize(), unit
