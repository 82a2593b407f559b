"""Which of two answers a language model holds for the likelier one: the better paid, or the other?

Pairs of a test block, each the chosen and the rejected answer to one prompt, are scored by the adapter and by what its training
started from (its base, or its parent's adapter). So three things can be told apart: whether the adapter prefers the better paid
answer, by whole log-probabilities or by those a token; whether what it started from did; and whether training moved it there,
which for methods with a reference is the sign of their implicit reward (Rafailov and others 2023, section 4, without beta).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from tapehouse.balance import drawn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KEYS: Final = ("symbol", "interval", "decision_at", "objective", "placement")
LOGPS: Final = ("chosen_logp", "rejected_logp")
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


def log_probabilities(model: PreTrainedModel, pairs: pl.DataFrame, pad: int) -> np.ndarray:
    """Of the chosen and the rejected answer, stop token included, in nats: (pairs, 2)."""
    from tapehouse.inference.scoring import score

    answers = list(zip(pairs["chosen_ids"].to_list(), pairs["rejected_ids"].to_list(), strict=True))
    return score(model, pairs["prompt_ids"].to_list(), answers, pad).reshape(-1, 2)


def stored_log_probabilities(preferences: pl.DataFrame, pairs: pl.DataFrame) -> np.ndarray:
    """Those that another adapter's rows of `models.preferences` hold, (pairs, 2).

    Raises:
        ValueError: a pair was not asked of it.
    """
    found = pairs.join(preferences, on=KEYS, how="left", maintain_order="left", validate="1:1").select(LOGPS)
    if found.null_count().sum_horizontal().item():
        asked = ", ".join(preferences["adapter"].unique().sort()) or "nobody"
        raise ValueError(
            f"models.preferences: of {pairs.height} pairs not all were asked of {asked}; make its preferences again first"
        )
    return found.to_numpy()


def preference_rows(adapter: str, fold: str, pairs: pl.DataFrame, after: np.ndarray, before: np.ndarray) -> pl.DataFrame:
    """Rows of `models.preferences`.

    Args:
        pairs: of :func:`asked_pairs`.
        after, before: (pairs, 2) log-probabilities under the adapter, and under what its training started from.
    """
    columns = {"adapter": pl.lit(adapter), "fold": pl.lit(fold)}
    for at, name in enumerate(LOGPS):
        columns |= {name: pl.Series(after[:, at]), f"{name}_before": pl.Series(before[:, at])}
    columns |= {f"{side}_tokens": pl.col(f"{side}_ids").list.len() for side in ("chosen", "rejected")}
    return pairs.with_columns(**columns).select(pl.col(name).cast(kind) for name, kind in PREFERENCES.items())
