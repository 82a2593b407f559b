"""Base models of recipes: trained here (a row of its table names the folder), or of others, in a folder of this machine.

Nothing is fetched here; `tapehouse fetch NAME` (`tapehouse.fetching`) does that where a recipe says from where.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tapehouse.errors import TapehouseError
from tapehouse.methods.external import Recipe as External
from tapehouse.recipes import BASES, Recipe, load_recipe
from tapehouse.training.manifest import weights_digest

CONFIG: Final = "config.json"
# What loading a model takes, beside its weights; never a pickle.
CONFIGURATION: Final = (CONFIG, "generation_config.json", "model.safetensors.index.json", "adapter_config.json")


@dataclass(frozen=True)
class Base:
    """A base model in a folder.

    Attributes:
        folder: config.json and *.safetensors; a base's own tokenizer beside them.
        trust_remote_code: whether Python files of that folder may run; its recipe says so.
    """

    folder: Path
    trust_remote_code: bool = False


def declared_base(home: Path, name: str) -> Recipe:
    """The recipe of a base. Raises TapehouseError that names the file and the bases that there are."""
    return load_recipe(home / BASES / f"{name}.yaml")


def base_of(b: Any, name: str) -> Base:
    """The base of a recipe in the build `b` of an asset that reads what `recipe_assets` declares for it.

    Raises TapehouseError as :func:`external_base`.
    """
    declared = declared_base(b.settings.home, name)
    if isinstance(declared, External):
        return external_base(declared, b.settings.models_dir)
    return Base(b.settings.root / b.read(f"models.{name}").row(0, named=True)["path"])


def external_base(recipe: External, models_dir: Path) -> Base:
    """A base of others, looked at without a network.

    Raises:
        TapehouseError: it is not there, has no safetensors, needs code that its recipe does not trust, or its weights are not
            those of the recipe's digest; with the remedy.
    """
    where, folder = f"base {recipe.name!r}", models_dir / recipe.folder  # an absolute one stays what it is
    if not (folder / CONFIG).is_file():
        remedy = (
            f"run `tapehouse fetch {recipe.name}` where there is a network, or copy the folder here"
            if recipe.package or recipe.hub
            else "put the model there, or mend `folder` in its recipe"
        )
        raise TapehouseError(f"{where}: {folder} holds no {CONFIG}; {remedy}")
    if not list(folder.glob("*.safetensors")):
        raise TapehouseError(f"{where}: {folder} holds no *.safetensors, and pickled weights are not read; convert them")
    code = json.loads((folder / CONFIG).read_text()).get("auto_map")
    if code and not recipe.trust_remote_code:
        raise TapehouseError(
            f"{where}: it runs code of its own ({', '.join(sorted(map(str, code.values())))}); read that, then set "
            f"trust_remote_code: true in {BASES / recipe.name}.yaml"
        )
    if recipe.digest is not None and (found := _digest(folder)) != recipe.digest:
        raise TapehouseError(f"{where}: the weights in {folder} have digest {found}, not {recipe.digest}; fetch the base again")
    return Base(folder, recipe.trust_remote_code)


def lay_model(source: Path, folder: Path, with_code: bool = False) -> None:
    """Put what loads a model or an adapter into `folder`: linked where the file system lets it be, else copied."""
    folder.mkdir(parents=True)
    files = [source / name for name in CONFIGURATION if (source / name).is_file()]
    files += sorted(source.glob("*.safetensors"))
    files += sorted(source.glob("*.py")) if with_code else []
    for file in files:
        try:
            os.link(file.resolve(), folder / file.name)
        except OSError:  # another file system
            shutil.copyfile(file, folder / file.name)


def _digest(folder: Path) -> str:
    """`weights_digest`, kept beside the weights for as long as they do not change: gigabytes take their time to read."""
    state = {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(folder.glob("*.safetensors"))}
    kept = folder / ".digest.json"
    if kept.is_file() and (known := json.loads(kept.read_text()))["files"] == state:
        return known["digest"]
    digest = weights_digest(folder)
    if os.access(folder, os.W_OK):
        kept.write_text(json.dumps({"digest": digest, "files": state}))
    return digest
