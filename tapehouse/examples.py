"""Examples of datasets: from pairs, labels and a tokenizer to prompts, answers and token ids, one row an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.prompts.orders import hold_instead, reason_words, render_answers, render_orders
from tapehouse.prompts.templates import Selection
from tapehouse.tokens import encode_answers, encode_prompts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

POINT: Final = ("symbol", "interval", "decision_at")
UNSIDED: Final = 0  # of labels.triple_barrier: 1 up, -1 down, 0 neither barrier in time


def render_pairs(pairs: pl.DataFrame, points: pl.DataFrame, words: Mapping[str, str], shown: Selection) -> pl.DataFrame:
    """The columns of `pairs`, and `prompt`, `chosen`, `rejected`, `template`, in the order of the pairs.

    Args:
        pairs: `objective, side, chosen_limit, rejected_limit` of each (symbol, interval, decision_at), limits in currency.
        points: `features.decision_points` over the same range.
        words: wording of each objective.
        shown: the template and what is hidden in it.

    Raises:
        TapehouseError: a pair's decision is not among the points.
    """
    joined = pairs.join(points, on=POINT, how="left", maintain_order="left")
    lost = joined.filter(pl.col("close").is_null())
    if lost.height:
        raise TapehouseError(
            f"datasets.preference_pairs: {lost['symbol'][0]} at {lost['decision_at'][0]} is not in features.decision_points"
        )
    reasons = reason_words(joined)
    return pairs.with_columns(
        render_orders(joined, words, shown.template, shown.mask).alias("prompt"),
        render_answers(joined["side"], joined["chosen_limit"], reasons).alias("chosen"),
        render_answers(joined["side"], joined["rejected_limit"], reasons).alias("rejected"),
        pl.lit(shown.version).alias("template"),
    )


def supervised_examples(pairs: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Prompts with the answer to learn: the columns of the key, `objective, action, prompt, answer, label_end_at` and so on.

    Where the pair's side agrees with the unsided label the answer is the better paid order; where neither barrier was
    met in time it is HOLD; other rows, and rows whose label is null, give no example. An example ends, and is known,
    when the later of its label and its reward does, so that purging takes the longest of what it rests on.

    Args:
        pairs: rows of `datasets.preference_pairs`.
        labels: rows of `labels.triple_barrier` over the same decisions.
    """
    unsided = labels.filter(pl.col("side") == UNSIDED).select(*POINT, "label", "label_end_at", "label_known_at")
    rows = pairs.join(unsided, on=POINT, how="inner", maintain_order="left").filter(pl.col("label").is_not_null())
    agrees = (pl.col("label") == 1) & (pl.col("side") == "BUY") | (pl.col("label") == -1) & (pl.col("side") == "SELL")
    rows = rows.with_columns(hold_instead(rows["chosen"]).alias("hold")).filter((pl.col("label") == 0) | agrees)
    hold = pl.col("label") == 0
    return rows.select(
        *POINT,
        "objective",
        action=pl.when(hold).then(pl.lit("HOLD")).otherwise("side"),
        prompt="prompt",
        answer=pl.when(hold).then("hold").otherwise("chosen"),
        label_end_at=pl.max_horizontal("label_end_at", "reward_end_at"),
        label_known_at=pl.max_horizontal("label_known_at", "reward_known_at"),
        template="template",
    )


def supervised_tokens(examples: pl.DataFrame, tokenizer: Tokenizer, digest: str) -> pl.DataFrame:
    """Rows of `datasets.sft_tokens`: `input_ids` are the prompt's ids, then the answer's with its stop token, uncut."""
    prompts = encode_prompts(tokenizer, examples["prompt"].to_list())
    answers = encode_answers(tokenizer, examples["answer"].to_list())
    whole = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    return examples.select(
        *POINT,
        "objective",
        "action",
        pl.Series("input_ids", whole, dtype=pl.List(pl.Int32)),
        pl.Series("prompt_length", [len(prompt) for prompt in prompts], dtype=pl.Int32),
        "label_end_at",
        "label_known_at",
        "template",
        tokenizer=pl.lit(digest),
    )


def preference_tokens(pairs: pl.DataFrame, tokenizer: Tokenizer, digest: str) -> pl.DataFrame:
    """Rows of `datasets.preference_tokens`: ids of prompt, chosen and rejected apart, answers with their stop token."""
    encoded = {
        "prompt_ids": encode_prompts(tokenizer, pairs["prompt"].to_list()),
        "chosen_ids": encode_answers(tokenizer, pairs["chosen"].to_list()),
        "rejected_ids": encode_answers(tokenizer, pairs["rejected"].to_list()),
    }
    return pairs.select(
        *POINT,
        "objective",
        *(pl.Series(name, ids, dtype=pl.List(pl.Int32)) for name, ids in encoded.items()),
        "margin_bps",
        "reward_end_at",
        "reward_known_at",
        "template",
        tokenizer=pl.lit(digest),
    )


def tokenizer_texts(pairs: pl.DataFrame) -> list[str]:
    """What a tokenizer is trained on: prompts with every form of answer that follows them."""
    prompts = pairs["prompt"]
    return [*(prompts + pairs["chosen"]), *(prompts + pairs["rejected"]), *(prompts + hold_instead(pairs["chosen"]))]
