"""What the warehouse covers: spans, calendar, instruments, sources and what they feed, as declared in `sources.yaml`."""

import re
from datetime import UTC, date, datetime
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from tapehouse.errors import TapehouseError
from tapehouse.instruments import Chain, Instrument
from tapehouse.sources.base import OFFERS, SourceDeclaration

OFFERING = re.compile(r"^OFFERS\b.*=", re.MULTILINE)


class UniverseError(TapehouseError):
    """`sources.yaml` cannot be used; the message names the file, the key and what is wrong with it."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Span(_Frozen):
    """The half-open range of dates [start, end) that the default data covers; both are first days of a month."""

    start: date
    end: date

    @model_validator(mode="after")
    def _months(self) -> "Span":
        if self.start.day != 1 or self.end.day != 1:
            raise ValueError("start and end must be the first day of a month, because partitions are months")
        if self.start >= self.end:
            raise ValueError(f"start {self.start} must lie before end {self.end}")
        return self


class Days(_Frozen):
    """The half-open range of dates [start, end) of tables made by day: books, trades, funding."""

    start: date
    end: date

    @model_validator(mode="after")
    def _ordered(self) -> "Days":
        if self.start >= self.end:
            raise ValueError(f"start {self.start} must lie before end {self.end}")
        return self


class Feed(_Frozen):
    """One line of `feeds`: the sources of an offer (a chain, as with `Instrument.source`) and the symbols asked of them."""

    source: Chain
    symbols: tuple[str, ...] = ()


class Universe(_Frozen):
    """Typed content of `sources.yaml`; `folder` is where relative file names start."""

    folder: Path
    span: Span
    days: Days
    calendar: str
    interval: Literal["1d"]
    decision_lag_minutes: int = Field(ge=0)
    settlement_lag_days: int = Field(ge=0)
    benchmark: str
    universe: dict[str, Instrument]
    sources: dict[str, SerializeAsAny[SourceDeclaration]]
    feeds: dict[str, tuple[Feed, ...]] = Field(default_factory=dict)

    @field_validator("interval", mode="before")
    @classmethod
    def _declared_interval(cls, value: Any) -> Any:
        if value != "1d":
            raise ValueError(
                f"{value!r} has no anchors, windows and horizons: features, regimes and labels count sessions; write 1d"
            )
        return value

    @field_validator("sources", mode="before")
    @classmethod
    def _by_kind(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        declared, faults = {}, []
        for name, keys in value.items():
            try:
                declared[name] = _declared_source(name, keys)
            except ValueError as error:
                faults.append(str(error))
        if faults:
            raise ValueError("\n".join(faults))
        return declared

    @model_validator(mode="after")
    def _references(self) -> "Universe":
        if self.benchmark not in self.universe:
            raise ValueError(f"benchmark {self.benchmark} is not in universe")
        for symbol, instrument in self.universe.items():
            if instrument.history and instrument.history[-1].symbol != symbol:
                last = instrument.history[-1].symbol
                raise ValueError(f"universe.{symbol}.history ends with {last}; its last ticker is the key")
            for source in instrument.source:
                self._offered(f"universe.{symbol}.source", source, "bars", "actions")
                held = self.sources[source].symbols
                if held is not None and symbol not in held:
                    raise ValueError(f"sources.{source} does not hold {symbol}")
            if not any("bars" in self.sources[source].offers for source in instrument.source):
                raise ValueError(f"universe.{symbol}.source: none of {list(instrument.source)} gives bars")
        ids = [instrument.id for instrument in self.universe.values()]
        if len(set(ids)) < len(ids):
            raise ValueError("universe: two instruments share one id")
        for offer, lines in self.feeds.items():
            if offer not in OFFERS or offer in ("bars", "actions"):
                known = [name for name in OFFERS if name not in ("bars", "actions")]
                raise ValueError(f"feeds.{offer}: no such offer; there are {known} (bars and actions follow from the universe)")
            for line in lines:
                for source in line.source:
                    self._offered(f"feeds.{offer}.source", source, offer)
        return self

    def _offered(self, key: str, source: str, *offers: str) -> None:
        if source not in self.sources:
            raise ValueError(f"{key} {source!r} is not in sources")
        given = self.sources[source].offers
        if not set(offers) & set(given):
            raise ValueError(f"{key} {source!r} gives no {' or '.join(offers)}; it gives {list(given)}")

    def lines(self, offer: str) -> list[Feed]:
        """Who feeds an offer with which symbols: by chain of sources for bars and actions, else as `feeds` declares."""
        return self.chains[offer] if offer in self.chains else list(self.feeds.get(offer, ()))

    @cached_property
    def chains(self) -> dict[str, list[Feed]]:
        """The lines of bars and of actions, which follow from the universe; asked for again for each of many months."""
        found: dict[str, list[Feed]] = {}
        for offer in ("bars", "actions"):
            chains: dict[tuple[str, ...], list[str]] = {}
            for symbol, instrument in self.universe.items():
                chain = tuple(name for name in instrument.source if offer in self.sources[name].offers)
                if chain:
                    chains.setdefault(chain, []).append(symbol)
            found[offer] = [Feed(source=chain, symbols=tuple(symbols)) for chain, symbols in chains.items()]
        return found

    def calendar_of(self, symbol: str) -> str:
        """The calendar that a symbol trades by: its own, or that of the universe."""
        instrument = self.universe.get(symbol)
        return instrument.calendar if instrument is not None and instrument.calendar else self.calendar

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol, tradable or not, in the order of the file."""
        return tuple(self.universe)

    @property
    def tradable(self) -> tuple[str, ...]:
        """Symbols that decisions are made for."""
        return tuple(symbol for symbol, instrument in self.universe.items() if instrument.tradable)

    @cached_property
    def declaration(self) -> str:
        """All of it as text."""
        return self.model_dump_json()

    @property
    def start(self) -> datetime:
        """First instant of the span, UTC."""
        return _midnight(self.span.start)

    @property
    def end(self) -> datetime:
        """First instant after the span, UTC."""
        return _midnight(self.span.end)

    @property
    def first_day(self) -> datetime:
        """First instant of the tables made by day, UTC."""
        return _midnight(self.days.start)

    @property
    def last_day(self) -> datetime:
        """First instant after the tables made by day, UTC."""
        return _midnight(self.days.end)


def _declared_source(name: str, keys: Any) -> SourceDeclaration:
    """The typed declaration of one source, by the module of `tapehouse/sources/` that its `kind` names."""
    if isinstance(keys, SourceDeclaration):
        return keys
    kind = keys.get("kind") if isinstance(keys, dict) else None
    if kind not in kinds():
        raise ValueError(f"sources.{name}.kind: {kind!r} is no source; there are {kinds()}")
    declaration = import_module(f"tapehouse.sources.{kind}").Declaration
    try:
        return declaration.model_validate(keys)
    except ValidationError as error:
        raise ValueError("\n".join(_said(fault, f"sources.{name}") for fault in error.errors())) from None


def kinds() -> list[str]:
    """What `kind:` of a source may say: the modules of `tapehouse/sources/` that declare offers."""
    found = (Path(__file__).parent / "sources").glob("*.py")
    return sorted(path.stem for path in found if OFFERING.search(path.read_text()) and path.stem != "base")


def load_universe(path: Path) -> Universe:
    """Read `sources.yaml`. Raises `UniverseError` that names the file and the key for anything unknown or ill-typed."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UniverseError(f"{path}: no such file; it declares the span, the universe and its sources") from None
    try:
        content = yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        raise UniverseError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise UniverseError(f"{path}: expected a mapping of keys such as span, universe and sources")
    if "folder" in content:
        raise UniverseError(f"{path}: folder: unknown key")
    try:
        return Universe(folder=path.parent.resolve(), **content)
    except ValidationError as error:
        lines = [line for fault in error.errors() for line in _said(fault).splitlines()]
        raise UniverseError("\n".join(f"{path}: {line}" for line in lines)) from error


def _said(fault: dict, within: str = "") -> str:
    message = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"].removeprefix("Value error, ")
    if message.startswith("sources."):
        return message  # it names its key itself
    key = ".".join(filter(None, [within, *(str(part) for part in fault["loc"])]))
    return f"{key}: {message}" if key else message


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; a symbol given twice is a mistake."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict:
    seen: set = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
