"""What recipes of policies share: networks on features, trained in a process of their own, without a language model."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from tapehouse.recipe_sections import ClassicalRecipe, EvaluationSection, OptimiserSection, PlateauSection, Section
from tapehouse.tables import Read, Window

# Scale-free, and known of every symbol: returns, oscillators, volatility, where the price stands. Prices themselves are not.
PRICE_FEATURES = (
    "ret_1d", "ret_5d", "ret_20d", "ret_63d", "atr_14", "rsi_14", "macd_hist", "adx_14", "plus_di_14", "minus_di_14",
    "realised_vol_20d", "parkinson_vol_20d", "gap_1d", "range_1d", "vwap_distance_20d", "relative_strength_20d",
    "volume_zscore_20d", "bollinger_position_20d", "support_distance_20d", "resistance_distance_20d", "market_divergence_1d",
)  # fmt: skip


class StageSection(Section):
    """One stage of training: optimiser steps, and rows a step. Each measurement of `evaluation` leaves a checkpoint."""

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=2)


class FocalSection(Section):
    """Focal loss -w (1 - p)^gamma log p of the true class (Lin and others 2017); gamma 0 is cross-entropy.

    `balanced` weighs a class by the inverse of its share among the rows fitted on, so that the classes count the same. The
    probabilities are then those of a world with equal shares: the prior has to be put back before they are read.
    """

    gamma: float = Field(1.0, ge=0)
    balanced: bool = False


class EncoderSection(Section):
    """A Transformer encoder (Vaswani and others 2017, norms first) over a window of rows; its output is the last state."""

    window: int = Field(32, ge=2, le=512, description="Rows of features: the decision's own and those before it.")
    width: int = Field(32, ge=4)
    heads: int = Field(4, ge=1)
    layers: int = Field(2, ge=1)
    hidden: int = Field(64, ge=4)
    dropout: float = Field(0.1, ge=0, lt=1)
    features: list[str] = Field(list(PRICE_FEATURES), min_length=1, description="Columns of features.price.")

    @model_validator(mode="after")
    def _heads_divide(self) -> EncoderSection:
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} do not divide width {self.width}; take a multiple")
        return self


class PolicyRecipe(ClassicalRecipe):
    """A network on features. Without a validation tail of the fold there is no early stopping, and every step is run.

    Features are scaled by mean and deviation of the rows fitted on, cut at `clip` deviations; a value that is not known is the
    mean.
    """

    kind: ClassVar[str] = "policy"
    apart: ClassVar[bool] = True

    clip: float = Field(5.0, gt=0, description="Deviations from the mean at which a scaled feature is cut.")
    optimiser: OptimiserSection
    plateau: PlateauSection | None = None
    evaluation: EvaluationSection

    @model_validator(mode="after")
    def _plateau_is_reached(self) -> PolicyRecipe:
        patience = self.evaluation.patience
        if self.plateau and patience is not None and self.plateau.patience >= patience:
            raise ValueError(
                f"plateau.patience {self.plateau.patience} is not below evaluation.patience {patience}: training would stop "
                "before the learning rate falls; lower the one or raise the other"
            )
        return self


def window_read(encoder: EncoderSection, window: Window) -> Read:
    """`features.price` over a window of the fold, and what lies in the windows of its first decisions."""
    return Read("features.price", window=window, lookback_days=lookback_days(encoder.window))


def lookback_days(window: int) -> int:
    """Calendar days in which a window's rows lie: twice its sessions, and ten for what closes an exchange longer."""
    return 2 * window + 10
