"""Training an adapter in a process of its own."""

import polars as pl

from tapehouse.recipe_sections import LanguageRecipe
from tapehouse.steps.rows import adapter_row


def run(b, recipe: LanguageRecipe) -> pl.DataFrame:
    """Train one adapter for a fold in a process of its own, log it to MLflow, and return its row of `models.adapters`."""
    from tapehouse.tokens import stored_tokenizer_path, tokenizer_digest
    from tapehouse.tracking import log_adapter, read_metrics
    from tapehouse.training.jobs import export_job, progress_line, run_job, store_by_digest
    from tapehouse.training.manifest import git_state

    base = b.read(f"models.{recipe.model.base}").row(0, named=True)
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
    if "dataset" in tokens.columns:
        tokens = tokens.filter(pl.col("dataset") == recipe.data.dataset)
    root, parent = b.settings.root, None
    if recipe.model.init_from:
        parent = root / b.read("models.adapters").row(0, named=True)["path"]
    export_job(
        job, recipe, tokens, root / base["path"], tokenizer, recipe.seed, provenance, b.settings.threads, init_dir=parent
    )
    manifest = run_job(job, out, lambda facts: b.progress(progress_line(facts)), b.launch)
    metrics = read_metrics(out)
    weights = store_by_digest(out)
    tracked = log_adapter(b.settings.tracking_uri, manifest, metrics, b.settings.root / "mlflow", weights)
    b.note(**{k: manifest[k] for k in ("loss", "wall_s", "tokens", "rows_purged")}, path=str(weights), mlflow_run=tracked)
    return adapter_row(b, recipe, manifest, str(weights.relative_to(b.settings.root)))
