"""Reported figures of a company (XBRL `companyfacts`), each with the filing that says so; a restated one is a new version."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache

import polars as pl

from tapehouse.answers import Answer
from tapehouse.hashing import text_hash
from tapehouse.sources.vendor import Reading, midnight_after

FUNDAMENTALS = {
    "symbol": pl.String,
    "cik": pl.Int64,
    **dict.fromkeys(("concept", "unit"), pl.String),
    **dict.fromkeys(("period_start", "period_end"), pl.Date),
    "instant": pl.Boolean,
    "value": pl.Float64,
    "fiscal_year": pl.Int64,
    **dict.fromkeys(("fiscal_period", "form", "accession"), pl.String),
    **dict.fromkeys(("event_at", "known_at"), pl.Datetime("us", "UTC")),
    **dict.fromkeys(("known_as", "source"), pl.String),
}


@dataclass(frozen=True)
class Fact:
    """One figure as one filing gives it: `row` has the columns that the record itself says."""

    row: dict
    event_at: datetime
    accession: str
    filed: date
    record: dict
    origin: str

    @property
    def filing(self) -> tuple[str, date]:
        """Which filing says so, and of which day."""
        return self.accession, self.filed

    @property
    def key(self) -> tuple:
        """What the figure is of."""
        return tuple(self.row[name] for name in ("concept", "unit", "period_start", "period_end"))


@lru_cache(maxsize=64)
def facts_of(answer: Answer, concepts: tuple[str, ...]):
    """The figures in an answer, and those that cannot be read: record, origin, reason, event_at."""
    facts, faulty = [], []
    for taxonomy, named in answer.json["facts"].items():
        if not isinstance(named, dict):
            faulty.append((named, f"{answer.request}#{taxonomy}", "a taxonomy without concepts", None))
            continue
        for name, about in named.items():
            concept = f"{taxonomy}:{name}"
            if concepts and concept not in concepts:
                continue
            units = about.get("units") if isinstance(about, dict) else None
            if not isinstance(units, dict):
                faulty.append((about, f"{answer.request}#{concept}", "a concept without units", None))
                continue
            for unit, records in units.items():
                for record in records if isinstance(records, list) else [records]:
                    # Its place in the list changes with every new filing: named after it, it would be another record.
                    filing = record.get("accn") if isinstance(record, dict) else None
                    origin = f"{answer.request}#{concept}/{unit}/{filing or text_hash(repr(record))[:12]}"
                    fact, reason, when = _fact(concept, unit, record, origin)
                    if fact is None:
                        faulty.append((record, origin, reason, when))
                    else:
                        facts.append(fact)
    return tuple(facts), tuple(faulty)


def versions_of(facts: Iterable[Fact], accepted: dict[tuple[str, date], tuple[datetime, str]]) -> Iterator[tuple]:
    """(figure, known_at, known_as), the versions of each figure in the order in which they became known. Where a later
    filing repeats the value, as next year's does beside its own, there is nothing new to know: known_at is None. Values
    that became known together and differ cannot be believed: they are all given, and what is known stays what it was."""
    together: dict[tuple, list[Fact]] = {}
    for fact in sorted(facts, key=lambda fact: (accepted[fact.filing][0], fact.accession, fact.origin)):
        together.setdefault((fact.key, accepted[fact.filing][0]), []).append(fact)
    said: dict[tuple, float] = {}
    for (key, _), given in together.items():
        settled = len({fact.row["value"] for fact in given}) == 1
        for fact in given:
            repeated = settled and said.get(key) == fact.row["value"]
            yield (fact, None, None) if repeated else (fact, *accepted[fact.filing])
            if settled:
                said[key] = fact.row["value"]


def _fact(concept: str, unit: str, record: object, origin: str) -> tuple[Fact | None, str, datetime | None]:
    reading = Reading(record)
    end, start = reading.day("end"), reading.day("start", required=False)
    value, accession = reading.number("val"), reading.text("accn")
    year, period = reading.whole("fy", required=False), reading.text("fp", required=False)
    form, filed = reading.text("form"), reading.day("filed")
    if start and end and start > end:
        reading.faults.append("its period ends before it starts")
    event_at = midnight_after(end) if end else None
    if reading.faults:
        return None, "; ".join(reading.faults), event_at
    row = {
        "concept": concept,
        "unit": unit,
        "period_start": start or end,
        "period_end": end,
        "instant": start is None,
        "value": value,
        "fiscal_year": year,
        "fiscal_period": period,
        "form": form,
        "accession": accession,
    }
    return Fact(row, event_at, accession, filed, record, origin), "", event_at
