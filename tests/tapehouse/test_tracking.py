import json

import pytest

from tapehouse.errors import TapehouseError
from tapehouse.report.curves import loss_curve_png
from tapehouse.tracking import EXPERIMENT, _experiment, log_adapter, read_metrics

MANIFEST = {
    "name": "sft_orders",
    "method": "sft",
    "fold": "2012-05-29",
    "snapshot": 41,
    "seed": 7,
    "recipe_hash": "r",
    "dataset_digest": "d" * 32,
    "train_end": "2012-05-10T13:30:00+00:00",
    "digest": "w",
    "git_commit": "c",
    "wall_s": 12.5,
    "rows": 100,
}


def test_a_run_holds_manifest_metrics_and_the_dataset_of_its_snapshot(tmp_path):
    outdir = tmp_path / "adapter"
    outdir.mkdir()
    for name in ("manifest.json", "adapter_config.json"):
        (outdir / name).write_text(json.dumps(MANIFEST))
    (outdir / "metrics.jsonl").write_text('{"step": 10, "steps": 20, "loss": 2.5}\n{"step": 20, "steps": 20, "loss": 1.5}\n')
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    curve = tmp_path / "loss.png"
    curve.write_bytes(loss_curve_png(read_metrics(outdir)))
    runs = [log_adapter(uri, MANIFEST, read_metrics(outdir), tmp_path / "artifacts", outdir, [curve]) for _ in range(2)]
    assert len(set(runs)) == 2

    from mlflow import MlflowClient

    client = MlflowClient(uri)
    run = client.get_run(runs[0])
    assert [(point.step, point.value) for point in client.get_metric_history(runs[0], "loss")] == [(10, 2.5), (20, 1.5)]
    assert run.data.params["snapshot"] == "41" and run.data.tags["digest"] == "w" and run.data.metrics["wall_s"] == 12.5
    assert run.inputs.dataset_inputs[0].dataset.name == "sft tokens at snapshot 41"
    assert run.info.status == "FINISHED"
    stored = sorted(file.path for file in client.list_artifacts(runs[0]))
    assert stored == ["adapter_config.json", "loss.png", "manifest.json"]


def test_a_file_store_is_refused(tmp_path):
    with pytest.raises(TapehouseError, match="needs a database"):
        log_adapter(str(tmp_path), MANIFEST, [], tmp_path)


def test_an_experiment_that_another_process_creates_meanwhile_is_taken(tmp_path, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    known, others = client.get_experiment_by_name, []

    def created_right_after_the_look(name):
        if others:
            return known(name)
        others.append(client.create_experiment(name, artifact_location=tmp_path.as_uri()))
        return None

    monkeypatch.setattr(client, "get_experiment_by_name", created_right_after_the_look)
    assert _experiment(client, tmp_path / "artifacts") == others[0] == known(EXPERIMENT).experiment_id
    monkeypatch.setattr(client, "get_experiment_by_name", lambda name: None)
    with pytest.raises(MlflowException, match="already exists"):  # what cannot be found after all is told
        _experiment(client, tmp_path / "artifacts")
