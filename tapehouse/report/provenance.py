"""What a report was made from, in words for its reader and as a row for the warehouse."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl

PACKAGES = ("tapehouse", "polars", "numpy", "numba", "xgboost-cpu", "torch", "transformers", "trl")


def provenance(
    snapshot: int, commit: dict[str, Any], folds: pl.DataFrame, adapters: pl.DataFrame | None = None
) -> dict[str, str]:
    """Entries of the report's table of provenance, the warehouse snapshot and the commit first.

    Args:
        snapshot: the warehouse snapshot that every input was read at.
        commit: `git_commit` and `git_dirty`, as from `tapehouse.training.manifest.git_state`.
        folds: rows of `models.folds`.
        adapters: rows of `models.adapters`; None for a report about data alone.
    """
    blocks = [
        f"{fold}: trained on {train_start:%Y-%m-%d} to {train_end:%Y-%m-%d}, tested from {test_start:%Y-%m-%d} until "
        f"{test_end:%Y-%m-%d}"
        for fold, train_start, train_end, test_start, test_end in folds.sort("fold")
        .select("fold", "train_start", "train_end", "test_start", "test_end")
        .iter_rows()
    ]
    entries = {"snapshot": str(snapshot), "commit": commit_text(commit), "folds": "; ".join(blocks)}
    for row in adapters.sort("adapter", "fold").iter_rows(named=True) if adapters is not None else ():
        entries[f"{row['adapter']} {row['fold']}"] = (
            f"{row['method']}, recipe {row['recipe_hash'][:12]}, seed {row['seed']}, trained at snapshot {row['snapshot']} on "
            f"{row['rows']} rows, digest {row['digest'][:12]}"
        )
    entries["packages"] = packages_text()
    return entries


def commit_text(commit: dict[str, Any]) -> str:
    """The commit in short, and whether something was changed since."""
    head = commit["git_commit"]
    return "no repository" if head is None else head[:12] + (" with uncommitted changes" if commit["git_dirty"] else "")


def packages_text() -> str:
    """Names and versions of the packages that decide the figures."""
    return ", ".join(f"{name} {version}" for name in PACKAGES if (version := _version(name)) is not None)


def page_row(name: str, page: Path, root: Path, snapshot: int, commit: dict[str, Any]) -> dict[str, Any]:
    """The row of `reports.pages` for a file that has been written; its path is relative to the warehouse folder `root`."""
    content = page.read_bytes()
    return {
        "page": name,
        "path": page.relative_to(root).as_posix(),
        "digest": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "snapshot": snapshot,
        "git_commit": commit["git_commit"],
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # an optional part of the stack that this machine does without
        return None
