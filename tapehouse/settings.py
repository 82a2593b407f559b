"""Settings: one typed, frozen object from the environment and `.env`."""

import os
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from dotenv import dotenv_values
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tapehouse.errors import TapehouseError

PROJECT_MARK = "workspace.yaml"
PREFIX = "TAPEHOUSE_"
LAUNCHERS = r"^(local(:[1-9]\d*)?|(accelerate|ssh|kubernetes|ray):.+)$"


class Settings(BaseSettings):
    """Where the project and its warehouse lie, and what the machine may use. Variables carry the prefix `TAPEHOUSE_`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", populate_by_name=True)

    home: Path = Field(description="The project folder: assets/, sql/, checks/, models_registry/.")
    warehouse: Path = Field(Path("warehouse"), description="Folder of the catalog, data files and models.")
    catalog: str = Field("sqlite", description="'sqlite', or 'postgres:<connection string>'.")
    data_path: str | None = Field(None, description="Where the Parquet files lie, when not in the warehouse folder.")
    mlflow_tracking_uri: str | None = None
    adapter_folds: int | None = Field(None, ge=0, description="In place of adapter_count in folds.yaml; 0 takes every fold.")
    threads: int = Field(1, ge=1, le=256, description="Of one training process; another number gives other last bits.")
    jobs: int = Field(2, ge=1, le=256, description="Runs that `tapehouse run` keeps going beside its own; 1: none.")
    launcher: str = Field("local", pattern=LAUNCHERS, description="Where training runs: tapehouse/training/launchers.py.")
    alert_urls: str = Field("", validation_alias="ALERT_URLS", description="apprise targets, separated by blanks.")

    @field_validator("catalog")
    @classmethod
    def _known_catalog(cls, value: str) -> str:
        if value != "sqlite" and not value.startswith("postgres:"):
            raise ValueError("must be 'sqlite' or 'postgres:<connection string>'")
        return value

    @property
    def root(self) -> Path:
        """The warehouse folder, absolute."""
        return self.warehouse if self.warehouse.is_absolute() else self.home / self.warehouse

    @property
    def models_dir(self) -> Path:
        """Folder of tokenizers, base models and adapters, beside the data files."""
        return self.root / "models"

    @property
    def reports_dir(self) -> Path:
        """Folder of the rendered reports."""
        return self.root / "reports"

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking address; the default is a SQLite file in the warehouse folder."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.root / 'mlflow.db'}"

    @cached_property
    def universe(self):
        """The declared universe and span (`sources.yaml`)."""
        from tapehouse.universe import load_universe

        return load_universe(self.home / "sources.yaml")


def find_home(start: Path | None = None) -> Path:
    """The nearest folder at or above `start` (default: the current one) that holds `workspace.yaml`.

    Raises:
        TapehouseError: no such folder, neither there nor around the installed package.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents, Path(__file__).resolve().parents[1]):
        if (folder / PROJECT_MARK).is_file():
            return folder
    raise TapehouseError(f"{start}: no Tapehouse project here or above (a folder with {PROJECT_MARK}); cd into one")


def load_settings(home: Path | None = None, **overrides) -> Settings:
    """Settings of the project at `home` from its `.env`, the environment and `overrides`, the last winning.

    Raises:
        TapehouseError: names each variable with a bad value.
    """
    home = (home or find_home()).resolve()
    _refuse_unknown(home / ".env")
    try:
        return Settings(_env_file=home / ".env", home=home, **overrides)
    except ValidationError as error:
        lines = [f"  {_variable(e['loc'])}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        where = f"environment or {home / '.env'}"
        raise TapehouseError(f"bad settings in {where}:\n" + "\n".join(lines)) from None


def _refuse_unknown(dotenv: Path) -> None:
    """A misspelt variable would be ignored, and its default used without a word."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    given = {**(dotenv_values(dotenv) if dotenv.is_file() else {}), **os.environ}
    for name in sorted(given):
        if name.startswith(PREFIX) and name not in known:
            near = get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"the variables are {sorted(known)}"
            raise TapehouseError(f"environment or {dotenv}: unknown variable {name}; {remedy}")


def _variable(loc: tuple) -> str:
    name = str(loc[0])
    return name if name.isupper() else f"{PREFIX}{name.upper()}"
