"""The twin on permuted labels: what is exchanged and what is not, and that it has nothing left to learn."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.methods.shuffled import permuted
from tapehouse.recipes import load_recipes
from tapehouse.training.manifest import files_digest
from tests.tapehouse.classical import KEYS, LABELS, POINTS, answers, fit, make_fold, make_inputs

FOLD, INPUTS = make_fold(), make_inputs()
GBM = "method: gbm\ndescription: d\nparams: {n_estimators: 30, max_depth: 2}\nseed: 3\n"
TWIN = "method: shuffled\ndescription: d\ntwin_of: gbm\nseed: 5\n"


def written(folder, **texts):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    return load_recipes(written(tmp_path_factory.mktemp("recipes"), gbm=GBM, twin=TWIN))


@settings(max_examples=25)
@given(st.integers(0, 2**31))
def test_labels_change_places_within_their_side_and_among_what_is_fitted_on(seed):
    drawn, given_ = permuted(INPUTS[LABELS], FOLD, seed), INPUTS[LABELS].sort("decision_at", "symbol", "interval", "side")
    assert drawn.drop("label", "ret").equals(given_.drop("label", "ret"))
    late = pl.col("label_known_at") >= FOLD.validation_start
    assert drawn.filter(late).equals(given_.filter(late))
    for side in (-1, 0, 1):
        before, after = (rows.filter(~late, pl.col("side") == side).select("label", "ret") for rows in (given_, drawn))
        assert before.sort("label", "ret").equals(after.sort("label", "ret"))
        assert not before.equals(after)


def test_rows_without_a_label_keep_none():
    rows = INPUTS[LABELS].with_columns(
        label=pl.when(pl.col("symbol") == "A").then("label"),
        label_known_at=pl.when(pl.col("symbol") == "A").then("label_known_at"),
    )
    drawn = permuted(rows, FOLD, 1)
    assert drawn.height == rows.height
    assert drawn.filter(symbol="B")["label"].null_count() == rows.filter(symbol="B").height
    assert drawn.filter(symbol="A")["label"].null_count() == 0


def test_the_twin_learns_nothing_where_its_original_does(recipes, tmp_path):
    said = {}
    for name, of in recipes.items():
        made = fit(of, INPUTS, FOLD, tmp_path / name)
        assert made["rows"] == 2 * 53
        rows = answers(of, INPUTS, FOLD, tmp_path / name).join(INPUTS[LABELS].filter(side=0), on=KEYS)
        said[name] = np.corrcoef(rows["p_buy"] - rows["p_sell"], rows["ret"])[0, 1]
    assert said["gbm"] > 0.8 > 0.4 > abs(said["twin"])


def test_the_twin_of_another_seed_is_another_draw_and_that_of_the_same_is_the_same(recipes, tmp_path):
    digests = []
    for number, seed in enumerate((5, 5, 6)):
        fit(recipes["twin"].model_copy(update={"seed": seed}), INPUTS, FOLD, tmp_path / str(number))
        digests.append(files_digest(tmp_path / str(number)))
    assert digests[0] == digests[1] != digests[2]


def test_its_hash_follows_the_recipe_that_it_names(tmp_path):
    first = load_recipes(written(tmp_path, gbm=GBM, twin=TWIN))["twin"]
    assert load_recipes(written(tmp_path, gbm=GBM.replace("description: d", "description: e")))["twin"].hash == first.hash
    assert load_recipes(written(tmp_path, gbm=GBM.replace("seed: 3", "seed: 4")))["twin"].hash != first.hash
    assert first.inner_recipe.name == "gbm" and first.runs == ("gbm",)


@pytest.mark.parametrize(
    ("twin", "said"),
    [
        ("twin_of: nobody", r"twin\.yaml: twin_of: 'nobody' is no classical recipe that is fitted; those are \['gbm'\]"),
        ("twin_of: rule", r"twin_of: 'rule' is no classical recipe that is fitted"),
        ("twin_of: twin", r"twin_of: 'twin' is no classical recipe that is fitted"),
        ("twin_of: gbm\ninner: {method: gbm}", r"inner: follows from twin_of; remove the key"),
        ("", r"twin_of: missing; add it"),
    ],
)
def test_what_cannot_have_a_twin_is_refused(tmp_path, twin, said):
    with pytest.raises(TapehouseError, match=said):
        load_recipes(
            written(tmp_path, gbm=GBM, rule="method: always_hold\ndescription: d\n", twin=TWIN.replace("twin_of: gbm", twin))
        )


def test_points_are_left_alone(recipes, tmp_path):
    before = INPUTS[POINTS].clone()
    fit(recipes["twin"], INPUTS, FOLD, tmp_path / "x")
    assert INPUTS[POINTS].equals(before)
