"""Meta-labelling: the primary is out of fold where the auditor learns, trades are judged by hand, and nothing late is seen."""

import json

import polars as pl
import pytest

from tapehouse.cross_fitting import cross_fitted, fitting_points
from tapehouse.declared_splits import declared_splits, splits_frame
from tapehouse.errors import TapehouseError
from tapehouse.folds import CrossValidation
from tapehouse.methods.auditor import worth_taking
from tapehouse.recipes import load_recipes
from tapehouse.training.manifest import files_digest
from tests.tapehouse.classical import (
    KEYS,
    LABELS,
    POINTS,
    SPEC,
    SPLITS,
    answers,
    calendar,
    fit,
    make_fold,
    make_inputs,
    recipe,
    stamp,
)

GBM = "method: gbm\ndescription: d\nparams: {n_estimators: 20, max_depth: 2}\nseed: 3\n"
AUDITOR = "method: auditor\ndescription: d\naudits: gbm\nparams: {n_estimators: 20}\nseed: 5\n"


@pytest.fixture(scope="module")
def fold():
    return make_fold()


@pytest.fixture(scope="module")
def inputs():
    """The market of the other tests, but that a move reverses in a trade wherever there is little noise."""
    made = make_inputs()
    reverses = made[POINTS].select(*KEYS, sign=pl.when(pl.col("noise") < -0.3).then(-1).otherwise(1))
    sign = pl.when(pl.col("side") == 0).then(1).otherwise("sign")
    labels = made[LABELS].join(reverses, on=KEYS, how="left", maintain_order="left")
    return made | {LABELS: labels.with_columns(pl.col("ret") * sign, pl.col("label") * sign).drop("sign")}


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    for name, text in {"gbm": GBM, "auditor": AUDITOR}.items():
        (folder / f"{name}.yaml").write_text(text)
    return load_recipes(folder)


def test_every_row_is_answered_once_by_a_model_that_was_not_fitted_on_it(fold, inputs, tmp_path):
    of = recipe("gbm", params={"n_estimators": 3})
    rows = fitting_points(inputs, fold)
    splits = declared_splits(inputs[SPLITS], rows, "tuning", fold.id)
    found = pl.concat(cross_fitted(of, inputs, fold, rows, splits, tmp_path))
    assert found.select(KEYS).sort(KEYS).equals(rows.select(KEYS).sort(KEYS))
    assert found["split"].unique().sort().to_list() == ["0", "1", "2"]
    # Labels of the tested block are of no consequence for its answers; those of another block are.
    tested = rows[splits[1].test].select(KEYS).with_columns(inside=pl.lit(True))
    turned = inputs[LABELS].join(tested, on=KEYS, how="left", maintain_order="left")
    for part, same in ((pl.col("inside").is_not_null(), True), (pl.col("inside").is_null(), False)):
        labels = turned.with_columns(label=pl.when(part).then(-pl.col("label")).otherwise("label")).drop("inside")
        again = pl.concat(cross_fitted(of, inputs | {LABELS: labels}, fold, rows, splits, tmp_path / str(same)))
        assert again.filter(split="1").equals(found.filter(split="1")) is same


def test_trades_are_worth_taking_beyond_the_hurdle():
    at = [stamp(day, 22) for day in range(5)]
    keys = pl.DataFrame({"symbol": ["A"] * 5, "interval": ["1d"] * 5, "decision_at": at})
    proposed = keys.with_columns(action=pl.Series(["BUY", "SELL", "HOLD", "BUY", "BUY"]))
    side = pl.lit(1, pl.Int32)
    labels = pl.concat(
        [
            keys.with_columns(side=side, ret=pl.Series([0.004, 0.01, 0.01, 0.002, None])),
            keys.with_columns(side=-side, ret=pl.Series([-0.004, -0.01, -0.01, -0.002, None])),
        ]
    )
    trades = worth_taking(proposed, labels, hurdle_bps=30.0)
    assert trades["decision_at"].to_list() == [at[0], at[1], at[3]]  # no trade; and one without an outcome yet
    assert trades["worth"].to_list() == [True, False, False]  # 40 bps; 100 against; 20, less than the hurdle


def test_its_primary_is_the_recipe_that_it_names_to_the_bit(recipes, fold, inputs, tmp_path):
    made = fit(recipes["auditor"], inputs, fold, tmp_path / "auditor")
    fit(recipes["gbm"], inputs, fold, tmp_path / "gbm")
    assert files_digest(tmp_path / "auditor" / "primary") == files_digest(tmp_path / "gbm")
    proposed = answers(recipes["gbm"], inputs, fold, tmp_path / "gbm")
    rows = answers(recipes["auditor"], inputs, fold, tmp_path / "auditor")
    assert made["learned"] and made["rows"] == 2 * 53 and made["trades"] > 40, made
    taken = rows["action"] != "HOLD"
    assert 0 < taken.sum() < rows.height
    points = rows.join(inputs[POINTS], on=KEYS, maintain_order="left")  # it has found what makes a trade worth taking
    assert (
        points.filter(taken)["noise"].mean()
        > 0.3
        > -0.3
        > points.filter(~taken & (proposed["action"] != "HOLD"))["noise"].mean()
    )
    assert rows.filter(taken)["action"].equals(proposed.filter(taken)["action"])
    assert (rows.filter(taken)["confidence"] >= 0.5).all()
    assert rows.filter(proposed["action"] == "HOLD")["confidence"].null_count() == (proposed["action"] == "HOLD").sum()
    # With a threshold of 0 every trade is taken, with 1 none.
    for threshold, wanted in ((0.0, proposed["action"].to_list()), (1.0, ["HOLD"] * rows.height)):
        params = recipes["auditor"].params.model_copy(update={"threshold": threshold})
        of = recipes["auditor"].model_copy(update={"params": params})
        assert answers(of, inputs, fold, tmp_path / "auditor")["action"].to_list() == wanted


def test_it_never_sees_what_was_known_after_the_tail_began(recipes, fold, inputs, tmp_path):
    late = pl.col("label_known_at") >= fold.validation_start
    labels = inputs[LABELS].with_columns(
        pl.when(late).then(-pl.col(name)).otherwise(pl.col(name)).alias(name) for name in ("label", "ret")
    )
    later = pl.col("decision_at") >= fold.validation_start
    points = inputs[POINTS].with_columns(noise=pl.when(later).then(99.0).otherwise(pl.col("noise")))
    fit(recipes["auditor"], inputs, fold, tmp_path / "a")
    fit(recipes["auditor"], inputs | {POINTS: points, LABELS: labels}, fold, tmp_path / "b")
    assert files_digest(tmp_path / "a") == files_digest(tmp_path / "b")


def test_of_trades_that_all_paid_it_learns_nothing_and_takes_them_all(recipes, fold, inputs, tmp_path):
    paid = inputs | {LABELS: inputs[LABELS].with_columns(ret=pl.lit(0.02))}
    made = fit(recipes["auditor"], paid, fold, tmp_path / "a")
    assert made["worth"] == 1.0 and not made["learned"]
    assert json.loads((tmp_path / "a" / "auditor.json").read_text())["learned"] is False
    fit(recipes["gbm"], paid, fold, tmp_path / "g")
    proposed = answers(recipes["gbm"], paid, fold, tmp_path / "g")["action"]
    assert answers(recipes["auditor"], paid, fold, tmp_path / "a")["action"].equals(proposed)


def test_a_scheme_that_nobody_declared_is_refused(recipes, fold, inputs, tmp_path):
    params = recipes["auditor"].params.model_copy(update={"scheme": "tunning"})
    with pytest.raises(TapehouseError, match=r"models\.splits: no scheme 'tunning' of fold"):
        fit(recipes["auditor"].model_copy(update={"params": params}), inputs, fold, tmp_path / "a")


def test_a_scheme_that_answers_a_row_in_several_splits_is_refused(recipes, fold, inputs, tmp_path):
    spec = SPEC.model_copy(update={"cross_validation": {"tuning": CrossValidation(groups=3, held_out=2)}})
    twice = inputs | {SPLITS: splits_frame([fold], spec, calendar())}
    with pytest.raises(TapehouseError, match=r"recipe auditor: scheme 'tuning' holds out 2 blocks .* held_out: 1"):
        fit(recipes["auditor"], twice, fold, tmp_path / "a")
