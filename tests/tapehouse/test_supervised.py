"""Batches without padding against whole rows, by hand and against TRL's trainer."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from tapehouse.errors import TapehouseError
from tapehouse.methods.sft import laid_out
from tapehouse.packing import pack_examples
from tapehouse.recipes import parse_recipe
from tapehouse.training.supervised import SupervisedTrainer, batch_rows, collate

VOCABULARY = 64
ARGUMENTS = {
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "max_steps": 4,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "bf16": False,
    "seed": 3,
    "data_seed": 3,
    "dataloader_pin_memory": False,
}


def decoder() -> LlamaForCausalLM:
    """Two layers, two query heads a key head."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, pad_token_id=0, eos_token_id=1, bos_token_id=None)
    )  # fmt: skip


def examples(count: int = 10, seed: int = 0) -> pl.DataFrame:
    """Rows of 8 to 30 tokens, the last 2 to 5 of them learnt."""
    draw = np.random.default_rng(seed)
    lengths, learnt = draw.integers(8, 31, count), draw.integers(2, 6, count)
    ids = [draw.integers(2, VOCABULARY, length).tolist() for length in lengths]
    masks = [[n >= length - last for n in range(length)] for length, last in zip(lengths, learnt, strict=True)]
    return pl.DataFrame(
        {"input_ids": ids, "loss_mask": masks}, schema={"input_ids": pl.List(pl.Int32), "loss_mask": pl.List(pl.Boolean)}
    )


def trainer(tmp_path, rows, **changes) -> SupervisedTrainer:
    arguments = TrainingArguments(
        output_dir=str(tmp_path), **ARGUMENTS | changes, remove_unused_columns=False, include_num_input_tokens_seen="all"
    )
    return SupervisedTrainer(decoder(), rows, args=arguments)


def loss_and_gradients(made, loss) -> tuple[float, dict[str, torch.Tensor]]:
    made.zero_grad()
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in made.named_parameters()}


def test_a_batch_by_hand():
    rows = [
        (np.array([5, 6, 7]), np.array([False, False, True]), np.array([3])),
        (np.array([8, 9, 4, 3]), np.array([True, True, False, True]), np.array([2, 2])),
    ]
    batch = collate(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 4, 3]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1]]
    assert batch["places"].tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert (batch["examples"], batch["longest"]) == (3, 3)
    # Token 8 begins its example: nothing predicts it, though it is marked as learnt.
    assert batch["sources"].tolist() == [1, 3, 5] and batch["labels"].tolist() == [7, 9, 3]


def test_losses_and_gradients_are_those_of_examples_alone(tmp_path):
    frame = examples()
    made = trainer(tmp_path, batch_rows(pack_examples(frame, 64)))
    batch = collate(made.train_dataset)
    learnt = len(batch["labels"])
    loss, gradients = loss_and_gradients(made.model, made.compute_loss(made.model, batch, num_items_in_batch=learnt))
    plain, total = decoder(), 0
    for ids, mask in frame.iter_rows():
        logits = plain(input_ids=torch.tensor([ids])).logits[0, :-1]
        targets = torch.tensor(ids)[1:].masked_fill(~torch.tensor(mask)[1:], -100)
        total = total + torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    expected, wanted = loss_and_gradients(plain, total / learnt)
    assert loss == pytest.approx(expected, rel=1e-6)
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("row_tokens", [None, 64])
def test_every_step_loses_what_trl_loses(tmp_path, row_tokens):
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    words = {"<pad>": 0, "<stop>": 1} | {f"w{n}": n for n in range(2, VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "<pad>")), pad_token="<pad>", eos_token="<stop>"
    )
    frame = examples(16)
    made = trainer(tmp_path, batch_rows(frame if row_tokens is None else pack_examples(frame, row_tokens)))
    config = SFTConfig(
        output_dir=str(tmp_path), **ARGUMENTS, gradient_checkpointing=False, completion_only_loss=True,
        packing=row_tokens is not None, max_length=row_tokens,
    )  # fmt: skip
    rows = [{"input_ids": ids, "completion_mask": [int(m) for m in mask]} for ids, mask in frame.iter_rows()]
    peer = SFTTrainer(decoder(), args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    made.train()
    peer.train()
    ours, theirs = ([entry for entry in t.state.log_history if "loss" in entry] for t in (made, peer))
    assert [e["loss"] for e in ours] == pytest.approx([e["loss"] for e in theirs], abs=1e-5)
    assert [e["num_tokens"] for e in ours] == [e["num_tokens"] for e in theirs]


def test_parts_of_a_batch_lose_what_the_whole_loses(tmp_path):
    rows = batch_rows(examples(16))
    losses = []
    for size, parts in ((4, 1), (1, 4)):  # the mean is over the tokens of a step, however it is cut
        made = trainer(tmp_path, rows, per_device_train_batch_size=size, gradient_accumulation_steps=parts)
        made.train()
        losses.append([entry["loss"] for entry in made.state.log_history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.booleans())
@settings(max_examples=40, deadline=None)
def test_rows_lose_no_token_and_invent_none(lengths, packed):
    ids = [list(range(2, 2 + length)) for length in lengths]
    frame = pl.DataFrame({"input_ids": ids, "loss_mask": [[True] * length for length in lengths]})
    rows = batch_rows(pack_examples(frame, 40) if packed else frame)
    found = [part.tolist() for ids, _, sizes in rows for part in np.split(ids, np.cumsum(sizes)[:-1])]
    assert sorted(found) == sorted(ids)
    batch = collate(rows)
    assert len(batch["labels"]) == sum(lengths) - len(lengths)
    assert len(set(batch["places"].tolist())) == sum(lengths)


def test_a_job_holds_packed_rows_and_refuses_what_they_cannot_hold():
    fields = {
        "name": "t",
        "description": "x",
        "method": "sft",
        "data": {"row_tokens": 64},
        "optimiser": {"learning_rate": 0.01},
        "budget": {"steps": 1, "batch_size": 1},
        "prompt": {"objective": "patient"},
    }
    recipe = parse_recipe(fields, "test")
    laid = laid_out(recipe, examples())
    assert laid["input_ids"].list.len().sum() == examples()["input_ids"].list.len().sum()
    assert laid.height < 10 and laid["input_ids"].list.len().max() <= 64
    assert laid_out(recipe, examples().clear()).is_empty()
    with pytest.raises(TapehouseError, match="no example is cut"):
        laid_out(parse_recipe(fields | {"data": {"row_tokens": 16}}, "test"), examples())
    apart = parse_recipe(fields | {"data": {}}, "test")
    assert laid_out(apart, examples()).equals(examples())
