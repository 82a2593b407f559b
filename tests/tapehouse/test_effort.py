"""What answering took, kept in lines beside the tables."""

from time import perf_counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.inference.asking import predict
from tapehouse.inference.effort import EFFORTS, Effort, efforts, record_effort
from tapehouse.inference.families import FAMILIES
from tapehouse.inference.generation import generate
from tapehouse.tokens import encode_answers, encode_prompts, load_tokenizer
from tapehouse.training.lora import load_trained
from tests.tapehouse.training_jobs import make_base, make_tokenizer, pairs

BATCH = st.tuples(st.integers(1, 200), st.integers(1, 5000), st.integers(1, 5000), st.floats(0.001, 100))


def test_figures_on_paper():
    effort, alone = Effort(), Effort()
    effort.add(3, 300, 30, 2.0)
    effort.add(1, 100, 10, 4.0)
    for seconds in (0.1, 0.3, 0.2):
        alone.add(1, 100, 10, seconds)
    found = effort.figures(alone)
    assert (found["answers"], found["prompt_tokens"], found["answer_tokens"], found["wall_s"]) == (4, 400, 40, 6.0)
    assert found["answers_per_s"] == pytest.approx(4 / 6) and found["answer_tokens_per_s"] == pytest.approx(40 / 6)
    assert found["wait_s_median"] == 2.0  # of waits 2, 2, 2 and 4
    assert found["wait_s_p95"] == pytest.approx(3.7) and found["batch"] == 3 and found["alone_s_median"] == 0.2


@given(st.lists(BATCH, min_size=1, max_size=8))
def test_answers_a_second_times_the_seconds_are_the_answers(batches):
    found = Effort(batches).figures()
    assert found["answers_per_s"] * found["wall_s"] == pytest.approx(found["answers"])
    assert min(batch[3] for batch in batches) <= found["wait_s_median"] <= found["wait_s_p95"]
    assert found["wait_s_p95"] <= max(batch[3] for batch in batches) * (1 + 1e-12) and "alone_s_median" not in found


def test_the_latest_line_of_each_fold_is_read_and_a_torn_one_is_not(tmp_path):
    assert efforts(tmp_path).is_empty() and dict(efforts(tmp_path).schema) == EFFORTS
    for adapter, fold, seconds in (("a", "f", 1.0), ("a", "g", 2.0), ("a", "f", 3.0), ("b", "f", 4.0)):
        effort = Effort([(2, 20, 4, seconds)])
        record_effort(tmp_path, adapter, fold, effort.figures(), mode="generate", device="cpu", threads=1, run_id="r")
    with (tmp_path / "answers" / "a.jsonl").open("a") as file:
        file.write('{"adapter": "a", "fold": "f", "wa')  # a run that was killed while it wrote
    found = efforts(tmp_path)
    assert dict(found.schema) == EFFORTS
    assert found.select("adapter", "fold", "wall_s").rows() == [("a", "f", 3.0), ("a", "g", 2.0), ("b", "f", 4.0)]
    assert efforts(tmp_path, "b").height == 1 and efforts(tmp_path, "c").is_empty()


def test_a_block_without_questions_took_nothing(tmp_path):
    record_effort(tmp_path, "a", "f", Effort().figures())
    assert efforts(tmp_path).row(0, named=True)["answers_per_s"] is None


def test_every_way_of_answering_tells_its_tokens(tmp_path):
    make_tokenizer(tmp_path / "tokenizer")
    vocabulary = load_tokenizer(tmp_path / "tokenizer")
    model = load_trained(make_base(tmp_path, tmp_path / "tokenizer"), None, tmp_path / "tokenizer")
    prompts, family = pairs()["prompt"].to_list()[:5], FAMILIES["order"]
    asked = sum(map(len, encode_prompts(vocabulary, prompts)))
    effort, started = Effort(), perf_counter()
    written = generate(model, vocabulary, prompts, 8, batch=2, effort=effort)
    assert effort.figures()["wall_s"] < perf_counter() - started
    assert [batch[0] for batch in effort.batches] == [2, 2, 1]
    assert effort.figures()["prompt_tokens"] == asked and effort.figures()["answer_tokens"] == sum(map(len, written.ids))
    points = pl.DataFrame({"rsi_14": [55.0] * 5, "ret_20d": [0.02] * 5, "realised_vol_20d": [0.25] * 5})
    choices = family.choices(points, pl.Series(prompts), "order_v2")
    scored = Effort()
    predict(model, vocabulary, prompts, mode="score", choices=choices, effort=scored)
    texts = [choice.texts[action] for choice in choices for action in family.class_of]
    assert scored.figures()["answers"] == 5 and scored.figures()["prompt_tokens"] == asked
    assert scored.figures()["answer_tokens"] == sum(map(len, encode_answers(vocabulary, texts)))  # all that were weighed
