"""What every trainer of a language model shares: arguments from the recipe, and a run that a kill does not change.

A method mixes :class:`Durable` into its trainer and hands it to :func:`run`::

    class Supervised(Durable, SFTTrainer):
        '''TRL's trainer, resumable.'''

    trainer = Supervised(args=SFTConfig(**arguments(recipe, job), ...), eval_dataset=..., ...)
    facts = run(trainer, job)           # trains or goes on, loads the best, returns numbers for the manifest
    save_adapter(trainer.model, ...)
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Final

import polars as pl
import torch
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer
from transformers.trainer import TRAINER_STATE_NAME

from tapehouse.errors import TapehouseError
from tapehouse.recipe_sections import LanguageRecipe
from tapehouse.training import checkpoints
from tapehouse.training.cadence import Cadence
from tapehouse.training.job import Job

SCHEDULES: Final = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
SMOOTHED: Final = 10  # steps over which the manifest's loss is averaged
ROWS_NAMED: Final = 20  # in an error; a batch of a big machine is thousands


def arguments(recipe: LanguageRecipe, job: Job) -> dict[str, Any]:
    """Keyword arguments of `TrainingArguments` and TRL's configs, from a recipe's sections.

    A batch is the recipe's whatever the number of processes: it is shared out among them.
    Raises TapehouseError where it cannot be.
    """
    budget, world = recipe.budget, world_size()
    parts = budget.accumulation * world
    if budget.batch_size % parts:
        raise TapehouseError(
            f"recipe {recipe.name}: budget.batch_size {budget.batch_size} cannot be shared by {world} processes in "
            f"{budget.accumulation} parts each; make it a multiple of {parts}"
        )
    return {
        "output_dir": str(job.folder / "trainer"),
        "max_steps": budget.steps,
        "per_device_train_batch_size": budget.batch_size // parts,
        "per_device_eval_batch_size": budget.batch_size // parts,
        "gradient_accumulation_steps": budget.accumulation,
        "activation_checkpointing": budget.activation_checkpointing,
        "learning_rate": recipe.optimiser.learning_rate,
        "weight_decay": recipe.optimiser.weight_decay,
        "adam_beta1": recipe.optimiser.beta1,
        "adam_beta2": recipe.optimiser.beta2,
        "max_grad_norm": recipe.optimiser.max_grad_norm,
        "lr_scheduler_type": SCHEDULES[recipe.schedule.kind],
        "warmup_steps": recipe.schedule.warmup_steps,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",  # `Cadence` says when, and `Durable` how
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "use_cpu": recipe.model.device == "cpu",
        "ddp_backend": "gloo" if world > 1 and recipe.model.device == "cpu" else None,
        "ddp_find_unused_parameters": False,
        "bf16": budget.precision == "bf16",  # autocast; the weights stay in float32
        "seed": job.seed,
        "data_seed": job.seed,
    }


def measured_rows(job: Job) -> pl.DataFrame | None:
    """The rows of the validation tail that are measured, spread evenly over it; None where the recipe measures nothing."""
    section = job.recipe.evaluation
    if section is None or job.validation.is_empty():
        return None
    count = min(section.rows, job.validation.height)
    return job.validation[[row * job.validation.height // count for row in range(count)]]


def run(trainer: Durable, job: Job) -> dict[str, Any]:
    """Train, or go on from the newest checkpoint; the best weights are loaded then. Numbers for the manifest.

    Returns:
        tokens, steps and loss; with a validation tail `validation_loss` and `best_step`, the step whose weights these are;
        `resumed_at`, the step from which the last process went on.

    Raises:
        TapehouseError: the loss or a gradient is not a finite number.
    """
    trainer.begin(job)
    found = checkpoints.newest(job.checkpoints)
    state = found.state() if found else {"reports": [], "finished": False}
    job.report.resume(state["reports"])
    if found and state["finished"]:  # killed after its last step
        trainer.take(found.tensors())
    else:
        trainer.train(resume_from_checkpoint=str(found.folder) if found else None)
    told = [facts for facts in job.report.history if "loss" in facts]
    losses = [facts["loss"] for facts in told[-SMOOTHED:]]
    facts = {"tokens": told[-1]["tokens"], "steps": told[-1]["step"], "loss": sum(losses) / len(losses)}
    best = checkpoints.best(job.checkpoints)
    if best is not None:
        trainer.take(best.tensors())
        facts |= {"validation_loss": best.metric, "best_step": best.step}
    return facts | {"resumed_at": found.step if found else None}


def world_size() -> int:
    """Processes that train together."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


class Rows(Sampler[int]):
    """Row numbers of a run: one permutation of the data after the other, until there are `count`.

    Every batch is full, and which rows it has depends on the seed alone: not on the number of processes, nor on where a
    run was resumed.
    """

    def __init__(self, rows: int, count: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        whole = [torch.randperm(rows, generator=draw) for _ in range(math.ceil(count / rows))]
        self.order = torch.cat(whole)[:count].tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)


class Durable(Trainer):
    """Mixed in before a trainer: checkpoints that a kill cannot spoil, and a stop before a bad loss reaches the weights.

    Class attributes:
        kept: names of attributes that are part of a run's state, beyond those of transformers: numbers, text, lists.
        ordered: whether batches are drawn by :class:`Rows`; False where the trainer draws its own.
    """

    kept: ClassVar[tuple[str, ...]] = ("_total_train_tokens",)
    ordered: ClassVar[bool] = True
    job: Job

    def begin(self, job: Job) -> None:
        """Bind the trainer to its job; :func:`run` does.

        Raises TapehouseError where it cannot keep the checkpoints that the recipe asks for.
        """
        kept = job.recipe.budget.checkpoint_every is not None or job.recipe.evaluation is not None
        if kept and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise TapehouseError(
                f"recipe {job.recipe.name}: processes that shard a model or its optimiser keep no checkpoints; remove "
                "budget.checkpoint_every and evaluation, or take a launcher under which each process holds all of it"
            )
        self.job = job
        self.remove_callback(PrinterCallback)
        self.add_callback(Cadence(self))

    def at_boundary(self) -> bool:
        """Whether a checkpoint may be written after the step just done; one that is due waits for the next that may."""
        return True

    def take(self, tensors: dict[str, torch.Tensor]) -> None:
        """Put saved weights in place of the trained ones."""
        trained = self._trained()
        if tensors.keys() != trained.keys():
            odd = sorted(tensors.keys() ^ trained.keys())[:3]
            raise TapehouseError(f"{self.job.checkpoints}: weights of another model ({odd}); remove the folder and train again")
        with torch.no_grad():
            for name, weight in trained.items():
                weight.copy_(tensors[name])

    def _trained(self) -> dict[str, torch.Tensor]:
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if not self.ordered:
            return super()._get_train_sampler(train_dataset)
        rows = self.train_dataset if train_dataset is None else train_dataset
        return Rows(len(rows), self.args.max_steps * self.job.recipe.budget.batch_size, self.args.seed)

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """As the trainer's; a loss that is no finite number ends the run, before the optimiser has seen its gradients."""
        loss = super().training_step(*arguments, **options)
        self._refuse_bad(loss, "loss")
        self._part += 1
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        if norm is not None:
            self._refuse_bad(torch.as_tensor(norm), "gradient's norm")
        return norm

    def _refuse_bad(self, value: torch.Tensor, what: str) -> None:
        if bool(torch.isfinite(value).all()):
            return
        found = checkpoints.newest(self.job.checkpoints)
        kept = f"the last good checkpoint is {found.folder}" if found else "there was no checkpoint yet"
        raise TapehouseError(
            f"recipe {self.job.recipe.name}: the {what} is {float(value)} at step {self.state.global_step + 1}, "
            f"{self._batch()}; {kept}. Look at these rows, or lower optimiser.learning_rate"
        )

    def _batch(self) -> str:
        """The batch at hand in words."""
        step, part = self.state.global_step, self._part
        if not self.ordered:
            return f"part {part + 1} of its batch"
        size, world = self.args.per_device_train_batch_size, self.args.world_size
        start = step * self.job.recipe.budget.batch_size + (part * world + self.args.process_index) * size
        order = Rows(len(self.train_dataset), self.args.max_steps * self.job.recipe.budget.batch_size, self.args.seed).order
        rows = order[start : start + size]
        named = ", ".join(map(str, rows[:ROWS_NAMED])) + (", …" if len(rows) > ROWS_NAMED else "")
        return f"part {part + 1} of its batch: examples {named} of the training set"

    def _save_checkpoint(self, model: Any, trial: Any = None) -> None:
        mine = {
            "random": checkpoints.random_states(),
            "kept": {name: getattr(self, name) for name in self.kept if hasattr(self, name)},
        }
        ranks = [mine]
        if self.args.world_size > 1:
            ranks = [None] * self.args.world_size
            torch.distributed.all_gather_object(ranks, mine)
        if self.args.should_save:
            step = self.state.global_step
            measured = {entry["step"]: entry["eval_loss"] for entry in self.state.log_history if "eval_loss" in entry}
            checkpoints.save(
                self.job.checkpoints,
                step,
                self._trained(),
                {
                    "ranks": ranks,
                    "optimiser": self.optimizer.state_dict(),
                    "schedule": self.lr_scheduler.state_dict(),
                    "reports": self.job.report.history,
                    "finished": self.control.should_training_stop,
                },
                measured.get(step),
                {TRAINER_STATE_NAME: json.dumps(asdict(self.state), indent=1, sort_keys=True)},
            )
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.take(_checkpoint(resume_from_checkpoint).tensors())

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            state = _checkpoint(checkpoint).state()
            self.optimizer.load_state_dict(state["optimiser"])
            self.lr_scheduler.load_state_dict(state["schedule"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.set_random_states(self._mine(checkpoint)["random"])

    def _mine(self, checkpoint: str) -> dict[str, Any]:
        return _checkpoint(checkpoint).state()["ranks"][self.args.process_index]

    def restore(self) -> None:
        """What `kept` names, as it was at the checkpoint from which training goes on."""
        self._part = 0
        found = checkpoints.newest(self.job.checkpoints)
        if found is None or self.state.global_step == 0:
            return
        for name, value in self._mine(str(found.folder))["kept"].items():
            setattr(self, name, value)


def _checkpoint(folder: str) -> checkpoints.Checkpoint:
    return checkpoints.Checkpoint(Path(folder), 0, None)

