"""What an account would have earned later, dearer and larger: the same decisions under other lags, costs and capital.

Every cell is the subject's own account run once more with one assumption changed; the cell of no lag, declared costs and
declared capital is the backtest itself. Nothing is decided anew: sizes, gates and vetoes by the market are those of the
decision, while the guards by the account's own past see the cell's own trades.

The curve over capital adds what a large account pays: impact by the square root of its share of the daily volume (N. Torre,
Barra Market Impact Model Handbook, 1997: one day's volatility for one day's volume; R. Almgren et al., Direct Estimation of
Equity Market Impact, 2005, find a power of 0.6), and a cap of its share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tapehouse.backtest.config import BacktestConfig
from tapehouse.backtest.layout import LEDGER
from tapehouse.backtest.panel import Orders, Panel
from tapehouse.backtest.run import account
from tapehouse.statistics.drawdowns import PERIODS_A_YEAR

COST, CAPITAL = KINDS = ("cost_and_lag", "capital")
EQUITY: Final = LEDGER.index("equity")
SENSITIVITY: Final = {
    "kind": pl.String,
    "lag": pl.Int32,
    "cost_bps": pl.Float64,
    "capital": pl.Float64,
    "declared": pl.Boolean,
    "sessions": pl.Int64,
    "mean_ret": pl.Float64,
    "sd_ret": pl.Float64,
    "return": pl.Float64,
    "trades": pl.Int64,
}
CELL: Final = ("kind", "lag", "cost_bps", "capital")


class Grid(BaseModel):
    """The cells: lags in sessions, costs in bps of traded notional a side, capital in currency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lags: tuple[int, ...] = Field((0, 1, 2, 3), description="Sessions that an order is sent later.")
    costs_bps: tuple[float, ...] = Field((0.0, 5.0, 10.0, 20.0, 30.0, 50.0), description="The declared one is added.")
    capital: tuple[float, ...] = (1e5, 3e5, 1e6, 3e6, 1e7, 3e7, 1e8, 3e8, 1e9)
    impact: float = Field(1.0, ge=0, description="Of the curve over capital, where the account declares none.")
    participation: float = Field(0.1, gt=0, le=1, description="Largest share of the known volume; the same.")


def sensitivity_rows(panel: Panel, orders: Orders, config: BacktestConfig, grid: Grid | None = None) -> pl.DataFrame:
    """Rows of `reports.sensitivity` of one subject and fold, without these two.

    Args:
        panel: with volume and volatility (`panel_of` with `liquidity`), without which capital changes nothing.
        orders: the decisions as they were traded, after gates, vetoes and sizes.
        config: what was declared.

    Raises:
        ValueError: a negative lag, or a cost below 0.
    """
    grid = grid or Grid()
    declared = taker_bps(config)
    rows = []
    for lag in grid.lags:
        sent = delayed(orders, panel, lag)
        for cost in sorted({*grid.costs_bps, declared}):
            here = lag == 0 and cost == declared
            rows.append((COST, lag, cost, config.initial_cash, here, *_earned(panel, sent, at_cost(config, cost))))
    for capital in grid.capital:
        rows.append((CAPITAL, 0, declared, capital, False, *_earned(panel, orders, at_capital(config, capital, grid))))
    return pl.DataFrame(rows, schema=SENSITIVITY, orient="row")


def taker_bps(config: BacktestConfig) -> float:
    """What an order that takes liquidity pays a side, before impact: commission, half-spread and slippage."""
    return config.commission_bps + config.half_spread_bps + config.slippage_bps


def at_cost(config: BacktestConfig, cost_bps: float) -> BacktestConfig:
    """`config` with costs of `cost_bps` a side for who takes liquidity, in the parts that are declared.

    A limit order that rests pays its part, the commission, as it does in the backtest. Where nothing is declared all of it is
    commission. Impact and borrow fees stay.

    Raises:
        ValueError: a cost below 0.
    """
    if cost_bps < 0:
        raise ValueError(f"costs of {cost_bps} bps: give a number of at least 0")
    whole = taker_bps(config)
    if cost_bps == whole:
        return config
    parts = {name: getattr(config, name) for name in ("commission_bps", "half_spread_bps", "slippage_bps")}
    scaled = {name: part * cost_bps / whole for name, part in parts.items()} if whole else {"commission_bps": cost_bps}
    return config.model_copy(update=scaled)


def at_capital(config: BacktestConfig, capital: float, grid: Grid) -> BacktestConfig:
    """`config` with that much opening cash, and impact and a cap on its share of the volume unless it declares its own."""
    return config.model_copy(
        update={
            "initial_cash": capital,
            "impact": config.impact or grid.impact,
            "participation": config.participation or grid.participation,
        }
    )


def delayed(orders: Orders, panel: Panel, lag: int) -> Orders:
    """`orders` sent `lag` sessions later, with levels and widths restated by the corporate actions in between.

    With a lag of 1, who decides after a close trades at the earliest at the second open from there. An order is sized by the
    close before it is sent and rests as long as it was declared to; one that would be sent after the last session is not sent.
    An exit by signal that arrives where the symbol has no bar is lost.

    Raises:
        ValueError: a negative lag, which would trade before the decision.
    """
    if lag < 0:
        raise ValueError(f"a lag of {lag} sessions would trade before the decision; give 0 or more")
    marks = _marks(panel)
    for _ in range(lag):
        limit, width = _later(orders.limit, np.nan), _later(orders.atr, np.nan)
        # As the account restates an order that rests (`tapehouse.backtest.positions`), before any rounding to ticks: a level by
        # the cash, a width in proportion.
        limit = (limit - panel.dividend) / panel.ratio
        # A level that the cash paid has used up is no price.
        signal = np.where(limit <= 0.0, 0, _later(orders.signal, 0))
        orders = Orders(
            signal=signal,
            limit=limit,
            valid=_later(orders.valid, 0),
            atr=width * (1.0 - panel.dividend / marks) / panel.ratio,
            weight=_later(orders.weight, 0.0),
            command=_later(orders.command, 0),
            blocked_long=_later(orders.blocked_long, -1),
            blocked_short=_later(orders.blocked_short, -1),
            decision_at={(t + 1, s): at for (t, s), at in orders.decision_at.items() if t + 1 < len(marks)},
        )
    return orders


def joined(rows: pl.DataFrame, by: Sequence[str] = ("subject",)) -> pl.DataFrame:
    """Each cell over all folds joined: sessions, mean and deviation of daily returns, return, trades, Sharpe ratio.

    Args:
        rows: of `reports.sensitivity`. by: what tells the curves apart.

    Returns:
        One row of (`by`, kind, lag, cost_bps, capital, declared) with `folds`, `sessions`, `mean_ret`, `sd_ret`, `return`
        (compounded over the blocks), `trades`, `sharpe` (annualised, null without trades or variation), `annual_return`
        (gains of the blocks over their opening capital, summed, for 252 sessions).
    """
    n, mean, deviation = pl.col("sessions"), pl.col("mean_ret"), pl.col("sd_ret")
    total = (n * mean).sum()
    squares = ((n - 1) * deviation**2 + n * mean**2).sum()
    pooled = rows.sort(*by, *CELL, "fold").group_by(*by, *CELL, "declared", maintain_order=True).agg(
        folds=pl.len(),
        sessions=n.sum(),
        mean_ret=total / n.sum(),
        sd_ret=((squares - total**2 / n.sum()).clip(0.0) / (n.sum() - 1)).sqrt(),
        **{"return": (1.0 + pl.col("return")).product() - 1.0},
        trades=pl.col("trades").sum(),
        annual_return=pl.col("return").sum() / n.sum() * PERIODS_A_YEAR,
    )  # fmt: skip
    ratio = pl.col("mean_ret") / pl.col("sd_ret") * math.sqrt(PERIODS_A_YEAR)
    return pooled.with_columns(sharpe=pl.when((pl.col("trades") > 0) & (pl.col("sd_ret") > 0)).then(ratio))


def _earned(panel: Panel, orders: Orders, config: BacktestConfig) -> tuple[int, float, float, float, int]:
    """Sessions, mean and deviation of daily returns, return and trades of one account; on the first session nothing fills."""
    ledger, numbers, *_ = account(panel, orders, config)
    equity = ledger[:, EQUITY]
    ret = equity[1:] / equity[:-1] - 1.0
    mean = float(ret.mean()) if len(ret) else 0.0
    deviation = float(ret.std(ddof=1)) if len(ret) > 1 else 0.0
    return len(ret), mean, deviation, float(equity[-1] / config.initial_cash - 1.0), len(numbers)


def _later(values: np.ndarray, empty: float) -> np.ndarray:
    """Rows one session later."""
    moved = np.full_like(values, empty)
    moved[1:] = values[:-1]
    return moved


def _marks(panel: Panel) -> np.ndarray:
    """(sessions, symbols): the last close before each session, restated by the actions since; NaN where there is none."""
    marks = np.full(panel.close.shape, np.nan)
    for t in range(1, len(marks)):
        evening = (marks[t - 1] - panel.dividend[t - 1]) / panel.ratio[t - 1]
        marks[t] = np.where(np.isnan(panel.close[t - 1]), evening, panel.close[t - 1])
    return marks
