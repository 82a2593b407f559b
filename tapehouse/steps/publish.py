"""Making a trained model known: its card, its run and its version in MLflow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def publish(
    b, manifest: Mapping[str, Any], folder: Path, places: Mapping[str, Path] | None = None, pictures: Sequence[Path] = ()
) -> None:
    """Write the model's card, log its run, register it as the challenger, and note both.

    Not where a model is made again to be compared: it is nobody's challenger.

    Args:
        b: the build of the model's asset. manifest: as it lies in `folder`, beside the weights.
        places: folders that an adapter needs to be served, `base` and `tokenizer`. pictures: to log with the run.
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
    version = register(uri, run, manifest, folder, {name: str(place) for name, place in (places or {}).items()})
    b.note(mlflow_run=run, registered_as=f"{manifest['name']} version {version}, challenger", card=folder / "README.md")
