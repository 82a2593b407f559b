"""Training an adapter in a process of its own."""

import polars as pl

from tapehouse.recipe_sections import LanguageRecipe
from tapehouse.recipes import method_module
from tapehouse.steps.publish import places, publish
from tapehouse.steps.rows import adapter_row


def run(b, recipe: LanguageRecipe) -> pl.DataFrame:
    """Train one adapter for a fold in a process of its own, log it to MLflow, and return its row of `models.adapters`."""
    from tapehouse.bases import base_of
    from tapehouse.report.curves import loss_curve_png
    from tapehouse.tokens import stored_tokenizer_path, tokenizer_digest
    from tapehouse.tracking import read_metrics
    from tapehouse.training.jobs import export_job, progress_line, run_job, store_by_digest
    from tapehouse.training.manifest import git_state
    from tapehouse.trial_files import failure_recorded

    base = base_of(b, recipe.model.base)
    provenance = {
        "snapshot": b.snapshot,
        "fold": b.fold.id,
        "train_end": b.fold.train_end,
        "validation_start": b.fold.validation_start,
        **git_state(b.settings.home),
        "run_id": b.run_id,
    }
    job, out = b.workdir / "job", b.workdir / "out"
    stored = b.read("models.tokenizer")
    tokenizer = stored_tokenizer_path(stored, b.settings.root, recipe.model.base)
    tokens = b.read(recipe.tokens).filter(pl.col("tokenizer") == tokenizer_digest(tokenizer))
    method = method_module(recipe.method)
    if hasattr(method, "training_rows"):
        reads = method.training_reads(recipe) if hasattr(method, "training_reads") else ()
        tokens = method.training_rows(recipe, tokens, {read.table: b.read(read.table) for read in reads})
    root, parent = b.settings.root, None
    if recipe.model.init_from:
        parent = root / b.read("models.adapters").row(0, named=True)["path"]
    threads, code = b.settings.threads, base.trust_remote_code
    export_job(job, recipe, tokens, base.folder, tokenizer, recipe.seed, provenance, threads, parent, code)
    with failure_recorded(b, recipe):
        manifest = run_job(job, out, lambda facts: b.progress(progress_line(facts)), b.launch, b.settings.launcher)
    metrics = read_metrics(out)
    weights = store_by_digest(out)
    curve = b.workdir / "loss.png"
    curve.write_bytes(loss_curve_png(metrics))
    publish(b, manifest, weights, places(recipe, base, tokenizer, b.settings.home), [curve])
    numbers = {key: manifest[key] for key in ("loss", "wall_s", "tokens", "rows_purged")}
    b.note(**numbers, loss_curve=curve, path=str(weights))
    return adapter_row(b, recipe, manifest, str(weights.relative_to(b.settings.root)))
