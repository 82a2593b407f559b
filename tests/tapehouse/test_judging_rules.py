"""What everything is measured against: the shipped rules, and rules that cannot be."""

from pathlib import Path

import pytest

from tapehouse.errors import TapehouseError
from tapehouse.judging_rules import FILE, load_rules
from tapehouse.recipes import FOLDER as RECIPES
from tapehouse.recipes import load_recipes
from tapehouse.strategies.schema import FOLDER as STRATEGIES
from tapehouse.strategies.schema import load_strategies

ROOT = Path(__file__).parents[2]


def test_the_shipped_rules_name_what_there_is():
    rules, recipes = load_rules(ROOT), load_recipes(ROOT / RECIPES)
    strategies = load_strategies(ROOT / STRATEGIES, recipes)
    assert set(rules.baselines) | set(rules.controls) <= set(recipes) | set(strategies)
    # A yardstick for each way of sizing: equal shares, scaled, and guarded like the adapters' strategies.
    assert {"momentum", "momentum_scaled", "momentum_guarded", "gbm_scaled", "buy_and_hold_guarded"} <= set(rules.baselines)
    assert {name for name in strategies if name.endswith("_shuffled")} | {"regime_limits"} <= set(rules.controls)
    guarded = strategies["sft_orders_guarded"]
    for name in ("momentum_guarded", "buy_and_hold_guarded"):
        assert (strategies[name].vetoes, strategies[name].sizing) == (guarded.vetoes, guarded.sizing)


def test_a_control_is_no_baseline(tmp_path):
    path = tmp_path / FILE
    path.parent.mkdir()
    path.write_text("baselines: [momentum, coin]\ncontrols: [coin]\n")
    with pytest.raises(TapehouseError, match=r"(?s)judging\.yaml.*coin: a baseline and a control"):
        load_rules(tmp_path)
    path.write_text("baselines: [momentum]\n")
    assert load_rules(tmp_path).controls == []
