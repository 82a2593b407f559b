"""The policy that answers are compared with: named in judging.yaml, read by every evaluation but its own."""

import shutil
from pathlib import Path

import pytest

from tapehouse.errors import TapehouseError
from tapehouse.judging_rules import FILE, policy_of_reference
from tapehouse.recipe_assets import recipe_assets

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path) -> Path:
    shutil.copytree(ROOT / "models_registry", tmp_path / "models_registry")
    for file in ("objectives.yaml", "prompts.yaml"):
        shutil.copy(ROOT / file, tmp_path)
    return tmp_path


def compared(home: Path) -> dict[str, set[str]]:
    """Whose predictions each evaluation reads."""
    assets = {asset.name: asset for asset in recipe_assets(home)}
    kept = {name: asset for name, asset in assets.items() if name.startswith("reports.evaluations.")}
    return {
        name.rpartition(".")[2]: {read.writer.rpartition(".")[2] for read in asset.reads if read.table == "models.predictions"}
        for name, asset in kept.items()
    }


def test_every_evaluation_reads_it_but_its_own(home):
    assert policy_of_reference(home) == "gbm"
    found = compared(home)
    assert found["gbm"] == {"gbm"} and found["momentum"] == {"momentum", "gbm"} and found["sft_orders"] == {"sft_orders", "gbm"}


def test_objectives_are_part_of_what_orders_are_paid(home):
    before = {asset.name: asset.code_version for asset in recipe_assets(home)}
    file = home / "objectives.yaml"
    file.write_text(file.read_text().replace("half_spread_bps: 2.0", "half_spread_bps: 3.0"))
    changed = {asset.name for asset in recipe_assets(home) if asset.code_version != before[asset.name]}
    assert "reports.evaluations.gbm" in changed and "models.predictions.gbm" not in changed


def test_none_is_named_or_a_wrong_one(home):
    rules = (home / FILE).read_text()
    (home / FILE).write_text(rules.replace("policy: gbm\n", ""))
    assert policy_of_reference(home) is None and compared(home)["momentum"] == {"momentum"}
    for name in ("sft_orders", "auditor_of_none"):  # of the last folds alone, and of no recipe
        (home / FILE).write_text(rules.replace("policy: gbm", f"policy: {name}"))
        with pytest.raises(TapehouseError, match=rf"judging\.yaml: policy: '{name}' is no recipe .* on all folds; name one of"):
            recipe_assets(home)
    (home / FILE).unlink()
    assert policy_of_reference(home) is None
