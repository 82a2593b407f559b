"""How large an entry is: notional over equity, by what is known at its decision."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tapehouse.folds import fitted_until
from tapehouse.statistics.drawdowns import PERIODS_A_YEAR
from tapehouse.strategies.sections import OrdersSection, SizingSection

if TYPE_CHECKING:
    from tapehouse.folds import Fold


def weights_of(
    section: SizingSection,
    orders: OrdersSection,
    rows: pl.DataFrame,
    symbols: int | np.ndarray,
    training_deviation: float | None = None,
) -> np.ndarray:
    """Notional over equity of each row's entry; NaN where its input is missing, 0 where the size is none.

    Args:
        rows: signals with `action`, `p_buy`, `p_sell`, `close`, `atr_14`, `realised_vol_20d`. symbols: how many
            divide the capital, at all rows or at each.
        training_deviation: a year, of the equal-weight universe in the training window, for `training`.
    """
    size = section.size
    if section.kind == "equal":
        found = np.full(rows.height, 1.0 / symbols)
    elif section.kind == "fraction":
        found = np.full(rows.height, size)
    elif section.kind == "training":
        found = np.full(rows.height, np.nan if training_deviation is None else size / training_deviation / symbols)
    else:
        risk = orders.stop_atr * _numbers(rows, "atr_14") / _numbers(rows, "close")
        if section.kind == "risk":
            found = size / risk
        elif section.kind == "volatility":
            found = size / _numbers(rows, "realised_vol_20d") / symbols
        else:
            found = size * kelly(_numbers(rows, "p_buy"), _numbers(rows, "p_sell"), rows["action"], orders.take_multiple) / risk
    found = np.where(np.isfinite(found), found, np.nan)
    return found if section.most is None else np.minimum(found, section.most)


def kelly(p_buy: np.ndarray, p_sell: np.ndarray, actions: pl.Series, multiple: float) -> np.ndarray:
    """Share of equity to put at risk where a win pays `multiple` times what a loss costs (Kelly 1956); at least 0.

    A third outcome, neither barrier reached, neither wins nor loses: with p the chance of the target and q that of the stop,
    the maximum of p log(1 + m f) + q log(1 - f) lies at f = (p m - q) / (m (p + q)).
    """
    buys = (actions == "BUY").to_numpy()
    wins, losses = np.where(buys, p_buy, p_sell), np.where(buys, p_sell, p_buy)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.maximum((wins * multiple - losses) / (multiple * (wins + losses)), 0.0)


def training_deviation(points: pl.DataFrame, fold: Fold) -> float | None:
    """Deviation a year of the equal-weight universe's daily return over the sessions that the fold is fitted on.

    Args:
        points: rows of features.decision_points with those of the training window; `ret_1d` is a log return.
    """
    before = points.filter(pl.col("decision_at") < fitted_until(fold)).sort("decision_at", "symbol")
    daily = before.group_by("decision_at", maintain_order=True).agg(pl.col("ret_1d"))["ret_1d"]
    returns = np.array([np.mean(np.expm1(session.to_numpy())) for session in daily])
    return float(returns.std(ddof=1)) * math.sqrt(PERIODS_A_YEAR) if len(returns) > 1 and returns.std() > 0 else None


def _numbers(rows: pl.DataFrame, column: str) -> np.ndarray:
    return rows[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
