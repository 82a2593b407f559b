"""Staleness: what is made again after a change, and what is left alone."""

from dataclasses import replace
from datetime import date
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.declarations import load_project
from tapehouse.errors import TapehouseError
from tapehouse.lineage import Made, Stale, in_hash, newest_state, read_state, require_upstream, stale
from tapehouse.partitions import contiguous
from tapehouse.planning import next_wave
from tapehouse.project import ONCE
from tapehouse.recipe_sections import LanguageRecipe
from tapehouse.recipes import FOLDER, load_recipes
from tapehouse.settings import load_settings
from tests.house import TOY_MONTHS, House, copy_project, set_span, toy_project

JAN, FEB, MAR, APR, MAY, JUN = TOY_MONTHS
CHAIN = ["raw.ticks", "staging.ticks", "features.change", "features.whole", "labels.dear", "reports.totals"]


@pytest.fixture
def made(toy):
    toy.refresh()
    return toy


def set_price(house: House, day: str, price: str) -> None:
    lines = (house.home / "ticks.csv").read_text().splitlines()
    prefix = f"AAA,{day}T21:00:00Z,"
    edited = [",".join([*line.split(",")[:3], price]) if line.startswith(prefix) else line for line in lines]
    assert edited != lines
    (house.home / "ticks.csv").write_text("\n".join(edited) + "\n")


def test_everything_is_missing_at_first_and_nothing_is_stale_after(toy):
    assert {s.why for s in stale(toy.project, toy.state())} == {"missing"}
    made = toy.refresh()
    assert len(made) == len(set(made)) == 6 * 6 + 1
    assert toy.refresh() == []
    # Another process reads the same from the same files.
    assert House(toy.home).refresh() == []


def test_a_changed_query_makes_only_what_depends_on_it(made):
    made.edit("sql/features/whole.sql", "floor(price)", "floor(price) + 1")
    made.reload()
    assert {(s.asset, s.why) for s in stale(made.project, made.state())} == {("features.whole", "code")}
    assert {name for name, _ in made.refresh()} == {"features.whole", "labels.dear"}


def test_a_comment_or_layout_makes_nothing(made):
    made.edit(
        "sql/features/whole.sql",
        "-- One row per (symbol, decision_at): the price",
        "-- One row per (symbol, decision_at): price",
    )
    made.edit("sql/features/whole.sql", "where decision_at >=", "where\n    -- the range\n    decision_at >=")
    made.reload()
    assert made.refresh() == []


def test_rows_that_come_out_the_same_stop_it_from_spreading(made):
    made.edit("sql/staging/ticks.sql", "where event_at >= $start", "where event_at >= $start and price is not null")
    made.reload()
    assert made.refresh() == [("staging.ticks", month) for month in TOY_MONTHS]


def test_what_is_kept_between_looks_is_what_a_first_look_finds(made):
    set_price(made, "2005-03-25", "12.9")
    waves = 0
    while True:
        with made.warehouse.reading() as (cursor, snapshot):
            state = newest_state(made.warehouse, cursor, snapshot)
            assert state == read_state(cursor)
        found = stale(made.project, state)
        assert found == stale(load_project(made.settings), state)
        wave = next_wave(made.project, found)
        if wave is None:
            break
        waves += 1
        for name in wave.assets:
            assert not made.make(name, wave.partitions(made.project)).failed
    assert waves > 2
    # What another process has written, or the outside has changed back, is seen as well.
    House(made.home).make("features.whole", [FEB])
    with made.warehouse.reading() as (cursor, snapshot):
        assert newest_state(made.warehouse, cursor, snapshot) == read_state(cursor)
    set_price(made, "2005-03-25", "13.0")
    assert stale(made.project, made.state()) == [Stale("raw.ticks", MAR, "inputs")]


def test_a_correction_makes_the_months_whose_window_covers_it(made):
    set_price(made, "2005-03-25", "12.9")
    again = made.refresh()
    assert set(again) == {
        ("raw.ticks", MAR),
        ("staging.ticks", MAR),
        ("features.cents", MAR),
        ("features.change", MAR),
        ("features.change", APR),  # looks back one month
        ("features.whole", MAR),
        ("features.whole", APR),
        ("reports.totals", ONCE),
    }
    assert len(again) == 8
    # 12.5 became 12.9: whole units came out the same, so the label behind them was left alone.


def test_a_late_row_is_a_row_of_the_month_that_it_is_about(made):
    lines = (made.home / "ticks.csv").read_text()
    (made.home / "ticks.csv").write_text(lines + "CCC,2005-01-07T21:00:00Z,2005-01-27T21:00:00Z,1.0\n")
    again = made.refresh()
    assert again[0] == ("raw.ticks", JAN)
    assert {month for name, month in again if name == "features.change"} == {JAN, FEB}


def test_a_changed_contract_judges_the_rows_again(made):
    made.edit("checks/staging/ticks.yaml", "min_value: 0,", "min_value: 0.5,")
    made.reload()
    assert made.refresh() == [("staging.ticks", month) for month in TOY_MONTHS]


def test_words_about_columns_and_quality_make_nothing(made):
    made.edit("checks/staging/ticks.yaml", "Price paid.", "What was paid.")
    made.edit("checks/staging/ticks.yaml", "max_value: 500", "max_value: 600")
    made.reload()
    assert made.refresh() == []


def test_a_new_column_is_in_every_row_after_one_refresh(made):
    made.edit("sql/staging/ticks.sql", "price\n", "price, price * 2 as twice\n")
    made.reload()
    assert {name for name, _ in made.refresh()} >= {"staging.ticks"}
    assert made.rows("select count(*), count(twice), max(twice - 2 * price) from staging.ticks") == [(36, 36, 0.0)]


def test_a_new_file_makes_itself_alone(made):
    made.write(
        "sql/features/half.sql",
        """
        -- One row per (symbol, decision_at): half of the price.
        select symbol, decision_at, price / 2 as half
        from features.change
        where decision_at >= $start and decision_at < $end
        """,
    )
    made.reload()
    assert made.refresh() == [("features.half", month) for month in TOY_MONTHS]


def test_a_new_month_makes_itself_and_what_looks_ahead_into_it(made):
    made.write(
        "sql/labels/later.sql",
        """
        -- One row per (symbol, decision_at): the price of the tick after.
        -- lookahead: 1 months
        with

        ticks as (
            select symbol, decision_at, lead(price) over (partition by symbol order by decision_at) as next_price
            from features.change
        )

        select symbol, decision_at, next_price
        from ticks
        where decision_at >= $start and decision_at < $end
        """,
    )
    made.reload()
    assert made.refresh() == [("labels.later", month) for month in TOY_MONTHS]
    assert made.rows("select count(*) from labels.later where next_price is null") == [(2,)]
    with (made.home / "ticks.csv").open("a") as file:
        file.write("AAA,2005-07-05T21:00:00Z,2005-07-05T21:00:00Z,40.0\n")
    set_span(made.home, date(2005, 1, 1), date(2005, 8, 1))
    project = made.reload()
    new = project.months[-1]
    assert new == "2005-07-01"
    assert set(made.refresh()) == {
        *((asset.name, new) for asset in project.assets.values() if asset.by == "months"),
        ("labels.later", JUN),
        ("reports.totals", ONCE),
    }
    last = (
        "select next_price from labels.later where symbol = 'AAA' and month(decision_at) = 6 order by decision_at desc limit 1"
    )
    assert made.rows(last) == [(40.0,)]


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    """A copy of the real project, and books that say that all of it is made, though nothing is."""
    home = copy_project(tmp_path_factory.mktemp("books") / "home", date(2002, 11, 1), date(2005, 7, 1))
    project = load_project(load_settings(home))
    state = {}
    for asset in project.assets.values():  # upstream first, so that each sees the hashes before it
        for partition in project.partitions(asset):
            made = Made(1, f"rows of {asset.name}", in_hash(project, asset, partition, state), asset.code_version, 1)
            state |= {(output.asset, partition): made for output in asset.outputs}
    assert stale(project, state) == []
    return home, state


def stale_after(books, path: str, old: str, new: str) -> set[tuple[str, str]]:
    """(asset, why) of what is stale once `old` has become `new` in one file of the project."""
    home, state = books
    file = home / path
    text = file.read_text()
    assert text.count(old) == 1
    try:
        file.write_text(text.replace(old, new))
        return {(s.asset, s.why) for s in stale(load_project(load_settings(home)), state)}
    finally:
        file.write_text(text)


def test_another_span_makes_the_folds_and_splits_again(books):
    span = "span: {start: 2002-11-01, end: 2005-07-01}"
    found = stale_after(books, "sources.yaml", span, span.replace("2005-07-01", "2005-08-01"))
    assert {("models.folds", "inputs"), ("models.splits", "inputs")} <= found


def test_a_changed_recipe_touches_its_own_assets_and_those_of_recipes_around_it(books):
    kinds = ("models", "models.predictions", "reports.evaluations", "reports.backtests")
    examined = {f"reports.{kind}.{name}" for kind in ("importance", "paths") for name in ("gbm", "gbm_shuffled")}
    for name, around, more in (
        ("gbm", ("auditor", "gbm_shuffled"), examined),
        ("dpo_orders", (), {"models.preferences.dpo_orders"}),
    ):
        found = stale_after(books, f"models_registry/adapters/{name}.yaml", "seed: 7", "seed: 8")
        own = {f"{kind}.{one}" for one in (name, *around) for kind in kinds} | more | {f"reports.pages.{name}"}
        assert found == {(asset, "code") for asset in own}
    # A description is shown on the page, and nowhere else.
    described = stale_after(books, "models_registry/adapters/gbm.yaml", "description: Gradient", "description: A gradient")
    assert described == {("reports.pages.gbm", "code")}


def test_declarations_that_tables_follow_are_part_of_their_version(books):
    found = stale_after(books, "objectives.yaml", "near_tie_bps: 5.0", "near_tie_bps: 6.0")
    # What answers were paid is among their evaluations.
    judged = {(name, why) for name, why in found if name.startswith("reports.evaluations.")}
    assert {name for name, _ in judged} >= {"reports.evaluations.sft_orders", "reports.evaluations.momentum"}
    assert found - judged == {
        ("datasets.preference_pairs", "code"),
        ("datasets.rl_prompts", "code"),
        ("reports.base_form", "code"),
        ("reports.pair_diagnostics", "code"),
    }
    assert stale_after(books, "models_registry/base/nano.yaml", "seed: 7", "seed: 8") == {("models.nano", "code")}


def asked_in(books, family: str) -> set[str]:
    """The predictions of adapters that are asked with prompts of a family."""
    recipes = load_recipes(books[0] / FOLDER).values()
    asked = [r for r in recipes if isinstance(r, LanguageRecipe) and r.predicts and r.family == family]
    assert asked
    return {f"models.predictions.{r.name}" for r in asked}


def test_another_template_or_mask_makes_its_own_family_stale(books):
    found = stale_after(books, "prompts.yaml", "order_v2, mask: []", "order_v2, mask: [names]")
    assert {asset for asset, _ in found} == {
        "datasets.preference_pairs",
        "datasets.rl_prompts",
        *asked_in(books, "order"),
        "reports.base_form",
    }
    assert ("datasets.preference_pairs", "inputs") in found
    found = stale_after(books, "prompts.yaml", "agent_v1, mask: []", "agent_v1, mask: [dates]")
    assert found == {("datasets.instructions", "inputs"), *((name, "code") for name in asked_in(books, "agent"))}
    found = stale_after(books, "prompts.yaml", "thesis_v1, mask: []", "thesis_v1, mask: [names]")
    rendered = {(name, "inputs") for name in ("datasets.theses", "datasets.rl_prompts", "models.tokenizer")}
    assert found == rendered | {(name, "code") for name in asked_in(books, "thesis")}


@pytest.mark.parametrize(
    ("table", "month", "readers"),
    [
        (
            "staging.bars",
            "2004-03-01",
            {
                "features.price": ("2004-03-01", "2005-06-01"),  # 33 months, of which the span has 16
                "labels.triple_barrier": ("2004-02-01", "2004-03-01"),  # looks ahead
                "datasets.preference_pairs": ("2004-02-01", "2004-03-01"),
            },
        ),
        (
            "features.price",
            "2004-03-01",
            {
                "features.decision_points": ("2004-03-01", "2004-04-01"),  # the market's last row of the month before
                "labels.triple_barrier": ("2004-03-01", "2004-03-01"),
            },
        ),
    ],
)
def test_a_correction_of_one_month_makes_the_months_whose_window_covers_it(books, table, month, readers):
    home, state = books
    project = load_project(load_settings(home))
    corrected = state | {(table, month): replace(state[table, month], out_hash="corrected")}
    months: dict[str, list[str]] = {}
    for item in stale(project, corrected):
        assert item.why == "inputs"
        if project.assets[item.asset].by == "months":
            months.setdefault(item.asset, []).append(item.partition)
    assert {name: (months[name][0], months[name][-1]) for name in readers} == readers
    direct = {a.name for a in project.assets.values() if a.by == "months" and table in [r.table for r in a.reads]}
    assert set(months) == direct | readers.keys()  # these, and what lies behind them only once they have come out different
    assert all(len(contiguous("months", found)) == 1 for found in months.values())


# ---------------------------------------------------------------------- upstream


def test_the_window_of_a_month_is_clipped_to_the_span(toy):
    change = toy.project.assets["features.change"]
    assert toy.project.upstream(change, JAN) == [("staging.ticks", JAN)]
    assert toy.project.upstream(change, MAR) == [("staging.ticks", FEB), ("staging.ticks", MAR)]
    totals = toy.project.assets["reports.totals"]
    assert toy.project.upstream(totals, ONCE) == [("features.change", month) for month in TOY_MONTHS]


def test_gaps_are_told_as_ranges(toy):
    with pytest.raises(TapehouseError, match=r"staging\.ticks 2005-01-01 … 2005-03-01 \(3\)"):
        require_upstream(toy.project, toy.project.assets["features.change"], [FEB, MAR], {})


def test_definitions_of_time_are_part_of_what_is_read(toy, tmp_path):
    asset, state = toy.project.assets["staging.ticks"], {}
    before = in_hash(toy.project, asset, JAN, state)
    assert before == in_hash(toy.project, asset, JAN, state)
    other = House(toy_project(tmp_path / "other"))
    other.edit("sources.yaml", "decision_lag_minutes: 5", "decision_lag_minutes: 6")
    assert in_hash(other.reload(), other.project.assets["staging.ticks"], JAN, state) != before


@given(st.sets(st.sampled_from([f"{y}-{m:02}-01" for y in (2004, 2005) for m in range(1, 13)])))
def test_ranges_of_months_cover_them_and_nothing_else(months):
    every = [f"{y}-{m:02}-01" for y in (2004, 2005) for m in range(1, 13)]
    ranges = contiguous("months", months)
    assert sorted(months) == [m for first, last in ranges for m in every if first <= m <= last]
    assert all(every.index(b[0]) - every.index(a[1]) > 1 for a, b in pairwise(ranges))
