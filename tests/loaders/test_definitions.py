"""All definitions at once: a snapshot of what is declared, what each asset must have, and what loading must not import."""

import ast
import json
import os
import subprocess
import sys

import dagster as dg
import pytest

from loaders.definitions import build_definitions, definitions_of
from tapehouse.declarations import load_project
from tapehouse.settings import load_settings
from tests.house import ROOT, toy_project

SNAPSHOT = ROOT / "tests" / "loaders" / "snapshot.json"
REGENERATE = "REGENERATE_SNAPSHOT"
HEAVY = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "bitsandbytes",
    "mlflow",
    "great_expectations",
    "xgboost",
    "plotly",
)


@pytest.fixture(scope="module")
def project():
    return load_project(load_settings(ROOT))


@pytest.fixture(scope="module")
def graph(project):
    definitions = definitions_of(project)
    return definitions.resolve_asset_graph(), definitions


def told(graph) -> dict:
    """What the definitions say, in plain words."""
    assets = {}
    for key in sorted(graph.get_all_asset_keys(), key=lambda k: k.to_user_string()):
        node = graph.get(key)
        mappings = {
            parent.to_user_string(): mapping(node.partition_mappings.get(parent)) for parent in sorted(node.parent_keys)
        }
        columns = node.metadata["dagster/column_schema"].columns
        lineage = node.metadata.get("dagster/column_lineage")
        assets[key.to_user_string()] = {
            "description": node.description.splitlines()[0],
            "group": node.group_name,
            "owners": list(node.owners),
            "kinds": sorted(node.kinds),
            "partitions": partitions(node.partitions_def),
            "depends_on": mappings,
            "checks": sorted(check.name for check in node.check_keys),
            "grain": node.metadata["grain"],
            "columns": {column.name: column.type for column in columns},
            "lineage": {
                name: sorted(f"{d.asset_key.to_user_string()}.{d.column_name}" for d in deps)
                for name, deps in lineage.deps_by_column.items()
            }
            if lineage
            else None,
        }
    return assets


def partitions(found) -> str:
    if found is None:
        return "once"
    if isinstance(found, dg.MonthlyPartitionsDefinition):
        keys = found.get_partition_keys()
        return f"months {keys[0]} to {keys[-1]}"
    return "folds " + ", ".join(found.get_partition_keys())


def mapping(found) -> str:
    if isinstance(found, dg.TimeWindowPartitionMapping):
        return f"months {found.start_offset} to {found.end_offset}"
    return "default" if found is None else type(found).__name__


def test_snapshot(graph):
    """Set REGENERATE_SNAPSHOT=1 to write it anew, and read the difference before it is committed."""
    said = {
        "assets": told(graph[0]),
        "jobs": sorted(job.name for job in graph[1].jobs),
        "sensors": sorted(sensor.name for sensor in graph[1].sensors),
    }
    text = json.dumps(said, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if os.environ.get(REGENERATE):
        SNAPSHOT.write_text(text, encoding="utf-8")
    assert json.loads(SNAPSHOT.read_text(encoding="utf-8")) == said, f"run again with {REGENERATE}=1 where this is meant"


def test_every_asset_says_what_it_is(graph):
    for key in graph[0].get_all_asset_keys():
        node, name = graph[0].get(key), key.to_user_string()
        assert node.description.startswith("One row per ("), name
        assert node.owners, name
        assert node.group_name == "_".join(key.path[:-1]), name
        assert node.metadata["dagster/table_name"], name
        columns = node.metadata["dagster/column_schema"].columns
        assert columns, name
        assert all(column.type and column.description for column in columns), name
        assert "contract" in {check.name for check in node.check_keys}, name
        if not node.is_partitioned or isinstance(node.partitions_def, dg.StaticPartitionsDefinition):
            continue
        assert node.backfill_policy == dg.BackfillPolicy.single_run(), name


def test_sql_assets_tell_their_column_lineage(graph, project):
    for asset in project.assets.values():
        if asset.sql is not None:
            node = graph[0].get(dg.AssetKey(asset.name.split(".")))
            lineage = node.metadata["dagster/column_lineage"].deps_by_column
            assert set(lineage) == set(project.tables[asset.name].types)
            assert node.metadata["declared_in"].startswith("sql/")
    market = graph[0].get(dg.AssetKey(["features", "decision_points"]))
    deps = market.metadata["dagster/column_lineage"].deps_by_column
    assert [(d.asset_key.to_user_string(), d.column_name) for d in deps["market_vol_20d"]] == [
        ("features/price", "realised_vol_20d")
    ]
    assert "raw.instruments.tradable" in market.metadata["rows_decided_by"]


def test_features_labels_and_fits_are_checked_for_leaks(graph):
    unfitted = {"folds", "splits", "nano", "tokenizer", "champions"}
    fitted = {path.stem for path in (ROOT / "assets" / "models").glob("*.py")} - unfitted
    assert fitted >= {"fits", "regimes", "signal_classes", "scaled", "fractional"}
    for key in graph[0].get_all_asset_keys():
        expected = key.path[0] in ("features", "labels") or (key.path[0] == "models" and key.path[1] in fitted)
        assert ("no_leak" in {check.name for check in graph[0].get(key).check_keys}) == expected, key.to_user_string()


def test_definitions_can_be_built_for_a_folder_elsewhere(tmp_path):
    definitions = build_definitions(toy_project(tmp_path / "toy"))
    assert {k.to_user_string() for k in definitions.resolve_asset_graph().get_all_asset_keys()} >= {"raw/ticks", "labels/dear"}


# ---------------------------------------------------------------------- imports


def test_loading_the_definitions_imports_nothing_heavy():
    code = f"""
import sys
import definitions
heavy = {HEAVY!r}
print(sorted(name for name in heavy if name in sys.modules))
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip().splitlines()[-1] == "[]"


def imported(path) -> set[str]:
    """Names of all modules that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def below(*roots: str) -> list:
    return [path for root in roots for path in sorted((ROOT / root).rglob("*.py"))]


def top(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", below("tapehouse"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_library_imports_neither_dagster_nor_the_folders_that_know_it(path):
    names = imported(path)
    if path == ROOT / "tapehouse" / "cli.py":
        # Commands that drive Dagster reach it inside their functions.
        names = {
            name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
        }
    allowed = {"dagster_pipes"} if "training" in path.parts else set()
    outward = {n for n in top(names) if n.startswith("dagster")} | (
        top(names) & {"loaders", "resources", "assets", "definitions"}
    )
    assert not outward - allowed


@pytest.mark.parametrize("path", below("assets", "resources", "loaders"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    layer = path.relative_to(ROOT).parts[0]
    forbidden = {
        "assets": {"loaders", "resources", "definitions", "dagster"},
        "resources": {"loaders", "assets", "definitions"},
        "loaders": {"definitions", "tests"},
    }[layer]
    assert not top(imported(path)) & forbidden


def test_data_modules_never_reach_torch():
    """Followed from each module that makes rows of raw to datasets, through every import at module load."""
    code = """
import sys
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
print(sorted(n for n in ("torch", "transformers", "trl", "peft", "mlflow", "xgboost", "dagster") if n in sys.modules))
"""
    needs_torch = ("training", "networks", "inference", "tracking", "served_model", "report", "cli")
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in below("tapehouse")
        if path.relative_to(ROOT / "tapehouse").parts[0].removesuffix(".py") not in needs_torch
    ]
    found = subprocess.run([sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip().splitlines()[-1] == "[]"
