"""What an order on a book is worth: the objectives of `book_objectives.yaml`, and the reward of what became of an order.

One definition of the reward, as for bars (`tapehouse.orders`): implementation shortfall over all orders against the arrival
price, here the mid at the decision, less fees:

    -side * (execution / arrival - 1) * 10_000 - fees      in bps of the arrival price, larger is better

The execution is the fill, or for an order unfilled at its window's end the best price of the other side then, with the taker's
fee. How much the price went on after a fill, the markout, is no part of it.
"""

import math
from pathlib import Path

import polars as pl
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tapehouse.book_fills import FillRules
from tapehouse.errors import TapehouseError, faults_of
from tapehouse.orders import BPS, KeepRates, Regime, Share, Stratum, Weights
from tapehouse.yaml_files import parse_yaml


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BookCosts(_Frozen):
    """What trading costs beside the price, in bps of the arrival price; the spread is in the prices themselves."""

    maker_fee_bps: float = Field(description="Fee of an order filled where it rested; negative for a rebate.")
    taker_fee_bps: float = Field(ge=0, description="Fee of an order that took on arrival, or was executed at the end.")
    unfilled_penalty_bps: float = Field(ge=0, description="What an objective of full certainty pays for a miss.")


class BookObjective(_Frozen):
    """What an order is for: the words of the prompt, its share of the decisions, the weights, the offsets (bps) compared.

    `window_seconds` is how long its orders rest; None: as long as `fills` says. It is at most an hour, so that a day's orders
    are over on the day after.
    """

    words: str = Field(min_length=1)
    share: float = Field(gt=0, le=1)
    window_seconds: float | None = Field(None, gt=0, le=3600)
    weights: Weights
    strata: tuple[Stratum, ...] = Field(min_length=1)


class BookObjectives(_Frozen):
    """`book_objectives.yaml`.

    Attributes:
        costs, fills: beside the price, and how orders are filled.
        every_seconds: between decisions. near_tie_bps: pairs with a smaller margin are dropped.
        buy_share: chance that a pair is of buys, by the decision's regime; a half in a regime that is not named.
        keep: rates of balance; what is not named is kept.
        tick_size: of each symbol, in quote currency.
    """

    costs: BookCosts
    fills: FillRules
    every_seconds: int = Field(60, ge=1, le=3600)
    near_tie_bps: float = Field(ge=0)
    buy_share: dict[Regime, Share] = Field(default_factory=dict)
    keep: KeepRates = KeepRates()
    tick_size: dict[str, float] = Field(default_factory=dict)
    objectives: dict[str, BookObjective] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> "BookObjectives":
        total = sum(objective.share for objective in self.objectives.values())
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ValueError(f"objectives: the shares sum to {total:g}, not to 1")
        if unknown := sorted(set(self.keep.objective) - set(self.objectives)):
            raise ValueError(f"keep.objective: no objective {unknown}; there are {sorted(self.objectives)}")
        if flat := sorted(symbol for symbol, tick in self.tick_size.items() if not tick > 0):
            raise ValueError(f"tick_size of {flat} must be above zero")
        return self

    @property
    def words(self) -> dict[str, str]:
        """Wording of each objective, as prompts show it."""
        return {name: objective.words for name, objective in self.objectives.items()}

    @property
    def windows(self) -> dict[str, float]:
        """How long orders of each objective rest, seconds."""
        return {name: objective.window_seconds or self.fills.window_seconds for name, objective in self.objectives.items()}


def load_book_objectives(path: Path) -> BookObjectives:
    """Read `book_objectives.yaml`. Raises `TapehouseError` that names the file and the key of anything unknown or ill-typed."""
    try:
        return BookObjectives.model_validate(parse_yaml(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise TapehouseError(f"{path}: no such file; it declares the objectives of orders on books") from None
    except yaml.YAMLError as error:
        raise TapehouseError(f"{path}: {error}") from error
    except ValidationError as error:
        raise TapehouseError(faults_of(path, error)) from error


def paid(outcomes: pl.DataFrame, costs: BookCosts) -> pl.DataFrame:
    """The parts of the reward of each order, in bps of the arrival price.

    Args:
        outcomes: of `tapehouse.book_fills.book_outcomes`, with `side` (1 buy, -1 sell), `arrival` (mid at the decision) and
            `price_weight`, `certainty_weight`, `risk_weight`, `fees_weight` of each order's objective.

    Returns:
        The same rows with `shortfall_bps` (-side * (execution / arrival - 1) * 10^4), `fees_bps`, `certainty_bps` (0, or minus
        the penalty of an unfilled order), `risk_bps` (minus the worst move of the mid against the order from its arrival to
        its execution), `reward_bps` (their weighted sum) and `markout_bps` (move of the mid in a filled order's favour from
        its fill on, in bps of it); null where the outcome is unknown.
    """
    side, arrival, known = pl.col("side"), pl.col("arrival"), pl.col("exec_price").is_not_null()
    rested = pl.col("outcome").is_in(["through", "queue"])
    move = pl.max_horizontal(side * (pl.col("worst_mid") / arrival - 1.0), pl.lit(0.0)) * BPS
    rows = outcomes.with_columns(
        shortfall_bps=-side * (pl.col("exec_price") / arrival - 1.0) * BPS,
        fees_bps=pl.when(known).then(pl.when(rested).then(costs.maker_fee_bps).otherwise(costs.taker_fee_bps)),
        certainty_bps=pl.when(known).then(pl.when("filled").then(0.0).otherwise(-costs.unfilled_penalty_bps)),
        risk_bps=pl.when(known).then(-move),
        markout_bps=side * (pl.col("markout_mid") / pl.col("exec_price") - 1.0) * BPS,
    )
    return rows.with_columns(
        reward_bps=pl.col("price_weight") * pl.col("shortfall_bps")
        - pl.col("fees_weight") * pl.col("fees_bps")
        + pl.col("certainty_weight") * pl.col("certainty_bps")
        + pl.col("risk_weight") * pl.col("risk_bps")
    )
