"""Which of two answers a language model holds for the likelier one: the better paid, or the other?

Pairs of a test block, each the chosen and the rejected answer to one prompt, are scored by the adapter and by what its training
started from (its base, or its parent's adapter). So three things can be told apart: whether the adapter prefers the better paid
answer, by whole log-probabilities or by those a token; whether what it started from did; and whether training moved it there,
which for methods with a reference is the sign of their implicit reward (Rafailov and others 2023, section 4, without beta).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tapehouse.balance import drawn

if TYPE_CHECKING:
    from pathlib import Path

KEYS: Final = ("symbol", "interval", "decision_at", "objective", "placement")
MOST: Final = 256  # pairs a fold that are scored: an interval of six points either way, at a second or so of one core
PREFERENCES: Final = {
    "adapter": pl.String,
    "fold": pl.String,
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": pl.Datetime("us", "UTC"),
    "objective": pl.String,
    "placement": pl.Int32,
    "margin_bps": pl.Float64,
    "chosen_logp": pl.Float64,
    "rejected_logp": pl.Float64,
    "chosen_logp_before": pl.Float64,
    "rejected_logp_before": pl.Float64,
    "chosen_tokens": pl.Int32,
    "rejected_tokens": pl.Int32,
    "reward_known_at": pl.Datetime("us", "UTC"),
}


def asked_pairs(tokens: pl.DataFrame, fold: str, most: int = MOST) -> pl.DataFrame:
    """The pairs that are scored: at most `most` of `tokens`, drawn by a hash of each row's key and the fold.

    They hang on no recipe: adapters of one tokenizer are asked the same ones, so that they can be compared pair by pair.

    Args:
        tokens: rows of `datasets.preference_tokens` of one tokenizer and one test block.
    """
    return drawn(tokens, most, fold).sort(KEYS)


def preference_rows(
    adapter: str, fold: str, pairs: pl.DataFrame, after: Path | None, before: Path | None, load
) -> pl.DataFrame:
    """Rows of `models.preferences`: log-probabilities in nats of both answers, stop token included, of each of `pairs`.

    Args:
        pairs: of :func:`asked_pairs`.
        after, before: folders of `models.adapters`, of the adapter and of what its training started from; None is the base.
        load: the model of a folder, and the id that pads its batches.
    """
    from tapehouse.inference.scoring import score

    prompts = pairs["prompt_ids"].to_list()
    answers = list(zip(pairs["chosen_ids"].to_list(), pairs["rejected_ids"].to_list(), strict=True))
    columns = {"adapter": pl.lit(adapter), "fold": pl.lit(fold)}
    for folder, when in ((after, ""), (before, "_before")):
        model, pad = load(folder)
        found = score(model, prompts, answers, pad).reshape(-1, 2)
        columns |= {f"{side}_logp{when}": pl.Series(found[:, at]) for at, side in enumerate(("chosen", "rejected"))}
    columns |= {f"{side}_tokens": pl.col(f"{side}_ids").list.len() for side in ("chosen", "rejected")}
    return pairs.with_columns(**columns).select(pl.col(name).cast(kind) for name, kind in PREFERENCES.items())
