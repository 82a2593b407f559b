"""Experiment tracking: one MLflow run an adapter and fold, with its manifest, its metrics and its dataset."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tapehouse.errors import TapehouseError

EXPERIMENT: Final = "tapehouse"
PARAMETERS: Final = ("name", "method", "fold", "snapshot", "seed", "recipe_hash", "base_digest", "tokenizer_digest")


def read_metrics(outdir: Path) -> list[dict[str, Any]]:
    """Reports of a finished job, from its `metrics.jsonl`."""
    return [json.loads(line) for line in (outdir / "metrics.jsonl").read_text().splitlines()]


def mlflow_client(tracking_uri: str) -> Any:
    """MLflow's client: it sends nothing home, and neither says on the terminal what it does nor draws bars there."""
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}  # read when mlflow is imported
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("alembic").setLevel(logging.ERROR)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri)


def log_adapter(
    tracking_uri: str,
    manifest: Mapping[str, Any],
    metrics: list[dict[str, Any]],
    artifacts: Path,
    outdir: Path | None = None,
    pictures: Sequence[Path] = (),
) -> str:
    """Log a trained adapter as one run and return its id.

    Args:
        tracking_uri: `sqlite:///…` or a server; MLflow's file store is refused, it no longer works.
        manifest: of :func:`tapehouse.training.jobs.run_job`.
        metrics: of :func:`read_metrics`; numbers other than the step become metrics at that step.
        artifacts: folder for what MLflow stores beside the database, for a new experiment.
        outdir: the adapter's folder; its manifest and configuration are stored with the run, never the weights.
        pictures: files to store with the run, such as its loss curve.
    """
    if "://" not in tracking_uri:
        raise TapehouseError(f"tracking address {tracking_uri!r}: MLflow needs a database; set sqlite:///… or a server")
    client = mlflow_client(tracking_uri)
    from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag

    experiment = _experiment(client, artifacts)
    run = client.create_run(experiment, run_name=f"{manifest['name']} {manifest['fold']}")
    run_id = run.info.run_id
    moments = range(run.info.start_time, run.info.start_time + len(metrics))
    numbers = [
        Metric(key, float(value), moment, facts["step"])
        for moment, facts in zip(moments, metrics, strict=True)
        for key, value in facts.items()
        if key not in ("step", "steps") and isinstance(value, int | float)
    ]
    totals = [
        Metric(key, float(manifest[key]), run.info.start_time, 0)
        for key in ("wall_s", "rows", "rows_purged")
        if key in manifest
    ]
    parameters = [Param(key, str(manifest[key])) for key in PARAMETERS if key in manifest]
    tags = [RunTag(key, str(manifest[key])) for key in ("digest", "git_commit", "git_dirty", "cpu") if key in manifest]
    for start in range(0, len(numbers), 900):  # a batch holds at most 1,000
        client.log_batch(run_id, metrics=numbers[start : start + 900])
    client.log_batch(run_id, metrics=totals, params=parameters, tags=tags)
    # MLflow takes two datasets of one name and digest for one, so the snapshot is part of the name.
    dataset = Dataset(
        name=f"{manifest['method']} tokens at snapshot {manifest['snapshot']}",
        digest=manifest["dataset_digest"],
        source_type="warehouse",
        source=json.dumps({"snapshot": manifest["snapshot"], "train_end": manifest["train_end"]}),
    )
    client.log_inputs(run_id, [DatasetInput(dataset)])
    for file in ("manifest.json", "adapter_config.json", "config.json") if outdir else ():
        if (outdir / file).is_file():  # an adapter has the one, all weights the other
            client.log_artifact(run_id, str(outdir / file))
    for picture in pictures:
        client.log_artifact(run_id, str(picture))
    client.set_terminated(run_id)
    return run_id


def _experiment(client, artifacts: Path) -> str:
    """The project's experiment; two trainings that end together may both want to create it."""
    from mlflow.exceptions import MlflowException

    known = client.get_experiment_by_name(EXPERIMENT)
    if known is not None:
        return known.experiment_id
    artifacts.mkdir(parents=True, exist_ok=True)
    try:
        return client.create_experiment(EXPERIMENT, artifact_location=artifacts.resolve().as_uri())
    except MlflowException:
        known = client.get_experiment_by_name(EXPERIMENT)
        if known is None:
            raise
        return known.experiment_id
