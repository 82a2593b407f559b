"""The scan of prompts: honest ones pass, every planted kind of leak is caught before its rows are visible."""

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.prompt_scan import NO_OUTCOME, ONLY_ITS_POINT, OUTCOME_WORDS, foreign_numbers, scan, words_of
from tapehouse.prompts.templates import Template, selection
from tapehouse.shown_values import objective_words, point_numbers, said_texts
from tests.house import TOY_MONTHS, House, dataset_check, toy_project

AT = datetime(2005, 1, 5, 21, 5, tzinfo=UTC)


def template(text: str) -> Template:
    return Template(name="toy_v1", family="toy", optional=(), nullable=(), text=text, columns=())


TEMPLATE = template("{symbol} for {objective}\nday {ret:+.1%}\nvix {vix:.1f}\nprice {close:07.2f}\n")


def points(**values) -> pl.DataFrame:
    row = {"symbol": "AAA", "ret": -0.0123, "vix": None, "close": 117.454, "decision_at": AT} | values
    schema = {
        "symbol": pl.String,
        "ret": pl.Float64,
        "vix": pl.Float64,
        "close": pl.Float64,
        "decision_at": pl.Datetime("us", "UTC"),
    }
    return pl.DataFrame([row], schema=schema)


def found(prompt: str | None, **values) -> list[tuple[bool, str]]:
    rows = pl.DataFrame({"symbol": ["AAA"], "prompt": [prompt]}, schema={"symbol": pl.String, "prompt": pl.String})
    return [(r.success, r.detail) for r in scan(rows, point_numbers(points(**values), TEMPLATE), ["symbol"])]


def test_what_a_decision_point_shows_by_hand():
    assert point_numbers(points(), TEMPLATE)[0].to_list() == ["-1.2%", "0117.45"]
    assert point_numbers(points(vix=21.04), TEMPLATE)[0].to_list() == ["-1.2%", "21.0", "0117.45"]
    dated = template("on {decision_at:%Y-%m-%d} over 3 sessions {close:.0f}\n")
    assert point_numbers(points(), dated)[0].to_list() == ["2005", "-01", "-05", "3", "117"]
    assert point_numbers(points(), dated, hidden_dates=True)[0].to_list() == ["3", "117"]


@pytest.mark.parametrize(
    ("prompt", "foreign"),
    [
        ("AAA\nday -1.2%\nprice 0117.45\n", ""),
        ("AAA\nprice 0117.45\n", ""),  # an optional or shortened prompt shows less
        ("AAA\nday +1.2%\nprice 0117.45\n", "+1.2%"),  # the sign is the answer
        ("AAA\nday -1.2%\nprice 0117.46\n", "0117.46"),
        ("AAA\nday -1.2\nprice 0117.45\n", "-1.2"),  # no per cent sign: another number
        ("AAA\nday -1.2%\nprice 0117.45\n119\n", "119"),
    ],
)
def test_a_number_that_the_point_does_not_show_is_foreign(prompt, foreign):
    (numbers_ok, detail), (words_ok, _) = found(prompt)
    assert numbers_ok == (not foreign) and words_ok
    assert foreign in detail


def test_numbers_of_an_objective_s_words_are_shown_for_it_alone(tmp_path):
    declared = "objectives: {quick: {words: done within 3 sessions}, patient: {words: a better price}}"
    (tmp_path / "objectives.yaml").write_text(declared)
    (tmp_path / "book_objectives.yaml").write_text("objectives: {quick: {words: done in 30 s}}")
    assert objective_words(tmp_path) == {"quick": ["30", "3"], "patient": []}


def test_no_prompt_is_no_proof():
    (numbers_ok, detail), _ = found(None)
    assert not numbers_ok and "no prompt" in detail


@pytest.mark.parametrize(
    "leak",
    ["chosen", "Rejected", "label up", "touched the upper barrier", "reward", "take profit hit", "the limit was filled",
     "next close", "tomorrow", "forward return", "it will rise", "right answer", "markout", "in hindsight", "signal class",
     "next_close", "NEXT DAY'S OPEN", "future-return", "fwd_ret", "is_chosen", "take_profit hit", "hits the stop",
     "barrier_upper", "label2", "outcome_of", "tomorrow_close", "exit_price", "going to rise", "ground-truth", "Strong_Buy",
     "answer: hold", "MOVE_TO_BE", "action_sell"],
)  # fmt: skip
def test_words_that_name_an_outcome(leak):
    _, (ok, detail) = found(f"AAA\nday -1.2%\n{leak}\nprice 0117.45\n")
    assert not ok and "tells" in detail
    assert words_of(leak)


@pytest.mark.parametrize(
    "honest",
    ["trend up", "stop 0112.00 trail on", "win rate", "losses in a row", "core prices price change", "regime bullish",
     "answers action | confidence | reason", "a fast fill", "a better price", "relabelling", "unrewarding", "closed higher",
     "insiders bought 3 sold 2", "holding", "t -1.2"],
)  # fmt: skip
def test_words_that_do_not(honest):
    assert words_of(honest) == []


@pytest.mark.parametrize(("prompt", "ok"), [("AAA: BUY, SELL or HOLD", True), ("AAA: BUY, SELL or HOLD\nbuy", False)])
def test_a_template_may_list_the_answers_but_a_prompt_does_not_add_one(prompt, ok):
    rows = pl.DataFrame({"symbol": ["AAA"], "prompt": [prompt]})
    said = pl.Series(["{symbol}: BUY, SELL or HOLD\n"])
    _, words = scan(rows, pl.Series([[]], dtype=pl.List(pl.String)), ["symbol"], said=said)
    assert words.success == ok
    assert ok or "an answer" in words.detail


def test_what_is_said_in_any_case_is_template_symbol_objective_and_side():
    version = selection("order_v1").version
    rows = pl.DataFrame(
        {"template": [version, version], "objective": ["quick", "slow"], "symbol": ["HOLD", "AAA"], "side": ["BUY", None]}
    )
    said = said_texts(rows, {"quick": "sell fast"})
    assert said[0].startswith("HOLD daily order") and said[0].endswith("\nsell fast\nBUY")
    assert said[1].startswith("AAA daily order") and words_of(said[1]) == []


def test_digits_of_another_script_are_numbers():
    (numbers_ok, _), _ = found("AAA\nprice ٢٥\n")
    assert not numbers_ok


def test_every_pattern_has_a_reason():
    assert all(pattern and why for pattern, why in OUTCOME_WORDS.items())


@given(
    shown=st.lists(st.from_regex(r"[-+]?[0-9]{1,5}(\.[0-9]{1,3})?%?", fullmatch=True), max_size=6),
    leaked=st.lists(st.from_regex(r"[-+]?[0-9]{1,5}(\.[0-9]{1,3})?%?", fullmatch=True), max_size=3),
)
def test_just_what_is_not_shown_is_foreign(shown, leaked):
    prompt = "\n".join(f"x {number}" for number in [*shown, *leaked])
    numbers = foreign_numbers(pl.Series([prompt]), pl.Series([shown], dtype=pl.List(pl.String)))[0].to_list()
    assert set(numbers) == set(leaked) - set(shown)


# ---------------------------------------------------------------------- in the engine

POINT_SQL = """
    -- One row per (symbol, interval, decision_at): what an order's prompt shows, all of it made up of the price.
    select symbol, '1d' as interval, decision_at, price as close, price / 20 as atr_14, 50.0 + price / 10 as rsi_14,
           0.011 as ret_1d, -0.022 as ret_5d, 0.033 as ret_20d, 0.2 as realised_vol_20d, 0.01 as vwap_distance_20d,
           0.02 as relative_strength_20d, 0.03 as market_ret_20d, 0.15 as market_vol_20d
    from features.change
    where decision_at >= $start and decision_at < $end
    """
LABEL_SQL = """
    -- One row per (symbol, interval, decision_at): what the price had become a year later.
    select symbol, interval, decision_at, close + 7.77 as exit_price
    from features.point
    where decision_at >= $start and decision_at < $end
    """
ORDERS = '''
"""One row per (symbol, interval, decision_at): a prompt, and what was made of it."""

from tapehouse.tables import reads, table


@table(reads("features.point"), reads("labels.exits"))
def build(b):
    import polars as pl

    from tapehouse.prompts.templates import render, selection

    points = b.read("features.point")
    exits = b.read("labels.exits")["exit_price"]
    shown = points.with_columns(objective=pl.lit("a fast fill"))
    prompt = render(shown, "order_v1")
    {leak}
    return points.select(
        "symbol", "interval", "decision_at", prompt=prompt, objective=pl.lit("aggressive"), reward=pl.col("close") * 3,
        label_known_at=pl.col("decision_at").dt.offset_by("1d"), template=pl.lit(selection("order_v1").version),
    )
'''
CHECK = dataset_check(
    """
    prompt: {type: varchar, doc: "What is shown."}
    objective: {type: varchar, doc: "What for."}
    reward: {type: double, doc: "What it was paid."}
    """
)
LATER = "points.select(pl.col('close').shift(-1).over('symbol')).to_series()"


def plant(house: House, leak: str = "pass") -> None:
    house.write("assets/datasets/orders.py", ORDERS.replace("{leak}", leak.replace("LATER", LATER)))
    house.reload()


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> House:
    home = toy_project(tmp_path_factory.mktemp("scan") / "home")
    house = House(home)
    house.write("sql/features/point.sql", POINT_SQL)
    house.write("sql/labels/exits.sql", LABEL_SQL)
    house.write("checks/datasets/orders.yaml", CHECK)
    plant(house)
    for name in ("raw.ticks", "staging.ticks", "features.change", "features.point", "labels.exits", "datasets.orders"):
        house.make(name)
    return house


def test_honest_prompts_pass_and_the_contract_says_that_they_were_scanned(toy):
    outcome = toy.make("datasets.orders")
    assert not outcome.failed
    verdicts = {result.expectation: result.success for result in outcome.outputs[0].contract}
    assert verdicts[ONLY_ITS_POINT] and verdicts[NO_OUTCOME]
    assert toy.rows("select count(*) from datasets.orders") == [(36,)]


@pytest.mark.parametrize(
    ("leak", "said"),
    [
        ("prompt = prompt + 'limit ' + (points['close'] * 3).round(2).cast(pl.String) + '\\n'", "reward of its own row"),
        ("prompt = prompt + exits.round(2).cast(pl.String)", "labels.exits.exit_price"),
        ("prompt = prompt + 'then ' + LATER.fill_null(1).cast(pl.String)", "the close of 2005-"),
        ("prompt = render(shown.with_columns(close=LATER.fill_null(1)), 'order_v1')", "the close of 2005-"),
        ("prompt = render(shown.with_columns(ret_1d=-pl.col('ret_1d')), 'order_v1')", "-1.1% (no value of its decision point)"),
        ("prompt = prompt + 'the barrier was reached'", "'barrier' tells"),
        ("prompt = prompt + pl.select(pl.when(exits > 8).then(pl.lit('Sell')).otherwise(pl.lit('Buy'))).to_series()", "answer"),
    ],
)  # fmt: skip
def test_a_planted_leak_is_caught_and_nothing_of_it_is_visible(toy, leak, said):
    before = toy.frame("datasets.orders")
    plant(toy, leak)
    outcome = toy.make("datasets.orders")
    failed = outcome.failed["datasets.orders"]
    assert set(failed) == set(TOY_MONTHS)
    assert said in str(failed)
    assert toy.frame("datasets.orders").equals(before)


def test_a_leak_in_one_month_leaves_the_others_their_new_rows(toy):
    added = (
        "pl.select(pl.when(points['decision_at'].dt.month() == 3).then(pl.lit('reward')).otherwise(pl.lit(' '))).to_series()"
    )
    plant(toy, f"prompt = prompt + {added}")
    outcome = toy.make("datasets.orders")
    assert list(outcome.failed["datasets.orders"]) == ["2005-03-01"]
    assert toy.rows("select count(*) from datasets.orders where prompt like '%reward%'") == [(0,)]
    assert toy.rows("select count(*) from datasets.orders where prompt like '% '") == [(30,)]


def test_prompts_without_a_template_or_a_decision_point_prove_nothing(toy):
    toy.write(
        "assets/datasets/orders.py", ORDERS.replace("{leak}", "pass").replace('selection("order_v1").version', '"gone_v9"')
    )
    toy.reload()
    failed = toy.make("datasets.orders").failed["datasets.orders"]
    assert "no value of its decision point" in str(failed)
    toy.write(
        "checks/datasets/orders.yaml", CHECK.replace('  template: {type: varchar, doc: "Version of the template."}\n', "")
    )
    late = 'template=pl.lit(selection("order_v1").version),'
    toy.write("assets/datasets/orders.py", ORDERS.replace("{leak}", "pass").replace(late, ""))
    toy.reload()
    assert "add the version of each prompt's template" in str(toy.make("datasets.orders").failed["datasets.orders"])
    toy.write("checks/datasets/orders.yaml", CHECK)


def test_another_list_of_words_makes_the_prompts_stale_and_nothing_else(toy, monkeypatch):
    """The scan is part of the contract: rows that an older one judged are judged anew."""
    from tapehouse import declarations

    plant(toy)
    before = {name: asset.code_version for name, asset in toy.project.assets.items()}
    monkeypatch.setattr(declarations, "modules_version", lambda modules: "another scan")
    changed = {name for name, asset in toy.reload().assets.items() if asset.code_version != before[name]}
    assert changed == {"datasets.orders"}
