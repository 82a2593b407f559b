import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.settings import Settings, find_home, load_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A project folder, and an environment without our variables."""
    for name in list(os.environ):
        if name.startswith("TAPEHOUSE_") or name == "ALERT_URLS":
            monkeypatch.delenv(name)
    (tmp_path / "workspace.yaml").touch()
    return tmp_path


def test_defaults_lie_in_the_project(home):
    settings = load_settings(home)
    assert settings.root == home / "warehouse"
    assert settings.models_dir == home / "warehouse" / "models"
    assert settings.tracking_uri == f"sqlite:///{home}/warehouse/mlflow.db"
    assert (settings.catalog, settings.threads, settings.alert_urls) == ("sqlite", 1, "")


def test_overrides_win_over_the_environment_and_that_over_env_file(home, monkeypatch):
    (home / ".env").write_text("TAPEHOUSE_THREADS=3\nTAPEHOUSE_WAREHOUSE=/from/file\nALERT_URLS=json://127.0.0.1:1\n")
    assert load_settings(home).threads == 3
    assert load_settings(home).root == Path("/from/file")
    monkeypatch.setenv("TAPEHOUSE_WAREHOUSE", "/from/environment")
    monkeypatch.setenv("ALERT_URLS", "json://127.0.0.1:2")
    found = load_settings(home)
    assert (found.threads, found.root, found.alert_urls) == (3, Path("/from/environment"), "json://127.0.0.1:2")
    assert load_settings(home, warehouse=Path("/given")).root == Path("/given")


def test_nothing_else_is_read(home, monkeypatch):
    for name in ("THREADS", "WAREHOUSE", "CATALOG", "DATA_PATH", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("TAPEHOUSE_HOME", "/elsewhere")
    (home / "inner").mkdir()
    (home / "inner" / ".env").write_text("TAPEHOUSE_THREADS=5\n")
    monkeypatch.chdir(home / "inner")
    assert load_settings(find_home()) == Settings(home=home, _env_file=None)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TAPEHOUSE_THREADS", "many", "integer"),
        ("TAPEHOUSE_THREADS", "0", "greater than or equal to 1"),
        ("TAPEHOUSE_CATALOG", "oracle:x", "must be 'sqlite' or 'postgres:<connection string>'"),
    ],
)
def test_a_bad_value_is_one_message_that_names_the_variable(home, monkeypatch, variable, value, said):
    monkeypatch.setenv(variable, value)
    with pytest.raises(TapehouseError) as caught:
        load_settings(home)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"bad settings in environment or {home / '.env'}:"
    assert len(lines) == 2
    assert lines[1].startswith(f"  {variable}: ") and said in lines[1] and lines[1].endswith(f"(got {value!r})")


def test_every_bad_value_is_named(home):
    (home / ".env").write_text("TAPEHOUSE_THREADS=x\nTAPEHOUSE_CATALOG=y\n")
    with pytest.raises(TapehouseError, match=r"(?s)TAPEHOUSE_CATALOG.*TAPEHOUSE_THREADS|TAPEHOUSE_THREADS.*TAPEHOUSE_CATALOG"):
        load_settings(home)


@given(st.integers(1, 256))
def test_whole_numbers_pass_through_the_environment(threads):
    os.environ["TAPEHOUSE_THREADS"] = str(threads)
    try:
        assert load_settings(ROOT).threads == threads
    finally:
        del os.environ["TAPEHOUSE_THREADS"]


def test_settings_do_not_change(home):
    with pytest.raises(ValueError, match="frozen"):
        load_settings(home).threads = 3


def test_the_home_is_found_from_below(home):
    (home / "a" / "b").mkdir(parents=True)
    assert find_home(home / "a" / "b") == home
    # Outside any project: the one that the package is installed from.
    assert find_home(Path("/")) == ROOT


def test_the_example_lists_every_setting():
    example = ROOT / ".env.example"
    named = {line.lstrip("# ").split("=")[0] for line in example.read_text().splitlines() if "=" in line}
    known = {f.validation_alias or f"TAPEHOUSE_{name.upper()}" for name, f in Settings.model_fields.items() if name != "home"}
    sources = "".join(path.read_text() for path in (ROOT / "tapehouse" / "sources").glob("*.py"))
    keys = set(re.findall(r'Credential\("(\w+)"', sources))
    assert len(keys) == 4 and named == known | keys


def test_a_misspelt_variable_is_named_with_the_likely_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPEHOUSE_THREAD", "4")
    with pytest.raises(TapehouseError, match="unknown variable TAPEHOUSE_THREAD; did you mean TAPEHOUSE_THREADS"):
        load_settings(tmp_path)
