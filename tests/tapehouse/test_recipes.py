from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tapehouse.errors import TapehouseError
from tapehouse.recipes import load_recipe, load_recipes, parse_recipe

SFT = """
method: sft
description: A test.
optimiser: {learning_rate: 1.0e-3}
budget: {steps: 3, batch_size: 2}
prompt: {objective: patient}
"""
REWARD = """
method: reward
description: A test.
optimiser: {learning_rate: 1.0e-3}
budget: {steps: 3, batch_size: 2}
"""
THESES = SFT.replace("objective: patient", "answer: generate") + "data: {dataset: theses}\n"
AGENT = "method: agent\ndescription: A test.\nparams: {idea: trend}\n"
LINEAR = "method: linear\ndescription: A test.\nparams: {l2: 1.0}\n"


def written(folder: Path, text: str, name: str = "mine") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def test_the_stem_names_the_recipe_and_sections_have_defaults(tmp_path):
    recipe = load_recipe(written(tmp_path, SFT))
    assert (recipe.name, recipe.kind, recipe.method, recipe.model.base) == ("mine", "adapter", "sft", "nano")
    assert (recipe.budget.steps, recipe.adapter.rank) == (3, 16)
    with pytest.raises(ValidationError):
        recipe.seed = 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("budget:", "budgett:"), r"mine\.yaml: not a recipe:(.|\n)*budgett: unknown key; did you mean 'budget'\?"),
        (("steps: 3", "stps: 3"), r"budget\.stps: unknown key; did you mean 'steps'\?"),
        (("steps: 3", "steps: 3, seconds: 9"), r"budget\.seconds: unknown key; remove it; the keys here are"),
        (("steps: 3", "steps: many"), r"budget\.steps: .*integer.*'many'"),
        (("steps: 3", "steps: 0"), r"budget\.steps: .*greater than or equal to 1"),
        (("optimiser: {learning_rate: 1.0e-3}", ""), r"optimiser: missing; add it"),
        (("method: sft", "method: sfft"), r"method: 'sfft' is none of"),
        (("method: sft", "steps: 1"), r"method: None is none of"),
        (("objective: patient", "objective: patient, template: order_v9"), r"prompt\.template: .*order_v9\.txt: no such"),
        (("method: sft", "name: other\nmethod: sft"), r"remove the key"),
        (("{steps", "[steps"), r"not YAML"),
    ],
)
def test_a_fault_names_file_key_and_remedy(tmp_path, change, said):
    path = written(tmp_path, SFT.replace(*change))
    with pytest.raises(TapehouseError, match=said) as fault:
        load_recipe(path)
    assert str(path) in str(fault.value)


def test_a_recipe_of_another_method_may_not_have_its_sections(tmp_path):
    with pytest.raises(TapehouseError, match="loss: unknown key"):
        load_recipe(written(tmp_path, SFT + "loss: {beta: 0.1}\n"))


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ("quantisation: {kind: nf4}\nadapter: {kind: full}\n", "nf4 weights are frozen.* take 'lora'"),
        ("adapter: {kind: full, dora: true}\n", "dora, rslora and dropout are of low-rank factors; remove them"),
        ("evaluation: {every: 3}\n", r"evaluation\.every 3 is no multiple of budget\.checkpoint_every 2.*make it one"),
        ("method: dpo\nadapter: {dropout: 0.1}\n", r"adapter\.dropout: training by dpo .* would ignore it; set 0\.0"),
    ],
)
def test_what_cannot_be_together_is_refused_with_the_remedy(tmp_path, sections, said):
    text = SFT.replace("batch_size: 2", "batch_size: 2, checkpoint_every: 2")
    if sections.startswith("method"):
        text = text.replace("method: sft\n", "")
    with pytest.raises(TapehouseError, match=said) as fault:
        load_recipe(written(tmp_path, text + sections))
    assert "mine.yaml" in str(fault.value)


@pytest.mark.parametrize(
    ("text", "change", "said"),
    [
        (THESES, ("generate", "generate, limit_valid_sessions: 3"), r"prompt\.limit_valid_sessions: has no effect.*'thesis'"),
        (SFT, ("patient", "patient, answer: score, batch_size: 128"), r"prompt\.batch_size: has no effect"),
        (SFT, ("seed: 0", "adapter: {kind: full, rank: 16}"), r"adapter\.rank: has no effect"),
        (SFT, ("seed: 0", "adapter: {kind: full, alpha: 32}"), r"adapter\.alpha: has no effect"),
        (SFT, ("seed: 0", "adapter: {kind: full, targets: [q_proj]}"), r"adapter\.targets: has no effect"),
        (SFT, ("seed: 0", "adapter: {kind: full, markers: false}"), r"adapter\.markers: has no effect"),
        (SFT, ("seed: 0", "quantisation: {double: false}"), r"quantisation\.double: has no effect.*'none'"),
        (SFT, ("seed: 0", "quantisation: {kind: int8, compute: fp32}"), r"quantisation\.compute: has no effect.*'int8'"),
        (SFT, ("seed: 0", "evaluation: {every: 1, patience: null, threshold: 0.1}"), r"evaluation\.threshold: has no effect"),
        (SFT, ("patient", "patient, template: thesis_v1"), r"prompt\.template: thesis_v1 is of the family 'thesis'.*'order'"),
        (REWARD, ("seed: 0", "loss: {margin_bps: 250.0}"), r"loss\.margin_bps: has no effect, for loss\.margin is false"),
        (AGENT, ("trend", "trend, target_volatility: 0.2"), r"params\.target_volatility: has no effect.*'trend'"),
        (LINEAR, ("seed: 0", "search: {prior_trials: {low: 1, high: 3}}"), r"search\.prior_trials: changes nothing"),
        (LINEAR, ("seed: 0", "search: {tuning.trials: {low: 1, high: 3}}"), r"search\.tuning\.trials: changes nothing"),
    ],
)
def test_a_key_without_effect_is_refused(tmp_path, text, change, said):
    text += "seed: 0\n"
    recipe = load_recipe(written(tmp_path, text))
    path = written(tmp_path, text.replace(*change))
    with pytest.raises(TapehouseError, match=said) as fault:
        load_recipe(path)
    assert str(path) in str(fault.value)
    # What a job or a manifest holds is the recipe with all of its keys.
    assert parse_recipe(recipe.model_dump(mode="json"), "manifest.json") == recipe


@pytest.mark.parametrize(
    "sections",
    [
        "quantisation: {kind: nf4, double: false, compute: fp32}\n",
        "evaluation: {every: 1, patience: 2, threshold: 0.1}\n",
        "adapter: {rank: 4, alpha: 8, targets: [q_proj], markers: false}\n",
    ],
)
def test_a_key_that_has_an_effect_is_not(tmp_path, sections):
    text = SFT.replace("patient", "patient, batch_size: 4, limit_valid_sessions: 2, template: order_v2")
    assert load_recipe(written(tmp_path, text + sections)).prompt.batch_size == 4


def test_a_parent_must_be_an_adapter_of_the_same_shape_and_no_descendant(tmp_path):
    written(tmp_path, SFT, "parent")
    written(tmp_path, SFT + "model: {init_from: parent}\n", "child")
    assert load_recipes(tmp_path)["child"].model.init_from == "parent"
    written(tmp_path, SFT + "model: {init_from: parent}\nadapter: {rank: 4}\n", "child")
    alike = r"child\.yaml: model\.init_from: model\.base, adapter and quantisation must be those of parent"
    with pytest.raises(TapehouseError, match=alike):
        load_recipes(tmp_path)
    # Factors correct the base that they have seen, and its weights are rounded where they are quantised.
    written(tmp_path, SFT + "model: {init_from: parent}\nquantisation: {kind: nf4}\n", "child")
    with pytest.raises(TapehouseError, match=alike):
        load_recipes(tmp_path)
    written(tmp_path, SFT + "model: {init_from: nobody}\n", "child")
    with pytest.raises(TapehouseError, match=r"'nobody' is no adapter that answers; those are \['child', 'parent'\]"):
        load_recipes(tmp_path)
    written(tmp_path, REWARD, "scorer")
    written(tmp_path, SFT + "model: {init_from: scorer}\n", "child")
    with pytest.raises(TapehouseError, match=r"'scorer' is no adapter that answers; those are \['child', 'parent'\]"):
        load_recipes(tmp_path)
    (tmp_path / "scorer.yaml").unlink()
    written(tmp_path, SFT + "model: {init_from: parent}\n", "child")
    written(tmp_path, SFT + "model: {init_from: child}\n", "parent")
    with pytest.raises(TapehouseError, match="child <- parent <- child is a circle"):
        load_recipes(tmp_path)


@given(st.integers(1, 10_000), st.integers(0, 2**31))
def test_the_hash_tells_contents_apart_and_ignores_name_and_description(steps, seed):
    fields = {
        "method": "dpo",
        "optimiser": {"learning_rate": 0.001},
        "budget": {"steps": steps, "batch_size": 2},
        "prompt": {"objective": "patient"},
        "seed": seed,
    }
    recipe = parse_recipe({**fields, "name": "a", "description": "x"}, "test")
    assert recipe.hash == parse_recipe({**fields, "name": "b", "description": "y"}, "test").hash
    assert recipe.hash != parse_recipe({**fields, "name": "a", "description": "x", "seed": seed + 1}, "test").hash


def test_the_recipes_of_the_project_load_and_are_of_a_known_kind():
    home = Path(__file__).parents[2] / "models_registry"
    recipes = load_recipes(home / "adapters")
    assert {recipe.kind for recipe in recipes.values()} == {"adapter", "policy", "baseline"}
    assert load_recipe(home / "base" / "nano.yaml").kind == "base"
    objectives = (home.parent / "objectives.yaml").read_text()
    for recipe in recipes.values():
        if recipe.kind == "adapter" and recipe.predicts and recipe.family == "order":
            assert f"  {recipe.prompt.objective}:\n" in objectives
