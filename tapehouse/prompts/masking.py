"""Hiding names and dates in prompts, so that a pretrained model cannot recognise the asset or the period.

`names` shows a symbol as a neutral word, the same for one symbol in every prompt: seven consonants (so that no word of a
language comes about) from a keyed hash. `dates` shows every date and time as the one word `hidden`. Both also reach into
texts that a prompt quotes: the row's own symbol as a word of its own, dates, years and names of months, also short ones.
Prices stay as they are: who wants to hide them too has to scale them (`tapehouse.prompts.orders.rescale_prices`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from hashlib import blake2b
from typing import Final

import polars as pl

NAMES: Final = "names"
DATES: Final = "dates"
MASKS: Final = (NAMES, DATES)
HIDDEN: Final = "hidden"
HASH_KEY: Final = b"tapehouse.masking.1"
_CONSONANTS: Final = "bcdfghjklmnpqrstvwxz"
_LETTERS: Final = 7  # 20^7 words: two of 5,000 symbols share one in a hundredth of all universes

_MONTHS: Final = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.?)(?![A-Za-z])"
)
_DATE: Final = re.compile(
    r"\b(?:19|20)[0-9]{2}[-/][0-9]{2}(?:[-/][0-9]{2})?(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2})?Z?)?\b"  # 2008-09-15, with a time
    r"|\b(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])\b"  # 20080915
    r"|\b[0-9]{1,2}[-/][0-9]{1,2}[-/](?:[0-9]{2}){1,2}\b"
    rf"|\b(?:[0-9]{{1,2}} )?(?:{_MONTHS})(?: [0-9]{{1,2}}(?:st|nd|rd|th)?)?(?:,? (?:19|20)[0-9]{{2}})?\b"
    r"|(?<![0-9.,$])(?:19|20)[0-9]{2}(?![0-9.,]?[0-9])"  # a year alone
)


def neutral_name(symbol: str) -> str:
    """The word that stands for a symbol: seven small consonants by a keyed hash (BLAKE2b) of the symbol alone."""
    number = int.from_bytes(blake2b(symbol.encode(), digest_size=8, key=HASH_KEY).digest(), "little")
    letters = []
    for _ in range(_LETTERS):
        number, place = divmod(number, len(_CONSONANTS))
        letters.append(_CONSONANTS[place])
    return "".join(letters)


def hide_dates(text: str) -> str:
    """A text with every date, year and name of a month as `hidden`."""
    return _DATE.sub(HIDDEN, text)


def hide_name(text: str, symbol: str) -> str:
    """A text with the symbol, where it is a word of its own, as its neutral name."""
    return re.sub(rf"(?<![A-Za-z0-9]){re.escape(symbol)}(?![A-Za-z0-9])", neutral_name(symbol), text)


def masked(points: pl.DataFrame, mask: Collection[str]) -> pl.DataFrame:
    """The points as a masked prompt shows them: neutral symbols, and texts without the own symbol and without dates.

    Columns of dates and times stay: the renderer shows them as `hidden`, whatever their format. Raises ValueError for a mask
    that there is not.
    """
    unknown = sorted(set(mask) - set(MASKS))
    if unknown:
        raise ValueError(f"prompts: no mask {unknown}; there are {list(MASKS)}")
    texts = [name for name, kind in points.schema.items() if kind == pl.String and name != "symbol"]
    if DATES in mask:
        points = points.with_columns(_each(hide_dates, points[name]) for name in texts)
    if NAMES in mask and "symbol" in points.columns:
        points = points.with_columns(_each(hide_name, points[name], points["symbol"]) for name in texts)
        symbols = points["symbol"].unique()
        neutral = {symbol: neutral_name(symbol) for symbol in symbols}
        points = points.with_columns(pl.col("symbol").replace_strict(neutral, return_dtype=pl.String))
    return points


def _each(hide: Callable[..., str], texts: pl.Series, *others: pl.Series) -> pl.Series:
    shown = [text if text is None else hide(text, *other) for text, *other in zip(texts, *others, strict=True)]
    return pl.Series(texts.name, shown, dtype=pl.String)
