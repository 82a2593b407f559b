"""Group-relative policy optimisation: what is clipped, what is drawn again, and a run that a kill does not change."""

import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
import torch
from trl import GRPOConfig, GRPOTrainer

from tapehouse.errors import TapehouseError
from tapehouse.methods.grpo import training_rows
from tapehouse.rewards import Reward
from tapehouse.token_rows import ORDER_ROOM, prompt_tokens
from tapehouse.tokens import as_transformers, load_tokenizer
from tapehouse.training.__main__ import train
from tapehouse.training.grpo import RolloutTrainer, rollout_arguments
from tapehouse.training.job import Job
from tapehouse.training.jobs import environment, export_job
from tapehouse.training.lora import adapted_model, save_adapter
from tapehouse.training.progress import Progress
from tapehouse.training.rewarded import Rewarded
from tapehouse.training.trainer import arguments
from tapehouse.vocabularies import train_tokenizer
from tests.tapehouse.rollout_jobs import ROLLOUT, grpo_recipe, grpo_rows, rl_prompts
from tests.tapehouse.training_jobs import PROVENANCE, TRAIN_END, make_base, make_tokenizer, pairs


def silent(facts: dict) -> None:
    """Take no notice of progress."""


class Early(Rewarded):
    """A reward that any model earns, and differently with each answer: the share of tokens with a low id."""

    def rewards(self, row, answers):
        middle = self.vocabulary.get_vocab_size() // 2
        return [Reward("ok", sum(token < middle for token in answer) / len(answer), 0.0, 0.0) for answer in answers]


class Same(Rewarded):
    """A reward that no answer changes."""

    def rewards(self, row, answers):
        return [Reward("ok", 0.5, 0.0, 0.0) for _ in answers]


class FirstSame(Early):
    """Of the first row no answer changes the reward."""

    def rewards(self, row, answers):
        return Same.rewards(self, row, answers) if row == 0 else super().rewards(row, answers)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Path, Path]:
    """Folders of a tokenizer and of a base."""
    root = tmp_path_factory.mktemp("world")
    make_tokenizer(root / "tokenizer")
    return root / "tokenizer", make_base(root, root / "tokenizer")


def export(folder: Path, world, recipe, count: int = 24, parent: Path | None = None, **provenance) -> Path:
    rows = grpo_rows(world[0], recipe, count)
    export_job(folder, recipe, rows, world[1], world[0], 3, PROVENANCE | provenance, threads=1, init_dir=parent)
    return folder


def make_trainer(folder: Path, world, source=Early, parent: Path | None = None, **changes) -> RolloutTrainer:
    """A trainer of the tiny recipe, whose adapter is moved from its start unless it is a parent's."""
    recipe = grpo_recipe(**changes)
    jobdir = export(folder, world, recipe, parent=parent)
    rows = pl.read_parquet(jobdir / "tokens.parquet")
    job = Job(recipe, rows, rows.clear(), jobdir, folder, 3, Progress(None, silent), folder / "checkpoints")
    trainer = RolloutTrainer(
        recipe,
        source.of(rows, load_tokenizer(world[0]), "structure"),
        model=adapted_model(job),
        args=GRPOConfig(**arguments(recipe, job), **rollout_arguments(recipe)),
        processing_class=as_transformers(world[0]),
    )
    trainer.begin(job)
    trainer.current_gradient_accumulation_steps = 1  # as the loop of transformers sets it
    torch.manual_seed(9)
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if "lora_B.default" in name and parent is None:  # the reference is left where it is
                weight.normal_(std=0.3)
    return trainer


def make_marked(folder: Path) -> Path:
    """The folder of a tokenizer with an added token."""
    texts = pairs()
    train_tokenizer([*(texts["prompt"] + texts["chosen"]), *(texts["prompt"] + "HOLD because trend up")], folder, ["<action>"])
    return folder


def gradients(trainer: RolloutTrainer) -> torch.Tensor:
    found = [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
    trainer.model.zero_grad()
    return torch.cat(found)


# ---------------------------------------------------------------------- recipes and rows


def test_what_cannot_be_is_refused_with_key_and_remedy():
    for changes, words in (
        ({"rollout": ROLLOUT | {"group": 3}}, "rollout.group 3 does not divide the 8 answers of a rollout"),
        ({"rollout": ROLLOUT | {"updates": 2}}, r"budget.steps 3 is no multiple of the 2 steps of a rollout"),
        ({"data": {"stage": "structure", "family": "thesis"}, "prompt": {}}, "rollout.most_tokens 24 cuts every thesis"),
        ({"data": {}}, "data.stage: missing"),
        ({"data": {"stage": "format"}}, "data.stage"),
        ({"adapter": {"rank": 2, "alpha": 4, "dropout": 0.1}}, "training by grpo runs without dropout"),
        ({"loss": {"kind": "grpo"}}, "loss.kind: unknown key"),
        ({"loss": {"divergence": 0.1}, "adapter": {"kind": "full"}}, "loss.divergence 0.1 is from what training starts from"),
    ):
        with pytest.raises(TapehouseError, match=words):
            grpo_recipe(**changes)
    assert (grpo_recipe().loss.epsilon, grpo_recipe().loss.epsilon_high) == (0.20, 0.28)


def test_a_stage_has_its_own_prompts_and_all_that_rewards_need(world):
    structure, decision = (grpo_rows(world[0], grpo_recipe(data={"stage": stage})) for stage in ("structure", "decision"))
    assert structure.height == decision.height == 12
    assert not set(structure["decision_at"]) & set(decision["decision_at"])
    assert set(grpo_recipe().needs) <= set(structure.columns)
    rewarded = Rewarded.of(structure, load_tokenizer(world[0]), "structure")
    said = rl_prompts().filter(stage="structure").sort("decision_at")["prompt"].to_list()
    assert [row["prompt"] for row in rewarded.rows] == said
    with pytest.raises(TapehouseError, match=r"no row of datasets.rl_prompts has family 'order' and stage 'claims'"):
        grpo_rows(world[0], grpo_recipe(data={"stage": "claims"}))


def test_a_thesis_has_the_class_of_its_fold_and_a_claim_the_prompt_it_is_true_of(world):
    prompts = rl_prompts(6).with_columns(family=pl.lit("thesis"), objective=pl.lit("signal"), stage=pl.lit("claims"))
    tokens = prompt_tokens(prompts, {"test": load_tokenizer(world[0])}, "test", "test", ORDER_ROOM).rows
    tokens = tokens.with_columns(lines_dropped=pl.Series([0, 1, 0, 0, 0, 0], dtype=pl.Int32))
    classes = prompts.select("symbol", "interval", "decision_at", fold=pl.lit("a"), signal_class=pl.lit("buy"))[:4]
    recipe = grpo_recipe(data={"stage": "claims", "family": "thesis"}, rollout=ROLLOUT | {"most_tokens": 64}, prompt={})
    rows = training_rows(recipe, tokens, {"datasets.rl_prompts": prompts, "models.signal_classes": classes})
    assert rows["decision_at"].to_list() == prompts["decision_at"].gather([0, 2, 3]).to_list()
    assert rows["signal_class"].to_list() == ["buy"] * 3


# ---------------------------------------------------------------------- the loss


def batch_of(trainer: RolloutTrainer) -> dict[str, torch.Tensor]:
    """A rollout as TRL lays it out: prompts padded on the left, answers on the right."""
    trainer.model.train()
    rows = [{"row": row} for row in (0, 1) for _ in range(trainer.num_generations)]
    return trainer._generate_and_score_completions(rows)


def test_rows_of_added_tokens_are_trained_through_the_loss(tmp_path, world):
    trainer = make_trainer(tmp_path / "job", (make_marked(tmp_path / "marked"), world[1]))
    batch = batch_of(trainer)
    batch["completion_ids"][:, 0] = load_tokenizer(tmp_path / "marked").markers["<action>"]
    ids = torch.cat((batch["prompt_ids"], batch["completion_ids"]), dim=1)
    seen, width = torch.cat((batch["prompt_mask"], batch["completion_mask"]), dim=1), batch["completion_ids"].shape[1]
    told = trainer._get_per_token_logps_and_entropies(trainer.model, ids, seen, width)[0] * batch["completion_mask"]
    told.sum().backward()
    row = {
        name: weight
        for name, weight in trainer.model.named_parameters()
        if "trainable_tokens" in name and weight.grad is not None
    }
    ours = {name: weight.grad.clone() for name, weight in row.items()}
    trainer.model.zero_grad()
    places = (seen.cumsum(1) - 1).clamp(min=0)
    logits = trainer.model(input_ids=ids, attention_mask=seen, position_ids=places).logits[:, -width - 1 : -1]
    plain = logits.log_softmax(-1).gather(2, batch["completion_ids"][:, :, None])[:, :, 0] * batch["completion_mask"]
    torch.testing.assert_close(told, plain, rtol=1e-5, atol=1e-5)
    plain.sum().backward()
    assert ours and all(gradient.abs().max() > 1e-3 for gradient in ours.values())
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, row[name].grad, rtol=1e-4, atol=1e-5)


def test_log_probabilities_loss_and_gradients_are_those_of_trl(tmp_path, world):
    trainer = make_trainer(tmp_path, world)
    batch = batch_of(trainer)
    ids = torch.cat((batch["prompt_ids"], batch["completion_ids"]), dim=1)
    seen = torch.cat((batch["prompt_mask"], batch["completion_mask"]), dim=1)
    told = batch["completion_mask"].bool()
    asked = trainer.model, ids, seen, told.shape[1]
    ours = trainer._get_per_token_logps_and_entropies(*asked, batch_size=3, compute_entropy=True)
    theirs = GRPOTrainer._get_per_token_logps_and_entropies(trainer, *asked, compute_entropy=True)
    for mine, peer in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(mine[told], peer[told], rtol=1e-5, atol=1e-5)
    assert batch["advantages"].abs().max() > 0.5
    (trainer.compute_loss(trainer.model, batch)).backward()
    moved = gradients(trainer)
    trainer._get_per_token_logps_and_entropies = GRPOTrainer._get_per_token_logps_and_entropies.__get__(trainer)
    (trainer.compute_loss(trainer.model, batch)).backward()
    peers = gradients(trainer)
    assert peers.norm() > 1e-3
    torch.testing.assert_close(moved, peers, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("ratio", "advantage", "counted", "learns"),
    [
        (1.27, 1.0, 1.27, True),
        (1.29, 1.0, 1.28, False),  # beyond 1 + epsilon_high a better answer is likely enough
        (0.50, 1.0, 0.50, True),
        (0.81, -1.0, 0.81, True),
        (0.79, -1.0, 0.80, False),  # below 1 - epsilon a worse one is unlikely enough
        (1.50, -1.0, 1.50, True),
    ],
)
def test_a_ratio_is_cut_at_two_different_bounds(clipping, ratio, advantage, counted, learns):
    trainer, batch, now = clipping
    told = batch["completion_mask"].bool()
    fixed = batch | {
        "advantages": torch.full((len(told),), advantage),
        "old_per_token_logps": now - torch.tensor(ratio).log(),
        "num_items_in_batch": told.sum().float(),
    }
    loss = trainer.compute_loss(trainer.model, fixed)
    loss.backward()
    # The mean over tokens of -min(ratio * advantage, clip(ratio) * advantage).
    assert loss.item() == pytest.approx(-counted * advantage, rel=1e-4)
    assert (gradients(trainer).norm() > 1e-4) == learns


@pytest.fixture(scope="module")
def clipping(tmp_path_factory, world):
    """A trainer, a rollout and the log-probabilities of its answers."""
    trainer = make_trainer(tmp_path_factory.mktemp("clipping"), world)
    batch = batch_of(trainer)
    ids = torch.cat((batch["prompt_ids"], batch["completion_ids"]), dim=1)
    seen = torch.cat((batch["prompt_mask"], batch["completion_mask"]), dim=1)
    with torch.no_grad():
        width = batch["completion_ids"].shape[1]
        now = trainer._get_per_token_logps_and_entropies(trainer.model, ids, seen, width)[0]
    return trainer, batch, now


def test_divergence_is_from_the_start_and_leaves_no_weights_of_its_own(tmp_path, world):
    without = make_trainer(tmp_path / "without", world, source=Same)
    trainer = make_trainer(tmp_path / "with", world, source=Same, loss={"divergence": 0.5})
    assert trainer._trained().keys() == without._trained().keys()
    batch = batch_of(trainer)
    # Advantages are all zero, so that the loss is the divergence's alone: the mean over tokens of e^d - d - 1.
    ids = torch.cat((batch["prompt_ids"], batch["completion_ids"]), dim=1)
    seen, told = torch.cat((batch["prompt_mask"], batch["completion_mask"]), dim=1), batch["completion_mask"].bool()
    with torch.no_grad():
        now = trainer._get_per_token_logps_and_entropies(trainer.model, ids, seen, told.shape[1])[0]
        with trainer.model.disable_adapter():
            start = trainer._get_per_token_logps_and_entropies(trainer.model, ids, seen, told.shape[1])[0]
    apart = (start - now)[told]
    assert apart.abs().max() > 0.01
    expected = 0.5 * (apart.exp() - apart - 1).mean()
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(expected.item(), rel=1e-4)


def test_divergence_from_a_parent_is_from_its_rows_of_added_tokens_too(tmp_path, world):
    """A policy that is still its parent is nowhere apart from it."""
    marked = make_marked(tmp_path / "marked")
    first = make_trainer(tmp_path / "first", (marked, world[1]))
    with torch.no_grad():
        moved = [weight for name, weight in first.model.named_parameters() if "trainable_tokens_delta" in name]
        for weight in moved:
            weight.add_(0.5 * torch.randn_like(weight))
    assert moved
    save_adapter(first.model, "tiny", tmp_path / "parent")
    trainer = make_trainer(
        tmp_path / "second",
        (marked, world[1]),
        parent=tmp_path / "parent",
        model={"base": "tiny", "init_from": "first"},
        loss={"divergence": 0.5},
    )
    batch = batch_of(trainer)
    ids = torch.cat((batch["prompt_ids"], batch["completion_ids"]), dim=1)
    seen, told = torch.cat((batch["prompt_mask"], batch["completion_mask"]), dim=1), batch["completion_mask"].bool()
    with torch.no_grad():
        now = trainer._get_per_token_logps_and_entropies(trainer.model, ids, seen, told.shape[1])[0]
    torch.testing.assert_close(batch["ref_per_token_logps"][told], now[told], rtol=1e-5, atol=1e-5)
    assert not any(".ref" in name for name in trainer._trained())


# ---------------------------------------------------------------------- rollouts


def test_advantages_are_of_a_group_and_an_answer_that_is_cut_earns_nothing(tmp_path, world):
    trainer = make_trainer(tmp_path, world)
    batch = batch_of(trainer)
    assert [len(group) for group in trainer.rollout.answers] == [4, 4]
    for place in range(2):
        earned = torch.tensor([reward.format for reward in trainer.rollout.rewards[place]])
        expected = (earned - earned.mean()) / (earned.std() + 1e-4)
        torch.testing.assert_close(batch["advantages"][4 * place : 4 * place + 4], expected, rtol=1e-4, atol=1e-4)
    vocabulary = load_tokenizer(world[0])
    order = [*vocabulary.tokenizer.encode("HOLD confidence 0.65 because trend up").ids, vocabulary.stop]
    rewarded = Rewarded(trainer.prompts.rows, trainer.prompts.prompts, vocabulary, "structure")
    assert [reward.format for reward in rewarded.rewards(0, [order, order[:-1], order[1:]])] == [1.0, 0.0, 0.0]


def test_groups_without_variance_are_drawn_again_capped_and_counted(tmp_path, world):
    trainer = make_trainer(tmp_path, world, source=Same, rollout=ROLLOUT | {"redraws": 2})
    batch = batch_of(trainer)
    assert (trainer.redrawn, trainer.flat) == (4, 2)  # two groups, twice; then they are kept as they are
    assert not set(trainer.rollout.rows) & {0, 1}  # by other prompts
    assert batch["advantages"].abs().max() == 0
    asked = [trainer.prompts.prompts[row] for row in trainer.rollout.rows for _ in range(4)]
    mask = batch["prompt_mask"].bool()
    assert [ids[seen].tolist() for ids, seen in zip(batch["prompt_ids"], mask, strict=True)] == asked


def test_a_group_that_varies_is_kept_beside_one_that_does_not(tmp_path, world):
    trainer = make_trainer(tmp_path, world, source=FirstSame, rollout=ROLLOUT | {"redraws": 3})
    first = trainer.draw([0, 1], torch.Generator().manual_seed(1))
    assert first.rows[1] == 1 and first.rows[0] not in (0, 1)
    assert trainer.redrawn >= 1 and trainer.flat == 0
    again = trainer.draw([0, 1], torch.Generator().manual_seed(1))
    assert (again.rows, again.answers) == (first.rows, first.answers)


# ---------------------------------------------------------------------- runs


def test_a_run_that_was_killed_goes_on_from_between_two_rollouts_and_ends_in_the_same_weights(tmp_path, world):
    """A rollout is gone through in three steps."""
    rollout = ROLLOUT | {"updates": 1, "passes": 3, "redraws": 1}
    budget = {"steps": 18, "batch_size": 8, "precision": "fp32", "checkpoint_every": 3}
    jobdir = export(tmp_path / "job", world, grpo_recipe(rollout=rollout, budget=budget))
    whole = train(jobdir, tmp_path / "whole", silent)
    there = [sys.executable, "-m", "tapehouse.training", str(jobdir), str(tmp_path / "cut")]
    process = subprocess.Popen(there, env=os.environ | environment(1), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "cut.checkpoints").glob("*/step-*")):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    cut = train(jobdir, tmp_path / "cut", silent)
    assert cut["resumed_at"] in range(3, 18, 3)
    assert cut["digest"] == whole["digest"]
    facts = ("loss", "tokens", "groups_redrawn", "groups_flat")
    assert [cut[fact] for fact in facts] == [whole[fact] for fact in facts]


def test_validation_is_what_the_likeliest_answers_earn(tmp_path, world):
    evaluation = {"every": 2, "rows": 5, "patience": None}
    recipe = grpo_recipe(evaluation=evaluation, budget={"steps": 4, "batch_size": 8, "precision": "fp32"})
    jobdir = export(tmp_path / "job", world, recipe, validation_start=TRAIN_END - timedelta(days=8))
    manifest = train(jobdir, tmp_path / "out", silent)
    told = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    measured = [facts for facts in told if "validation_loss" in facts]
    assert [facts["step"] for facts in measured] == [2, 4]
    # The tiny base writes no order, so that neither form nor evidence earns anything.
    assert manifest["validation_loss"] == 0.0 and manifest["best_step"] == 2


def test_what_is_rewarded_becomes_likelier(tmp_path, world):
    budget = {"steps": 20, "batch_size": 8, "precision": "fp32"}
    trainer = make_trainer(tmp_path, world, budget=budget, adapter={"kind": "full"}, optimiser={"learning_rate": 2.0e-2})
    trainer.train()
    earned = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert earned[-1] > earned[0] + 0.08  # means over ten steps each
