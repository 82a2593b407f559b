import json
import logging
import multiprocessing
import os
import random
import signal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.training import checkpoints
from tapehouse.training.checkpoints import best, newest, save

WEIGHTS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}


def steps(folder) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def test_what_was_saved_is_read_again(tmp_path):
    state = {"step": 4, "reports": [{"loss": 0.1}], "moments": (torch.ones(3), None), "done": False}
    save(tmp_path, 4, WEIGHTS, state, metric=0.5, texts={"state.json": "{}"})
    found = newest(tmp_path)
    assert (found.step, found.metric) == (4, 0.5)
    assert {name: value.tolist() for name, value in found.tensors().items()} == {"a": [[0, 1, 2], [3, 4, 5]], "b": [1, 1]}
    read = found.state()
    assert read["reports"] == state["reports"] and read["moments"][0].tolist() == [1, 1, 1] and read["done"] is False
    assert newest(tmp_path / "nothing") is None and best(tmp_path / "nothing") is None


def test_the_three_best_and_the_two_latest_are_kept(tmp_path):
    for step, metric in enumerate([5.0, 3.0, 4.0, 2.0, 6.0, None], start=1):
        save(tmp_path, step, WEIGHTS, {}, metric)
    assert steps(tmp_path) == [2, 3, 4, 5, 6]
    save(tmp_path, 7, WEIGHTS, {})
    assert steps(tmp_path) == [2, 3, 4, 6, 7]
    assert best(tmp_path).step == 4 and newest(tmp_path).step == 7


@settings(max_examples=12, deadline=None)
@given(metrics=st.lists(st.one_of(st.none(), st.sampled_from([1.0, 2.0, 3.0])), min_size=1, max_size=8))
def test_what_is_kept_depends_on_the_metrics_alone(tmp_path_factory, metrics):
    folder = tmp_path_factory.mktemp("kept")
    for step, metric in enumerate(metrics):
        save(folder, step, {"a": WEIGHTS["a"]}, {}, metric)
    ranked = sorted((metric, step) for step, metric in enumerate(metrics) if metric is not None)
    assert steps(folder) == sorted({*range(len(metrics))[-2:], *(step for _, step in ranked[: checkpoints.BEST])})


@pytest.mark.parametrize(
    "spoil", ["a bit", "cut", "gone", "added", "no digests", "no text", "no keys", "no mapping", "a metric"]
)
def test_a_spoilt_checkpoint_is_named_and_an_earlier_one_taken(tmp_path, caplog, spoil):
    save(tmp_path, 1, WEIGHTS, {})
    folder = save(tmp_path, 2, WEIGHTS, {}).folder
    weights = folder / checkpoints.WEIGHTS
    content = bytearray(weights.read_bytes())
    if spoil == "a bit":
        content[-1] ^= 1
        weights.write_bytes(content)
    elif spoil == "cut":
        weights.write_bytes(content[:-4])
    elif spoil == "gone":
        weights.unlink()
    elif spoil == "added":
        (folder / "more.txt").write_text("x")
    elif spoil == "a metric":
        digests = folder / checkpoints.DIGESTS
        digests.write_text(digests.read_text().replace('"metric": null', '"metric": 0.1'))
    else:
        (folder / checkpoints.DIGESTS).write_bytes(
            {"no digests": b"", "no text": b'{"step": "\xff"}', "no keys": b"{}", "no mapping": b"[2]"}[spoil]
        )
    with caplog.at_level(logging.WARNING, "tapehouse"):
        assert newest(tmp_path).step == 1
    assert "step-00000002" in caplog.text and "going on from an earlier one" in caplog.text
    assert steps(tmp_path) == [1]


def test_what_measured_no_number_is_not_the_best(tmp_path):
    for step, metric in enumerate([float("nan"), 2.0, 1.0, float("-inf")], start=1):
        save(tmp_path, step, {"a": WEIGHTS["a"]}, {}, metric)
    assert best(tmp_path).step == 3 and newest(tmp_path).step == 4
    save(tmp_path / "none", 1, {"a": WEIGHTS["a"]}, {}, float("nan"))
    assert best(tmp_path / "none") is None


def test_a_spoilt_best_checkpoint_is_refused(tmp_path):
    folder = save(tmp_path, 1, WEIGHTS, {}, metric=1.0).folder
    save(tmp_path, 2, WEIGHTS, {}, metric=2.0)
    (folder / checkpoints.STATE).write_bytes(b"")
    with pytest.raises(TapehouseError, match=r"state.pt: not what was written; remove .* and train again"):
        best(tmp_path)


class Foreign:
    def __reduce__(self):
        return os.mkdir, ("made by a checkpoint",)


def test_nothing_in_a_state_can_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = save(tmp_path / "run", 1, WEIGHTS, {})
    torch.save({"state": Foreign()}, made.folder / checkpoints.STATE)
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        made.state()
    assert not (tmp_path / "made by a checkpoint").exists()


def test_generators_go_on_where_they_were():
    states = checkpoints.random_states()
    first = (random.random(), np.random.rand(2).tolist(), torch.rand(2).tolist())
    checkpoints.set_random_states(states)
    assert (random.random(), np.random.rand(2).tolist(), torch.rand(2).tolist()) == first


def _killed_at(folder, call: int, where: str) -> None:
    real, calls = getattr(os, where), 0

    def counted(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

    setattr(os, where, counted)
    save(folder, 3, {"a": torch.zeros(2)}, {"step": 3}, metric=1.0)
    os._exit(0)


@pytest.mark.parametrize("where", ["fsync", "rename", "unlink", "open"])
def test_a_kill_while_it_is_written_leaves_a_valid_one(tmp_path, where):
    """Killed at every call of one kind that writing a checkpoint makes, old ones dropped included."""
    forked, call, code = multiprocessing.get_context("fork"), 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        call += 1
        folder = tmp_path / str(call)
        for step, metric in ((0, 4.0), (1, 3.0), (2, 2.0)):  # the first is dropped when a fourth is there
            save(folder, step, {"a": torch.ones(2)}, {"step": step}, metric)
        process = forked.Process(target=_killed_at, args=(folder, call, where))
        process.start()
        process.join()
        code = process.exitcode
        found = newest(folder)
        assert found.step in (2, 3) and found.state() == {"step": found.step}
        save(folder, 3, {"a": torch.zeros(2)}, {"step": 3}, metric=1.0)
        assert steps(folder) == [1, 2, 3]
    assert code == 0 and call > 1
    said = json.loads((newest(folder).folder / checkpoints.DIGESTS).read_text())
    assert sorted(said["files"]) == [checkpoints.STATE, checkpoints.WEIGHTS]
