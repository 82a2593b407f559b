"""Holding a reward model's scores against rewards that were earned."""

import polars as pl

from tapehouse.recipe_sections import LanguageRecipe

KEYS = ["symbol", "interval", "decision_at", "objective", "placement"]


def run(b, recipe: LanguageRecipe) -> pl.DataFrame:
    """Rows of `reports.evaluations`: scores of both answers of the test block's pairs, and what the answers were paid."""
    import torch

    from tapehouse.bases import base_of
    from tapehouse.evaluations.judgement import judgement_rows
    from tapehouse.tokens import load_tokenizer, pad_id, stored_tokenizer_path, tokenizer_digest
    from tapehouse.training.reward import load_scorer, scores

    torch.set_num_threads(b.settings.threads)
    tokenizer = stored_tokenizer_path(b.read("models.tokenizer"), b.settings.root, recipe.model.base)
    base, trained = base_of(b, recipe.model.base), b.settings.root / b.read("models.adapters").row(0, named=True)["path"]
    model = load_scorer(base.folder, trained, tokenizer, recipe.quantisation, recipe.model.device, base.trust_remote_code)
    tokens = b.read(recipe.tokens).filter(pl.col("tokenizer") == tokenizer_digest(tokenizer))
    earned = [f"{side}_{what}" for side in ("chosen", "rejected") for what in ("reward", "offset_atr")]
    pairs = tokens.select(*KEYS, "prompt_ids", "chosen_ids", "rejected_ids").join(
        b.read("datasets.preference_pairs").select(*KEYS, *earned), on=KEYS, validate="1:1"
    )
    pad = pad_id(load_tokenizer(tokenizer))
    for side in ("chosen", "rejected"):
        sequences = pairs.select(pl.concat_list("prompt_ids", f"{side}_ids")).to_series().to_list()
        pairs = pairs.with_columns(pl.Series(f"{side}_score", scores(model, sequences, pad).numpy()))
    return judgement_rows(recipe.name, b.fold.id, pairs)
