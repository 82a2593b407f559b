"""Asking a model that is not of language."""

import polars as pl

from tapehouse.recipes import Recipe, method_module
from tapehouse.steps.rows import action_shares


def run(b, recipe: Recipe) -> dict[str, pl.DataFrame]:
    """Its decision at every point of the validation tail and the test block, probabilities calibrated on the tail."""
    from tapehouse.calibration import calibrated
    from tapehouse.predictions import as_predictions, judged_rows

    folder = b.settings.root / b.read("models.adapters").row(0, named=True)["path"]
    inputs = {read.table: b.read(read.table) for read in b.asset.reads}
    inputs["features.decision_points"] = judged_rows(inputs["features.decision_points"], b.fold)
    answers = method_module(recipe.method).predict(recipe, inputs, b.fold, folder)
    rows = as_predictions(answers, recipe.name, b.fold)
    rows, fits = calibrated(rows, inputs["labels.triple_barrier"], b.fold)
    b.note(**action_shares(rows["action"]))
    return {"models.predictions": rows, "models.calibrations": fits}
