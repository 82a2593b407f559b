"""What a backtest assumes about costs, sizing and exits: the same for every subject, so that they can be compared."""

from datetime import timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tapehouse.labels.triple_barrier import HORIZON_SESSIONS, WIDTH_ATR
from tapehouse.paths import SETTLEMENT_LAG

BPS = 1e-4


class BacktestConfig(BaseModel):
    """Costs in bps of traded notional, sizes in shares of equity, horizons in sessions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    initial_cash: float = Field(1_000_000.0, gt=0, description="Opening equity of the account; idle cash earns nothing.")
    commission_bps: float = Field(5.0, ge=0, description="Paid on every fill, entries and exits alike.")
    slippage_bps: float = Field(10.0, ge=0, description="Against us on every fill but those of a resting limit order.")
    barrier_atr: float = Field(WIDTH_ATR, gt=0, description="Distance of stop and take-profit, in ATR of the decision.")
    vertical_barrier: int = Field(HORIZON_SESSIONS, ge=1, description="Sessions from the first executable one, counted.")
    gross_limit: float = Field(1.0, gt=0, description="Longs plus shorts over equity, after a fill and its costs.")
    exit_rule: Literal["barrier", "hold"] = Field("barrier", description="'hold' keeps a position to the end.")
    settlement: timedelta = Field(SETTLEMENT_LAG, description="A bar is read as known so long after its close.")

    @property
    def commission(self) -> float:
        """Commission as a fraction of notional."""
        return self.commission_bps * BPS

    @property
    def slippage(self) -> float:
        """Slippage as a fraction of price."""
        return self.slippage_bps * BPS
