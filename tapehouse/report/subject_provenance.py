"""What the page of one subject was made from: snapshot, commit, declaration and models, and where to read on."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import polars as pl

from tapehouse.report import shell
from tapehouse.report.board import blocks
from tapehouse.report.provenance import commit_text, packages_text
from tapehouse.report.section import STRATEGY, Subject

COUNTS = {"examples": "rows", "tokens": "tokens"}


def subject_provenance(subject: Subject, snapshot: int, commit: dict[str, Any]) -> dict[str, str]:
    """Entries of the page's table of provenance, the warehouse snapshot and the commit first.

    Args:
        snapshot: the warehouse snapshot that every input was read at.
        commit: `git_commit` and `git_dirty`, as from `tapehouse.training.manifest.git_state`.
    """
    entries = {"snapshot": str(snapshot), "commit": commit_text(commit), "declared in": subject.source}
    models, equity = subject.rows("models.adapters"), subject.rows("reports.backtest_equity")
    if models is not None:
        recipes = sorted(models.select(pl.col("recipe_hash").str.head(12)).to_series().unique())
        entries["recipe"] = f"{', '.join(recipes)} ({models['method'][0]}), seed {models['seed'][0]}"
    if equity is not None:
        folds = equity["fold"].unique().sort()
        entries["test blocks"] = f"{len(folds)}, {folds[0]} to {folds[-1]}, by their first session"
    return entries | {"packages": packages_text()}


def provenance_body(subject: Subject, provenance: Mapping[str, str]) -> str:
    """The section's HTML: what it was made from, its declaration, its models, and links."""
    parts = [shell.facts(provenance), f"<p>{_links(subject)}</p>"]
    declared = f"<pre>{escape(subject.declared)}</pre>"
    parts.append(f"<details><summary>{escape(subject.source)}</summary>{declared}</details>")
    models = subject.rows("models.adapters")
    if models is not None:
        count = "1 fitted model" if models.height == 1 else f"{models.height} fitted models"
        count = count if models["rows"].sum() else f"Nothing fitted, in {blocks(models.height)}"
        parts.append(f"<details><summary>{count}</summary>{_models(models)}</details>")
    return "".join(parts)


def _links(subject: Subject) -> str:
    run = '<a href="index.html">the whole run</a>'
    if not subject.predictors:
        return f"Read on: {run}."
    pages = ", ".join(shell.subject(name, STRATEGY, subject.page_of(name)) for name in subject.predictors)
    return f"Read on: {run}; whose answers it trades: {pages}."


def _models(models: pl.DataFrame) -> str:
    counts = {head: column for head, column in COUNTS.items() if models[column].sum()}  # a rule learns of nothing
    rows = []
    for row in models.sort("fold").iter_rows(named=True):
        # Only what is trained on a base has a card beside its weights.
        folder = escape(row["path"])
        card = f'<a href="../{folder}/README.md">{folder}</a>' if row["kind"] == "adapter" else folder
        learnt = (f"{row[column]:,}" for column in counts.values())
        rows.append((escape(row["fold"]), *learnt, str(row["snapshot"]), escape(row["digest"][:12]), card))
    heads = ("block", *counts, "read at snapshot", "digest", "files")
    return shell.table(heads, rows, words=("block", "digest", "files"))
