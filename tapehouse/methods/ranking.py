"""A thesis policy on features: taught by the teacher's theses, then by the rewards of answers that it draws itself.

Six sections (is there something to say), eight claims (does it hold) and five decisions, from one encoder. A claim about
which nothing is known, null in `datasets.theses`, is in no loss, no probability and no reward.
"""

from typing import Final, Literal

import polars as pl
from pydantic import Field

from tapehouse.feature_matrix import feature_names, matrix
from tapehouse.folds import fitting_rows, validation_rows
from tapehouse.networks.recipe import PolicyRecipe, StageSection
from tapehouse.networks.scaler import Scaler
from tapehouse.predictions import KEYS
from tapehouse.recipe_sections import Section
from tapehouse.tables import Read
from tapehouse.theses import TEACHER

POINTS, COMPANY, THESES = "features.decision_points", "features.company", "datasets.theses"
# Beside the columns of features.decision_points: what the claims on quality and insiders rest on.
OF_COMPANY: Final = ("return_on_assets", "net_margin", "insider_buys_90d", "insider_sells_90d")


class RewardSection(Section):
    """What an answer earns: parts of `tapehouse.rewards`, added up by these weights.

    `sections` and `claims` are shares that are right (0 to 1); `decision` is the entry of the matrix (-2 to 1).
    """

    sections: float = Field(1.0, ge=0)
    claims: float = Field(1.0, ge=0)
    decision: float = Field(1.0, ge=0)


class ReinforceSection(StageSection):
    """Pairwise REINFORCE: two answers a row, each the other's baseline."""

    entropy: float = Field(0.01, ge=0, description="c: weight of the answers' entropy, which keeps them from being one alone.")
    reward: RewardSection = RewardSection()


class Recipe(PolicyRecipe):
    """Three heads, two stages."""

    method: Literal["ranking"]
    width: int = Field(64, ge=4, description="Of both layers of the shared encoder.")
    features: list[str] = Field([], description="Columns of features.decision_points and features.company; empty means all.")
    supervised: StageSection
    reinforce: ReinforceSection | None = Field(description="The second stage; null leaves the taught policy as it is.")


def fit_reads(recipe: Recipe) -> tuple[Read, ...]:
    """The fold's theses, and what is known of the companies."""
    return (Read(THESES), Read(COMPANY, window="train"))


def predict_reads(recipe: Recipe) -> tuple[Read, ...]:
    """What is known of the companies."""
    return (Read(COMPANY, window="judged"),)


def fit(recipe: Recipe, inputs, fold, folder, report=None, checkpoints=None) -> dict:
    """Fit on the teacher's theses of the training window; leaves scaler, weights and an ONNX file in `folder`."""
    from tapehouse.networks.teaching import fit_policy

    points = _joined(inputs)
    features = feature_names(recipe.name, recipe.features, points)
    theses = inputs[THESES].filter(pl.col("origin") == TEACHER)
    parts = [taught(points, part(theses, fold)) for part in (fitting_rows, validation_rows)]
    if parts[0].is_empty():
        raise ValueError(f"{recipe.name} {fold.id}: datasets.theses has no thesis of the teacher known before the fold's tail")
    scaler = Scaler.fitted(features, matrix(parts[0], features), recipe.clip)
    scaler.save(folder)
    return fit_policy(recipe, *parts, scaler, folder, report, checkpoints)


def predict(recipe: Recipe, inputs, fold, folder) -> pl.DataFrame:
    """Probabilities of SELL, HOLD and BUY at every decision: of the five decisions, added up by sign."""
    from tapehouse.networks.answering import row_chances

    points = _joined(inputs)
    scaler = Scaler.load(folder)
    return row_chances(scaler.with_known(matrix(points, scaler.names)), points, folder)


def taught(points: pl.DataFrame, theses: pl.DataFrame) -> pl.DataFrame:
    """Decision points with what the teacher says of them: `section_*`, `claim_*` (null unknown) and `action`, by time."""
    said = [c for c in theses.columns if c.startswith(("section_", "claim_"))]
    told = points.join(theses.select(*KEYS, *said, "action"), on=KEYS, how="inner", validate="1:1")
    return told.sort("decision_at", "symbol", "interval")


def _joined(inputs) -> pl.DataFrame:
    company = inputs[COMPANY].select(*KEYS, *OF_COMPANY)
    return inputs[POINTS].join(company, on=KEYS, how="left", validate="1:1", maintain_order="left")
