"""Group-relative policy optimisation: TRL's trainer and loss; rollouts, their rewards and dynamic sampling are our own.

For each rollout answers are drawn in groups (`tapehouse.training.rollouts`), decoded and rewarded (`tapehouse.rewards`).
Groups whose answers all earn the same teach nothing: their prompts are replaced by others that are drawn at random, up to a
cap, and counted. What is drawn follows from the seed, the step and the process alone, so that a run that goes on from a
checkpoint between two rollouts draws what it would have drawn. Validation is what the likeliest answers earn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from trl import GRPOConfig, GRPOTrainer
from trl.models import unwrap_model_for_generation

from tapehouse.errors import TapehouseError
from tapehouse.methods.grpo import Recipe
from tapehouse.rl_prompts import STAGES
from tapehouse.tokens import as_transformers, load_tokenizer, stop_id
from tapehouse.training.grouped import grouped
from tapehouse.training.job import Job
from tapehouse.training.lora import adapted_model, copy_reference, save_adapter
from tapehouse.training.rewarded import Drawn, Rewarded, RolloutRows
from tapehouse.training.rollouts import draw_groups
from tapehouse.training.trainer import Durable, arguments, measured_rows, run


class RolloutTrainer(Durable, GRPOTrainer):
    """TRL's trainer over stored prompts; see the module.

    Args:
        recipe: budget, rollout and loss. prompts: those to learn from. validation: those of the tail.

    Raises:
        TapehouseError: a group would be shared out among processes.
    """

    kept: ClassVar[tuple[str, ...]] = (*Durable.kept, "redrawn", "flat")
    ordered: ClassVar[bool] = False

    def __init__(self, recipe: Recipe, prompts: Rewarded, validation: Rewarded | None = None, **options: Any) -> None:
        self.recipe, self.prompts, self.validation = recipe, prompts, validation
        self.rollout: Drawn | None = None
        self.redrawn = self.flat = 0
        super().__init__(
            reward_funcs=earned,
            train_dataset=prompts.dataset(),
            eval_dataset=None if validation is None else validation.dataset(),
            **options,
        )
        head = self.model.get_output_embeddings()
        if not hasattr(head, "bias"):  # peft hides that of a head whose rows it trains, and TRL asks for it
            head.bias = None
        if "ref" in getattr(self.model, "peft_config", {}):
            copy_reference(self.model)
        drawn = self.args.per_device_train_batch_size * self.args.steps_per_generation
        if drawn % self.num_generations:
            raise TapehouseError(
                f"recipe {recipe.name}: each of {self.args.world_size} processes draws {drawn} answers a rollout, which "
                f"rollout.group {self.num_generations} does not divide; take more rollout.updates or a larger budget.batch_size"
            )

    def draw(self, rows: Sequence[int], generator: torch.Generator) -> Drawn:
        """A group for each row; those without variance are drawn again from other rows, `rollout.redraws` times at most."""
        found = self._answered(self.prompts, rows, self.num_generations, self.temperature, generator)
        for _ in range(self.recipe.rollout.redraws):
            flat = [place for place, rewards in enumerate(found.rewards) if not self.prompts.varies(rewards)]
            others = torch.randperm(len(self.prompts.rows), generator=generator, device=generator.device)
            fresh = [row for row in others.tolist() if row not in found.rows][: len(flat)]
            if not fresh:
                break
            self.redrawn += len(fresh)
            again = self._answered(self.prompts, fresh, self.num_generations, self.temperature, generator)
            for place, *group in zip(flat, again.rows, again.answers, again.rewards, strict=False):
                found.rows[place], found.answers[place], found.rewards[place] = group
        self.flat += sum(not self.prompts.varies(rewards) for rewards in found.rewards)
        return found

    def _answered(
        self, source: Rewarded, rows: Sequence[int], group: int, temperature: float, generator: torch.Generator | None
    ) -> Drawn:
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            torch.no_grad(),
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
            self.accelerator.autocast(),
        ):
            asked = [source.prompts[row] for row in rows]
            stop = stop_id(source.vocabulary)
            answers = draw_groups(model, asked, group, self.max_completion_length, stop, temperature, generator)
        rewards = [source.rewards(row, own) for row, own in zip(rows, answers, strict=True)]
        return Drawn(list(rows), answers, rewards)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """TRL's batch of a rollout: the groups are drawn here, so that TRL finds them answered and rewarded."""
        rows = [example["row"] for example in inputs][:: self.num_generations]
        seed = np.random.SeedSequence([self.args.seed, self.state.global_step, self.accelerator.process_index])
        generator = torch.Generator(self.accelerator.device).manual_seed(int(seed.generate_state(1)[0]))
        self.rollout = self.draw(rows, generator)
        groups = zip(self.rollout.rows, self.rollout.rewards, strict=True)
        examples = [
            {"prompt": self.prompts.rows[row]["prompt"], "earned": reward.of_stage(self.prompts.stage)}
            for row, rewards in groups
            for reward in rewards
        ]
        batch = super()._generate_and_score_completions(examples)
        for part, mean in self._means(self.rollout).items():
            self._metrics["train"][part].append(mean)
        self._metrics["train"] |= {"redrawn": [float(self.redrawn)], "flat": [float(self.flat)]}
        return batch

    def evaluate(self, *arguments: Any, metric_key_prefix: str = "eval", **options: Any) -> dict[str, float]:
        """What the likeliest answers to the validation prompts earn; its negative is the loss that training is stopped by."""
        self.model.eval()
        size, rank, world = self.args.per_device_eval_batch_size, self.args.process_index, self.args.world_size
        mine = list(range(rank, len(self.validation.rows), world))
        found = Drawn([], [], [])
        for start in range(0, len(mine), size):
            part = self._answered(self.validation, mine[start : start + size], 1, 0.0, None)
            found.rows += part.rows
            found.rewards += part.rewards
        means = self._means(found)
        metrics = {f"{metric_key_prefix}_{part}": mean for part, mean in means.items()}
        metrics[f"{metric_key_prefix}_loss"] = -means[f"reward_{self.validation.stage}"]
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _means(self, drawn: Drawn) -> dict[str, float]:
        """Mean of each part of the rewards over all processes."""
        parts = [[reward.of_stage(stage) for stage in STAGES] for rewards in drawn.rewards for reward in rewards]
        totals = torch.tensor(parts, dtype=torch.float64).reshape(-1, len(STAGES)).sum(0).tolist()
        summed = self.accelerator.reduce(torch.tensor([*totals, len(parts)], device=self.accelerator.device), "sum").tolist()
        return {f"reward_{stage}": total / summed[-1] for stage, total in zip(STAGES, summed, strict=False)}

    def at_boundary(self) -> bool:
        """Between two rollouts: answers that are half learnt from are no part of a checkpoint."""
        return self.state.global_step % self.recipe.rollout.steps == 0

    def _batch(self) -> str:
        rows = [self.prompts.rows[row] for row in self.rollout.rows]
        named = ", ".join(f"{row['symbol']} {row['objective']} {row['decision_at']:%Y-%m-%d}" for row in rows)
        return f"in the rollout of the prompts {named}"

    def _get_train_sampler(self, dataset: Any = None) -> RolloutRows:
        args = self.args
        return RolloutRows(
            len(self.prompts.rows),
            rollouts=args.max_steps // self.recipe.rollout.steps,
            prompts=args.generation_batch_size // self.num_generations,
            group=self.num_generations,
            uses=args.steps_per_generation * self.num_iterations,
            seed=args.seed,
        )

    def _tokenize_prompts(self, prompts: list) -> tuple[list[list[int]], None, dict]:
        """The stored ids of each answer's prompt, which no text has to be encoded for."""
        answers = zip(self.rollout.rows, self.rollout.answers, strict=True)
        return [self.prompts.prompts[row] for row, own in answers for _ in own], None, {}

    def _generate_single_turn(self, *arguments: Any, **options: Any) -> tuple[list[list[int]], None]:
        """The answers that are drawn already."""
        return [answer for own in self.rollout.answers for answer in own], None

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **unused: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        """As TRL's, with answers to one prompt in one row (`tapehouse.training.grouped`)."""
        size, logps, entropies = batch_size or len(input_ids), [], []
        for ids, seen in zip(input_ids.split(size), attention_mask.split(size), strict=True):
            cut = ids.shape[1] - logits_to_keep
            batch = grouped(ids[:, :cut], seen[:, :cut], ids[:, cut:], seen[:, cut:], self._tokenizer.pad_token_id)
            with self.accelerator.autocast():
                told = model(
                    input_ids=batch.ids,
                    attention_mask=batch.mask,
                    position_ids=batch.positions,
                    shift_labels=batch.targets,
                    fused_lm_head=True,
                )
            logps.append(batch.of_answers(told.log_probs))
            entropies.append(batch.of_answers(told.entropy) if compute_entropy else None)
        return torch.cat(logps), torch.cat(entropies) if compute_entropy else None, None


def train(job: Job) -> dict[str, Any]:
    """Train an adapter on the prompts of a job's rows and save it; numbers for the manifest."""
    recipe, folder = job.recipe, job.folder / "tokenizer"
    vocabulary, tail = load_tokenizer(folder), measured_rows(job)
    trainer = RolloutTrainer(
        recipe,
        Rewarded.of(job.rows, vocabulary, recipe.data.stage),
        None if tail is None else Rewarded.of(tail, vocabulary, recipe.data.stage),
        model=adapted_model(job),
        args=GRPOConfig(**arguments(recipe, job), **rollout_arguments(recipe)),
        processing_class=as_transformers(folder),
    )
    facts = run(trainer, job)
    save_adapter(trainer.model, recipe.model.base, job.out)
    return facts | {"groups_redrawn": trainer.redrawn, "groups_flat": trainer.flat}


def rollout_arguments(recipe: Recipe) -> dict[str, Any]:
    """What TRL's GRPO is told beside what every trainer is: the loss of DAPO, and how a rollout is shared among steps."""
    rollout = recipe.rollout
    return {
        "loss_type": "dapo",
        "epsilon": recipe.loss.epsilon,
        "epsilon_high": recipe.loss.epsilon_high,
        "beta": recipe.loss.divergence,
        "num_generations": rollout.group,
        "max_completion_length": rollout.most_tokens,
        "temperature": rollout.temperature,
        "steps_per_generation": rollout.updates * recipe.budget.accumulation,
        "num_iterations": rollout.passes,
        "disable_dropout": True,
    }


def earned(prompts: list, completions: list, earned: list[float], **unused: Any) -> list[float]:
    """The reward that TRL asks for, which is known since the answer was drawn."""
    return earned
