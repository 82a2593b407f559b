"""What the parsers of all families share: the typed rejection, and how a confidence is written and read.

A parser is total and strict: any object gives an answer or a `Rejection`, nothing raises and nothing is guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# States of a rejection, in the order in which parsers look for them.
NOT_TEXT: Final = "not_text"  # no text at all, or none that ended
UNPARSEABLE: Final = "unparseable"  # not of the family's form
UNKNOWN_ACTION: Final = "unknown_action"  # of the form, with an action that the family does not have
PRICE_OUT_OF_BAND: Final = "price_out_of_band"  # a slip of a digit, not an order
CONFIDENCE_OUT_OF_RANGE: Final = "confidence_out_of_range"  # outside [0, 1]
STATES: Final = (NOT_TEXT, UNPARSEABLE, UNKNOWN_ACTION, PRICE_OUT_OF_BAND, CONFIDENCE_OUT_OF_RANGE)

# Patterns, of a confidence (that also matches what is out of range, so that it is told apart) and of a reason in small letters.
CONFIDENCE: Final = r"-?(?:0|[1-9][0-9]{0,3})\.[0-9]{2}"
REASON: Final = r"(?=[a-z ]{1,40}\Z)[a-z]+(?: [a-z]+)*"
_CONFIDENCE: Final = re.compile(CONFIDENCE)


@dataclass(frozen=True, slots=True)
class Rejection:
    """An answer that states nothing to act on: `state` is one of `STATES` (or a family's own), `why` says it in words."""

    state: str
    why: str


def confidence_text(confidence: float) -> str:
    """A confidence with two decimals. Raises ValueError outside [0, 1]."""
    if not 0.0 <= confidence <= 1.0:
        raise ValueError(f"prompts: a confidence is within [0, 1], got {confidence}")
    return f"{confidence:.2f}"


def parse_confidence(text: str) -> float | Rejection:
    """The confidence in [0, 1] that a text of the form 0.62 states, or why it states none."""
    if not _CONFIDENCE.fullmatch(text):
        return Rejection(UNPARSEABLE, f"the confidence {text[:20]!r} is not of the form 0.62")
    value = float(text)
    if not 0.0 <= value <= 1.0 or text.startswith("-"):
        return Rejection(CONFIDENCE_OUT_OF_RANGE, f"the confidence {text} is outside [0, 1]")
    return value


def no_text(answer: object) -> Rejection:
    """The rejection of what is no text."""
    return Rejection(NOT_TEXT, f"the answer is {type(answer).__name__}, not text")
