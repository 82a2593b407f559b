"""What a tokenizer is trained on: prompts and answers of every family, known before the first fold's training ended."""

from __future__ import annotations

from datetime import datetime
from string import Formatter

import polars as pl

from tapehouse.prompts.orders import hold_instead
from tapehouse.prompts.templates import Selection, Template, load
from tapehouse.prompts.thesis import render_theses, thesis_text
from tapehouse.teacher import write_theses

POINT = ("symbol", "interval", "decision_at")


def order_texts(pairs: pl.DataFrame, until: datetime) -> list[str]:
    """Prompts of rows of `datasets.preference_pairs` with every form of answer that follows them.

    Decided before the end of training is not enough: a reward chose which answer is called the better one.
    """
    known = pairs.filter(pl.col("reward_known_at") < until)
    prompts = known["prompt"]
    return [*(prompts + known["chosen"]), *(prompts + known["rejected"]), *(prompts + hold_instead(known["chosen"]))]


def instruction_texts(rows: pl.DataFrame, until: datetime) -> list[str]:
    """Prompts of rows of `datasets.instructions` with their answers."""
    known = rows.filter(pl.col("label_known_at") < until)
    return (known["prompt"] + known["answer"]).to_list()


def thesis_texts(points: pl.DataFrame, company: pl.DataFrame, shown: Selection) -> list[str]:
    """Prompts of decision points with the teacher's thesis on each, which all hold: a fold's action is no part of the words.

    Args:
        points: rows of `features.decision_points`. company: rows of `features.company` of the same decisions.
        shown: template and mask of the family.
    """
    rows = points.join(company.drop("known_at", strict=False), on=POINT, how="left").sort(POINT)
    rows = rows.drop_nulls(_always_shown(load(shown.template), rows.columns))
    prompts = render_theses(rows, shown.template, shown.mask)
    written = write_theses(prompts, rows, ["hold"] * rows.height, shown.template)
    return [prompt + thesis_text(thesis) for prompt, thesis in zip(prompts, written, strict=True)]


def _always_shown(template: Template, columns: list[str]) -> list[str]:
    """Columns of the lines that every prompt has."""
    fixed = [line for line in template.lines if not line.startswith((*template.optional, *template.nullable))]
    fields = {field for line in fixed for _, field, _, _ in Formatter().parse(line) if field}
    return sorted(fields & set(columns))
