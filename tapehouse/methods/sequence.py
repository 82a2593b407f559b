"""A small Transformer encoder over windows of price features, trained on the triple-barrier labels by a focal loss."""

from typing import Literal

import polars as pl

from tapehouse.feature_matrix import labelled
from tapehouse.networks.recipe import EncoderSection, FocalSection, PolicyRecipe, StageSection, window_read
from tapehouse.tables import Read


class Recipe(PolicyRecipe):
    """A sequence encoder."""

    method: Literal["sequence"]
    encoder: EncoderSection = EncoderSection()
    loss: FocalSection = FocalSection()
    training: StageSection


def fit_reads(recipe: Recipe) -> tuple[Read, ...]:
    """Labels of the training window, and price features from before its first window's first row."""
    return (Read("labels.triple_barrier", window="train"), window_read(recipe.encoder, "train"))


def predict_reads(recipe: Recipe) -> tuple[Read, ...]:
    """Price features from before the first judged window's first row."""
    return (window_read(recipe.encoder, "judged"),)


def fit(recipe: Recipe, inputs, fold, folder, report=None, checkpoints=None) -> dict:
    """Fit on the labelled windows of the training window; leaves scaler, weights and an ONNX file in `folder`."""
    from tapehouse.networks.classifying import fit_classifier

    points, labels = inputs["features.decision_points"], inputs["labels.triple_barrier"]
    parts = tuple(labelled(points, labels, fold, part) for part in ("fit", "validation"))
    return fit_classifier(recipe, inputs["features.price"], parts, folder, report, checkpoints)


def predict(recipe: Recipe, inputs, fold, folder) -> pl.DataFrame:
    """Class probabilities at every decision."""
    from tapehouse.networks.answering import window_chances

    return window_chances(inputs["features.price"], inputs["features.decision_points"], recipe.encoder.window, folder)
