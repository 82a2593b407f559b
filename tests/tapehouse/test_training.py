import json
import math
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from tapehouse.errors import TapehouseError
from tapehouse.prompts.orders import parse_order, shown_price
from tapehouse.tokens import decode_answer, load_tokenizer, stop_id
from tapehouse.training.__main__ import train
from tapehouse.training.corpus import pretraining_tokens
from tapehouse.training.jobs import export_job, run_job, store_by_digest
from tapehouse.training.manifest import git_state, weights_digest
from tests.tapehouse.training_jobs import (
    PROVENANCE,
    TRAIN_END,
    adapter_recipe,
    dpo_rows,
    export_base,
    make_base,
    make_tokenizer,
    nano_recipe,
    pairs,
    sft_rows,
)


def silent(facts: dict) -> None:
    """Take no notice of progress."""


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Path, Path]:
    """Folders of a tokenizer and of a base."""
    root = tmp_path_factory.mktemp("world")
    make_tokenizer(root / "tokenizer")
    return root / "tokenizer", make_base(root, root / "tokenizer")


def test_the_corpus_knows_no_outcome(world):
    tokenizer = load_tokenizer(world[0])
    section = nano_recipe().corpus
    tokens = pretraining_tokens(pairs(), section, tokenizer, seed=5)
    swapped = pairs().rename({"chosen": "rejected", "rejected": "chosen"})
    assert tokens.equals(pretraining_tokens(swapped, section, tokenizer, seed=5))
    assert tokens["stage"].value_counts(sort=True).rows() == [("copy", 64), ("text", 48)]
    for prompt_ids, answer_ids in tokens.select("prompt_ids", "answer_ids").iter_rows():
        price = shown_price(tokenizer.decode(prompt_ids))
        order = parse_order(decode_answer(tokenizer, answer_ids), price)
        assert order.action == "HOLD" or abs(order.limit_price / price - 1) <= section.farthest_offset + 0.005 / price


def test_rescaled_prices_leave_the_range_of_history(world):
    tokenizer = load_tokenizer(world[0])
    section = nano_recipe(corpus={**nano_recipe().corpus.model_dump(), "rescaled_share": 1.0}).corpus
    tokens = pretraining_tokens(pairs(), section, tokenizer, seed=5).filter(pl.col("stage") == "text")
    prices = [shown_price(tokenizer.decode(ids)) for ids in tokens["prompt_ids"]]
    assert min(prices) < 20 and max(prices) > 200  # history spans 20 to 188


def test_a_process_trains_reports_and_leaves_one_whole_folder(tmp_path, world):
    export_base(tmp_path / "job", world[0])
    reports = []
    manifest = run_job(tmp_path / "job", tmp_path / "out", reports.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job", "out"]
    assert reports[-1] == {"done": True, "digest": manifest["digest"], "wall_s": manifest["wall_s"]}
    assert [report["step"] for report in reports[:-1]] == [10, 12]
    assert reports[1]["tokens_per_s"] > 0 and reports[1]["eta_s"] == 0.0
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["digest"] == weights_digest(tmp_path / "out") == weights_digest(world[1])
    for key in ("recipe_hash", "snapshot", "dataset_digest", "tokenizer_digest", "git_commit", "packages", "cpu", "threads"):
        assert manifest[key]


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_the_same_job_gives_the_same_adapter(tmp_path, world, method):
    rows = sft_rows(world[0]) if method == "sft" else dpo_rows(world[0])
    export_job(tmp_path / "job", adapter_recipe(method), rows, world[1], world[0], 3, PROVENANCE, threads=1)
    first, second = (train(tmp_path / "job", tmp_path / name, silent) for name in ("first", "second"))
    assert first["digest"] == second["digest"]
    assert first["base_digest"] == weights_digest(world[1])
    export_job(tmp_path / "job", adapter_recipe(method), rows, world[1], world[0], 4, PROVENANCE, threads=1)
    assert train(tmp_path / "job", tmp_path / "third", silent)["digest"] != first["digest"]
    config = json.loads((tmp_path / "first" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "nano"
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
        "metrics.jsonl",
    ]


def test_preference_tuning_goes_on_from_its_parent(tmp_path, world):
    sft = adapter_recipe("sft")
    export_job(tmp_path / "job", sft, sft_rows(world[0]), world[1], world[0], 3, PROVENANCE, threads=1)
    parent = train(tmp_path / "job", tmp_path / "parent", silent)
    # One step whose rate is still zero by its warm-up: the adapter that comes out is the parent's, bit for bit.
    still = {"warmup_steps": 1}
    start = {"init_from": sft.name}
    child = adapter_recipe("dpo", model=start, schedule=still, budget={"steps": 1, "batch_size": 2})
    rows = dpo_rows(world[0])
    export_job(tmp_path / "job", child, rows, world[1], world[0], 3, PROVENANCE, 1, init_dir=tmp_path / "parent")
    manifest = train(tmp_path / "job", tmp_path / "child", silent)
    assert manifest["init_digest"] == parent["digest"] == manifest["digest"]
    assert manifest["loss"] == pytest.approx(math.log(2), abs=1e-4)  # the reference is the parent itself
    further = adapter_recipe("dpo", model=start)
    export_job(tmp_path / "job", further, rows, world[1], world[0], 3, PROVENANCE, 1, init_dir=tmp_path / "parent")
    assert train(tmp_path / "job", tmp_path / "further", silent)["digest"] != parent["digest"]
    with pytest.raises(TapehouseError, match="init_from needs the folder of 'tiny_sft'"):
        export_job(tmp_path / "job", further, rows, world[1], world[0], 3, PROVENANCE, 1)


def test_a_job_holds_only_what_was_known_by_the_end_of_training(tmp_path, world):
    rows = sft_rows(world[0])
    export_job(tmp_path / "job", adapter_recipe("sft"), rows, world[1], world[0], 3, PROVENANCE)
    job = json.loads((tmp_path / "job" / "job.json").read_text())
    known = rows.filter(pl.col("label_known_at") < TRAIN_END)
    assert (job["rows"], job["rows_purged"]) == (known.height, rows.height - known.height) == (17, 7)
    assert pl.read_parquet(tmp_path / "job" / "tokens.parquet")["input_ids"].to_list() == known["input_ids"].to_list()
    early = {**PROVENANCE, "train_end": TRAIN_END - timedelta(days=90)}
    with pytest.raises(TapehouseError, match="no example was known before"):
        export_job(tmp_path / "job", adapter_recipe("sft"), rows, world[1], world[0], 3, early)


def test_a_job_lacking_something_is_refused_by_name(tmp_path, world):
    rows = sft_rows(world[0])
    with pytest.raises(TapehouseError, match=r"provenance lacks \['train_end'\]"):
        late = {key: value for key, value in PROVENANCE.items() if key != "train_end"}
        export_job(tmp_path / "job", adapter_recipe("sft"), rows, world[1], world[0], 3, late)
    with pytest.raises(TapehouseError, match=r"lack the columns \['prompt_ids', 'chosen_ids', 'rejected_ids'\]"):
        export_job(tmp_path / "job", adapter_recipe("dpo"), rows, world[1], world[0], 3, PROVENANCE)
    with pytest.raises(TapehouseError, match="needs the folder of its base"):
        export_job(tmp_path / "job", adapter_recipe("sft"), rows, None, world[0], 3, PROVENANCE)


def test_a_failed_process_says_why_and_leaves_the_last_good_model(tmp_path, world):
    export_base(tmp_path / "job", world[0])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text('{"last": "good"}')
    pl.read_parquet(tmp_path / "job" / "tokens.parquet").filter(pl.col("stage") == "copy").write_parquet(
        tmp_path / "job" / "tokens.parquet"
    )
    with pytest.raises(TapehouseError, match="no rows of stage 'text'"):
        run_job(tmp_path / "job", tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").read_text() == '{"last": "good"}'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job", "out"]


def test_a_stored_model_is_named_by_its_digest(tmp_path, world):
    export_base(tmp_path / "job", world[0])
    digest = train(tmp_path / "job", tmp_path / "out", silent)["digest"]
    assert store_by_digest(tmp_path / "out") == tmp_path / digest
    with pytest.raises(TapehouseError, match="materialise the model again"):
        weights_digest(tmp_path / "job")


def test_git_state_outside_a_repository(tmp_path):
    assert git_state(tmp_path) == {"git_commit": None, "git_dirty": None}


def test_answers_are_never_cut_and_end_in_the_stop_token(world):
    tokenizer = load_tokenizer(world[0])
    rows = sft_rows(world[0])
    for ids, length, chosen in zip(rows["input_ids"], rows["prompt_length"], pairs()["chosen"], strict=True):
        assert decode_answer(tokenizer, ids[length:].to_list()) == chosen
        assert ids[-1] == stop_id(tokenizer)
