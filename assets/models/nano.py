"""One row per (base): the base model of the adapters, pretrained here on text known before the first fold.

It knows the form of an order and copies the price shown. Its answers were drawn, not observed, so that no outcome is in
it; the recipe is models_registry/base/nano.yaml. The weights lie in the folder `path`, named by their digest.
"""

from tapehouse.tables import reads, table


@table(
    reads("datasets.preference_pairs", window="before_folds"),
    reads("models.tokenizer"),
    files=("models_registry/base/nano.yaml",),
    trains=True,
)
def build(b):
    import polars as pl

    from tapehouse.recipes import load_recipe
    from tapehouse.tokens import stored_tokenizer, stored_tokenizer_path
    from tapehouse.training import __main__, pretrain  # noqa: F401 (what its own process runs, so that its code counts)
    from tapehouse.training.corpus import pretraining_tokens
    from tapehouse.training.jobs import export_job, progress_line, run_job, store_by_digest
    from tapehouse.training.manifest import git_state

    recipe = load_recipe(b.settings.home / "models_registry/base/nano.yaml")
    until = b.project.first_fitted_until
    pairs = b.read("datasets.preference_pairs").filter(pl.col("reward_known_at") < until)
    stored = b.read("models.tokenizer")
    tokenizer, digest = stored_tokenizer(stored, b.settings.root, recipe.name)
    tokens = pretraining_tokens(pairs, recipe.corpus, tokenizer, recipe.seed)
    provenance = {"snapshot": b.snapshot, "fold": None, "train_end": until, **git_state(b.settings.home)}
    folder = stored_tokenizer_path(stored, b.settings.root, recipe.name)
    job, out = b.workdir / "job", b.workdir / "out"
    export_job(job, recipe, tokens, None, folder, recipe.seed, provenance, b.settings.threads)
    manifest = run_job(job, out, lambda facts: b.progress(progress_line(facts)), b.launch)
    weights = store_by_digest(out)
    b.note(**{key: manifest[key] for key in ("parameters", "steps", "tokens", "loss", "wall_s")}, path=str(weights))
    return pl.DataFrame(
        {
            "base": [recipe.name],
            "digest": [manifest["digest"]],
            "path": [str(weights.relative_to(b.settings.root))],
            "recipe_hash": [recipe.hash],
            "tokenizer": [digest],
            "dataset_digest": [manifest["dataset_digest"]],
            "parameters": [manifest["parameters"]],
            "tokens": [manifest["tokens"]],
            "trained_until": [until],
        },
        schema_overrides={"trained_until": pl.Datetime("us", "UTC")},
    )
