"""Pretraining of the base model: a plain loop over two stages, in a fixed number of steps.

What makes a model this small learn to copy a price: digits as tokens, the price last in the prompt, a wide
initialisation, a light loss on the prompt and a heavy one on the answer, and a first stage of short price lines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.training.corpus import COPY, TEXT

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

    from tapehouse.methods.pretrain import ArchitectureSection, Recipe
    from tapehouse.training.job import Job

EMBEDDING_STD: Final = 0.05
RESIDUAL_GAIN: Final = 0.4  # of the projections that write into the residual stream, on top of fan-in ** -0.5
FLOOR: Final = 0.05  # share of the learning rate that is left at the end
CHECKPOINT_STEPS: Final = 100


def train(job: Job) -> dict[str, Any]:
    """Train from nothing on rows of stage, prompt_ids and answer_ids, and save the model; numbers for the manifest.

    The weights are a function of recipe, rows and seed, for one CPU type and number of threads.
    """
    import torch

    from tapehouse.tokens import load_tokenizer, pad_id, stop_id
    from tapehouse.training.checkpoints import newest, save

    recipe, seed, tokenizer = job.recipe, job.seed, load_tokenizer(job.folder / "tokenizer")
    vocabulary, pad, stop = tokenizer.get_vocab_size(), pad_id(tokenizer), stop_id(tokenizer)
    torch.manual_seed(seed)
    model = build_model(recipe.architecture, vocabulary, pad, stop)
    plan = recipe.curriculum
    steps = plan.copy_steps + plan.text_steps
    rates = recipe.optimiser
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=rates.learning_rate, betas=(rates.beta1, rates.beta2), weight_decay=rates.weight_decay
    )
    batches = _batches(recipe, job.rows, pad, seed)
    weights_by_name = dict(model.named_parameters())
    done, seen, found = 0, 0, newest(job.checkpoints)
    if found:
        state, tensors = found.state(), found.tensors()
        with torch.no_grad():
            for name, weight in weights_by_name.items():
                weight.copy_(tensors[name])
        optimiser.load_state_dict(state["optimiser"])
        job.report.resume(state["reports"])
        done, seen = found.step, state["tokens"]
    for step, (ids, weights) in enumerate(islice(batches, done, None), start=done + 1):
        for group in optimiser.param_groups:
            group["lr"] = rates.learning_rate * _schedule(step, steps, plan.warmup_steps)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=ids).logits
        losses = torch.nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        shifted = weights[:, 1:].flatten()
        loss = (losses * shifted).sum() / shifted.sum()
        if not math.isfinite(loss.item()):
            said = f"recipe {recipe.name}: the loss is {loss.item()} at step {step}"
            raise TapehouseError(f"{said}; lower optimiser.learning_rate")
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), rates.max_grad_norm)
        optimiser.step()
        seen += int((ids != pad).sum())
        if step % 10 == 0 or step == steps:
            job.report({"step": step, "steps": steps, "loss": loss.item(), "tokens": seen})
        if step % CHECKPOINT_STEPS == 0 or step == steps:
            state = {"optimiser": optimiser.state_dict(), "tokens": seen, "reports": job.report.history}
            save(job.checkpoints, step, weights_by_name, state)
    model.save_pretrained(job.out)
    return {
        "tokens": seen,
        "steps": steps,
        "loss": job.report.history[-1]["loss"],
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def build_model(architecture: ArchitectureSection, vocabulary: int, pad: int, stop: int) -> LlamaForCausalLM:
    """An untrained model, initialised wide; draws from torch's global generator."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tapehouse.training.attention import CAUSAL

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=architecture.hidden_size,
            intermediate_size=architecture.intermediate_size,
            num_hidden_layers=architecture.layers,
            num_attention_heads=architecture.heads,
            num_key_value_heads=architecture.heads,
            max_position_embeddings=architecture.positions,
            tie_word_embeddings=True,
            pad_token_id=pad,
            eos_token_id=stop,
            bos_token_id=None,
            attn_implementation=CAUSAL,
        )
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "embed_tokens" in name:
                weight.normal_(0.0, EMBEDDING_STD)
            elif weight.ndim == 2:
                gain = RESIDUAL_GAIN if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
                weight.normal_(0.0, gain * weight.shape[1] ** -0.5)
    return model


def _batches(recipe: Recipe, tokens: pl.DataFrame, pad: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    plan = recipe.curriculum
    draw = np.random.default_rng(seed)
    for stage, steps, size in ((COPY, plan.copy_steps, plan.copy_batch), (TEXT, plan.text_steps, plan.text_batch)):
        rows = tokens.filter(pl.col("stage") == stage)
        if steps and rows.is_empty():
            raise TapehouseError(f"tokens.parquet: no rows of stage {stage!r}, but the curriculum has {steps} steps of it")
        examples = list(zip(rows["prompt_ids"].to_list(), rows["answer_ids"].to_list(), strict=True))
        queue: list[int] = []
        for _ in range(steps):
            while len(queue) < size:
                queue.extend(draw.permutation(len(examples)).tolist())
            batch, queue = queue[:size], queue[size:]
            yield _padded([examples[row] for row in batch], pad, plan.prompt_weight, plan.answer_weight)


def _padded(
    examples: list[tuple[list[int], list[int]]], pad: int, prompt_weight: float, answer_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and loss weights, each (rows, longest); padded on the right, where causal attention needs no mask."""
    import torch

    longest = max(len(prompt) + len(answer) for prompt, answer in examples)
    ids = torch.full((len(examples), longest), pad)
    weights = torch.zeros(len(examples), longest)
    for row, (prompt, answer) in enumerate(examples):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        weights[row, : len(prompt)] = prompt_weight
        weights[row, len(prompt) : end] = answer_weight
    return ids, weights


def _schedule(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up times a cosine from 1 to `FLOOR`."""
    return min(1.0, step / max(warmup, 1)) * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * step / steps)))
