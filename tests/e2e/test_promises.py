"""Promises 2 and 3 on the real packaged data: nothing from the future, and a partition is a partition."""

import random
from datetime import UTC, date, datetime, timedelta

import duckdb
import polars as pl
import pytest

from tapehouse.building import make_build
from tapehouse.folds import fitting_rows, validation_rows
from tapehouse.frames import normalise
from tapehouse.hashing import frame_hash
from tapehouse.leakage import find_leaks, mutate
from tapehouse.partitions import contiguous
from tapehouse.predictions import judged_rows
from tapehouse.recipes import load_recipes, method_module
from tapehouse.scratch import Frames, build_months, read_raw, rebuild
from tapehouse.training.manifest import files_digest
from tapehouse.warehouse import LAKE
from tests.house import House, copy_project

DECISIONS = ("features.", "labels.", "datasets.")
PAIRS = ["features.price", "features.decision_points", "labels.triple_barrier", "datasets.preference_pairs"]
TOKENS = ["datasets.sft_tokens", "datasets.preference_tokens", "datasets.rl_tokens"]
SHORT_FOLDS = "{min_train_sessions: 50, test_sessions: 15, min_test_sessions: 10, purge_sessions: 2, count: 2}\n"
# The evening before, the morning of and the middle of days with a split, a special dividend, a first trade or a half day.
NAMED_CUTS = [
    datetime(2005, 2, 27, 12, tzinfo=UTC),
    datetime(2005, 2, 28, 5, 0, 0, tzinfo=UTC),  # AAPL 2:1 becomes known at 00:00 in New York
    datetime(2005, 2, 28, 21, 5, tzinfo=UTC),
    datetime(2003, 2, 18, 4, 59, 59, tzinfo=UTC),
    datetime(2003, 2, 18, 18, tzinfo=UTC),
    datetime(2004, 11, 12, 21, 4, tzinfo=UTC),
    datetime(2004, 11, 15, 15, tzinfo=UTC),
    datetime(2004, 8, 19, 21, tzinfo=UTC),
    datetime(2004, 11, 26, 18, 3, tzinfo=UTC),
]


# ---------------------------------------------------------------------- promise 3


def test_months_in_any_order_and_in_one_range_are_the_same_tables(tmp_path):
    copy_project(tmp_path / "home", date(2004, 12, 1), date(2005, 4, 1), SHORT_FOLDS)
    whole = House(tmp_path / "home", tmp_path / "whole")
    whole.make_data()
    pieces = House(tmp_path / "home", tmp_path / "pieces")
    rng = random.Random(1)
    for name in pieces.data_assets():
        asset = pieces.project.assets[name]
        parts = list(pieces.project.partitions(asset))
        if asset.by == "months":
            # One range of two months among singles, all in an order that no calendar has.
            batches = [[parts[0]], parts[1:3], [parts[3]]]
            rng.shuffle(batches)
        else:
            batches = [parts]
        for batch in batches:
            assert not pieces.make(name, batch).failed
    assert {k: m.out_hash for k, m in pieces.state().items()} == {k: m.out_hash for k, m in whole.state().items()}
    for name in (*PAIRS, *TOKENS):
        rows = whole.frame(name)
        assert rows.height > 50
        assert frame_hash(rows) == frame_hash(pieces.frame(name)), name


def test_build_functions_over_any_range_give_the_rows_of_the_stored_table(real):
    rng = random.Random(2)
    for asset in real.monthly(*DECISIONS, "staging."):
        table = real.project.tables[asset.outputs[0].table]
        stored = real.frame(table.name)
        for _ in range(3):
            first, last = sorted(rng.sample(real.project.months, 2))
            start, end = real.project.span(first, last)
            if asset.name not in TOKENS and rng.random() < 0.7:  # token tables are made of whole months
                start, end = start + timedelta(hours=rng.randrange(700)), end - timedelta(minutes=rng.randrange(30_000))
            months = [m for m in real.project.months if first <= m <= last]
            with real.warehouse.reading() as (cursor, _):
                build = make_build(real.project, asset, months, cursor)
                build.start, build.end = start, end
                made = asset.build(build)
                # Some give what they refuse beside their rows.
                found = normalise(table, made[table.name] if isinstance(made, dict) else made, asset.name)
            wanted = stored.filter(pl.col(table.time).is_between(start, end, closed="left"))
            assert frame_hash(found) == frame_hash(wanted), f"{asset.name} from {start} to {end}"


def test_single_months_hash_as_they_did_in_the_range(real):
    rng, state = random.Random(3), real.state()
    for asset in real.monthly(*DECISIONS):
        for month in rng.sample(real.project.months, 2):
            outcome = real.make(asset.name, [month])
            assert [(p.partition, p.out_hash, p.changed) for p in outcome.outputs[0].made] == [
                (month, state[asset.name, month].out_hash, False)
            ]


def test_a_rebuild_in_memory_gives_the_stored_rows(real):
    for first, last in (("2002-11-01", "2003-02-01"), ("2005-01-01", "2005-06-01")):
        raw = _raw(real, [*PAIRS, *TOKENS], first, last)
        start, end = real.project.span(first, last)
        frames = rebuild(real.project, raw, [*PAIRS, *TOKENS], first, last)
        for name in (*PAIRS, *TOKENS):
            found = frames[name].filter(pl.col("decision_at").is_between(start, end, closed="left"))
            assert frame_hash(found) == frame_hash(real.frame(name, start, end)), name


# ---------------------------------------------------------------------- promise 2


def test_no_row_decided_before_a_cut_depends_on_what_was_known_after_it(real):
    rng = random.Random(4)
    start, end = real.settings.universe.start, real.settings.universe.end
    drawn = [start + timedelta(seconds=rng.randrange(int((end - start).total_seconds()))) for _ in range(4)]
    for seed, cut in enumerate([*NAMED_CUTS, *drawn]):
        month = cut.date().replace(day=1).isoformat()
        raw = _raw(real, PAIRS, max(_months_before(month, 2), real.project.months[0]), month)
        assert [str(leak) for leak in find_leaks(real.project, raw, PAIRS, cut, seed, _stored(real))] == []


def test_actions_derived_from_bars_do_not_depend_on_what_was_known_later(real):
    """The leakage proof starts from raw rows; this is the one raw table that is made from another."""
    asset, table = real.project.assets["raw.corporate_actions"], real.project.tables["raw.corporate_actions"]
    months = real.project.months
    for seed, cut in enumerate(NAMED_CUTS):
        raw = _raw(real, ["features.price"], months[0], months[-1])
        bars = mutate(raw, cut, seed)["raw.bars"]
        con = duckdb.connect()
        con.execute(f"attach ':memory:' as {LAKE}; use {LAKE}; create schema raw; set timezone = 'UTC'")
        for name, rows in (("raw.bars", bars), ("raw.corporate_actions", raw["raw.corporate_actions"].clear())):
            con.register("incoming", rows.to_arrow())
            con.execute(f"create table {name} as select * from incoming")
        columns = ", ".join(f"{name} {kind}" for name, kind in real.project.tables["raw.quarantine"].types.items())
        con.execute(f"create table raw.quarantine ({columns})")
        derived = build_months(real.project, asset, con, months[0], months[-1])[table.name]
        con.close()
        # Of an action on the day of the cut itself the bar that shows it is not known yet, though the action is.
        decided = (pl.col("known_at") <= cut) & (pl.col("ex_date") < cut.date())
        before, after = (rows.filter(decided).drop("ingested_at") for rows in (raw[table.name].sort(table.doc.grain), derived))
        assert frame_hash(before) == frame_hash(after), cut
        assert before.height > 0 or cut < datetime(2003, 2, 19, tzinfo=UTC)


def test_what_is_fitted_for_a_fold_does_not_see_past_what_it_is_fitted_on(real, tmp_path):
    fold = real.project.folds[min(real.project.folds_of("adapter_folds"))]
    recipes = load_recipes(real.home / "models_registry/adapters")
    before, after = _two_worlds(real, [*PAIRS[1:3], *TOKENS], cut=fold.validation_start, seed=5)

    # The tokenizer, and the rows that an adapter trains on, which `export_job` cuts at the start of the validation tail.
    assert real.project.first_fitted_until == fold.validation_start
    assert before["models.tokenizer"]["tokenizer"].to_list() == after["models.tokenizer"]["tokenizer"].to_list()
    for name in ("sft_orders", "dpo_orders"):
        kind = recipes[name]
        chosen = [fitting_rows(world[kind.tokens], fold, kind.known_at) for world in (before, after)]
        assert chosen[0].height > 1000
        assert frame_hash(chosen[0]) == frame_hash(chosen[1])
        assert frame_hash(before[kind.tokens]) != frame_hash(after[kind.tokens])

    # Classical models, fitted on what they declare to read; their answers do not depend on what comes later either.
    window = pl.col("decision_at") < fold.train_end
    middle = fold.test_start + (fold.test_end - fold.test_start) / 2
    worlds = _two_worlds(real, PAIRS[1:2], cut=middle, seed=7)
    for recipe in (recipes["gbm"], recipes["linear"]):
        method, folders = method_module(recipe.method), [tmp_path / f"{recipe.name}{number}" for number in range(2)]
        fits = []
        for folder, world in zip(folders, (before, after), strict=True):
            folder.mkdir()
            fits.append(method.fit(recipe, {name: world[name].filter(window) for name in PAIRS[1:3]}, fold, folder))
        assert fits[0] == fits[1] and fits[0]["rows"] > 500
        assert files_digest(folders[0]) == files_digest(folders[1])
        asked = ({PAIRS[1]: judged_rows(world[PAIRS[1]], fold)} for world in worlds)
        answers = [method.predict(recipe, inputs, fold, folders[0]).filter(pl.col("decision_at") < middle) for inputs in asked]
        assert answers[0].height > 100
        assert frame_hash(answers[0]) == frame_hash(answers[1])

    # What calibrates was known before the test block.
    before, after = _two_worlds(real, PAIRS[1:3], cut=fold.test_start, seed=6)
    tails = [validation_rows(world[PAIRS[2]], fold) for world in (before, after)]
    assert tails[0].height > 100
    assert frame_hash(tails[0]) == frame_hash(tails[1])


@pytest.mark.parametrize("month", ["2003-02-01", "2005-02-01"])
def test_another_future_changes_what_comes_after(real, month):
    cut = datetime.fromisoformat(month).replace(day=12, tzinfo=UTC)
    raw = _raw(real, PAIRS, month, month)
    changed = rebuild(real.project, mutate(raw, cut, 8), PAIRS, month, month)
    start, end = max(cut, real.project.span(month, month)[0]), real.project.span(month, month)[1]
    late = pl.col("decision_at").is_between(start, end)
    for name in PAIRS:
        assert frame_hash(changed[name].filter(late)) != frame_hash(real.frame(name).filter(late)), name


# ---------------------------------------------------------------------- helpers


def _raw(house: House, targets: list[str], first: str, last: str) -> Frames:
    with house.warehouse.reading() as (cursor, _):
        return read_raw(cursor, house.project, targets, first, last)


def _stored(house: House):
    return lambda name, first, last: house.frame(name, *house.project.span(first, last))


def _months_before(month: str, count: int) -> str:
    at = date.fromisoformat(month)
    for _ in range(count):
        at = (at - timedelta(days=1)).replace(day=1)
    return at.isoformat()


def _two_worlds(house: House, targets: list[str], cut: datetime, seed: int) -> tuple[Frames, Frames]:
    """The stored tables, and the same rebuilt from a market that went another way after the cut."""
    months = house.project.months
    raw = _raw(house, targets, months[0], months[-1])
    ((first, last),) = contiguous("months", months)
    changed = rebuild(house.project, mutate(raw, cut, seed), targets, first, last)
    stored = {name: house.frame(name) for name in {*targets, "models.tokenizer"}}
    return stored, changed
