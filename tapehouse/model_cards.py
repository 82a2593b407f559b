"""The card of a trained model, as Hugging Face's hub reads it: what it is, what it was made from, what it may be used for.

It lies beside the weights as README.md. What it says comes from the manifest; figures of the test block are in the reports,
since a card is written before anybody has judged the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

USE = (
    "Made for research. It was trained on the history of the instruments that a universe declares; unless that was chosen "
    "without hindsight, nothing that it earns in a backtest is evidence of tradability."
)


def model_card(manifest: Mapping[str, Any]) -> str:
    """README.md of a model's folder: YAML front matter for the hub, then a table of its origin.

    Args:
        manifest: as a training process leaves it, with `name`, `method`, `recipe` and what it was trained on.
    """
    recipe, method = manifest["recipe"], manifest["method"]
    base = recipe.get("model", {}).get("base")
    head: dict[str, Any] = {"tags": ["tapehouse", "finance", method], "language": "en"}
    if base:
        head |= {"library_name": "peft", "base_model": base, "pipeline_tag": "text-generation"}
    rows = {
        "recipe": f"{manifest['recipe_hash']} ({method})",
        "base": f"{base}, digest {manifest.get('base_digest')}" if base else None,
        "goes on from": recipe.get("model", {}).get("init_from"),
        "fold": manifest.get("fold"),
        "trained on what was known before": manifest.get("train_end"),
        "warehouse snapshot": manifest.get("snapshot"),
        "dataset digest": manifest.get("dataset_digest"),
        "examples": manifest.get("rows"),
        "tokens": manifest.get("tokens"),
        "tokenizer digest": manifest.get("tokenizer_digest"),
        "seed": manifest.get("seed"),
        "commit": _commit(manifest),
        "processor and threads": f"{manifest.get('cpu')}, {manifest.get('threads')}",
        "weights digest": manifest.get("digest"),
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items() if value is not None)
    packages = ", ".join(f"{name} {version}" for name, version in sorted(manifest.get("packages", {}).items()))
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n# {manifest['name']}\n\n{recipe['description']}\n\n"
        f"| | |\n| --- | --- |\n{table}\n\n## Recipe\n```yaml\n{yaml.safe_dump(_said(recipe), sort_keys=False)}```\n\n"
        f"## Use\n{USE}\n\n## Made with\n{packages}\n"
    )


def _commit(manifest: Mapping[str, Any]) -> str | None:
    commit = manifest.get("git_commit")
    return f"{commit}, with changes" if commit and manifest.get("git_dirty") else commit


def _said(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if key not in ("name", "description") and value not in (None, {})}
