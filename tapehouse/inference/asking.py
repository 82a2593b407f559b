"""Answers of a model to prompts of one family, as columns of `models.predictions`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import polars as pl

from tapehouse.inference.effort import Effort
from tapehouse.inference.families import FAMILIES, Choices, Family
from tapehouse.inference.generation import generate
from tapehouse.inference.sampling import GREEDY, Sampling
from tapehouse.inference.scoring import score, shares
from tapehouse.predictions import ACTIONS, CHANCES
from tapehouse.tokens import decode_answer, encode_answers, encode_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tapehouse.tokens import Vocabulary

Mode = Literal["generate", "constrained", "score"]
SCHEMA: Final = {
    "text": pl.String,
    "parse_state": pl.String,
    "action": pl.String,
    "limit_price": pl.Float64,
    "confidence": pl.Float64,
    **dict.fromkeys(CHANCES, pl.Float64),
}


def predict(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    prompts: Sequence[str],
    family: Family = FAMILIES["order"],
    mode: Mode = "generate",
    batch: int = 128,
    sampling: Sampling = GREEDY,
    choices: Sequence[Choices] | None = None,
    effort: Effort | None = None,
) -> pl.DataFrame:
    """One row a prompt, in their order: text, parse_state, action, limit_price (currency), confidence, p_sell, p_hold, p_buy.

    An answer that did not stop, or is no text, has a null `text` and the state 'not_text'; like an unparseable one it acts as
    HOLD. Probabilities are those of the actions, of several of one class their sum: of a written answer at its first place,
    where answers of the family part there, else of the same answer with another action (null where it does not parse); of a
    scored one, of its choices.

    Args:
        mode: `generate` writes freely, `constrained` what the family's grammar allows, and `score` takes the likeliest of
            `choices`, those of `Family.choices`, which nothing else needs.
        effort: is told what each batch of answers took; not what their probabilities took beside, where they are of their own.

    Raises:
        ValueError: to score without choices.
    """
    if mode == "score":
        if choices is None:
            raise ValueError("inference: answers are scored among choices; pass those of Family.choices")
        of_actions = action_shares(model, vocabulary, family, prompts, choices, effort)
        texts = _likeliest(family, of_actions, choices)
    else:
        texts, of_actions = _written(model, vocabulary, prompts, family, mode == "constrained", batch, sampling, effort)
    said = pl.Series("text", texts, dtype=pl.String)
    read = family.read(said, pl.Series("prompt", prompts, dtype=pl.String))
    chances = class_shares(family, of_actions)
    columns = {
        "text": said,
        "action": pl.col("action").replace_strict(family.class_of, return_dtype=pl.String),
        **{name: pl.Series(name, chances[:, place]).fill_nan(None) for place, name in enumerate(CHANCES)},
    }
    absent = {name: pl.lit(None) for name in SCHEMA if name not in (*read.columns, *columns)}
    return read.with_columns(**columns, **absent).select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())


def action_shares(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    family: Family,
    prompts: Sequence[str],
    choices: Sequence[Choices | None],
    effort: Effort | None = None,
) -> np.ndarray:
    """Share of each action, (prompts, actions of the family), by the log-probability of its whole text and the stop token.

    NaN where a prompt has no choices.
    """
    asked = [row for row, choice in enumerate(choices) if choice is not None]
    heads = encode_prompts(vocabulary, [prompts[row] for row in asked])
    commons = [ids[:-1] for ids in encode_answers(vocabulary, [choices[row].common for row in asked], family.marked)]
    texts = [choices[row].texts[action] for row in asked for action in family.class_of]
    ids = encode_answers(vocabulary, texts, family.marked)
    count = len(family.class_of)
    answers = [ids[start : start + count] for start in range(0, len(ids), count)]
    found = np.full((len(choices), count), np.nan)
    if asked:
        whole = [head + common for head, common in zip(heads, commons, strict=True)]
        found[asked] = shares(score(model, whole, answers, vocabulary.pad, effort))
    return found


def class_shares(family: Family, of_actions: np.ndarray) -> np.ndarray:
    """Shares of SELL, HOLD and BUY, (prompts, 3), from those of the family's actions."""
    places = [ACTIONS.index(name) for name in family.class_of.values()]
    return of_actions @ np.eye(len(ACTIONS))[places]


def _written(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    prompts: Sequence[str],
    family: Family,
    constrained: bool,
    batch: int,
    sampling: Sampling,
    effort: Effort | None,
) -> tuple[list[str | None], np.ndarray]:
    """What the model writes, and the shares of the family's actions."""
    firsts = family.first_tokens(vocabulary)
    grammars = [family.grammar(prompt, vocabulary) for prompt in prompts] if constrained else None
    written = generate(model, vocabulary, prompts, family.most, batch, sampling, grammars, firsts or (), effort)
    texts = [decode_answer(vocabulary, ids) for ids in written.ids]
    if firsts is not None:
        return texts, shares(np.array(written.firsts, np.float64).reshape(-1, len(firsts)))
    states = family.read(pl.Series(texts, dtype=pl.String), pl.Series(prompts, dtype=pl.String))["parse_state"]
    same = [family.exchanged(text) if state == "ok" else None for text, state in zip(texts, states, strict=True)]
    return texts, action_shares(model, vocabulary, family, prompts, same)


def _likeliest(family: Family, of_actions: np.ndarray, choices: Sequence[Choices]) -> list[str | None]:
    """Of each prompt the choice of the likeliest action in the likeliest class."""
    actions, of_class = list(family.class_of), np.array([ACTIONS.index(name) for name in family.class_of.values()])
    best = class_shares(family, of_actions).argmax(axis=1)
    inside = np.where(of_class == best[:, None], of_actions, -1.0).argmax(axis=1)
    return [choice.common + choice.texts[actions[place]] for choice, place in zip(choices, inside, strict=True)]
