"""Asking an adapter which of two answers it would rather give."""

from pathlib import Path

import polars as pl

from tapehouse.recipe_sections import LanguageRecipe


def run(b, recipe: LanguageRecipe) -> pl.DataFrame:
    """Rows of `models.preferences`: log-probabilities of both answers of pairs of the test block, after and before training."""
    import torch

    from tapehouse.bases import base_of
    from tapehouse.preferences import asked_pairs, log_probabilities, preference_rows, stored_log_probabilities
    from tapehouse.tokens import load_tokenizer, stored_tokenizer_path, tokenizer_digest
    from tapehouse.training.lora import load_trained

    torch.set_num_threads(b.settings.threads)  # the order of sums, and so the last bits of log-probabilities
    tokenizer = stored_tokenizer_path(b.read("models.tokenizer"), b.settings.root, recipe.model.base)
    base, pad = base_of(b, recipe.model.base), load_tokenizer(tokenizer).pad
    tokens = b.read("datasets.preference_tokens").filter(pl.col("tokenizer") == tokenizer_digest(tokenizer))
    pairs = asked_pairs(tokens, b.fold.id)

    def scored(trained: Path | None):
        where = (base.folder, trained, tokenizer, recipe.model.device, recipe.quantisation, base.trust_remote_code)
        return log_probabilities(load_trained(*where), pairs, pad)

    def folder(name: str) -> Path:
        return b.settings.root / b.read("models.adapters", f"models.{name}").row(0, named=True)["path"]

    parent = recipe.model.init_from
    if any(read.table == "models.preferences" for read in b.asset.reads):  # what was asked of the parent is known
        before = stored_log_probabilities(b.read("models.preferences"), pairs)
    else:
        before = scored(folder(parent) if parent else None)
    rows = preference_rows(recipe.name, b.fold.id, pairs, scored(folder(recipe.name)), before)
    b.note(pairs=rows.height, prefers_better_paid=float((rows["chosen_logp"] > rows["rejected_logp"]).mean() or 0.0))
    return rows
