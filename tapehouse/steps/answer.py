"""Asking an adapter."""

from typing import Final

import polars as pl

from tapehouse.recipe_sections import LanguageRecipe
from tapehouse.steps.rows import action_shares

ALONE: Final = 3  # prompts that are asked one by one, to tell how long a single answer is waited for


def run(b, recipe: LanguageRecipe) -> dict[str, pl.DataFrame]:
    """The adapter's answer at every decision point of the validation tail and the test block."""
    import torch

    from tapehouse.bases import base_of
    from tapehouse.calibration import calibrated
    from tapehouse.inference.asking import predict
    from tapehouse.inference.effort import Effort, record_effort
    from tapehouse.inference.questions import question_reads, questions
    from tapehouse.inference.sampling import Sampling
    from tapehouse.predictions import KEYS, as_predictions, judged_rows
    from tapehouse.tokens import load_tokenizer, stored_tokenizer_path
    from tapehouse.training.lora import load_trained

    torch.set_num_threads(b.settings.threads)  # the order of sums, and so the last bits of probabilities
    tokenizer = stored_tokenizer_path(b.read("models.tokenizer"), b.settings.root, recipe.model.base)
    base, adapter = base_of(b, recipe.model.base), b.settings.root / b.read("models.adapters").row(0, named=True)["path"]
    start = (base.folder, adapter, tokenizer, recipe.model.device, recipe.quantisation, base.trust_remote_code)
    vocabulary, model = load_tokenizer(tokenizer), load_trained(*start)
    beside = {read.table: b.read(read.table) for read in question_reads(recipe)}
    points = judged_rows(b.read("features.decision_points"), b.fold)
    asked = questions(recipe, points, beside, b.settings.home, vocabulary)
    how = recipe.prompt
    sampling = Sampling(how.temperature, how.top_p, how.repetition_penalty, recipe.seed)

    def answers_to(rows: slice, batch: int, effort: Effort) -> pl.DataFrame:
        choices = None if asked.choices is None else asked.choices[rows]
        return predict(model, vocabulary, asked.prompts[rows], asked.family, how.answer, batch, sampling, choices, effort)

    effort, alone = Effort(), Effort()
    answers = answers_to(slice(None), how.batch_size, effort)
    for row in range(0, len(asked.prompts), -(-len(asked.prompts) // ALONE) or 1):
        answers_to(slice(row, row + 1), 1, alone)
    took = effort.figures(alone)
    said = {"run_id": b.run_id, "mode": how.answer, "device": recipe.model.device, "threads": b.settings.threads}
    record_effort(b.settings.root, recipe.name, b.fold.id, took, **said)
    b.note(unparseable=float((answers["parse_state"] != "ok").mean() or 0.0), **action_shares(answers["action"]), **took)
    valid = how.limit_valid_sessions if asked.family.priced else None
    rows = as_predictions(
        pl.concat([points.select(KEYS), answers], how="horizontal").with_columns(limit_valid_sessions=pl.lit(valid, pl.Int32)),
        recipe.name,
        b.fold,
        asked.objective,
    )
    rows, fits = calibrated(rows, b.read("labels.triple_barrier"), b.fold)
    return {"models.predictions": rows, "models.calibrations": fits}
