"""Token tables of the real data: whole texts in every row, and staleness by tokenizer and template, no more and no less."""

from dataclasses import replace

import duckdb
import polars as pl
import pytest
import yaml

from tapehouse.declarations import load_project
from tapehouse.lineage import stale
from tapehouse.partitions import key_start
from tapehouse.scratch import build_months
from tapehouse.settings import load_settings
from tapehouse.tokens import as_transformers, decode_answer, load_tokenizer, stored_tokenizer_path
from tapehouse.vocabularies import PAD, STOP, train_tokenizer
from tapehouse.warehouse import LAKE
from tests.house import House, copy_project

MONTHLY = ("datasets.sft_tokens", "datasets.preference_tokens", "datasets.rl_tokens")
KEY = ["symbol", "interval", "decision_at"]
MONTH = "2004-03-01"


@pytest.fixture(scope="module")
def tokenizer_folder(real):
    return stored_tokenizer_path(real.frame("models.tokenizer"), real.settings.root)


def test_every_row_is_a_whole_prompt_and_a_whole_answer(real, tokenizer_folder):
    tokenizer, served = load_tokenizer(tokenizer_folder), as_transformers(tokenizer_folder)
    tokens, pairs = real.frame("datasets.sft_tokens"), real.frame("datasets.preference_pairs")
    prompts = pairs.select(*KEY, "objective", "prompt").unique([*KEY, "objective"])
    agent = real.frame("datasets.instructions").select(*KEY, "prompt", said="answer")
    orders = tokens.filter(dataset="orders").join(prompts, on=[*KEY, "objective"], how="left")
    trader = tokens.filter(dataset="instructions").join(agent, on=KEY, how="left")
    assert orders.height > 500 and trader.height == agent.height
    for row in [*orders.gather_every(29).iter_rows(named=True), *trader.gather_every(29).iter_rows(named=True)]:
        ids, length = row["input_ids"], row["prompt_length"]
        assert tokenizer.decode(ids[:length]) == row["prompt"]
        assert ids[:length] == served(row["prompt"])["input_ids"]
        answer = decode_answer(tokenizer, ids[length:])
        assert answer.startswith(row["action"]) and answer == row.get("said", answer)
        assert ids.count(tokenizer.stop) == 1 and tokenizer.pad not in ids
        assert row["loss_mask"] == [place >= length for place in range(len(ids))]
    preferred = real.frame("datasets.preference_tokens").join(pairs, on=[*KEY, "objective", "placement"]).gather_every(37)
    for row in preferred.iter_rows(named=True):
        assert row["prompt_ids"] == served(row["prompt"])["input_ids"]
        assert decode_answer(tokenizer, row["chosen_ids"]) == row["chosen"]
        assert decode_answer(tokenizer, row["rejected_ids"]) == row["rejected"]
    asked = real.frame("datasets.rl_tokens").join(real.frame("datasets.rl_prompts"), on=[*KEY, "family", "objective"])
    assert asked.height == real.frame("datasets.rl_prompts").height
    for row in asked.gather_every(97).iter_rows(named=True):
        assert row["prompt_ids"] == served(row["prompt"])["input_ids"]


def test_a_new_tokenizer_makes_every_token_partition_stale_and_nothing_else(real):
    state = real.state()
    state[("models.tokenizer", "")] = replace(state[("models.tokenizer", "")], out_hash="another")
    found = {(s.asset, s.partition) for s in stale(real.project, state, [*MONTHLY, *_datasets(real)])}
    assert found == {(name, month) for name in MONTHLY for month in real.project.months}


def test_a_new_template_reaches_its_own_family_and_the_tokens_made_of_it(real, tmp_path):
    home = copy_project(tmp_path / "home", real.settings.universe.start.date(), real.settings.universe.end.date())
    declared = yaml.safe_load((home / "prompts.yaml").read_text())
    declared["agent"]["mask"] = ["names"]
    (home / "prompts.yaml").write_text(yaml.safe_dump(declared))
    changed = load_project(load_settings(home, warehouse=real.settings.root, threads=1))
    names = [*MONTHLY, *_datasets(real), "models.tokenizer"]
    direct = {(s.asset, s.partition) for s in stale(changed, real.state(), names)}
    assert direct == {("datasets.instructions", month) for month in changed.months}
    # Once a month of them has come out different, it is that month's tokens, and the tokenizer where it had read it.
    state = real.state()
    state[("datasets.instructions", MONTH)] = replace(state[("datasets.instructions", MONTH)], out_hash="another")
    behind = {(s.asset, s.partition) for s in stale(real.project, state, names)}
    read = {("models.tokenizer", "")} if key_start(MONTH) < real.project.first_fitted_until else set()
    assert behind == {("datasets.sft_tokens", MONTH)} | read


def test_a_tokenizer_without_room_drops_optional_lines_first_and_then_refuses(real, tmp_path):
    months = {
        name: _month(real, name) for name in ("datasets.preference_pairs", "labels.triple_barrier", "datasets.instructions")
    }
    texts = (months["datasets.instructions"]["prompt"] + months["datasets.instructions"]["answer"]).to_list()
    longest = real.frame("datasets.sft_tokens").filter(dataset="instructions")["input_ids"].list.len().max()
    made = {}
    for room in (longest - 8, 40):
        digest = train_tokenizer(texts, tmp_path / str(room), max_length=room)
        stored = real.frame("models.tokenizer").with_columns(tokenizer=pl.lit(digest), path=pl.lit(str(tmp_path / str(room))))
        made[room] = _built(real, months | {"models.tokenizer": stored}, "datasets.sft_tokens")
    rows, refused = made[longest - 8]["datasets.sft_tokens"], made[longest - 8]["raw.quarantine"]
    # Orders leave more free than their answers need, which this tokenizer has not: they are refused, the agent's are not.
    assert rows.filter(pl.col("dataset") == "instructions").filter(pl.col("lines_dropped") > 0).height > 0
    assert refused["origin"].str.starts_with("datasets.preference_pairs ").all()
    rows, refused = made[40]["datasets.sft_tokens"], made[40]["raw.quarantine"]
    assert rows.height == 0 and refused.height == real.frame("datasets.sft_tokens").filter(_in_month()).height
    assert (
        set(refused["table_name"]) == {"datasets.sft_tokens"}
        and refused["filed_at"].is_in(_month(real, "datasets.instructions")["decision_at"].implode()).any()
    )


def test_stop_and_pad_are_the_declared_ones(real, tokenizer_folder):
    tokenizer, row = load_tokenizer(tokenizer_folder), real.frame("models.tokenizer").row(0, named=True)
    assert (row["stop_id"], row["pad_id"]) == (tokenizer.token_to_id(STOP), tokenizer.token_to_id(PAD))
    assert row["vocabulary"] == tokenizer.get_vocab_size() and row["markers"] == len(tokenizer.markers)


def _datasets(house: House) -> list[str]:
    return ["datasets.preference_pairs", "datasets.instructions", "datasets.rl_prompts"]


def _in_month() -> pl.Expr:
    return pl.col("decision_at").dt.truncate("1mo").dt.date().cast(pl.String) == MONTH


def _month(house: House, name: str) -> pl.DataFrame:
    return house.frame(name).filter(_in_month())


def _built(house: House, frames: dict[str, pl.DataFrame], name: str) -> dict[str, pl.DataFrame]:
    """What an asset's build returns for the month when it reads these rows."""
    con = duckdb.connect(config={"threads": 1})
    con.execute(f"attach ':memory:' as {LAKE}; use {LAKE}; set timezone = 'UTC'")
    for table in (*frames, "raw.quarantine"):
        body = ", ".join(f'"{column}" {kind}' for column, kind in house.project.tables[table].types.items())
        con.execute(f"create schema if not exists {LAKE}.{table.split('.')[0]}; create table {LAKE}.{table} ({body})")
        if table in frames:
            con.register("incoming", frames[table].to_arrow())
            con.execute(f"insert into {LAKE}.{table} by name select * from incoming")
    return build_months(house.project, house.project.assets[name], con, MONTH, MONTH)
