"""Rows of token tables: texts of a dataset as ids of every tokenizer, each example whole or not at all.

Where prompt and answer together are longer than a tokenizer's `max_length`, the optional lines of the prompt's template go,
one kind after the other in the order that the template declares, until they fit. What does not fit then is refused, with the
reason, for the quarantine: an answer is never cut, and neither is what a prompt must show.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from tapehouse.partitions import fold_origin
from tapehouse.prompts.templates import shortened, template_of
from tapehouse.ragged import Ragged, beside, stacked
from tapehouse.refusals import REFUSED
from tapehouse.tokens import Vocabulary, answer_ids, prompt_ids

IDS: Final = pl.List(pl.Int32)
# Of a row, as far as it has them.
KEY: Final = ("fold", "symbol", "interval", "decision_at", "dataset", "family", "objective", "placement", "origin")
# Tokens kept free for the answer to an order, and for a thesis: thrice the longest of the packaged data, which has neither news
# nor filings. One number for datasets and evaluation, so that both show one prompt where lines of it have to go.
ORDER_ROOM: Final = 64
THESIS_ROOM: Final = 640
TOO_LONG: Final = "too long for its tokenizer, without its optional lines too"


@dataclass(frozen=True)
class Tokenised:
    """Rows of a token table, and those that were refused, in the columns of `REFUSED`."""

    rows: pl.DataFrame
    refused: pl.DataFrame

    @property
    def facts(self) -> dict[str, int]:
        """How many rows there are, of how many optional lines went, and how many were refused."""
        return {
            "examples": self.rows.height,
            "shortened": self.rows.filter(pl.col("lines_dropped") > 0).height,
            "refused": self.refused.height,
        }


def supervised_tokens(
    examples: pl.DataFrame,
    vocabularies: Mapping[str, Vocabulary],
    table: str,
    source: str,
    marked: bool = False,
    room: int = 0,
) -> Tokenised:
    """Examples with `input_ids`, the prompt's ids and then the answer's, and `loss_mask`, true on the answer and its stop.

    Args:
        examples: `prompt`, `answer`, `template`, the key, and whatever else the table keeps.
        vocabularies: tokenizers by digest; each gives every example a row, with the digest in `tokenizer`.
        table, source: the table that is made and the one that the examples are rows of, for what is refused.
        marked: the answers' tags and elements are the tokenizers' markers.
        room: tokens that a prompt leaves free at least, whatever its answer's length.

    Returns:
        Rows without `prompt` and `answer`, with `input_ids`, `loss_mask`, `prompt_length`, `lines_dropped`, `tokenizer`.
    """

    def columns(fitted: _Fitted) -> list[pl.Series]:
        answers = fitted.answers[0]
        seam = np.stack([fitted.prompts.lengths, answers.lengths], axis=1).reshape(-1)
        whole = beside(fitted.prompts, answers)
        mask = Ragged(np.repeat(np.tile([False, True], answers.lengths.size), seam), whole.offsets)
        return [
            whole.series("input_ids", IDS),
            mask.series("loss_mask", pl.List(pl.Boolean)),
            pl.Series("prompt_length", fitted.prompts.lengths, dtype=pl.Int32),
        ]

    return _tokenised(examples, vocabularies, ("answer",), columns, table, source, marked, room)


def preference_tokens(
    pairs: pl.DataFrame,
    vocabularies: Mapping[str, Vocabulary],
    table: str,
    source: str,
    marked: bool = False,
    room: int = 0,
) -> Tokenised:
    """Pairs with `prompt_ids`, `chosen_ids` and `rejected_ids` apart, answers with their stop token.

    The arguments are those of `supervised_tokens`; `pairs` has `prompt`, `chosen`, `rejected` and `template`. The longer of the
    two answers decides what fits, so that both see one prompt.
    """

    def columns(fitted: _Fitted) -> list[pl.Series]:
        parts = {"prompt_ids": fitted.prompts, "chosen_ids": fitted.answers[0], "rejected_ids": fitted.answers[1]}
        return [ids.series(name, IDS) for name, ids in parts.items()]

    return _tokenised(pairs, vocabularies, ("chosen", "rejected"), columns, table, source, marked, room)


def prompt_tokens(
    prompts: pl.DataFrame, vocabularies: Mapping[str, Vocabulary], table: str, source: str, room: int
) -> Tokenised:
    """Prompts with `prompt_ids`, each short enough for an answer of `room` tokens; `prompts` has `prompt` and `template`."""

    def columns(fitted: _Fitted) -> list[pl.Series]:
        return [fitted.prompts.series("prompt_ids", IDS)]

    return _tokenised(prompts, vocabularies, (), columns, table, source, room=room)


def asked_prompts(vocabulary: Vocabulary, prompts: Sequence[str], template: str, room: int) -> list[str]:
    """Prompts as a model is asked them: without the optional lines that `prompt_tokens` would drop; never without a prompt.

    One that cannot fit is asked in its shortest form: a decision that is not in a dataset has to be answered all the same.
    """
    asked = list(prompts)
    for row in np.flatnonzero(prompt_ids(vocabulary, asked).lengths > vocabulary.max_length - room):
        forms = shortened(asked[row], template)
        fitting = np.flatnonzero(prompt_ids(vocabulary, forms).lengths <= vocabulary.max_length - room)
        asked[row] = forms[fitting[0] if fitting.size else -1] if forms else asked[row]
    return asked


@dataclass(frozen=True)
class _Fitted:
    """The examples that fit one tokenizer: their numbers, ids, and how many kinds of optional lines each has lost."""

    kept: np.ndarray
    prompts: Ragged
    answers: list[Ragged]
    dropped: np.ndarray


def _tokenised(rows, vocabularies, answers, columns, table, source, marked=False, room=0) -> Tokenised:
    made, refused = [], []
    others = [name for name in rows.columns if name not in ("prompt", *answers)]
    for digest, vocabulary in vocabularies.items():
        fitted, lengths = _fit(rows, vocabulary, answers, marked, room)
        made.append(
            rows.select(others)[fitted.kept].with_columns(
                *columns(fitted),
                pl.Series("lines_dropped", fitted.dropped, dtype=pl.Int32),
                tokenizer=pl.lit(digest),
            )
        )
        unfit = np.setdiff1d(np.arange(rows.height), fitted.kept)
        refused.append(_refusals(rows[unfit], lengths[unfit], digest, vocabulary, table, source))
    return Tokenised(pl.concat(made), pl.concat(refused))


def _fit(
    rows: pl.DataFrame, vocabulary: Vocabulary, answers: Sequence[str], marked: bool, room: int
) -> tuple[_Fitted, np.ndarray]:
    """The examples that fit, and the tokens of each example's shortest form."""
    prompts = prompt_ids(vocabulary, rows["prompt"].to_list())
    parts = [answer_ids(vocabulary, rows[name].to_list(), marked) for name in answers]
    longest = np.max([np.full(rows.height, room), *(part.lengths for part in parts)], axis=0)
    most = vocabulary.max_length - longest
    lengths = prompts.lengths
    over = np.flatnonzero(lengths > most)
    dropped = np.zeros(rows.height, np.int32)
    if over.size:
        place = np.arange(rows.height)
        shorter, added = [], 0
        for row, (prompt, version) in zip(over, rows[over].select("prompt", "template").iter_rows(), strict=True):
            forms = shortened(prompt, template_of(version))
            ids = prompt_ids(vocabulary, forms)
            fitting = np.flatnonzero(ids.lengths <= most[row])
            if fitting.size:
                place[row], dropped[row] = rows.height + added + fitting[0], fitting[0] + 1
            lengths[row] = ids.lengths[fitting[0] if fitting.size else -1] if forms else lengths[row]
            shorter.append(ids)
            added += len(forms)
        prompts = stacked([prompts, *shorter]).take(place)
    kept = np.flatnonzero(lengths <= most)
    if kept.size < rows.height:
        prompts, parts, dropped = prompts.take(kept), [part.take(kept) for part in parts], dropped[kept]
    return _Fitted(kept, prompts, parts, dropped), lengths + longest


def _refusals(
    rows: pl.DataFrame, lengths: np.ndarray, digest: str, vocabulary: Vocabulary, table: str, source: str
) -> pl.DataFrame:
    key = [name for name in KEY if name in rows.columns]
    found = []
    for row, tokens in zip(rows.select(*key, "template").iter_rows(named=True), lengths.tolist(), strict=True):
        where = " ".join(str(row[name]) for name in key if name not in ("fold", "decision_at"))
        fold = fold_origin(row["fold"]) if "fold" in row else ""
        facts = {"tokens": tokens, "max_length": vocabulary.max_length, "tokenizer": digest}
        found.append(
            {
                "table_name": table,
                "source": None,
                "origin": f"{fold}{source} {where} {row['decision_at'].isoformat()}",
                "symbol": row["symbol"],
                "event_at": row["decision_at"],
                "filed_at": row["decision_at"],
                "reason": TOO_LONG,
                "record": json.dumps({**row, **facts}, default=str, sort_keys=True),
            }
        )
    return pl.DataFrame(found, schema=REFUSED)
