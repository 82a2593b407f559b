"""Asking an adapter which of two answers it would rather give."""

from pathlib import Path

import polars as pl

from tapehouse.recipe_sections import LanguageRecipe


def run(b, recipe: LanguageRecipe) -> pl.DataFrame:
    """Rows of `models.preferences`: log-probabilities of both answers of pairs of the test block, after and before training."""
    import torch

    from tapehouse.bases import base_of
    from tapehouse.preferences import asked_pairs, preference_rows
    from tapehouse.tokens import load_tokenizer, stored_tokenizer_path, tokenizer_digest
    from tapehouse.training.lora import load_trained

    torch.set_num_threads(b.settings.threads)  # the order of sums, and so the last bits of log-probabilities
    tokenizer = stored_tokenizer_path(b.read("models.tokenizer"), b.settings.root, recipe.model.base)
    base, pad = base_of(b, recipe.model.base), load_tokenizer(tokenizer).pad

    def folder(name: str) -> Path:
        return b.settings.root / b.read("models.adapters", f"models.{name}").row(0, named=True)["path"]

    def load(trained: Path | None):
        device = recipe.model.device
        return load_trained(base.folder, trained, tokenizer, device, recipe.quantisation, base.trust_remote_code), pad

    parent = recipe.model.init_from
    tokens = b.read("datasets.preference_tokens").filter(pl.col("tokenizer") == tokenizer_digest(tokenizer))
    pairs = asked_pairs(tokens, b.fold.id)
    rows = preference_rows(recipe.name, b.fold.id, pairs, folder(recipe.name), parent and folder(parent), load)
    b.note(pairs=rows.height, prefers_better_paid=float((rows["chosen_logp"] > rows["rejected_logp"]).mean() or 0.0))
    return rows
