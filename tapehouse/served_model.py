"""A registered model, as MLflow loads it from this file: nothing of it is pickled.

An adapter is asked with a frame that has a column `prompt`, and answers as its recipe says; where that scores answers, the
frame has the columns of the decision points, too. A model on features is asked with rows of `features.decision_points`, or
with a mapping of all the tables that its method reads. Either answers with the columns of `tapehouse.predictions.ANSWERS` that
it knows, probabilities not yet calibrated (`models.calibrations` holds the temperature).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.recipe_sections import LanguageRecipe
from tapehouse.recipes import method_module, parse_recipe
from tapehouse.training.manifest import weights_digest


class ServedModel(mlflow.pyfunc.PythonModel):
    """One trained model with its manifest; an adapter finds its base where it lay when it was registered."""

    def load_context(self, context: Any) -> None:
        """Read the manifest, and check that the base is the one that the adapter was trained on."""
        self.folder = Path(context.artifacts["model"])
        self.manifest = json.loads((self.folder / "manifest.json").read_text())
        self.recipe = parse_recipe(self.manifest["recipe"], str(self.folder / "manifest.json"))
        self.places = context.model_config or {}
        if isinstance(self.recipe, LanguageRecipe):
            base, wanted = Path(self.places["base"]), self.manifest["base_digest"]
            if not base.is_dir() or (found := weights_digest(base)) != wanted:
                have = found if base.is_dir() else "nothing"
                raise TapehouseError(f"{base}: holds {have}, but {self.recipe.name} was trained on {wanted}; make that again")

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """A pandas frame of answers, one row a row of the input."""
        tables = model_input if isinstance(model_input, dict) else {"features.decision_points": model_input}
        frames = {name: frame if isinstance(frame, pl.DataFrame) else pl.from_pandas(frame) for name, frame in tables.items()}
        if isinstance(self.recipe, LanguageRecipe):
            return self._answers(next(iter(frames.values()))).to_pandas()
        from tapehouse.training.jobs import job_fold

        lacking = {read.table for read in self._reads()} - frames.keys()
        if lacking:
            raise TapehouseError(f"{self.recipe.name} reads {sorted(lacking)} too; pass a mapping of table name to rows")
        fold = job_fold({"fold": self.manifest["window"]})
        return method_module(self.recipe.method).predict(self.recipe, frames, fold, self.folder).to_pandas()

    def _reads(self) -> tuple:
        method = method_module(self.recipe.method)
        return method.predict_reads(self.recipe) if hasattr(method, "predict_reads") else ()

    def _answers(self, rows: pl.DataFrame) -> pl.DataFrame:
        from tapehouse.inference.asking import predict
        from tapehouse.inference.questions import family_of
        from tapehouse.inference.sampling import Sampling
        from tapehouse.tokens import load_tokenizer
        from tapehouse.training.lora import load_trained

        recipe, folder = self.recipe, Path(self.places["tokenizer"])
        if not recipe.predicts:
            raise TapehouseError(
                f"{recipe.name} scores answers, and gives none; load it by load_scorer of tapehouse.training.{recipe.method}"
            )
        if "prompt" not in rows.columns:
            raise TapehouseError(f"{recipe.name} answers prompts: pass rows with the column 'prompt', got {rows.columns}")
        choices = self._choices(rows) if recipe.prompt.answer == "score" else None
        trusted = bool(self.places.get("trust_remote_code", False))
        start = (Path(self.places["base"]), self.folder, folder, recipe.model.device, recipe.quantisation, trusted)
        how, family = recipe.prompt, family_of(recipe)
        sampling = Sampling(how.temperature, how.top_p, how.repetition_penalty, recipe.seed)
        asked = (rows["prompt"].to_list(), family, how.answer, how.batch_size, sampling, choices)
        return predict(load_trained(*start), load_tokenizer(folder), *asked)

    def _choices(self, rows: pl.DataFrame) -> list:
        """The answers that are scored: they say what follows from the decision, so that it takes more than its prompt."""
        from tapehouse.inference.questions import family_of

        template = self.places["template"]
        try:
            return family_of(self.recipe).choices(rows, rows["prompt"], template)
        except (ValueError, pl.exceptions.ColumnNotFoundError) as error:
            raise TapehouseError(
                f"{self.recipe.name} scores the answers that a decision allows: pass the columns of its decision point beside "
                f"'prompt' ({error})"
            ) from error


mlflow.models.set_model(ServedModel())
