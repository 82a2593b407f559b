"""What supervised and preference tuning share: the base, the LoRA configuration, reports, and saving."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel
from transformers import LlamaForCausalLM, TrainerCallback

from tapehouse.recipe_sections import AdapterSection, LanguageRecipe


def load_base(folder: Path) -> LlamaForCausalLM:
    """The base model in float32, from local files alone."""
    return LlamaForCausalLM.from_pretrained(folder, local_files_only=True)


def starting_point(recipe: LanguageRecipe, jobdir: Path) -> dict[str, Any]:
    """`model` and `peft_config` for a trainer: the parent's adapter to go on from, or the base with a new one."""
    base = load_base(jobdir / "base")
    if recipe.model.init_from is not None:
        return {"model": PeftModel.from_pretrained(base, jobdir / "parent", is_trainable=True), "peft_config": None}
    return {"model": base, "peft_config": lora_config(recipe.adapter)}


def lora_config(section: AdapterSection) -> LoraConfig:
    """The recipe's adapter section as peft knows it."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=section.targets,
    )


def trainer_arguments(recipe: LanguageRecipe, folder: Path, seed: int) -> dict[str, Any]:
    """Arguments that both trainers take: a fixed number of steps on the CPU, no checkpoint, no outside tracker."""
    return {
        "output_dir": str(folder),
        "max_steps": recipe.budget.steps,
        "per_device_train_batch_size": recipe.budget.batch_size,
        "learning_rate": recipe.optimiser.learning_rate,
        "warmup_steps": recipe.schedule.warmup_steps,
        "weight_decay": recipe.optimiser.weight_decay,
        "max_grad_norm": recipe.optimiser.max_grad_norm,
        "lr_scheduler_type": "cosine",
        "logging_steps": 10,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "use_cpu": True,
        "bf16": True,  # autocast; the weights stay in float32
        "seed": seed,
        "data_seed": seed,
    }


class Reports(TrainerCallback):
    """Passes the trainer's log on as progress reports."""

    def __init__(self, report: Callable[[dict[str, Any]], None]) -> None:
        self.report = report
        self.last: dict[str, Any] = {}

    def on_step_end(self, args, state, control, **kwargs):
        control.should_log |= state.global_step == state.max_steps  # the totals of the manifest are the last report's
        return control

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:  # the name that transformers calls
        if logs and "loss" in logs:
            numbers = {key: value for key, value in logs.items() if isinstance(value, int | float)}
            tokens = int(numbers.pop("num_tokens", 0))
            self.last = {"step": state.global_step, "steps": state.max_steps, "tokens": tokens, **numbers}
            self.report(dict(self.last))


def save_adapter(model: PeftModel, base: str, folder: Path) -> None:
    """Write weights and configuration to `folder`, the base by its name and not by a path of this machine."""
    # The trainer keeps a copy of a parent's adapter as the reference; it is not part of the result.
    model.save_pretrained(folder, selected_adapters=["default"])
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text())
    config["base_model_name_or_path"] = base
    file.write_text(json.dumps(config, indent=1, sort_keys=True))
