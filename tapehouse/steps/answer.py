"""Asking an adapter."""

import polars as pl

from tapehouse.recipe_sections import LanguageRecipe
from tapehouse.steps.rows import action_shares


def run(b, recipe: LanguageRecipe) -> dict[str, pl.DataFrame]:
    """The adapter's answer at every decision point of the validation tail and the test block."""
    from tapehouse.calibration import calibrated
    from tapehouse.inference import predict
    from tapehouse.orders import load_objectives
    from tapehouse.predictions import as_predictions, judged_rows
    from tapehouse.prompts.orders import render_orders
    from tapehouse.prompts.templates import selected, selection
    from tapehouse.token_rows import ORDER_ROOM, asked_prompts
    from tapehouse.tokens import load_tokenizer, stored_tokenizer_path

    points = judged_rows(b.read("features.decision_points"), b.fold)
    words = load_objectives(b.settings.home / "objectives.yaml").words[recipe.prompt.objective]
    shown = selected(b.settings.home, "order")
    if recipe.prompt.template:
        shown = selection(recipe.prompt.template, shown.mask)
    prompts = render_orders(points, words, shown.template, shown.mask)
    folders = (b.read(t).row(0, named=True)["path"] for t in (f"models.{recipe.model.base}", "models.adapters"))
    base, adapter = (b.settings.root / folder for folder in folders)
    tokenizer = stored_tokenizer_path(b.read("models.tokenizer"), b.settings.root, recipe.model.base)
    asked = asked_prompts(load_tokenizer(tokenizer), prompts.to_list(), shown.template, ORDER_ROOM)
    answers = predict(base, adapter, tokenizer, asked, recipe.prompt.batch_size, b.settings.threads)
    b.note(unparseable=float((answers["parse_state"] != "ok").mean()), **action_shares(answers["action"]))
    said = pl.concat([points.select("symbol", "interval", "decision_at"), answers], how="horizontal")
    said = said.with_columns(limit_valid_sessions=pl.lit(recipe.prompt.limit_valid_sessions))
    rows = as_predictions(said, recipe.name, b.fold, recipe.prompt.objective)
    rows, fits = calibrated(rows, b.read("labels.triple_barrier"), b.fold)
    return {"models.predictions": rows, "models.calibrations": fits}
