"""When a run reports, measures, saves and stops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from transformers import TrainerCallback

from tapehouse.errors import TapehouseError

if TYPE_CHECKING:
    from tapehouse.training.trainer import Durable

UNTOLD: Final = ("epoch", "train_runtime", "train_tokens_per_second")  # `Progress` has its own clock


def enough(losses: Sequence[float], patience: int, threshold: float) -> bool:
    """Whether the last `patience` validation losses have all failed to undercut the best before them by `threshold`."""
    best, bad = math.inf, 0
    for loss in losses:
        if loss < best - threshold:
            best, bad = loss, 0
        else:
            bad += 1
    return bad >= patience


class Cadence(TrainerCallback):
    """When to report, measure, save and stop, as the recipe says; the last step is always reported, measured and saved."""

    def __init__(self, trainer: Durable) -> None:
        self.trainer = trainer
        self.due = {"evaluate": False, "save": False}

    def on_train_begin(self, args, state, control, **kwargs) -> None:  # the names that transformers calls
        self.trainer.restore()

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        self.trainer._part = 0

    def on_step_end(self, args, state, control, **kwargs):
        recipe, step = self.trainer.job.recipe, state.global_step
        last, every = step == state.max_steps, recipe.budget.checkpoint_every
        measures = recipe.evaluation is not None and bool(self.trainer.eval_dataset)
        self.due["evaluate"] |= measures and (last or step % recipe.evaluation.every == 0)
        self.due["save"] |= every is not None and (last or step % every == 0)
        if self.trainer.at_boundary() or last:
            control.should_evaluate = self.due["evaluate"]
            control.should_save = self.due["save"] or self.due["evaluate"]  # the best measured weights have to be somewhere
            self.due = {"evaluate": False, "save": False}
        return control

    def on_evaluate(self, args, state, control, **kwargs):
        section = self.trainer.job.recipe.evaluation
        losses = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
        if losses and not math.isfinite(losses[-1]):
            raise TapehouseError(
                f"recipe {self.trainer.job.recipe.name}: the validation loss is {losses[-1]} at step {state.global_step}, "
                "by which no state is the best; look at the rows of the validation tail, or lower optimiser.learning_rate"
            )
        if section.patience is not None and enough(losses, section.patience, section.threshold):
            control.should_training_stop = True
        return control

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        told = (logs or {}).items()
        numbers = {key: float(value) for key, value in told if key not in UNTOLD and isinstance(value, int | float)}
        at = {"step": state.global_step, "steps": state.max_steps}
        if "loss" in numbers:
            seen = numbers.pop("num_input_tokens_seen", 0)
            self.trainer.job.report(at | {"tokens": int(numbers.pop("num_tokens", seen))} | numbers)
        elif "eval_loss" in numbers:
            self.trainer.job.report(at | {"validation_loss": numbers["eval_loss"]})
