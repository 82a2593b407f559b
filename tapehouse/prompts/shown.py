"""What a prompt shows, read back by its template: the values as they are printed, and the words that stand before them.

So that what is said of a decision point rests on the prompt alone: a value that is hidden, dropped or not known is not
there to be spoken of, and one that is there has the digits that the reader sees.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter

from tapehouse.errors import TapehouseError
from tapehouse.prompts.templates import load

_NUMBER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?%?")


@dataclass(frozen=True, slots=True)
class Shown:
    """A value in a prompt: `text` as printed, `phrase` with the words before it, `number` (per cent as it stands) or None."""

    text: str
    phrase: str
    number: float | None


def shown(prompt: str, template: str) -> dict[str, Shown]:
    """The values that a prompt of a template shows, by column; those of lines that were left out are absent.

    Raises TapehouseError where a line is not one of the template's.
    """
    found: dict[str, Shown] = {}
    patterns = iter(_lines(template))
    for line in prompt.splitlines():
        for pattern, fields in patterns:
            if match := pattern.fullmatch(line):
                for place, (column, words) in enumerate(fields, 1):
                    text = match[place]
                    found[column] = Shown(text, f"{words} {text}".strip(), _number(text))
                break
        else:
            raise TapehouseError(f"a prompt's line {line!r} is none of template {template!r}, or not in its place")
    return found


@lru_cache(maxsize=64)
def _lines(template: str) -> tuple[tuple[re.Pattern[str], tuple[tuple[str, str], ...]], ...]:
    return tuple(_line(line.rstrip("\n")) for line in load(template).lines)


def _line(line: str) -> tuple[re.Pattern[str], tuple[tuple[str, str], ...]]:
    pattern, fields = "", []
    for literal, field, _, _ in Formatter().parse(line):
        pattern += re.escape(literal)
        if field is not None:
            pattern += "(.*?)"
            fields.append((field, literal.strip()))
    return re.compile(pattern), tuple(fields)


def _number(text: str) -> float | None:
    return float(text.removesuffix("%")) if _NUMBER.fullmatch(text) else None
