"""Pair diagnostics: rules that never read a prompt, fitted on the past and scored on what came after."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.folds import Fold
from tapehouse.pair_diagnostics import ALL, BASELINES, LAST_THIRD, accuracy, described, diagnostics, fit, scores
from tapehouse.report.pairs import LEARNABLE, NOTHING, headline, pairs_html, preview_png, word

START = datetime(2010, 1, 4, 21, 5, tzinfo=UTC)
NAME = "datasets.preference_pairs"


def at(day: float) -> datetime:
    return START + timedelta(days=day)


FOLD = Fold("test", at(-1), at(200), at(200), at(400), at(410), 10, date(2010, 7, 23), date(2011, 2, 8))


def pairs(days, far_wins, longer=None, objective="patient", side="BUY") -> pl.DataFrame:
    """One pair a day of symbol A: offsets 0.5 and 1.5, the farther one chosen where `far_wins`."""
    wins = np.asarray(far_wins, bool)
    longer = np.zeros(len(wins), bool) if longer is None else np.asarray(longer, bool)
    return pl.DataFrame(
        {
            "symbol": ["A"] * len(wins),
            "interval": ["1d"] * len(wins),
            "decision_at": [at(day) for day in days],
            "objective": objective,
            "regime": "bearish",
            "side": side,
            "chosen": ["BUY limit 0010.00 because" + " so" * int(extra) for extra in longer],
            "rejected": ["BUY limit 0011.00 because"] * len(wins),
            "margin_bps": np.linspace(10.0, 100.0, len(wins)),
            "chosen_offset_atr": np.where(wins, 1.5, 0.5),
            "rejected_offset_atr": np.where(wins, 0.5, 1.5),
            "chosen_filled": wins,
            "rejected_filled": ~wins,
            "reward_known_at": [at(day + 5) for day in days],
        }
    )


def table_of(rows: pl.DataFrame, *folds: Fold) -> pl.DataFrame:
    return diagnostics(NAME, described(rows), folds)


def value(table: pl.DataFrame, measure: str, fold: str = ALL, objective: str = ALL, level: str = "") -> float:
    (found,) = table.filter(measure=measure, fold=fold, objective=objective, level=level)["value"]
    return found


@pytest.fixture(scope="module")
def turned() -> pl.DataFrame:
    """The farther limit wins every pair of the training window and three of four of the test block's first twenty."""
    train = pairs(range(0, 190, 10), [True] * 19).with_columns(regime=pl.lit("bullish"))
    test = pairs(range(210, 230), [True, True, True, False] * 5).with_columns(regime=pl.lit(None, pl.String))
    return pl.concat([train, test])


def test_accuracies_by_hand(turned):
    table = table_of(turned, FOLD)
    assert value(table, "train_pairs", "test") == 19
    assert value(table, "offset_accuracy", "test") == 0.75
    assert value(table, "offset_accuracy") == 34 / 39  # in-sample, on all pairs
    assert value(table, "length_accuracy", "test") == 0.5  # equal lengths tell nothing
    assert value(table, "same_form") == 1.0 and value(table, "length_difference_largest") == 0
    assert value(table, "farther_chosen") == value(table, "chosen_filled") == 34 / 39
    assert value(table, "share", level="regime bullish") == 19 / 39
    assert value(table, "share", level="regime unknown") == 20 / 39
    assert value(table, "buy_share", level="symbol A") == 1.0


def test_what_is_learnt_is_the_past_alone(turned):
    """A rule that changed its mind in the test block keeps what it was fitted to; an unknown reward fits nothing."""
    against = turned.with_columns(
        chosen_offset_atr=pl.when(pl.col("decision_at") >= at(200)).then(0.5).otherwise("chosen_offset_atr"),
        rejected_offset_atr=pl.when(pl.col("decision_at") >= at(200)).then(1.5).otherwise("rejected_offset_atr"),
    )
    assert value(table_of(against, FOLD), "offset_accuracy", "test") == 0.0
    unknown = turned.with_columns(reward_known_at=pl.lit(at(300)))
    assert set(table_of(unknown, FOLD)["fold"]) == {ALL}  # nor on the last third of the decisions, which is for lack of folds


def test_without_a_fold_the_last_third_is_the_test_block(turned):
    table = table_of(turned)
    assert set(table["fold"]) == {ALL, LAST_THIRD}
    # 39 decisions: the last thirteen, of which the farther wins nine; known by then were 19 + 2 of those before.
    assert value(table, "offset_accuracy", LAST_THIRD) == 9 / 13
    assert value(table, "train_pairs", LAST_THIRD) == 21


def test_a_longer_answer_that_is_the_better_one_is_told():
    rows = pairs(range(230), [True, False] * 115, longer=[True] * 230)
    table = table_of(rows, FOLD)
    assert value(table, "length_accuracy", "test") == 1.0
    assert value(table, "same_form") == 0.0 and value(table, "length_difference_largest") == 3
    assert word(table, "length") == LEARNABLE and word(table, "offset") == NOTHING
    assert headline(table) == "Without the prompt 100.0 % of unseen pairs are told apart by length alone; even odds are 50 %."


def test_a_rule_by_side_is_found_where_offsets_alone_are_even():
    buys, sells = pairs(range(300), [True] * 300), pairs(range(300), [False] * 300, side="SELL")
    table = table_of(pl.concat([buys, sells]), FOLD)
    assert value(table, "offset_accuracy") == 0.5
    assert value(table, "offset_cells_accuracy") == value(table, "offset_trees_accuracy", "test") == 1.0
    assert table.filter(measure="offset_trees_accuracy", fold=ALL).is_empty()  # trees fit anything


def test_pairs_of_a_fortnight_are_one_draw():
    """Ten clusters, five all right and five all wrong: the deviation is that of ten draws, however many pairs there are."""
    score, clusters = np.repeat([0.0, 1.0], 500), np.repeat(np.arange(10), 100)
    mean, half = accuracy(score, clusters)
    assert mean == 0.5
    assert half == pytest.approx(1.96 * 0.5 * np.sqrt(10 / 9) / np.sqrt(10))
    assert accuracy(np.ones(5), np.zeros(5)) == (1.0, None)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), min_size=4, max_size=40), st.booleans())
def test_in_sample_no_rule_is_worse_than_even_and_mirrored_pairs_score_the_same(wins, longer):
    rows = described(pairs(range(len(wins)), wins, [longer and w for w in wins]))
    found = scores(rows, fit(rows))
    assert set(found) == set(BASELINES)
    for rule, score in found.items():
        assert set(np.unique(score)) <= {0.0, 0.5, 1.0}
        assert score.mean() >= 0.5 or rule == "offset_trees"  # which lower the log loss, not the count of errors
    mirrored = described(pairs(range(len(wins)), [not w for w in wins]))
    assert scores(mirrored, fit(mirrored))["offset"].mean() == found["offset"].mean()


def test_no_pairs_and_no_offsets_are_refused(turned):
    with pytest.raises(TapehouseError, match=f"{NAME} has no rows to diagnose; materialise it first"):
        table_of(turned.clear(), FOLD)
    with pytest.raises(TapehouseError, match="chosen_offset_<unit>"):
        described(turned.drop("chosen_offset_atr"))


def test_the_page_needs_no_network_and_repeats(turned):
    rows, told = table_of(turned, FOLD), described(turned)
    told = told.with_columns(objective=pl.lit("</script><b>"))
    made = [pairs_html(NAME, told, rows, {"snapshot": "7", "commit": "abc"}, {"bullish": 0.7}) for _ in range(2)]
    assert made[0] == made[1]
    body = made[0].partition("<main>")[2].partition("</main>")[0]
    assert "</script><b>" not in made[0] and "http" not in body
    assert "<h1>Without the prompt 75.0 % of unseen pairs are told apart by offset alone; even odds are 50 %.</h1>" in body
    for figure in ("accuracy", "margin", "length", "farther", "sides"):
        assert f'id="{figure}"' in made[0]
    pictures = [preview_png(told, rows, {}) for _ in range(2)]
    assert pictures[0] == pictures[1] and pictures[0].startswith(b"\x89PNG")
