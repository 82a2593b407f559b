"""Theses to learn from, by fold: the teacher's on every decision with a class, and imported ones put into the same form.

**The teacher's** (`tapehouse.teacher`): its action is the five-class signal, cut by the fold's own thresholds.

**Imported ones** (`staging.theses`): a thesis belongs to the last decision on or before its as-of day, at most
`NEAREST_DAYS` back, and is taken as it stood when the fold's training ended, or as it first came where that was later. Its
sentences are put, unchanged, into the section whose words they use; the claims are facts of the decision point and are
stated as the teacher states them. A thesis with a number that the prompt does not show cannot be told from a made-up one: it
is refused, as one without a decision or with too long a section is, and goes to the quarantine with the reason.
"""

import json
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import polars as pl

from tapehouse.folds import Fold
from tapehouse.keyed import keyed_uniform
from tapehouse.partitions import fold_origin
from tapehouse.prompts.shown import shown
from tapehouse.prompts.templates import Selection
from tapehouse.prompts.thesis import (
    CLAIMS,
    LONGEST_TEXT,
    SECTIONS,
    Rejection,
    Thesis,
    numbers_not_shown,
    parse_thesis,
    render_theses,
    thesis_text,
)
from tapehouse.refusals import REFUSED
from tapehouse.teacher import claims_of, difficulty, write_theses
from tapehouse.versions import as_known

POINT: Final = ["symbol", "interval", "decision_at"]
TEACHER: Final = "teacher"
NEAREST_DAYS: Final = 4  # a long weekend
NO_DECISION: Final = f"no decision point of its symbol on its as-of day or the {NEAREST_DAYS} before"
# Of all rows, by a hash of the key: which part of an answer a stage of a curriculum trains on whom.
STAGES: Final = {"structure": 0.2, "claims": 0.3, "decision": 0.5}
SLICE: Final = 50_000  # theses at a time: as objects they take far more memory than as text
STAMP = pl.Datetime("us", "UTC")
SCHEMA = {
    "fold": pl.String,
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": STAMP,
    "origin": pl.String,
    "prompt": pl.String,
    "answer": pl.String,
    "action": pl.String,
    **{f"section_{name}": pl.Boolean for name in SECTIONS},
    **{f"claim_{name}": pl.Boolean for name in CLAIMS},
    "numbers_not_shown": pl.Int64,
    "stage": pl.String,
    "difficulty": pl.Float64,
    "label_end_at": STAMP,
    "label_known_at": STAMP,
    "known_at": STAMP,
    "template": pl.String,
}
# A sentence goes to the section of which it uses the most words, the first of those that tie.
_WORDS: Final = {
    "trend": "price prices trend momentum rsi macd moving average rally breakout oversold overbought support resistance chart",
    "risk": "volatility volatile risk risks risky drawdown swing swings beta stop",
    "market": "market markets index indices sector peers regime relative benchmark",
    "macro": "rates rate inflation economy economic recession oil credit yields spread spreads dollar fed vix policy tariffs",
    "company": "earnings revenue sales margin margins profit profits cash debt assets dividend growth product products "
    "guidance management insider insiders valuation customers demand buyback quarter company services",
    "news": "news article articles headline headlines sentiment analyst analysts filing filings report reports tone press",
}  # fmt: skip
_SECTION_OF: Final = {word: name for name, words in _WORDS.items() for word in words.split()}
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_WORD = re.compile(r"[a-z]+")
_PLAIN = str.maketrans({"&": " and ", "<": " below ", ">": " above "})
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Built:
    """Rows of `datasets.theses` of one fold, and the imported theses that were refused, in the columns of `REFUSED`."""

    rows: pl.DataFrame
    refused: pl.DataFrame


def build_theses(
    points: pl.DataFrame, company: pl.DataFrame, classes: pl.DataFrame, imported: pl.DataFrame, chosen: Selection, fold: Fold
) -> Built:
    """Theses on the decisions from the start of a fold's training to the end of its test block.

    Args:
        points: `features.decision_points`. company: `features.company` of the same decisions.
        classes: `models.signal_classes` of the fold; decisions without a class get no thesis of the teacher.
        imported: `staging.theses`, every version.
        chosen: template and mask of the family `thesis`.
    """
    points = points.join(company.drop("known_at"), on=POINT, how="left", maintain_order="left")
    parts = [pl.DataFrame(schema=SCHEMA)]
    for some in _with_class(points, classes).iter_slices(SLICE):
        prompts = render_theses(some, chosen.template, chosen.mask)
        parts.append(_rows(some, prompts, write_theses(prompts, some, some["action"], chosen.template), chosen, fold))
    rows, refused = _imported_rows(points, as_stood(imported, fold), chosen, fold)
    return Built(pl.concat([*parts, rows]).sort(*POINT, "origin"), _refusals(refused, fold))


def _with_class(points: pl.DataFrame, classes: pl.DataFrame) -> pl.DataFrame:
    known = classes.drop_nulls("signal_class").select(
        *POINT, "label_end_at", "label_known_at", action="signal_class", told_at="known_at", origin=pl.lit(TEACHER)
    )
    return points.join(known, on=POINT, how="inner", maintain_order="left")


def _imported_rows(
    points: pl.DataFrame, theses: pl.DataFrame, chosen: Selection, fold: Fold
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of the imported theses that can be used, and the others with `why` they cannot."""
    placed = place(points, theses)
    prompts = render_theses(placed, chosen.template, chosen.mask)
    read = [_imported(*row, chosen.template) for row in zip(prompts, placed["reasoning"], placed["action"], strict=True)]
    kept = [thesis for thesis in read if isinstance(thesis, Thesis)]
    why = pl.Series([None if isinstance(thesis, Thesis) else thesis for thesis in read], dtype=pl.String)
    rows = _rows(placed.filter(why.is_null()), prompts.filter(why.is_null()), kept, chosen, fold)
    lost = theses.join(placed, on="origin", how="anti", maintain_order="left").with_columns(why=pl.lit(NO_DECISION))
    bad = placed.with_columns(why=why).drop_nulls("why").unique(["origin", "why"], keep="first", maintain_order=True)
    return rows, pl.concat([lost, bad.select(lost.columns)])


def as_stood(imported: pl.DataFrame, fold: Fold) -> pl.DataFrame:
    """Of each thesis the version known by the end of the fold's training, or the first where none was.

    `told_at` is when both the version and the fold's training were known.
    """
    end = pl.lit(fold.train_end, STAMP)
    cutoff = pl.max_horizontal(pl.col("known_at").min().over("thesis_id"), end)
    return as_known(imported, ("thesis_id",), cutoff).select(
        "symbol",
        "as_of",
        "reasoning",
        "action",
        "source",
        origin="thesis_id",
        label_end_at="event_at",
        label_known_at="known_at",
        told_at=pl.max_horizontal("known_at", end),
    )


def place(points: pl.DataFrame, theses: pl.DataFrame) -> pl.DataFrame:
    """Each thesis with the decision point that it belongs to, in every interval that has one; others are left out."""
    placed = [points.clear().join(theses.clear(), on="symbol", how="inner")]
    for _, own in points.sort("symbol", "session").group_by("interval", maintain_order=True):
        near = theses.sort("symbol", "as_of").join_asof(
            own.with_columns(_session="session"),
            left_on="as_of",
            right_on="session",
            by="symbol",
            strategy="backward",
            tolerance=timedelta(days=NEAREST_DAYS),
            check_sortedness=False,
        )
        placed.append(near.drop_nulls("decision_at").drop("_session").select(placed[0].columns))
    return pl.concat(placed)


def in_sections(text: str) -> dict[str, str | None]:
    """The sentences of a text by section; one without a section's words goes with the one before it, the first to `company`.

    `&`, `<` and `>` become words, and control characters blanks: a section is plain text.
    """
    found: dict[str, list[str]] = {name: [] for name in SECTIONS}
    last = "company"
    for sentence in _SENTENCE.split(" ".join(_UNPRINTABLE.sub(" ", text.translate(_PLAIN)).split())):
        used = [_SECTION_OF[word] for word in _WORD.findall(sentence.lower()) if word in _SECTION_OF]
        last = max(SECTIONS, key=used.count) if used else last
        if sentence:
            found[last].append(sentence)
    return {name: " ".join(sentences) or None for name, sentences in found.items()}


def stages(points: pl.DataFrame) -> pl.Series:
    """The stage of a curriculum that each decision serves, by the shares of `STAGES`; the same in every fold."""
    drawn = pl.Series(keyed_uniform(points, "thesis|stage"), dtype=pl.Float64)
    first = STAGES["structure"]
    said = pl.when(drawn < first).then(pl.lit("structure")).when(drawn < first + STAGES["claims"]).then(pl.lit("claims"))
    return points.select(stage=said.otherwise(pl.lit("decision")))["stage"]


def _imported(prompt: str, reasoning: str, action: str, template: str) -> Thesis | str:
    """An imported thesis in the form of all, or why it cannot have it."""
    sections = in_sections(reasoning)
    if any(len(text) > LONGEST_TEXT for text in sections.values() if text):
        return f"a section has more than {LONGEST_TEXT} characters"
    thesis = Thesis(sections, claims_of(shown(prompt, template)), action)
    if foreign := numbers_not_shown(thesis, prompt):
        return f"numbers that the decision's prompt does not show: {', '.join(dict.fromkeys(foreign))}"
    return thesis


def _refusals(refused: pl.DataFrame, fold: Fold) -> pl.DataFrame:
    record = ("origin", "symbol", "as_of", "action", "reasoning", "label_known_at")
    texts = [json.dumps(row, default=str, sort_keys=True) for row in refused.select(record).iter_rows(named=True)]
    columns = {
        "table_name": pl.lit("datasets.theses"),
        "origin": pl.lit(f"{fold_origin(fold.id)}staging.theses ") + pl.col("origin"),
        "event_at": pl.col("label_end_at"),
        "filed_at": pl.col("label_end_at"),
        "reason": pl.col("why"),
        "record": pl.Series(texts, dtype=pl.String),
    }
    return refused.with_columns(**columns).select(list(REFUSED)).cast(REFUSED)


def _rows(told: pl.DataFrame, prompts: pl.Series, theses: list[Thesis], chosen: Selection, fold: Fold) -> pl.DataFrame:
    answers = [thesis_text(thesis) for thesis in theses]
    # Read back from the text, so that the columns say what the answer says.
    read = [parse_thesis(answer) for answer in answers]
    foreign = [-1 if isinstance(t, Rejection) else len(numbers_not_shown(t, p)) for t, p in zip(read, prompts, strict=True)]
    holds = [{name: thesis.claims[name].holds for name in CLAIMS} for thesis in theses]
    columns = {
        "fold": pl.lit(fold.id),
        "prompt": prompts,
        "answer": pl.Series(answers, dtype=pl.String),
        "action": pl.Series([thesis.action for thesis in theses], dtype=pl.String),
        **{f"section_{n}": pl.Series([t.sections[n] is not None for t in theses], dtype=pl.Boolean) for n in SECTIONS},
        **{f"claim_{n}": pl.Series([claims[n] for claims in holds], dtype=pl.Boolean) for n in CLAIMS},
        "numbers_not_shown": pl.Series(foreign, dtype=pl.Int64),
        "stage": stages(told),
        "difficulty": pl.Series([difficulty(c, t.action) for c, t in zip(holds, theses, strict=True)], dtype=pl.Float64),
        "known_at": pl.col("told_at"),
        "template": pl.lit(chosen.version),
    }
    return told.with_columns(**columns).select(list(SCHEMA)).cast(SCHEMA)
