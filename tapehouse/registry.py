"""The registry of models: one registered model a recipe, one version a fold that was trained, in MLflow.

A new version is the `challenger`; the asset `models.champions` moves the alias `champion`, and only where the declared gates
pass. Models are registered from code (`tapehouse/served_model.py`) with their folder of files as the artifact; the base is
named by its digest, and not copied.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tapehouse.tracking import mlflow_client

CHALLENGER: Final = "challenger"
CHAMPION: Final = "champion"
SERVED: Final = Path(__file__).with_name("served_model.py")


def register(
    tracking_uri: str, run_id: str, manifest: Mapping[str, Any], folder: Path, places: Mapping[str, str | bool] | None = None
) -> str:
    """Register a model that a run has trained as a new version of its recipe's, and return that.

    Its alias is `challenger` if it is of the last fold so far.
    A model whose weights are registered already keeps its version.

    Args:
        run_id: MLflow's run of the training. manifest: of the model. folder: its files, manifest.json among them.
        places: what an adapter takes beside its own folder, as `tapehouse.steps.publish.places` gives it.
    """
    client = mlflow_client(tracking_uri)
    import mlflow.pyfunc
    from mlflow.utils.logging_utils import disable_logging, enable_logging

    name = manifest["name"]
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get("digest") == manifest["digest"] and version.tags.get("fold") == str(manifest["fold"]):
            _challenge(client, name, version.version, str(manifest["fold"]))
            return str(version.version)
    mlflow.set_tracking_uri(tracking_uri)
    # Recorded, since MLflow sets filters of its own: warnings of type hints, but what goes in and out is said by the class.
    with warnings.catch_warnings(record=True), ExitStack() as told:
        disable_logging()  # it prints a line for each model
        told.callback(enable_logging)
        with mlflow.start_run(run_id=run_id):
            logged = mlflow.pyfunc.log_model(
                name=name,
                python_model=str(SERVED),
                artifacts={"model": str(folder)},
                model_config=dict(places or {}),
                pip_requirements=["tapehouse"],
                registered_model_name=name,
                metadata={key: str(manifest.get(key)) for key in ("digest", "fold", "snapshot", "base_digest")},
            )
    client.set_terminated(run_id)
    version = str(logged.registered_model_version)
    for key in ("digest", "fold", "snapshot"):
        client.set_model_version_tag(name, version, key, str(manifest.get(key)))
    _challenge(client, name, version, str(manifest["fold"]))
    return version


def _challenge(client, name: str, version: str | int, fold: str) -> None:
    """Make a version the challenger, unless there is one of a later fold: folds are trained beside each other, in any order."""
    folds = [other.tags.get("fold", "") for other in client.search_model_versions(f"name = '{name}'")]
    if fold >= max(folds, default=""):
        client.set_registered_model_alias(name, CHALLENGER, version)


def promote(tracking_uri: str, name: str, digest: str) -> str | None:
    """Make the version of these weights the champion; its number, or None where no such version is registered."""
    client = mlflow_client(tracking_uri)
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get("digest") == digest:
            client.set_registered_model_alias(name, CHAMPION, version.version)
            return str(version.version)
    return None


def withdraw(tracking_uri: str, name: str) -> None:
    """Take the champion's title away, where there is one: its gates do not pass any more."""
    client = mlflow_client(tracking_uri)
    if client.search_registered_models(f"name = '{name}'") and CHAMPION in client.get_registered_model(name).aliases:
        client.delete_registered_model_alias(name, CHAMPION)
