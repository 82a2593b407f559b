"""Training on rollouts that are written down: `python -m tests.tapehouse.fixed_rollouts JOBDIR OUT`, also by torchrun."""

import json
import os
import sys
from pathlib import Path

import polars as pl
import torch
from accelerate import PartialState
from safetensors.torch import save_file
from trl import GRPOConfig

from tapehouse.recipes import parse_recipe
from tapehouse.rewards import Reward
from tapehouse.tokens import as_transformers, load_tokenizer
from tapehouse.training.grpo import RolloutTrainer, rollout_arguments
from tapehouse.training.job import Job
from tapehouse.training.lora import adapted_model
from tapehouse.training.progress import Progress
from tapehouse.training.rewarded import Drawn, Rewarded
from tapehouse.training.trainer import arguments


class Fixed(RolloutTrainer):
    """A row's answers and rewards follow from its number, whoever asks."""

    def draw(self, rows, generator):
        answers, rewards = [], []
        for row in rows:
            noise = torch.Generator().manual_seed(row)
            lengths = torch.randint(3, 12, (self.num_generations,), generator=noise).tolist()
            answers.append([torch.randint(3, 60, (length,), generator=noise).tolist() for length in lengths])
            earned = torch.rand(self.num_generations, generator=noise).tolist()
            rewards.append([Reward("ok", value, 0.0, 0.0) for value in earned])
        return Drawn(list(rows), answers, rewards)


def train_fixed(jobdir: Path, out: Path) -> None:
    """Train what the job's recipe says, and leave every step's loss and the weights in `out`."""
    torch.set_num_threads(1)
    recipe = parse_recipe(json.loads((jobdir / "recipe.json").read_text()), "test")
    rows = pl.read_parquet(jobdir / "tokens.parquet")
    job = Job(recipe, rows, rows.clear(), jobdir, out, 3, Progress(None, lambda facts: None), out / "checkpoints")
    trainer = Fixed(
        recipe,
        Rewarded.of(rows, load_tokenizer(jobdir / "tokenizer"), "structure"),
        model=adapted_model(job),
        args=GRPOConfig(**arguments(recipe, job) | {"logging_steps": 1}, **rollout_arguments(recipe)),
        processing_class=as_transformers(jobdir / "tokenizer"),
    )
    trainer.begin(job)
    trainer.train()
    if trainer.args.process_index == 0:
        out.mkdir()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        told = {"world": trainer.args.world_size, "losses": losses}
        (out / "losses.json").write_text(json.dumps(told))
        save_file(trainer._trained(), out / "weights.safetensors")


if __name__ == "__main__":
    assert PartialState(cpu=True, backend="gloo").num_processes == int(os.environ["WORLD_SIZE"])
    train_fixed(Path(sys.argv[1]), Path(sys.argv[2]))
    torch.distributed.destroy_process_group()
