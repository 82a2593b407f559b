"""Pairs scored by a tiny adapter and by what it started from."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.preferences import (
    KEYS,
    PREFERENCES,
    asked_pairs,
    log_probabilities,
    preference_rows,
    stored_log_probabilities,
)
from tapehouse.tokens import load_tokenizer
from tapehouse.training.__main__ import train
from tapehouse.training.jobs import export_job
from tapehouse.training.lora import load_trained
from tests.tapehouse.training_jobs import PROVENANCE, adapter_recipe, dpo_rows, make_base, make_tokenizer


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folders of a tokenizer, a base and an adapter that learnt to prefer; the pairs' token rows."""
    root = tmp_path_factory.mktemp("world")
    make_tokenizer(root / "tokenizer")
    base = make_base(root, root / "tokenizer")
    rows = dpo_rows(root / "tokenizer").with_columns(placement=pl.lit(1, pl.Int32))
    recipe = adapter_recipe("dpo", budget={"steps": 12, "batch_size": 8})
    export_job(root / "job", recipe, rows, base, root / "tokenizer", 3, PROVENANCE, 1)
    train(root / "job", root / "adapter", lambda facts: None)
    return root / "tokenizer", base, root / "adapter", rows


def scored(world, after, before, rows=None) -> pl.DataFrame:
    tokenizer, base, _, stored = world
    pairs = asked_pairs(stored if rows is None else rows, "f")
    models = (load_trained(base, folder, tokenizer) for folder in (after, before))
    return preference_rows(
        "ours", "f", pairs, *(log_probabilities(model, pairs, load_tokenizer(tokenizer).pad) for model in models)
    )


def test_log_probabilities_are_those_of_each_answer_in_a_row_of_its_own(world):
    tokenizer, base, adapter, rows = world
    found = scored(world, adapter, None)
    assert dict(found.schema) == PREFERENCES and found.height == rows.height
    model = load_trained(base, adapter, tokenizer)
    by_key = rows.sort(KEYS)
    for side in ("chosen", "rejected"):
        for place in (0, 7):
            prompt, answer = by_key["prompt_ids"][place].to_list(), by_key[f"{side}_ids"][place].to_list()
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            told = logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)].sum()
            assert found[f"{side}_logp"][place] == pytest.approx(float(told), abs=1e-3)
            assert found[f"{side}_tokens"][place] == len(answer)


def test_what_training_has_not_touched_prefers_as_before(world):
    untouched = scored(world, None, None)
    assert untouched["chosen_logp"].equals(untouched["chosen_logp_before"], check_names=False)
    trained = scored(world, world[2], None)
    assert trained["chosen_logp_before"].equals(untouched["chosen_logp"], check_names=False)
    gained = trained.select(
        pl.col("chosen_logp") - pl.col("chosen_logp_before") - pl.col("rejected_logp") + pl.col("rejected_logp_before")
    ).to_series()
    # Two thirds of the pairs were learnt from, twice; preferring them is what the loss asks for.
    assert gained.mean() > 0 and (gained > 0).mean() > 0.6


def test_what_a_parent_was_asked_is_what_its_child_starts_from(world):
    parent, pairs = scored(world, world[2], None), asked_pairs(world[3], "f")
    found = preference_rows("child", "f", pairs, np.zeros((pairs.height, 2)), stored_log_probabilities(parent, pairs))
    assert found["chosen_logp_before"].equals(parent["chosen_logp"], check_names=False)
    assert found["rejected_logp_before"].equals(parent["rejected_logp"], check_names=False)
    with pytest.raises(ValueError, match="of 24 pairs not all were asked of ours; make its preferences again"):
        stored_log_probabilities(parent.head(20), pairs)


@settings(max_examples=15)
@given(st.permutations(range(24)), st.integers(1, 30))
def test_which_pairs_are_asked_depends_on_their_keys_alone(world, order, most):
    rows = world[3]
    asked = asked_pairs(rows, "2012-05-29", most)
    assert asked.height == min(most, rows.height)
    assert asked.equals(asked_pairs(rows[list(order)], "2012-05-29", most))
    if most > 1:
        fewer = asked_pairs(rows, "2012-05-29", most - 1)
        assert fewer.join(asked, on=KEYS, how="anti").is_empty()  # a smaller draw is part of a larger one


def test_another_fold_draws_other_pairs(world):
    draws = {tuple(np.sort(asked_pairs(world[3], fold, 8)["decision_at"].to_numpy())) for fold in ("a", "b", "c")}
    assert len(draws) == 3


def test_a_block_without_pairs_has_no_rows_and_one_without_keys_is_refused(world):
    assert scored(world, world[2], None, world[3].clear()).is_empty()
    with pytest.raises((TapehouseError, pl.exceptions.ColumnNotFoundError), match="decision_at"):
        asked_pairs(world[3].drop("decision_at"), "f")
