"""Checkpoints that survive a kill at any moment: written aside, synced, digested and renamed into place.

::

    FOLDER/ step-00000040/ weights.safetensors  state.pt  digests.json  and what else was given

A checkpoint is valid where the files that lie in it are those of its `digests.json`, byte for byte, and what that says has the
digest that it says too. What a killed process left half written has another name, and what a failing disk changed no longer
has its digest: the newest valid one is taken. The state is read with `weights_only=True`, so that nothing in it can run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tapehouse.errors import TapehouseError
from tapehouse.hashing import text_hash

if TYPE_CHECKING:
    import torch

WEIGHTS, STATE, DIGESTS = "weights.safetensors", "state.pt", "digests.json"
BEST: Final = 3  # kept of those with a validation metric
LATEST: Final = 2  # kept whatever was measured: the latest, and one to fall back on
log = logging.getLogger("tapehouse")


@dataclass(frozen=True)
class Checkpoint:
    """A valid checkpoint; `metric` is what validation measured at its step, lower is better."""

    folder: Path
    step: int
    metric: float | None

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors that were saved, by name, on the CPU."""
        from safetensors.torch import load_file

        return load_file(self.folder / WEIGHTS)

    def state(self) -> dict[str, Any]:
        """The state that was saved."""
        import torch

        return torch.load(self.folder / STATE, map_location="cpu", weights_only=True)


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, torch.Tensor],
    state: Mapping[str, Any],
    metric: float | None = None,
    texts: Mapping[str, str] | None = None,
) -> Checkpoint:
    """Write the checkpoint of a step, then drop all but the three best by `metric`, the latest and the one before it.

    Args:
        folder: of one run's checkpoints, made where it is missing.
        tensors: weights by name. state: numbers, text, lists, mappings and tensors that `weights_only=True` reads again.
        metric: what validation measured at this step, lower is better; None where nothing was measured.
        texts: further files by name.
    """
    import torch
    from safetensors.torch import save_file

    aside = folder / f".partial-{step:08d}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, aside / WEIGHTS)
    torch.save(dict(state), aside / STATE)
    for name, text in (texts or {}).items():
        (aside / name).write_text(text)
    return seal(aside, folder, step, metric)


def seal(aside: Path, folder: Path, step: int, metric: float | None) -> Checkpoint:
    """Digest and sync the files of `aside`, rename it into place, and drop what need not be kept."""
    digests = {file.relative_to(aside).as_posix(): _digest(file) for file in _files(aside)}
    said = {"step": step, "metric": metric, "files": digests}
    (aside / DIGESTS).write_text(json.dumps(said | {"digest": _own_digest(said)}, indent=1, sort_keys=True))
    for path in (*_files(aside), *(path for path in aside.rglob("*") if path.is_dir()), aside):
        _sync(path)
    target = folder / f"step-{step:08d}"
    if target.exists():  # an invalid one, or that of a run which went on from before it
        _remove(target)
    aside.rename(target)
    _sync(folder)
    _drop(folder)
    return Checkpoint(target, step, metric)


def newest(folder: Path) -> Checkpoint | None:
    """The valid checkpoint of the latest step, or None; later ones that are not valid are named in the log and removed."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        found = _read(path)
        if found is not None and _problem(path) is None:
            return found
        log.warning("%s: %s; going on from an earlier one", path, _problem(path))
        _remove(path)
    return None


def best(folder: Path) -> Checkpoint | None:
    """The checkpoint with the lowest metric, the earliest of equal ones; None where none has a metric.

    Raises TapehouseError where its files are not those that were written.
    """
    measured = _measured(folder)
    if not measured:
        return None
    if problem := _problem(measured[0].folder):
        raise TapehouseError(f"{measured[0].folder}: {problem}; remove {folder} and train again")
    return measured[0]


def random_states() -> dict[str, Any]:
    """States of the generators of Python, numpy and torch (with its GPUs), as :func:`set_random_states` takes them."""
    import numpy as np
    import torch

    kind, keys, place, has_gauss, cached = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (str(kind), torch.from_numpy(keys.astype(np.int64)), int(place), int(has_gauss), float(cached)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put the generators where they were when :func:`random_states` was called."""
    import numpy as np
    import torch

    version, inner, gauss = states["python"]
    random.setstate((version, tuple(inner), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


def _measured(folder: Path) -> list[Checkpoint]:
    found = [_read(path) for path in folder.glob("step-*")]
    measured = (c for c in found if c is not None and c.metric is not None and math.isfinite(c.metric))
    return sorted(measured, key=lambda c: (c.metric, c.step))


def _read(path: Path) -> Checkpoint | None:
    said = _said(path)
    return None if said is None else Checkpoint(path, said["step"], said["metric"])


def _said(path: Path) -> dict[str, Any] | None:
    """Step, metric and digests as they were written; None where they cannot be read or are others: it is no checkpoint."""
    try:
        said = json.loads((path / DIGESTS).read_bytes())
        return said if said.pop("digest") == _own_digest(said) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _own_digest(said: Mapping[str, Any]) -> str:
    return text_hash(json.dumps(said, sort_keys=True))


def _problem(path: Path) -> str | None:
    """What is wrong with a checkpoint; None where it is valid."""
    whole = _said(path)
    if whole is None:
        return f"has no {DIGESTS} that can be read, or not the one that was written"
    said = whole["files"]
    there = {file.relative_to(path).as_posix(): file for file in _files(path) if file.name != DIGESTS}
    if said.keys() != there.keys():
        return f"holds {sorted(there)} where {sorted(said)} were written"
    changed = [name for name, file in there.items() if _digest(file) != said[name]]
    return f"{', '.join(changed)}: not what was written" if changed else None


def _drop(folder: Path) -> None:
    latest = sorted(folder.glob("step-*"), reverse=True)[:LATEST]
    kept = {*latest, *(checkpoint.folder for checkpoint in _measured(folder)[:BEST])}
    for path in folder.glob("step-*"):
        if path not in kept:
            _remove(path)


def _remove(path: Path) -> None:
    """Out of sight at once: a kill while its files are deleted leaves no half of a checkpoint."""
    aside = path.with_name(f".removed-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    shutil.rmtree(aside)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Have the system write a file, or a folder's names, to the disk now."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
