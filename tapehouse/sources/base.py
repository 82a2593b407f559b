"""What every source is: a declaration in `sources.yaml`, and a function that delivers records for a range.

A source is one module of `tapehouse/sources/`; `kind:` in `sources.yaml` is its name. The module has

- `OFFERS`, the offers it can deliver, out of `tapehouse.sources.base.OFFERS`;
- `Declaration`, a `SourceDeclaration` with the keys that `sources.yaml` may give;
- `deliver(declared, ask) -> Delivery`, what it has for an `Ask`;
- `fingerprint(declared, ask) -> str`, which changes when `deliver` would return something else for the same ask;
- where that is cheaper, `fingerprints(declared, ask, spans) -> list[str]`, the same of the ask with each of many spans.

Nothing else is registered anywhere: `tapehouse.chains` finds the module by its name.
"""

from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:  # settings hold the universe, which holds declarations
    from tapehouse.settings import Settings

# Offer -> the raw table that it feeds.
OFFERS = {
    "bars": "raw.bars",
    "actions": "raw.corporate_actions",
    "book": "raw.book_events",
    "trades": "raw.trades",
    "macro": "raw.macro_observations",
    "theses": "raw.theses",
    "news": "raw.news",
    "filings": "raw.filings",
    "fundamentals": "raw.fundamentals",
    "insider_trades": "raw.insider_trades",
    "calendar": "raw.calendar_events",
    "funding": "raw.funding",
}


class SourceDeclaration(BaseModel):
    """Keys of one source in `sources.yaml`, typed and frozen; `kind` names the module that reads it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str
    # Shown on the cards of datasets. It changes no row, so it is left out of what sources are fingerprinted by.
    licence: str | None = Field(None, min_length=1, exclude=True)

    @property
    def offers(self) -> tuple[str, ...]:
        """What the source delivers: its one declared `offer`, or all that its module offers."""
        offer = getattr(self, "offer", None)
        return (offer,) if offer else import_module(f"tapehouse.sources.{self.kind}").OFFERS

    @property
    def symbols(self) -> tuple[str, ...] | None:
        """Symbols that the source may hold; None where any may be asked for."""
        return None


@dataclass(frozen=True)
class Ask:
    """What is wanted from one source.

    Attributes:
        offer: a key of `OFFERS`.
        source: the source's name in `sources.yaml`; it is written to every row.
        symbols: the symbols (series, for macro) that are wanted of it; empty where the feed names none.
        start, end: the range [start, end) of the table's time column, UTC.
        settings: the universe, the folders, and the environment that keys come from.
    """

    offer: str
    source: str
    symbols: tuple[str, ...]
    start: datetime
    end: datetime
    settings: "Settings"


@dataclass(frozen=True)
class Missing:
    """A part of what was asked for that the source failed to give: it is asked again next time."""

    symbol: str
    start: datetime
    end: datetime
    why: str


@dataclass(frozen=True)
class Delivery:
    """What became of the records of one ask.

    Attributes:
        rows: accepted records in the raw table's columns less `ingested_at`, inside the asked range.
        rejected: records that cannot be used, as `tapehouse.ingest.REJECT_COLUMNS`, with `filed_at` inside the range; what
            has no usable date inside the table's span is filed at the start of the span.
        counts: the numbers of whole files or answers: `received` = `accepted` + `outside_span` + `quarantined` + `duplicates`.
        missing: what the source failed to give.
    """

    rows: pl.DataFrame
    rejected: pl.DataFrame
    counts: dict[str, int] = field(default_factory=dict)
    missing: tuple[Missing, ...] = ()
