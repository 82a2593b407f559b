"""What a resting limit order is worth: fills on bars, implementation shortfall, and the reward of an objective.

An order is placed at the decision and rests over the next sessions, never in the decision's own. It fills only when a
bar trades through its limit (low strictly below a buy's, high strictly above a sell's): a touch may have left it in the
queue. It then pays its limit and the maker's fee, or the open where the session opens beyond the limit, since a resting order
takes part in the opening auction. Where the first open is already beyond its limit it has not rested: it takes liquidity as
in a backtest, at the open and half the spread though never beyond its limit, and pays the taker's fee. An order still unfilled
at the close of the window's last session is executed there, crossing half the spread and paying the taker's fee. Shortfall
is measured once, over all orders, against the arrival price, the decision's close
(A. Perold, The Implementation Shortfall, Journal of Portfolio Management, 1988):

    shortfall reward = -side * (execution / arrival - 1) * 10_000     in bps of the arrival price, larger is better

Later bars are restated to the decision's basis by the splits and dividends ex since (`tapehouse.paths`).
"""

import math
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import polars as pl
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tapehouse.errors import TapehouseError, faults_of
from tapehouse.order_kernels import BPS, MISSED, paid_orders
from tapehouse.paths import SETTLEMENT_LAG, Paths
from tapehouse.yaml_files import parse_yaml

NUMBERS = ("exec_price", "shortfall_bps", "fees_bps", "certainty_bps", "risk_bps", "reward_bps", "markout_bps")
BUY, SELL = 1, -1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Share = Annotated[float, Field(ge=0, le=1)]
Regime = Literal["bullish", "bearish", "sideways"]  # of features.regime, and of a book's minute


class Costs(_Frozen):
    """What trading costs beside the price, in bps of the arrival price."""

    half_spread_bps: float = Field(ge=0, description="Half the quoted spread, crossed by an order that takes liquidity.")
    maker_fee_bps: float = Field(description="Fee of an order filled where it rested; negative for a rebate.")
    taker_fee_bps: float = Field(ge=0, description="Fee of an order that takes: at the first open, or at the window's end.")
    unfilled_penalty_bps: float = Field(ge=0, description="What an objective of full certainty pays for a miss.")


class Weights(_Frozen):
    """How an objective weighs the parts of a reward."""

    price: float = Field(ge=0)
    certainty: float = Field(ge=0)
    risk: float = Field(ge=0)
    fees: float = Field(ge=0)


class Stratum(_Frozen):
    """A range of near and one of far offsets from the decision's close, in ATR, that one pair is drawn from."""

    near: tuple[float, float]
    far: tuple[float, float]

    @model_validator(mode="after")
    def _ordered(self) -> "Stratum":
        if not 0 < self.near[0] <= self.near[1] < self.far[0] <= self.far[1]:
            raise ValueError(f"expected 0 < near[0] <= near[1] < far[0] <= far[1], got {self.near} and {self.far}")
        return self


class Objective(_Frozen):
    """What an order is for: the words of the prompt, the window, the offsets that are compared, the weights."""

    words: str = Field(min_length=1)
    share: float = Field(gt=0, le=1, description="Share of the pairs that it shall have; the keep rates see to it.")
    window_sessions: int = Field(ge=1, le=15)
    weights: Weights
    strata: tuple[Stratum, ...] = Field(min_length=1)


class KeepRates(_Frozen):
    """Which share of the drawn pairs is kept, so that what is kept is balanced in expectation; a product of factors.

    The rates are declared and not fitted to the rows at hand: a row stays or goes by its own key alone.
    """

    objective: dict[str, Share] = Field(default_factory=dict)
    regime: dict[Regime, Share] = Field(default_factory=dict)
    side: dict[Literal["BUY", "SELL"], Share] = Field(default_factory=dict)
    symbol: dict[str, Share] = Field(default_factory=dict)


class Objectives(_Frozen):
    """`objectives.yaml`: what all objectives share, and each objective.

    Attributes:
        costs: beside the price.
        near_tie_bps: pairs with a smaller margin are dropped.
        placements: pairs drawn for each decision point and objective.
        buy_share: chance that a pair is of buys, by the decision's regime; a half in a regime that is not named.
        keep: rates of balance; what is not named is kept.
    """

    costs: Costs
    near_tie_bps: float = Field(ge=0)
    placements: int = Field(1, ge=1, le=16)
    buy_share: dict[Regime, Share] = Field(default_factory=dict)
    keep: KeepRates = KeepRates()
    objectives: dict[str, Objective] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> "Objectives":
        total = sum(objective.share for objective in self.objectives.values())
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ValueError(f"objectives: the shares sum to {total:g}, not to 1")
        unknown = sorted(set(self.keep.objective) - set(self.objectives))
        if unknown:
            raise ValueError(f"keep.objective: no objective {unknown}; there are {sorted(self.objectives)}")
        return self

    @property
    def words(self) -> dict[str, str]:
        """Wording of each objective, as prompts show it."""
        return {name: objective.words for name, objective in self.objectives.items()}


def load_objectives(path: Path) -> Objectives:
    """Read `objectives.yaml`. Raises `TapehouseError` that names the file and the key of anything unknown or ill-typed."""
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
        return Objectives.model_validate(content)
    except FileNotFoundError:
        raise TapehouseError(f"{path}: no such file; it declares the objectives of orders") from None
    except yaml.YAMLError as error:
        raise TapehouseError(f"{path}: {error}") from error
    except ValidationError as error:
        raise TapehouseError(faults_of(path, error)) from error


def order_outcomes(
    paths: Paths,
    orders: pl.DataFrame,
    window: int,
    costs: Costs,
    weights: Weights,
    settlement_lag: timedelta = SETTLEMENT_LAG,
) -> pl.DataFrame:
    """What became of each order and what its objective pays for it.

    Args:
        paths: settled bars and actions, over the decisions and `window` sessions after them.
        orders: `symbol`, `session` of the decision, `side` (1 buy, -1 sell), `limit` and `arrival` (the decision's close),
            both in the decision's price basis.
        window: sessions that an order rests.
        costs, weights: declared in `objectives.yaml`.
        settlement_lag: how long after a session's close its records still count.

    Returns:
        One row an order, in the given order: `filled`, `exec_price` (decision's basis), `sessions_waited` (before the fill's),
        `shortfall_bps`, `fees_bps`, `certainty_bps` (0, or minus the penalty of an unfilled order), `risk_bps` (minus the
        worst move against the order, over the sessions it rested unfilled), `reward_bps` (their weighted sum),
        `markout_bps` (the move in a filled order's favour from its fill to the window's last close; no part of the reward,
        null where unfilled), `reward_end_at` (close of the window's last session) and `reward_known_at`. All are null where the
        window's last bar is missing or still to come.

    Raises:
        TapehouseError: for a limit or arrival price that is not above zero, or a decision on a day that is no session.
    """
    bad = orders.filter(~((pl.col("limit") > 0) & (pl.col("arrival") > 0)))
    if len(bad):
        first = bad.row(0, named=True)
        raise TapehouseError(
            f"order of {first['symbol']} on {first['session']}: limit {first['limit']} and arrival {first['arrival']} must be "
            "above zero"
        )
    row, column = paths.places(orders)
    side = orders["side"].cast(pl.Float64).to_numpy(writable=True)
    limit, arrival = (orders[name].to_numpy(writable=True) for name in ("limit", "arrival"))
    paid = pay(paths, row, column, side, limit, arrival, window, costs, weights)
    done = paid["filled"] >= 0
    outcomes = pl.DataFrame(
        {
            **paid,
            "filled": paid["filled"] > MISSED,
            "sessions_waited": paid["sessions_waited"].astype(np.int32),
            "markout_bps": pl.Series(paid["markout_bps"]).fill_nan(None),
            "reward_end_at": paths.times("close_at", np.where(done, column + window, -1)),
        }
    )
    known = outcomes.with_columns(reward_known_at=pl.col("reward_end_at") + settlement_lag)
    return known.with_columns(pl.when(pl.Series(done)).then(pl.all()))


def pay(
    paths: Paths,
    row: np.ndarray,
    column: np.ndarray,
    side: np.ndarray,
    limit: np.ndarray,
    arrival: np.ndarray,
    window: int,
    costs: Costs,
    weights: Weights,
) -> dict[str, np.ndarray]:
    """What became of each order: the numbers of `order_outcomes` as arrays, (k,) each.

    `row` and `column` are the places of the decisions' sessions in `paths`, `side` is 1.0 or -1.0. `filled` is as of
    `tapehouse.order_kernels.rest_one`, -1 where the window's last bar is missing, which leaves the other numbers without
    meaning; `markout_bps` is NaN where unfilled.
    """
    filled, waited, numbers = paid_orders(
        row, column, side, limit, arrival, window, *terms(costs, weights),
        paths.open, paths.high, paths.low, paths.close, paths.shares, paths.cash,
    )  # fmt: skip
    return {"filled": filled, "sessions_waited": waited} | dict(zip(NUMBERS, numbers, strict=True))


def terms(costs: Costs, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """What the kernels read: half spread (a fraction), fees, penalty; weights of price, certainty, risk and fees."""
    paid = costs.half_spread_bps / BPS, costs.maker_fee_bps, costs.taker_fee_bps, costs.unfilled_penalty_bps
    return np.array(paid), np.array([weights.price, weights.certainty, weights.risk, weights.fees])
