"""The market's hidden states as a predictor: what followed each state in training, weighed by how likely each is now.

The states are those of `tapehouse.hmm`, fitted on the benchmark's rows of the training window; their probabilities at a
decision are filtered, never smoothed (`tapehouse.regimes`). Each state has the shares of the three labels that followed it,
each row counted by its probability of the state, with `prior_rows` more of the base rates. J. Hamilton, A New Approach to the
Economic Analysis of Nonstationary Time Series and the Business Cycle (Econometrica 1989).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
from pydantic import Field

from tapehouse.feature_matrix import labelled
from tapehouse.folds import fitted_until
from tapehouse.predictions import ACTIONS, CHANCES, KEYS
from tapehouse.recipe_sections import ClassicalRecipe, Section
from tapehouse.tables import Read

if TYPE_CHECKING:
    from tapehouse.hmm import States

STATES_FILE, SHARES_FILE = "states.json", "shares.safetensors"
WARM_UP_MONTHS = 33  # the filter runs from 1 May two years before a decision


class Params(Section):
    """Whose states, and how much of the base rates each state's shares hold."""

    symbol: str = Field(description="The market: a symbol of features.price.")
    prior_rows: float = Field(100.0, gt=0)


class Recipe(ClassicalRecipe):
    """Hidden states of the market."""

    method: Literal["regime"]
    params: Params


def fit_reads(recipe: Recipe) -> tuple[Read, ...]:
    """Labels of the training window, and the market from before it on."""
    return Read("labels.triple_barrier", window="train"), Read("features.price", WARM_UP_MONTHS, window="train")


def predict_reads(recipe: Recipe) -> tuple[Read, ...]:
    """The market, from before the decisions on."""
    return (Read("features.price", WARM_UP_MONTHS, window="judged"),)


def fit(recipe: Recipe, inputs, fold, folder, report=None) -> dict:
    """Fit the states, then the shares of labels in each; `rows`, `states` (their steps of EM) and `base_rates`.

    Raises:
        ValueError: no rows of the market.
    """
    from safetensors.numpy import save_file

    from tapehouse.hmm import INPUTS, to_rows
    from tapehouse.hmm import fit as fit_states
    from tapehouse.hmm import inputs as observations

    rows = labelled(inputs["features.decision_points"], inputs["labels.triple_barrier"], fold)
    market = _market(recipe, inputs)
    window = pl.col("decision_at").is_between(fold.train_start, fitted_until(fold), closed="left")
    states = fit_states(observations(market.filter(window)).select(INPUTS).to_numpy())
    truth = np.eye(3)[rows["label"].to_numpy() + 1]
    base = truth.mean(axis=0)
    weights = np.nan_to_num(probabilities(rows, market, states, fold))
    shares = weights.T @ truth + recipe.params.prior_rows * base
    shares /= shares.sum(axis=1, keepdims=True)
    save_file({"base": base, "shares": np.ascontiguousarray(shares)}, folder / SHARES_FILE)
    fitted = to_rows(states) if states else {}
    (folder / STATES_FILE).write_text(json.dumps({"symbol": recipe.params.symbol, "states": fitted}, indent=1) + "\n")
    base_rates = dict(zip(ACTIONS, base.tolist(), strict=True))
    return {"rows": rows.height, "iterations": states.iterations if states else 0, "base_rates": base_rates}


def predict(recipe: Recipe, inputs, fold, folder) -> pl.DataFrame:
    """The shares of the states by their probabilities at each decision; the base rates where the market is not known."""
    from safetensors.numpy import load_file

    from tapehouse.hmm import from_rows

    points = inputs["features.decision_points"]
    fitted, shares = json.loads((folder / STATES_FILE).read_text())["states"], load_file(folder / SHARES_FILE)
    now = probabilities(points, _market(recipe, inputs), from_rows(fitted) if fitted else None, fold)
    # State by state, so that a row's bits do not depend on the rows around it.
    chances = sum(now[:, [state]] * shares["shares"][state] for state in range(now.shape[1]))
    chances = np.where(np.isnan(chances), shares["base"], chances)
    return points.select(KEYS).with_columns(pl.Series(name, chances[:, place]) for place, name in enumerate(CHANCES))


def probabilities(points: pl.DataFrame, market: pl.DataFrame, states: States | None, fold) -> np.ndarray:
    """(rows of `points`, states) filtered probabilities, NaN where the market or the states are not known."""
    from tapehouse.hmm import STATES
    from tapehouse.regimes import hidden_regimes

    found = hidden_regimes(points.select(KEYS), market, states, fold)
    columns = [f"p_{state}" for state in STATES]
    return points.select(KEYS).join(found, on=KEYS, how="left", maintain_order="left").select(columns).to_numpy()


def _market(recipe: Recipe, tables: dict[str, pl.DataFrame]) -> pl.DataFrame:
    rows = tables["features.price"].filter(symbol=recipe.params.symbol)
    if rows.is_empty():
        known = tables["features.price"]["symbol"].unique().sort().to_list()
        raise ValueError(f"{recipe.name}: params.symbol: features.price has no {recipe.params.symbol!r}; there are {known}")
    return rows
