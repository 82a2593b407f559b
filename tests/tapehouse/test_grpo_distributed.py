"""Two processes that share every rollout learn what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tapehouse.training.jobs import environment, export_job
from tests.tapehouse.fixed_rollouts import train_fixed
from tests.tapehouse.rollout_jobs import ROLLOUT, grpo_recipe, grpo_rows
from tests.tapehouse.training_jobs import PROVENANCE, make_base, make_tokenizer


def test_two_processes_on_the_same_answers_end_where_one_does(tmp_path):
    """Each rollout is gone through twice, so that ratios leave one and are cut."""
    make_tokenizer(tmp_path / "tokenizer")
    base = make_base(tmp_path, tmp_path / "tokenizer")
    recipe = grpo_recipe(rollout=ROLLOUT | {"passes": 2}, budget={"steps": 20, "batch_size": 8, "precision": "fp32"}, seed=3)
    rows = grpo_rows(tmp_path / "tokenizer", recipe)
    export_job(tmp_path / "job", recipe, rows, base, tmp_path / "tokenizer", 3, PROVENANCE, threads=1)
    train_fixed(tmp_path / "job", tmp_path / "one")
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = ["-m", "tests.tapehouse.fixed_rollouts", str(tmp_path / "job"), str(tmp_path / "two")]
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, *together, *script], check=True, cwd=root, env=os.environ | environment(1))
    one, two = (json.loads((tmp_path / name / "losses.json").read_text()) for name in ("one", "two"))
    assert (one["world"], two["world"]) == (1, 2)
    assert len(one["losses"]) == 20 and np.ptp(one["losses"]) > 1e-3
    np.testing.assert_allclose(two["losses"], one["losses"], atol=1e-4)
    alone, shared = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    assert alone.keys() == shared.keys()
    for name, weights in alone.items():
        np.testing.assert_allclose(shared[name], weights, atol=1e-5, err_msg=name)
