"""What the warehouse covers: span, calendar, instruments and their files, as declared in `sources.yaml`."""

from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tapehouse.errors import TapehouseError

BAR_FIELDS = ("symbol", "session", "open", "high", "low", "close", "volume", "vendor_adj_close")


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


class BarFile(_Frozen):
    """A delimited text file of daily bars.

    `file` is a path relative to `sources.yaml`, or `package:NAME/path` for a file inside an installed package.
    `columns` maps fields of a bar to the file's header. A file of one instrument names it in `symbol`; a file of many
    lists in `holds` those that may occur: any other symbol is a fault, while one that is held but not in the universe
    is simply not asked for. `close_decimals`, `adj_close_decimals` and `dividend_factor` declare how the vendor adjusts
    (`tapehouse.actions.Adjustment`): its rounding is what separates a dividend from noise. Leave `close_decimals` out
    where the adjusted close is computed from the close as printed.
    """

    file: str
    columns: dict[str, str]
    date_format: str = "%Y-%m-%d"
    symbol: str | None = None
    holds: tuple[str, ...] = ()
    close_decimals: int | None = Field(default=None, ge=0)
    adj_close_decimals: int = Field(default=2, ge=0)
    dividend_factor: Literal["previous_close", "ex_close"] = "previous_close"

    @model_validator(mode="after")
    def _fields(self) -> "BarFile":
        unknown = sorted(set(self.columns) - set(BAR_FIELDS))
        if unknown:
            raise ValueError(f"columns names {unknown}; the fields of a bar are {list(BAR_FIELDS)}")
        needed = set(BAR_FIELDS) - {"vendor_adj_close", "symbol"}
        if missing := sorted(needed - set(self.columns)):
            raise ValueError(f"columns lacks {missing}")
        if (self.symbol is None) == ("symbol" not in self.columns):
            raise ValueError("give either symbol, or columns.symbol with holds")
        if self.symbol is None and not self.holds:
            raise ValueError("holds must list the symbols of a file of many instruments")
        return self

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols that the file may hold."""
        return self.holds if self.symbol is None else (self.symbol,)


class Instrument(_Frozen):
    """One line of the universe. `id` is permanent: it outlives a change of ticker."""

    id: str
    name: str
    kind: Literal["equity", "index"]
    tradable: bool
    source: str
    currency: str = "USD"
    tick_size: float = Field(default=0.01, gt=0)
    lot_size: int = Field(default=1, ge=1)
    multiplier: float = Field(default=1.0, gt=0)


class Universe(_Frozen):
    """Typed content of `sources.yaml`; `folder` is where relative file names start."""

    folder: Path
    span: Span
    calendar: str
    interval: Literal["1d"]
    decision_lag_minutes: int = Field(ge=0)
    settlement_lag_days: int = Field(ge=0)
    benchmark: str
    universe: dict[str, Instrument]
    sources: dict[str, BarFile]

    @model_validator(mode="after")
    def _references(self) -> "Universe":
        if self.benchmark not in self.universe:
            raise ValueError(f"benchmark {self.benchmark} is not in universe")
        for symbol, instrument in self.universe.items():
            if instrument.source not in self.sources:
                raise ValueError(f"universe.{symbol}.source {instrument.source!r} is not in sources")
            if symbol not in self.sources[instrument.source].symbols:
                raise ValueError(f"sources.{instrument.source} does not hold {symbol}")
        ids = [instrument.id for instrument in self.universe.values()]
        if len(set(ids)) < len(ids):
            raise ValueError("universe: two instruments share one id")
        return self

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
        raise UniverseError("\n".join(f"{path}: {_said(fault)}" for fault in error.errors())) from error


def _said(fault: dict) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    message = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"].removeprefix("Value error, ")
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
