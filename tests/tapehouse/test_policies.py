"""Policies end to end on a small market: they learn what is there, repeat, look at nothing later, go on after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import date

import numpy as np
import polars as pl
import pytest
import torch

from tapehouse.errors import TapehouseError
from tapehouse.networks import onnx_file
from tapehouse.networks.encoder import Chances, WindowClassifier
from tapehouse.networks.scaler import Scaler
from tapehouse.networks.windows import sorted_rows, windows_of
from tapehouse.predictions import PREDICTIONS
from tapehouse.recipes import method_module, parse_recipe
from tapehouse.training.manifest import files_digest
from tests.tapehouse.classical import KEYS, LABELS, POINTS, answers, fit, make_fold
from tests.tapehouse.policy_world import COMPANY, EVALUATION, PRICE, THESES, contrastive, ranking, sequence, world

MAKERS = {"sequence": sequence, "contrastive": contrastive, "ranking": ranking}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def fold():
    return make_fold()


@pytest.fixture(scope="module")
def inputs():
    return world()


@pytest.fixture(scope="module")
def made(fold, inputs, tmp_path_factory):
    """Folder and manifest of each policy."""
    root = tmp_path_factory.mktemp("policies")
    return {name: (root / name, fit(make(), inputs, fold, root / name)) for name, make in MAKERS.items()}


def right(rows, inputs) -> float:
    """Share of the test block's actions that are the label's."""
    tested = rows.filter(split="test").join(inputs[LABELS].filter(side=0), on=KEYS)
    said = tested["action"].replace_strict({"SELL": -1, "HOLD": 0, "BUY": 1}, return_dtype=pl.Int32)
    return float((said == tested["label"]).mean())


@pytest.mark.parametrize("name", MAKERS)
def test_it_learns_what_is_there_and_writes_what_every_predictor_writes(name, made, fold, inputs):
    folder, manifest = made[name]
    rows = answers(MAKERS[name](), inputs, fold, folder)
    assert dict(rows.schema) == PREDICTIONS and rows["limit_price"].null_count() == rows.height
    assert dict(rows["split"].value_counts().iter_rows()) == {"validation": 40, "test": 60}
    assert np.allclose(rows.select(pl.sum_horizontal("p_sell", "p_hold", "p_buy")).to_series(), 1.0, atol=1e-6)
    assert right(rows, inputs) > 0.7
    # 58 sessions lie before the tail, and the last five of them have a label that is known within it; two symbols.
    assert manifest["rows"] == 2 * 53 and sum(manifest["base_rates"].values()) == pytest.approx(1.0)
    assert manifest["onnx_difference"] <= onnx_file.PARITY and manifest["tokens"] > 0
    assert sorted(file.name for file in folder.iterdir()) == ["model.onnx", "model.safetensors", "scaler.json"]


def test_the_file_answers_as_the_network_for_any_number_of_rows(made, fold, inputs):
    from safetensors.torch import load_file

    folder, _ = made["sequence"]
    network = WindowClassifier(sequence().encoder)
    network.load_state_dict(load_file(folder / "model.safetensors"))
    windows = windows_of(sorted_rows(inputs[PRICE]), inputs[POINTS], Scaler.load(folder), 4)
    for count in (1, 2, 7, 240):
        rows, there = windows.batch(slice(0, count))
        with torch.no_grad():
            want = Chances(network).eval()(torch.from_numpy(rows), torch.from_numpy(there)).numpy()
        got = onnx_file.run(folder, [{"windows": rows, "there": there}])
        assert got.shape == (count, 3) and np.abs(got - want).max() <= 1e-5
    with pytest.raises(TapehouseError, match=r"model\.onnx: no such file; materialise the model again"):
        onnx_file.run(folder / "none", [])


@pytest.mark.parametrize("name", ["sequence", "ranking"])
def test_nothing_known_after_the_tail_began_is_fitted_on(name, made, fold, inputs, tmp_path):
    """Later rows change what is measured, and so when training stops; no loss that it steps by, and no scaler."""
    folder, manifest = made[name]
    late, later = pl.col("label_known_at") >= fold.validation_start, pl.col("decision_at") >= fold.validation_start
    flipped = {"strong_sell": "buy", "sell": "buy", "hold": "strong_sell", "buy": "sell", "strong_buy": "sell"}
    changed = inputs | {
        LABELS: inputs[LABELS].with_columns(label=pl.when(late).then(-pl.col("label")).otherwise(pl.col("label"))),
        THESES: inputs[THESES].with_columns(
            action=pl.when(late).then(pl.col("action").replace(flipped)).otherwise(pl.col("action"))
        ),
    }
    for table in (POINTS, PRICE):
        changed[table] = inputs[table].with_columns(noise=pl.when(later).then(99.0).otherwise(pl.col("noise")))
    other = fit(MAKERS[name](), changed, fold, tmp_path)
    assert (tmp_path / "scaler.json").read_bytes() == (folder / "scaler.json").read_bytes()
    first = next(iter(manifest["stages"]))
    assert other["stages"][first]["losses"] == manifest["stages"][first]["losses"]
    assert other["stages"][first]["validations"] != manifest["stages"][first]["validations"]


class Killed(BaseException):
    """What a process that is killed does not outlive."""


@pytest.mark.parametrize(("name", "stops"), [("sequence", (60,)), ("contrastive", (20, 100))])
def test_it_repeats_to_the_bit_and_goes_on_where_it_was_stopped(name, stops, made, fold, inputs, tmp_path):
    """Stopped at a report, of either stage, and started again."""
    folder, manifest = made[name]
    window = {key: rows.filter(pl.col("decision_at") < fold.train_end) for key, rows in inputs.items()}
    of, method, checkpoints = MAKERS[name](), method_module(name), tmp_path / "checkpoints"
    out = tmp_path / "out"
    out.mkdir()
    reports: list[dict] = []
    for stop in stops:

        def report(facts, stop=stop):
            reports.append(facts)
            if facts["step"] >= stop:
                raise Killed

        with pytest.raises(Killed):
            method.fit(of, window, fold, out, report, checkpoints=checkpoints)
    before = len(reports)
    assert method.fit(of, window, fold, out, reports.append, checkpoints=checkpoints) == manifest
    assert files_digest(out) == files_digest(folder)
    # What was done is not done again, but for what came after the last checkpoint.
    assert min(facts["step"] for facts in reports[before:]) > max(stops) - 2 * EVALUATION["every"]


def test_killed_for_good_in_a_process_of_its_own(made, fold, inputs, tmp_path):
    """A job folder of files, SIGKILL after a checkpoint of the second stage, the same command again: the same bits."""
    window = {key: rows.filter(pl.col("decision_at") < fold.train_end) for key, rows in inputs.items()}
    job, out = tmp_path / "job", tmp_path / "out"
    (job / "inputs").mkdir(parents=True)
    for name in (POINTS, THESES, COMPANY):
        window[name].write_parquet(job / "inputs" / f"{name}.parquet")
    (job / "recipe.json").write_text(ranking().model_dump_json())
    plain = {key: value.isoformat() if isinstance(value, date) else value for key, value in vars(fold).items()}
    facts = {"seed": 5, "threads": 1, "fold": plain, "inputs": sorted((POINTS, THESES, COMPANY)), "dataset_digest": "x"}
    (job / "job.json").write_text(json.dumps(facts | {"provenance": {"snapshot": 1}}))
    command = [sys.executable, "-m", "tapehouse.training", str(job), str(out)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not list(tmp_path.rglob("reinforce/step-*")):
        assert process.poll() is None and time.monotonic() < until, "it made no checkpoint"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not out.exists()
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    steps = [facts["step"] for line in done.stdout.splitlines() if "step" in (facts := json.loads(line))]
    assert min(steps, default=999) > 60  # the first stage was not run again
    folder, _ = made["ranking"]
    for name in ("model.safetensors", "model.onnx", "scaler.json"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()


def test_what_cannot_be_is_refused(fold, inputs, tmp_path):
    encoder = {"window": 4, "width": 8, "heads": 3, "features": ["noise"]}
    with pytest.raises(TapehouseError, match="encoder: heads 3 do not divide width 8"):
        sequence(encoder=encoder)
    with pytest.raises(TapehouseError, match=r"plateau.patience 3 is not below evaluation.patience 3"):
        sequence(plateau={"patience": 3}, evaluation=EVALUATION | {"patience": 3})
    with pytest.raises(TapehouseError, match=r"training\.accumulation: unknown key"):
        sequence(training={"steps": 1, "batch_size": 2, "accumulation": 2})
    with pytest.raises(TapehouseError, match="reinforce: missing; add it"):
        parse_recipe({key: value for key, value in ranking().model_dump().items() if key != "reinforce"}, "test")
    with pytest.raises(TapehouseError, match=r"features.price has no \['nosie'\]"):
        fit(sequence(encoder=encoder | {"heads": 2, "features": ["nosie"]}), inputs, fold, tmp_path)
    with pytest.raises(ValueError, match=r"no feature \['nosie'\]"):
        fit(ranking(features=["nosie"]), inputs, fold, tmp_path)
    none = inputs | {THESES: inputs[THESES].with_columns(origin=pl.lit("import"))}
    with pytest.raises(ValueError, match=r"datasets.theses has no thesis of the teacher"):
        fit(ranking(), none, fold, tmp_path)
