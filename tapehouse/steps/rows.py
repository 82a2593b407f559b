"""Rows that several steps share."""

import json
from typing import Any

import polars as pl

from tapehouse.recipes import Recipe

# Wall times and ids of runs differ between repetitions, so they stay out of the row (they are in the manifest file).
UNREPEATABLE = {"window", "wall_s", "run_id", "tokens_per_s", "resumed_at", "peak_memory_mb", "peak_gpu_memory_mb"}


def adapter_row(b, recipe: Recipe, manifest: dict[str, Any], path: str) -> pl.DataFrame:
    """The row of `models.adapters` for a model of the fold, its files in `path` relative to the warehouse folder."""
    repeatable = {k: v for k, v in manifest.items() if k not in UNREPEATABLE}
    return pl.DataFrame(
        {
            "adapter": [recipe.name],
            "fold": [b.fold.id],
            "kind": [recipe.kind],
            "method": [recipe.method],
            "recipe_hash": [recipe.hash],
            "snapshot": [b.snapshot],
            "base_digest": [manifest.get("base_digest")],
            "digest": [manifest["digest"]],
            "path": [path],
            "git_commit": [manifest.get("git_commit")],
            "seed": [recipe.seed],
            "rows": [manifest["rows"]],
            "tokens": [manifest.get("tokens", 0)],
            "manifest": [json.dumps(repeatable, sort_keys=True, default=str)],
        },
        schema_overrides={"base_digest": pl.String, "git_commit": pl.String, "tokens": pl.Int64, "rows": pl.Int64},
    )


def action_shares(actions: pl.Series) -> dict[str, float]:
    """Share of each action, for the materialisation's metadata."""
    return {f"share_{a.lower()}": float((actions == a).mean() or 0.0) for a in ("BUY", "SELL", "HOLD")}
