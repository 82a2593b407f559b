"""The manifest of a trained model: everything from which it can be made again, and what it cost."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from tapehouse.errors import TapehouseError

PACKAGES: Final = (
    *("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "tokenizers", "safetensors", "numpy", "polars"),
    *("hmmlearn", "scikit-learn", "xgboost-cpu"),
)
UNREPEATABLE: Final = ("manifest.json", "metrics.jsonl", "README.md")  # they hold times


def weights_digest(folder: Path) -> str:
    """First 16 hex digits of the SHA-256 of a model's weights; no configuration, which may name paths and versions.

    Raises TapehouseError where the folder holds no safetensors file.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise TapehouseError(f"{folder}: no *.safetensors; materialise the model again")
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def files_digest(folder: Path) -> str:
    """SHA-256 over all files of a fitted model, by their names; of an empty folder that of nothing."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name not in UNREPEATABLE:
            digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def git_state(folder: Path) -> dict[str, Any]:
    """`git_commit` (None outside a repository) and `git_dirty` (a tracked file differs from that commit)."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
        except FileNotFoundError:  # a host without git: the wheel, not a checkout
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": None if changes is None else bool(changes)}


def host_facts(threads: int, ranks: int = 1) -> dict[str, Any]:
    """Versions, CPU and GPUs, threads and processes: weights are bit-equal where these are equal."""
    return {
        "python": platform.python_version(),
        "packages": package_versions(*PACKAGES),
        "cpu": _cpu_model(),
        "gpus": _gpu_models(),
        "threads": threads,
        "ranks": ranks,
    }


def package_versions(*names: str) -> dict[str, str]:
    """Installed versions by package name."""
    return {name: metadata.version(name) for name in names}


def _gpu_models() -> list[str]:
    """Names of the GPUs that this process sees."""
    import torch

    return [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        facts = dict(
            tuple(part.strip() for part in line.split(":", 1)) for line in cpuinfo.read_text().splitlines() if ":" in line
        )
        # Virtual machines hide the product's name; family and model tell the instruction set apart.
        return " ".join(facts.get(key, "?") for key in ("model name", "cpu family", "model", "stepping"))
    return platform.processor() or platform.machine()
