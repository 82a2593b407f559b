"""What a backtest assumes about costs, sizing and exits: the same for every subject, so that they can be compared."""

from datetime import timedelta
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tapehouse.backtest.guards import GUARDS, PARAMETERS
from tapehouse.labels.triple_barrier import HORIZON_SESSIONS, WIDTH_ATR
from tapehouse.paths import SETTLEMENT_LAG

BPS = 1e-4


class Guard(BaseModel):
    """A pause after bad luck: no entries for `cool_down` sessions; then its count starts anew."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: float = Field(gt=0, description="Losses in a row; or the least share of wins; or the largest drawdown.")
    window: int = Field(20, ge=1, description="Closed trades, or sessions for the drawdown, that are looked at.")
    least: int = Field(10, ge=1, description="Fewest of them for a judgement.")
    cool_down: int = Field(5, ge=1, description="Sessions without entries.")

    @model_validator(mode="after")
    def _can_hold(self) -> "Guard":
        if self.least > self.window:
            raise ValueError(f"least {self.least} is more than the window {self.window}: the guard could never hold")
        return self


class Guards(BaseModel):
    """Vetoes by the account's own past (`tapehouse.backtest.guards`); none by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    consecutive_losses: Guard | None = None
    win_rate: Guard | None = None
    drawdown: Guard | None = None

    @property
    def array(self) -> np.ndarray:
        """(GUARDS, PARAMETERS) for the kernel, a limit of NaN for one that is off."""
        found = np.full((len(GUARDS), len(PARAMETERS)), np.nan)
        for row, name in enumerate(GUARDS):
            guard = getattr(self, name)
            if guard is not None:
                found[row] = [getattr(guard, parameter) for parameter in PARAMETERS]
        return found


class BacktestConfig(BaseModel):
    """Costs in bps of traded notional, sizes in shares of equity, horizons in sessions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    initial_cash: float = Field(1_000_000.0, gt=0, description="Opening equity of the account; idle cash earns nothing.")

    commission_bps: float = Field(5.0, ge=0, description="Paid on every fill, entries and exits alike.")
    half_spread_bps: float = Field(0.0, ge=0, description="Against us on every fill but those of a resting limit order.")
    slippage_bps: float = Field(10.0, ge=0, description="The same, on top of the half-spread.")
    impact: float = Field(0.0, ge=0, description="Times daily volatility times the root of shares over daily volume, on top.")
    borrow_bps: float = Field(0.0, ge=0, description="A year, on the value of shorts, by calendar days.")
    participation: float | None = Field(None, gt=0, le=1, description="Largest share of the known average daily volume.")

    weight: float | None = Field(None, gt=0, description="Notional of an entry over equity; by default equal for all symbols.")
    gross_limit: float = Field(1.0, gt=0, description="Longs plus shorts over equity, after a fill and its costs.")
    net_limit: float | None = Field(None, gt=0, description="Longs less shorts over equity, either way.")
    symbol_limit: float | None = Field(None, gt=0, description="Value of one symbol over equity, at entry.")
    lots: int = Field(1, ge=1, le=16, description="Open positions that one symbol may have.")

    barrier_atr: float = Field(WIDTH_ATR, gt=0, description="Distance of the stop, in ATR of the decision.")
    take_multiple: float = Field(1.0, gt=0, description="Distance of the take-profit, in distances of the stop.")
    vertical_barrier: int = Field(HORIZON_SESSIONS, ge=1, description="Sessions from the first executable one, counted.")
    break_even_at: float | None = Field(None, gt=0, description="Gain at a close, in risks, that moves the stop to the entry.")
    trail_atr: float | None = Field(None, gt=0, description="Distance of a trailing stop from the best close, in ATR.")
    trail_from: float = Field(0.0, ge=0, description="Gain at a close, in risks, from which the stop trails.")
    centre: Literal["first_open", "fill"] = Field(
        "first_open", description="What stop and target lie around: the first open that could fill, as in labels; or the fill."
    )
    exit_rule: Literal["barrier", "hold"] = Field("barrier", description="'hold' keeps a position to the end.")

    guards: Guards = Guards()
    settlement: timedelta = Field(SETTLEMENT_LAG, description="A bar is read as known so long after its close.")

    @model_validator(mode="after")
    def _exits_make_sense(self) -> "BacktestConfig":
        if self.exit_rule == "hold" and (self.break_even_at or self.trail_atr):
            raise ValueError("exit_rule: 'hold' has no stop that break_even_at or trail_atr could move; remove them")
        return self

    @property
    def needs_liquidity(self) -> bool:
        """Whether a fill depends on how much of the symbol trades."""
        return self.impact > 0 or self.participation is not None
