"""What a triple-barrier label is asked for: how far its barriers lie, how long it waits, and what counts as a touch.

M. López de Prado, Advances in Financial Machine Learning (2018), 3.3 to 3.4. A barrier's distance from the entry is a multiple
of a unit. The profit of a long is the stop of a short, so that unequal multiples give the two sides different barriers;
an unsided label reads them as a long does.
"""

from datetime import timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Side = Literal[-1, 0, 1]
Unit = Literal["atr", "volatility", "percent"]


class BarrierSpec(BaseModel):
    """The declaration of one kind of triple-barrier label.

    Attributes:
        unit: of the two multiples: `atr`, the decision's average true range in the entry's price basis; `volatility`,
            the entry's price times the decision's trailing deviation of one session's log return; `percent` of the
            entry's price.
        profit, stop: distance of the two barriers from the entry in units; None for no barrier on that side.
        horizon_bars: bars from the entry to the vertical barrier, the entry's own being the first; or
        horizon_time: the vertical barrier is the last bar that closes no later than this after the entry.
        sides: 1 long, -1 short, 0 unsided (the upper barrier is 1, the lower -1).
        touch: by `high_low`, at the barrier's price, or at the open beyond it; by `close`, at the close.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: Unit = "atr"
    profit: float | None = Field(1.5, gt=0)
    stop: float | None = Field(1.5, gt=0)
    horizon_bars: int | None = Field(10, ge=1)
    horizon_time: timedelta | None = Field(None, gt=timedelta(0))
    sides: tuple[Side, ...] = (-1, 0, 1)
    touch: Literal["high_low", "close"] = "high_low"

    @model_validator(mode="after")
    def _makes_sense(self) -> "BarrierSpec":
        if (self.horizon_bars is None) == (self.horizon_time is None):
            raise ValueError(
                f"horizon_bars is {self.horizon_bars} and horizon_time {self.horizon_time}: the vertical barrier needs "
                "exactly one of them; set the other to null"
            )
        if not self.sides or len(set(self.sides)) < len(self.sides):
            raise ValueError(f"sides {self.sides}: name each of -1, 0, 1 at most once, and at least one")
        return self

    @property
    def horizon(self) -> int | timedelta:
        """Bars from the entry, or the time from it."""
        return self.horizon_bars if self.horizon_bars is not None else self.horizon_time

    def multiples(self, side: int) -> tuple[float, float]:
        """Distance of the upper and of the lower barrier from the entry, in units; infinite where there is none."""
        far = float("inf")
        profit, stop = (far if x is None else x for x in (self.profit, self.stop))
        return (stop, profit) if side < 0 else (profit, stop)
