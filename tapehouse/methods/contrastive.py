"""The encoder of `sequence`, pretrained by a supervised contrastive loss; a linear probe on its states tells the classes."""

from typing import Literal

from pydantic import Field

from tapehouse.feature_matrix import labelled
from tapehouse.methods.sequence import fit_reads, predict, predict_reads
from tapehouse.networks.recipe import EncoderSection, PolicyRecipe, StageSection

__all__ = ["Recipe", "fit", "fit_reads", "predict", "predict_reads"]  # reads and answers are those of the encoder's own method


class Recipe(PolicyRecipe):
    """Supervised contrastive pretraining, then a linear probe (Khosla and others 2020)."""

    method: Literal["contrastive"]
    encoder: EncoderSection = EncoderSection()
    temperature: float = Field(0.1, gt=0, description="Divides the cosines of two states.")
    projection: int = Field(16, ge=2, description="Width of what the contrast is measured in; left behind afterwards.")
    pretraining: StageSection
    probe: StageSection


def fit(recipe: Recipe, inputs, fold, folder, report=None, checkpoints=None) -> dict:
    """Fit on the labelled windows of the training window; leaves scaler, weights and an ONNX file in `folder`."""
    from tapehouse.networks.classifying import fit_by_contrast

    points, labels = inputs["features.decision_points"], inputs["labels.triple_barrier"]
    parts = tuple(labelled(points, labels, fold, part) for part in ("fit", "validation"))
    return fit_by_contrast(recipe, inputs["features.price"], parts, folder, report, checkpoints)
