"""What became of orders, whoever sent them: filled or not, at what shortfall, and where the price went after the fill.

Every BUY and SELL is an order. A limit rests for the sessions that its answer says, as `tapehouse.orders` has it, and where it
is not filled by then it is executed at the last of those closes: so the shortfall counts the orders that missed, too. An order
at market is executed at the next session's open. Where that last bar is missing, a filled order is what it was, and a missed
one is executed at the first open after it, or at the last close where the symbol is not traded again; so is an order at market
into a halt, and counts as missed. Costs are those of `objectives.yaml`, half-spread and fees.

Not known is the fate of an order whose last session lies beyond all bars, filled or not: fills are known early and misses late.
No answer states the chance of its fill, since the confidence of an order is in its side, and so no such saying is judged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
from numba import njit

from tapehouse.bootstrap import BLOCK_SESSIONS
from tapehouse.evaluations.core import Part, Ratio, Term
from tapehouse.evaluations.rows import Rows
from tapehouse.kernels import kernel
from tapehouse.labels.forward import HORIZONS
from tapehouse.order_kernels import BPS, MISSED
from tapehouse.orders import Weights, pay
from tapehouse.predictions import ACTIONS, BUY, SELL

if TYPE_CHECKING:
    from tapehouse.orders import Objectives
    from tapehouse.paths import Paths

MEANING: Final = {
    "fill_rate": "Share of orders that were filled: orders at market, and limits while they rested.",
    "unsettled": "Share of orders whose last session lies beyond the bars that are known; no other figure counts them.",
    "implementation_shortfall_bps": "Mean cost of the execution against the decision's close, over all orders: unfilled ones "
    "are executed at the close of their last session, or the next open where that is missing; half-spread and fees included "
    "[bps; below 0 is better than that close].",
    **{
        f"markout_{h}d_bps": f"Mean move in a filled order's favour from its fill to the close of session {h} from there, the "
        "fill's own being the first [bps]."
        for h in HORIZONS
    },
}
SIDE: Final = {"SELL": -1, "HOLD": 0, "BUY": 1}
NO_WEIGHTS: Final = Weights(price=0.0, certainty=0.0, risk=0.0, fees=0.0)  # of an answer to no objective, which none pays


@dataclass(frozen=True)
class OrderFates:
    """(rows,) each, NaN for HOLD and where the order's last session is still to come.

    Attributes:
        has_objective: (rows,) booleans, whether the answer is one to an objective of `objectives.yaml`; known of HOLD, too.
        filled: 1 or 0. shortfall_bps: cost of the execution against the decision's close, half-spread and fees included, in
            bps of it; below zero is better than that close.
        reward_bps: what the answer's objective pays for it; NaN without an objective.
        markout_bps: (rows, horizons) from the fill to the close 1, 5, 10 and 30 sessions on, the fill's own being the first, in
            the order's favour; NaN where unfilled.
    """

    has_objective: np.ndarray
    filled: np.ndarray
    shortfall_bps: np.ndarray
    reward_bps: np.ndarray
    markout_bps: np.ndarray


def order_fates(answers: pl.DataFrame, paths: Paths, objectives: Objectives) -> OrderFates:
    """What became of each answer's order.

    Args:
        answers: one row a decision: `symbol`, `session` and `close` of the decision, `action`, `limit_price`,
            `limit_valid_sessions`, `objective`; null where nothing was said.
        paths: settled bars and actions over the decisions and as far beyond as an order rests and a markout reaches.
        objectives: costs, and the weights of the objectives that answers name.

    Raises:
        ValueError: a limit that is not above zero, or that rests for no session.
    """
    placed = answers["objective"].is_in(list(objectives.objectives)).fill_null(False).to_numpy()
    numbers = (np.full(answers.height, np.nan) for _ in range(3))
    fates = OrderFates(placed, *numbers, np.full((answers.height, len(HORIZONS)), np.nan))
    rows = answers.with_columns(
        side=pl.col("action").replace_strict(SIDE, default=None, return_dtype=pl.Float64),
        valid=pl.col("limit_valid_sessions").fill_null(0),
    ).with_row_index("at")
    rows = rows.filter(pl.col("side") != 0)
    limited = pl.col("limit_price").is_not_null()
    wrong = rows.filter(limited & ~((pl.col("limit_price") > 0) & (pl.col("valid") > 0)))
    if wrong.height:
        first = wrong.row(0, named=True)
        raise ValueError(
            f"order of {first['symbol']} on {first['session']}: a limit order needs a price above 0 and limit_valid_sessions "
            f"of at least 1, got {first['limit_price']} and {first['valid']}"
        )
    rows = rows.with_columns(window=pl.when(limited).then("valid").otherwise(1))
    settling = replace(paths, close=settling_prices(paths.open, paths.close, paths.shares, paths.cash))
    for (window, objective), group in rows.group_by("window", "objective", maintain_order=True):
        weights = objectives.objectives[objective].weights if objective in objectives.objectives else None
        _resting(fates, group, paths, settling, int(window), objectives, weights)
    return fates


def order_columns(fates: OrderFates) -> dict[str, np.ndarray]:
    """What `ORDERS` measures, by the names of its columns."""
    markouts = {f"order_markout_{h}": fates.markout_bps[:, k] for k, h in enumerate(HORIZONS)}
    filled, shortfall = fates.filled, fates.shortfall_bps
    return {"order_filled": filled, "order_shortfall": shortfall, **markouts}


def _resting(
    fates: OrderFates,
    orders: pl.DataFrame,
    paths: Paths,
    settling: Paths,
    window: int,
    objectives: Objectives,
    weights: Weights | None,
) -> None:
    """Let orders of one window and objective rest, and write what became of them into `fates`.

    `settling` has, for closes, the prices that an order is executed at when it ends unfilled.
    """
    row, column = paths.places(orders)
    side, arrival = (orders[name].to_numpy(writable=True) for name in ("side", "close"))
    # An order at market is one whose limit any price is better than.
    limit = orders["limit_price"].cast(pl.Float64).fill_null(math.nan).to_numpy(writable=True)
    limit = np.where(np.isnan(limit), np.where(side > 0, np.inf, 0.0), limit)
    paid = pay(settling, row, column, side, limit, arrival, window, objectives.costs, weights or NO_WEIGHTS)
    at, known = orders["at"].to_numpy(), paid["filled"] >= 0
    fates.filled[at] = np.where(known, paid["filled"] > MISSED, np.nan)
    fates.shortfall_bps[at] = np.where(known, paid["fees_bps"] - paid["shortfall_bps"], np.nan)
    if weights is not None:
        fates.reward_bps[at] = np.where(known, paid["reward_bps"], np.nan)
    fill = np.where(paid["filled"] > MISSED, column + 1 + paid["sessions_waited"], -1)
    fates.markout_bps[at] = markouts(
        row, column, fill, side, paid["exec_price"], np.array(HORIZONS), paths.close, paths.shares, paths.cash
    )


@njit(cache=True)
def settling_prices(opens, closes, shares_step, cash_step):
    """What an order that ends unfilled in each session is executed at, spread apart: the session's close where there is one.

    Else the first open after it, or without one the last close before it, in the session's basis. NaN in sessions after the
    last with a bar of any symbol, which are still to come.

    Args:
        opens, closes, shares_step, cash_step: (s, n) as in `tapehouse.paths.Paths`.
    """
    found = np.full(closes.shape, math.nan)
    end = 0
    for row in range(closes.shape[0]):
        for t in range(end, closes.shape[1]):
            if not math.isnan(closes[row, t]):
                end = t + 1
    for row in range(closes.shape[0]):
        price = math.nan
        for t in range(end):
            if not math.isnan(price):
                price = (price - cash_step[row, t]) / shares_step[row, t]
            if not math.isnan(closes[row, t]):
                price = closes[row, t]
            found[row, t] = price
        price = math.nan
        for t in range(closes.shape[1] - 1, -1, -1):
            if t < end and math.isnan(closes[row, t]) and not math.isnan(price):
                found[row, t] = price
            if not math.isnan(opens[row, t]):
                price = opens[row, t]
            price = price * shares_step[row, t] + cash_step[row, t]
    return found


@kernel("tapehouse.order_kernels")
def markouts(rows, decided, filled, sides, executed, horizons, closes, shares_step, cash_step):
    """Moves in orders' favour after their fills, in bps of the price of the fill.

    Args:
        rows, decided, filled: (k,) row, and columns of the decision's session and of the fill's; `filled` negative without one.
        sides: (k,) 1.0 buy, -1.0 sell. executed: (k,) prices in the decision's basis.
        horizons: (h,) sessions, the fill's own being the first, ascending.
        closes, shares_step, cash_step: (s, n) as in `tapehouse.paths.Paths`.

    Returns:
        (k, h), NaN without a fill, and where the last close is missing or outside the grid.
    """
    found = np.full((rows.size, horizons.size), math.nan)
    for i in range(rows.size):
        if filled[i] < 0:
            continue
        shares, cash = 1.0, 0.0
        for t in range(decided[i] + 1, filled[i] + 1):
            cash += shares * cash_step[rows[i], t]
            shares *= shares_step[rows[i], t]
        paid = (executed[i] - cash) / shares  # in the basis of the fill: what went ex before it is not its gain
        shares, cash, t = 1.0, 0.0, filled[i]
        for k in range(horizons.size):
            last = filled[i] + horizons[k] - 1
            if last >= closes.shape[1]:
                break
            while t < last:
                t += 1
                cash += shares * cash_step[rows[i], t]
                shares *= shares_step[rows[i], t]
            found[i, k] = sides[i] * ((closes[rows[i], last] * shares + cash) / paid - 1.0) * BPS
    return found


def _terms(rows: Rows) -> list[Term]:
    filled = rows["order_filled"]
    sent = (rows["action"] == ACTIONS.index(SELL)) | (rows["action"] == ACTIONS.index(BUY))
    return [
        Term("filled", filled),
        Term("unsettled", np.where(sent, np.isnan(filled), np.nan)),
        Term("shortfall", rows["order_shortfall"]),
        *(Term(f"markout_{h}", rows[f"order_markout_{h}"]) for h in HORIZONS),
    ]


# Each is of the order that was sent: with the outcome of another decision there is no such order, so there is no twin.
ORDERS: Final = Part(
    _terms,
    (
        Ratio("fill_rate", "filled", chance=None),
        Ratio("unsettled", "unsettled", chance=None),
        Ratio("implementation_shortfall_bps", "shortfall", chance=None),
        *(Ratio(f"markout_{h}d_bps", f"markout_{h}", chance=None, horizon=max(h, BLOCK_SESSIONS)) for h in HORIZONS),
    ),
)
