"""What `sources.yaml` may say of files of bars, actions, trades or macro observations (`kind: files`)."""

from datetime import date, time
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tapehouse.actions import Adjustment
from tapehouse.observations import Frequency
from tapehouse.records import TimeUnit
from tapehouse.sources.base import SourceDeclaration

Offer = Literal["bars", "actions", "trades", "macro"]
STEM = "{stem}"
# Fields that a file must have, and those that it may have, beside its symbol.
FIELDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bars": (("session", "open", "high", "low", "close", "volume"), ("vendor_adj_close",)),
    "actions": (("kind", "ex_date"), ("ratio", "amount")),
    "trades": (("trade_id", "event_at", "price", "size", "side"), ("known_at",)),
    "macro": (("period", "value"), ("vintage",)),
}
CALLED = {"bars": "a bar", "actions": "an action", "trades": "a trade", "macro": "an observation"}
# Keys that mean something to one offer alone.
OWN_KEYS: dict[str, tuple[str, ...]] = {
    "bars": ("close_decimals", "adj_close_decimals", "dividend_factor", "split_adjusted_by", "price_decimals"),
    "trades": ("market", "time_unit", "sides"),
    "macro": (
        *("timezone", "frequency", "frequencies", "quarter_named_by"),
        *("first_vintage_is_snapshot", "release", "revised"),
    ),
}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KnownSplit(_Frozen):
    """A split that a vendor has worked into the prices before `ex_date`; `ratio` is new shares per old.

    `volumes`: whether into the volumes too. Of a spin-off, which Yahoo treats as a split, they are left alone.
    """

    symbol: str
    ex_date: date
    ratio: float = Field(gt=0)
    volumes: bool = True


class ReleaseRule(_Frozen):
    """`tapehouse.observations.Release`, as declared; `at` as 'HH:MM'."""

    lag_days: int = Field(default=0, ge=0)
    at: time | None = None

    @field_validator("at", mode="before")
    @classmethod
    def _quoted(cls, value: Any) -> Any:
        if isinstance(value, int | float):
            raise ValueError("write the time in quotes, '16:15': YAML reads it as a number of minutes")
        return value


class Declaration(SourceDeclaration):
    """A file, folder or pattern of files that hold one kind of record.

    `file` is a path relative to `sources.yaml`, or `package:NAME/path` for one inside an installed package
    (`tapehouse.sources.located`). `columns` maps fields of the `offer` to the file's header; a column that is known and not
    wanted is named in `ignore`, because any other makes its records unusable. A file of one instrument or series names it
    in `symbol` ('{stem}': the file's name up to its first dot); a file of many lists in `holds` those that may occur: any
    other is a fault, while one that is held but not asked for is simply passed over.

    Bars: `close_decimals`, `adj_close_decimals` and `dividend_factor` declare how the vendor adjusts
    (`tapehouse.actions.Adjustment`): its rounding is what separates a dividend from noise. Leave `close_decimals` out
    where the adjusted close is computed from the close as printed. Prices and volumes must be those of the day; where a
    vendor has worked splits into them (Yahoo does), `split_adjusted_by` lists these splits, and they are taken out again,
    to `price_decimals`.

    Macro: `columns.vintage`, or `release` with `revised`; see `tapehouse.observations`. With `first_vintage_is_snapshot`
    the earliest vintage is an upper bound of when its values were known.

    Trades: `time_unit`, `market` and `sides` (the file's words for the aggressor's side); see `tapehouse.records`.
    """

    offer: Offer = "bars"
    file: str
    columns: dict[str, str]
    ignore: tuple[str, ...] = ()
    date_format: str = "%Y-%m-%d"
    symbol: str | None = None
    holds: tuple[str, ...] = ()
    close_decimals: int | None = Field(default=None, ge=0)
    adj_close_decimals: int = Field(default=2, ge=0)
    dividend_factor: Literal["previous_close", "ex_close"] = "previous_close"
    split_adjusted_by: tuple[KnownSplit, ...] = ()
    price_decimals: int | None = Field(default=None, ge=0)
    timezone: str = "America/New_York"
    frequency: Frequency = "m"
    frequencies: dict[str, Frequency] = Field(default_factory=dict)
    quarter_named_by: Literal["first_month", "last_month"] = "first_month"
    first_vintage_is_snapshot: bool = False
    release: ReleaseRule | None = None
    revised: bool | None = None
    market: Literal["spot", "futures"] = "spot"
    time_unit: TimeUnit = "iso"
    sides: dict[str, Literal["buy", "sell"]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fields(self) -> "Declaration":
        needed, further = FIELDS[self.offer]
        known, called = ("symbol", *needed, *further), CALLED[self.offer]
        unknown = sorted(set(self.columns) - set(known))
        if unknown:
            raise ValueError(f"columns names {unknown}; the fields of {called} are {list(known)}")
        if missing := sorted(set(needed) - set(self.columns)):
            raise ValueError(f"columns lacks {missing}")
        if (self.symbol is None) == ("symbol" not in self.columns):
            raise ValueError("give either symbol, or columns.symbol with holds")
        if self.symbol is None and not self.holds:
            raise ValueError("holds must list the symbols of a file of many instruments")
        for offer, keys in OWN_KEYS.items():
            fields = type(self).model_fields
            given = [key for key in keys if getattr(self, key) != fields[key].get_default(call_default_factory=True)]
            if given and offer != self.offer:
                raise ValueError(f"{', '.join(given)}: not for {self.offer}, only for {offer}")
        if self.offer == "macro":
            self._known()
        return self

    def _known(self) -> None:
        if ("vintage" in self.columns) == (self.release is not None):
            raise ValueError("give either columns.vintage, or release: when a value without a vintage is known")
        if (self.release is not None) != (self.revised is not None):
            raise ValueError("revised goes with release: say whether the values of the series are ever revised")

    @cached_property
    def text(self) -> str:
        """All of it as JSON."""
        return self.model_dump_json()

    @property
    def symbols(self) -> tuple[str, ...] | None:
        """Symbols that the files may hold; None where their names say it."""
        if self.symbol == STEM:
            return self.holds or None
        return self.holds if self.symbol is None else (self.symbol,)


def adjustment(declared: Declaration) -> Adjustment:
    """How the vendor of a file of bars adjusts its closes, as declared."""
    return Adjustment(declared.close_decimals, declared.adj_close_decimals, declared.dividend_factor)
