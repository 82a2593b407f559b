"""What may follow in an answer: the grammars of the families' answers, and the tokens that each place of one allows.

A grammar is in the Lark dialect of llguidance, which finds the tokens that it allows, whatever their cut. What it lets through
to its stop token parses: the patterns below say what the parsers of `tapehouse.prompts` ask for, and the reverse is tested.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Final

import numpy as np

from tapehouse.prompts import agent
from tapehouse.prompts.orders import PRICE_BAND, shown_text
from tapehouse.prompts.thesis import ACTIONS, CLAIMS, LONGEST_TEXT, SECTIONS, UNKNOWN

if TYPE_CHECKING:
    import torch

    from tapehouse.tokens import Vocabulary

_SAID: Final = """
CONFIDENCE: /0\\.[0-9]{2}|1\\.00/
REASON: /[a-z]+( [a-z]+)*/ & /[a-z ]{1,40}/
"""
# Characters of a section or of evidence that are neither markup nor controls; the first and last no blank.
_PLAIN: Final = r"<>&\x00-\x1f\x7f-\x9f\u2028\u2029"
PIECES: Final = 4  # of evidence, at most; the teacher's have two
_INNER: Final = rf"[^{_PLAIN}]"
_EDGE: Final = rf"[^{_PLAIN}\s]"


def order_grammar(prompt: str) -> str:
    """Of the answers to an order's prompt: its form of prices, and limits within the band around the price it shows."""
    shown = shown_text(prompt)
    unit = Decimal(1).scaleb(-len(shown.partition(".")[2]))
    low = max((Decimal(shown) * (1 - Decimal(str(PRICE_BAND)))).quantize(unit, ROUND_CEILING), unit)
    high = (Decimal(shown) * (1 + Decimal(str(PRICE_BAND)))).quantize(unit, ROUND_FLOOR)
    high = min(high, Decimal("9" * len(shown.partition(".")[0])) + 1 - unit)
    limit = price_pattern(*(f"{price:0{len(shown)}f}" for price in (low, high)))
    return f"""start: SIDE " limit " LIMIT said | "HOLD" said
said: " confidence " CONFIDENCE " because " REASON
SIDE: "BUY" | "SELL"
LIMIT: /{limit}/
{_SAID}"""


def price_pattern(low: str, high: str) -> str:
    """A regular expression of the texts between two texts of figures and a point, of one form, both included.

    Texts of one form are in the order of their numbers, so that it is a walk along both bounds, figure by figure.
    """
    if low == high:
        return low.replace(".", r"\.")
    if low[0] == high[0]:
        return low[0].replace(".", r"\.") + price_pattern(low[1:], high[1:])
    shape = [r"\." if sign == "." else "[0-9]" for sign in low]
    first, last = int(low[0]), int(high[0])
    parts = [f"{first}{_from(low[1:], '9')}", f"{last}{_from(high[1:], '0')}"]
    if last - first > 1:
        parts.append(f"[{first + 1}-{last - 1}]{''.join(shape[1:])}")
    return f"({'|'.join(parts)})"


def _from(bound: str, end: str) -> str:
    """The rest of a number that is at least `bound` (`end` 9) or at most it (`end` 0)."""
    if not bound:
        return ""
    if bound[0] == ".":
        return r"\." + _from(bound[1:], end)
    rest = "".join(r"\." if sign == "." else "[0-9]" for sign in bound[1:])
    figure = int(bound[0])
    parts = [f"{figure}{_from(bound[1:], end)}"]
    if bound[0] != end:
        parts.append(f"[{figure + 1}-9]{rest}" if end == "9" else f"[0-{figure - 1}]{rest}")
    return f"({'|'.join(parts)})"


def agent_grammar() -> str:
    """Of the answers of a trading agent."""
    actions = " | ".join(json.dumps(action) for action in agent.ACTIONS)
    return f"""start: ACTION " | " CONFIDENCE " | " REASON
ACTION: {actions}
{_SAID}"""


def thesis_grammar(vocabulary: Vocabulary) -> str:
    """Of theses, in the tokens that a vocabulary has for tags and actions, and without white space between elements."""

    def mark(text: str) -> str:
        return f"<[{vocabulary.markers[text]}]>" if text in vocabulary.markers else json.dumps(text)

    def element(name: str, inside: str) -> str:
        return f"{mark(f'<{name}>')} {inside} {mark(f'</{name}>')}"

    sections = " ".join(element(name, "TEXT") for name in SECTIONS)
    claims = " ".join(element("claim", f"claim_{place}") for place in range(len(CLAIMS)))
    told = "\n".join(
        f'claim_{place}: "{name} {UNKNOWN}" | "{name} " ("yes: " | "no: ") evidence' for place, name in enumerate(CLAIMS)
    )
    actions = " | ".join(mark(f"<action>{name}</action>") for name in ACTIONS)
    whole = element("thesis", element("reasoning", sections) + " " + element("support", claims) + " action")
    return f"""start: {whole}
action: {actions}
{told}
evidence: PIECE ("; " PIECE){{0,{PIECES - 1}}}
TEXT: /{_EDGE}({_INNER}{{0,{LONGEST_TEXT - 2}}}{_EDGE})?/
PIECE: /{_apart(_EDGE)}({_apart(_INNER)}{{0,{LONGEST_TEXT // PIECES - 4}}}{_apart(_EDGE)})?/
"""


def _apart(characters: str) -> str:
    """A class of characters without the one that stands between pieces of evidence."""
    return characters.replace("[^", "[^;")


class Grammars:
    """The places that the answers of one batch stand at in their grammars."""

    def __init__(self, vocabulary: Vocabulary):
        import llguidance

        # Every token's bytes come from the tokenizer; a prompt's special tokens are none of an answer's text.
        self._tokenizer = llguidance.LLTokenizer(vocabulary.tokenizer.to_str(), eos_token=vocabulary.stop)
        self._size = self._tokenizer.vocab_size
        self._begun: dict[str, llguidance.LLMatcher] = {}
        self._places: list[llguidance.LLMatcher] = []

    def begin(self, grammars: Sequence[str]) -> None:
        """Stand at the beginning of a grammar for each row of a batch. Raises ValueError for one that is not well formed."""
        self._places = [self._matcher(grammar).deep_copy() for grammar in grammars]

    def masked(self, logits: torch.Tensor, rows: np.ndarray, going: np.ndarray) -> torch.Tensor:
        """Logits (rows, vocabulary), minus infinity for what may not follow in the answers of `rows` that are `going`."""
        import torch

        words = np.full((len(rows), (self._size + 31) // 32), -1, np.int32)
        for at in np.flatnonzero(going):
            words[at] = np.frombuffer(self._places[rows[at]].compute_bitmask(), np.int32)
        bits = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")[:, : self._size].astype(bool)
        refused = np.ones(logits.shape, bool)  # a model may have rows that no token of its tokenizer has
        refused[:, : self._size] = ~bits
        return logits.masked_fill(torch.from_numpy(refused).to(logits.device), float("-inf"))

    def advance(self, rows: np.ndarray, tokens: Sequence[int]) -> None:
        """Go on by a token in the answers of `rows`. Raises ValueError for one that may not follow."""
        for row, token in zip(rows, tokens, strict=True):
            if not self._places[row].consume_token(token):
                raise ValueError(f"grammar: token {token} may not follow: {self._places[row].get_error()}")

    def _matcher(self, grammar: str):
        import llguidance

        if grammar not in self._begun:
            matcher = llguidance.LLMatcher(self._tokenizer, llguidance.LLMatcher.grammar_from_lark(grammar), log_level=0)
            if matcher.is_error():
                raise ValueError(f"grammar: {matcher.get_error()} in\n{grammar}")
            self._begun[grammar] = matcher
        return self._begun[grammar]
