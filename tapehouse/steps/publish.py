"""Making a trained model known: its card, its run and its version in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tapehouse.bases import Base
    from tapehouse.recipe_sections import LanguageRecipe


def publish(
    b, manifest: Mapping[str, Any], folder: Path, places: Mapping[str, str | bool] | None = None, pictures: Sequence[Path] = ()
) -> None:
    """Write the model's card, log its run, register it as the challenger, and note both.

    Not where a model is made again to be compared: it is nobody's challenger.

    Args:
        b: the build of the model's asset. manifest: as it lies in `folder`, beside the weights.
        places: what an adapter takes beside its folder to be served; see :func:`places`. pictures: to log with the run.
    """
    from tapehouse.model_cards import model_card
    from tapehouse.registry import register
    from tapehouse.tracking import log_adapter, read_metrics

    if b.comparing:
        return
    (folder / "README.md").write_text(model_card(manifest))
    metrics = read_metrics(folder) if (folder / "metrics.jsonl").is_file() else []
    root, uri = b.settings.root, b.settings.tracking_uri
    run = log_adapter(uri, manifest, metrics, root / "mlflow", folder, pictures)
    version = register(uri, run, manifest, folder, places)
    b.note(mlflow_run=run, registered_as=f"{manifest['name']} version {version}, challenger", card=folder / "README.md")


def places(recipe: LanguageRecipe, base: Base, tokenizer: Path, home: Path) -> dict[str, str | bool]:
    """What an adapter takes beside its own folder to be served.

    Returns:
        `base` and `tokenizer`, folders; `trust_remote_code`, whether code in the base's may run; `template`, of the prompts
        that it answers, where it answers any.
    """
    from tapehouse.prompts.templates import selected

    found = {"base": str(base.folder), "tokenizer": str(tokenizer), "trust_remote_code": base.trust_remote_code}
    if recipe.predicts:
        found["template"] = recipe.prompt.template or selected(home, recipe.family).template
    return found
