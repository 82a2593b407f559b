"""Dates and actions as people and programs write them, read into one form, or refused with the reason.

Dates that are read, each also with a time behind it:

| form | examples |
| --- | --- |
| year first | `2016-06-30`, `2016/6/30`, `2016.06.30`, `20160630`, `2016-Jun-30` |
| a month's English name | `30 June 2016`, `30-Jun-2016`, `30th of June, 2016`, `June 30, 2016`, `Thursday, June 30th 2016` |
| numbers, year last | `06/30/2016`, `30/06/2016`, `6-30-2016` |
| with dots, year last | `30.06.2016`: always the day first |

Of the third form one number above 12 says which is the day. Where both readings are dates (`03/04/2016`) and no
`date_order` is declared, the date is refused: read the wrong way it would be known up to eleven months too early. With a
declared order a date that does not fit it is refused too, since it says that the declaration is wrong. A year in two
digits, a day that does not exist and a weekday that was another are refused.

A time is read for what it says of the date: with an offset or zone the date is that of New York at that instant
(`2016-07-01T02:00Z` is 30 June); without one it is the date as written.
"""

import re
from datetime import date, datetime, time, timedelta, timezone
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

DateOrder = Literal["month_first", "day_first"]
ACTIONS = ("strong_sell", "sell", "hold", "buy", "strong_buy")
NEW_YORK = ZoneInfo("America/New_York")
FIRST_YEAR, LAST_YEAR = 1900, 2199  # what lies outside is a typing error

_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_MONTH = {name: at for at, full in enumerate(_MONTHS, start=1) for name in (full, full[:3])} | {"sept": 9}
_WEEKDAYS = {name: at for at, name in enumerate(("mon", "tue", "wed", "thu", "fri", "sat", "sun"))}
_WEEKDAY = r"(?P<weekday>mon|tues?|wed(?:nes)?|thu(?:rs?)?|fri|sat(?:ur)?|sun)(?:day)?\.?,?\s+"
_NAME = r"(?P<name>[a-z]{3,9})\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_DATES = [
    re.compile(rf"(?:{_WEEKDAY})?{form}(?P<rest>.*)", re.DOTALL | re.ASCII)
    for form in (
        r"(?P<year>\d{4})(?P<gap>[-/.])(?P<month>\d{1,2})(?P=gap)(?P<day>\d{1,2})(?!\d)",
        r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})(?!\d)",
        rf"(?P<year>\d{{4}})[-\s]{_NAME}[-\s]{_DAY}(?!\d)",
        rf"{_DAY}(?:\s+of)?[-/.,\s]\s*{_NAME}[-/,\s]\s*(?P<year>\d{{4}})(?!\d)",
        rf"{_NAME}[-/\s]\s*{_DAY}(?:\s*,\s*|[-/\s]\s*)(?P<year>\d{{4}})(?!\d)",
        r"(?P<day>\d{1,2})\.\s*(?P<month>\d{1,2})\.\s*(?P<year>\d{4})(?!\d)",
        r"(?P<first>\d{1,2})(?P<gap>[-/])(?P<second>\d{1,2})(?P=gap)(?P<year>\d{4})(?!\d)",
    )
]
_SHORT_YEAR = re.compile(r"\d{1,2}([-/.])\d{1,2}\1\d{2}(?!\d)|.*[a-z]\D*\b\d{2}$", re.ASCII)
_TIME = re.compile(
    r"(?:t|\s*,?\s+(?:at\s+)?)(?P<hour>\d{1,2})(?::?(?P<minute>\d{2}))?(?::?(?P<second>\d{2})(?:[.,]\d+)?)?"
    r"\s*(?P<half>[ap]\.?m\.?)?\s*(?P<zone>z|utc|gmt|et|est|edt|(?:utc|gmt)?[+-]\d{2}:?\d{2})?",
    re.ASCII,
)
_ZONES = {"z": 0, "utc": 0, "gmt": 0, "est": -5, "edt": -4}  # hours; `et` is New York's own clock


class Unreadable(ValueError):
    """The text is not what it should be; the message is the reason to give."""


@lru_cache(maxsize=65536)
def read_date(text: str, order: DateOrder | None = None) -> date:
    """The date that a text says, in one of the forms above.

    Args:
        text: as received; surrounding blanks do not count, nor does the case.
        order: what comes first in `06/05/2016`; None refuses what can be read both ways.

    Raises:
        Unreadable: with the reason.
    """
    said = " ".join(text.split()).lower()
    if not said:
        raise Unreadable("empty date")
    for form in _DATES:
        found = form.fullmatch(said)
        if found is None or (found.groupdict().get("name") or "jan") not in _MONTH:
            continue
        parts = found.groupdict()
        day = _numbered(parts, text, order) if "first" in parts else _day(parts, text)
        weekday = parts["weekday"]
        if weekday and _WEEKDAYS[weekday[:3]] != day.weekday():
            raise Unreadable(f"{text.strip()!r}: {day} was another day of the week")
        return _in_new_york(day, parts["rest"], text)
    if _SHORT_YEAR.match(said):
        raise Unreadable(f"{text.strip()!r}: the year has two digits")
    raise Unreadable(f"unreadable date {text.strip()!r}")


def _day(parts: dict[str, str], text: str) -> date:
    month = _MONTH[parts["name"]] if parts.get("name") else int(parts["month"])
    found = _date(int(parts["year"]), month, int(parts["day"]))
    if found is None:
        raise Unreadable(f"{text.strip()!r}: there is no such day")
    return found


def _numbered(parts: dict[str, str], text: str, order: DateOrder | None) -> date:
    year, first, second = (int(parts[name]) for name in ("year", "first", "second"))
    readings = {"month_first": _date(year, first, second), "day_first": _date(year, second, first)}
    possible = {day for day in readings.values() if day is not None}
    if not possible:
        raise Unreadable(f"{text.strip()!r}: there is no such day")
    if order is not None:
        found = readings[order]
        if found is None:
            raise Unreadable(f"{text.strip()!r}: no such day with date_order {order}, as declared")
        return found
    if len(possible) > 1:
        early, late = sorted(possible)
        raise Unreadable(f"{text.strip()!r}: either {early} or {late}; declare date_order")
    return possible.pop()


def _date(year: int, month: int, day: int) -> date | None:
    if not FIRST_YEAR <= year <= LAST_YEAR:
        return None
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _in_new_york(day: date, rest: str, text: str) -> date:
    """The date in New York of a date with whatever follows it."""
    if not rest:
        return day
    found = _TIME.fullmatch(rest)
    hour = int(found["hour"]) if found else 24
    if found and found["half"]:
        hour = hour % 12 + (12 if found["half"].startswith("p") else 0) if 1 <= hour <= 12 else 24
    elif found and not found["minute"]:
        hour = 24  # a lone number is no time
    minute, second = (int(found[name] or 0) if found else 0 for name in ("minute", "second"))
    if hour > 23 or minute > 59 or second > 60:
        raise Unreadable(f"{text.strip()!r}: unreadable time")
    zone = found["zone"]
    if zone is None or zone == "et":
        return day
    if zone in _ZONES:
        offset = timedelta(hours=_ZONES[zone])
    else:
        digits = zone.removeprefix("utc").removeprefix("gmt")
        sign = -1 if digits[0] == "-" else 1
        hours, minutes = int(digits[1:3]), int(digits[-2:])
        if hours > 14 or minutes > 59:
            raise Unreadable(f"{text.strip()!r}: unreadable UTC offset")
        offset = sign * timedelta(hours=hours, minutes=minutes)
    at = datetime.combine(day, time(hour, minute, min(second, 59)), timezone(offset))
    return at.astimezone(NEW_YORK).date()


# Words of ratings scales, without case and without what stands between letters. Numbers are refused: 1 is the best of one
# house and the worst of another.
_WORDS = {
    "strong_sell": "strong sell, strongly sell, conviction sell, very bearish",
    "sell": "sell, short, reduce, trim, underperform, underweight, bearish, market underperform, sector underperform, "
    "moderate sell, weak sell",
    "hold": "hold, neutral, market perform, sector perform, peer perform, perform, equal weight, market weight, in line, "
    "maintain, keep",
    "buy": "buy, long, add, accumulate, outperform, overweight, bullish, market outperform, sector outperform, moderate buy, "
    "weak buy",
    "strong_buy": "strong buy, strongly buy, conviction buy, very bullish",
}
_ACTION = re.compile(r"[^\W\d_](?:[^\W\d_]|[\s_.\-])*")


def _letters(text: str) -> str:
    return re.sub(r"[\s_.\-]", "", text).casefold()


SPELLINGS = {_letters(word): action for action, words in _WORDS.items() for word in words.split(",")}


def read_action(text: str, further: dict[str, str] | None = None) -> str:
    """One of `ACTIONS`, for a text such as 'Strong Buy', 'STRONG_BUY', 'strongBuy' or 'outperform'.

    Args:
        further: declared spellings and their actions, beside `SPELLINGS`; they win.

    Raises:
        Unreadable: with the reason.
    """
    said = text.strip()
    if not said:
        raise Unreadable("empty action")
    letters = _letters(said)
    for word, action in (further or {}).items():
        if _letters(word) == letters:
            return action
    if _ACTION.fullmatch(said) and letters in SPELLINGS:
        return SPELLINGS[letters]
    raise Unreadable(f"unknown action {said[:60]!r}")
