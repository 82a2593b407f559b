"""The text that a base model is pretrained on: real prompts of the training window, with answers that know no outcome.

The base shall know the form of an order and copy the price shown. It shall know neither which order paid nor what came
after: its answers come from drawn numbers and from the prompt itself, never from labels or rewards.

- Action: by the reason that the answer states (trend up: BUY, trend down: SELL, an extreme RSI: HOLD) in `rule_share`
  of the cases, so that greedy answers are a mix; drawn uniformly else, so that the base stays unsure.
- Limit: the price shown in `at_price_share` of the cases, which makes the exact copy the likeliest answer; else up to
  `farthest_offset` of the price away, on the passive side.
- Prices: `rescaled_share` of the prompts have all their prices multiplied by one drawn factor, and the first stage is
  short 'price, order' lines over the whole range. The prices of a test window may be ones that no symbol had before.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.prompts.orders import (
    ACTIONS,
    CONFIDENCE_STEP,
    LEAST_CONFIDENCE,
    MOST_CONFIDENCE,
    Order,
    answer,
    parse_order,
    rescale_prices,
    shown_price,
)
from tapehouse.tokens import encode_answers, encode_prompts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tapehouse.methods.pretrain import CorpusSection

COPY: Final = "copy"
TEXT: Final = "text"
_CONFIDENCES: Final = round((MOST_CONFIDENCE - LEAST_CONFIDENCE) / CONFIDENCE_STEP) + 1
_RULE: Final = {"trend up": "BUY", "trend down": "SELL", "rsi low": "HOLD", "rsi high": "HOLD"}
SCHEMA: Final = {"stage": pl.String, "prompt_ids": pl.List(pl.Int32), "answer_ids": pl.List(pl.Int32)}


def pretraining_tokens(pairs: pl.DataFrame, section: CorpusSection, tokenizer: Tokenizer, seed: int) -> pl.DataFrame:
    """Examples of both stages: `stage` ('copy' | 'text'), `prompt_ids`, `answer_ids`.

    `pairs` has `prompt` and `chosen` of datasets.preference_pairs, known before the first fold's training end,
    in the order of their grain; of `chosen` only confidence and reason are read, which are the same in `rejected`.
    Bit-identical for equal input and seed. Raises TapehouseError where there are no pairs.
    """
    if pairs.is_empty():
        raise TapehouseError("datasets.preference_pairs has no row known before the first fold; materialise it first")
    draw = np.random.default_rng(seed)
    said = [_said(text) for text in pairs["chosen"]]
    prompts: list[str] = []
    answers: list[str] = []
    for price in _prices(draw, section, section.copy_examples):
        prompts.append(f"price {price:07.2f}\n")
        confidence = LEAST_CONFIDENCE + CONFIDENCE_STEP * int(draw.integers(_CONFIDENCES))
        answers.append(_drawn_answer(draw, section, price, round(confidence, 2), list(_RULE)[draw.integers(len(_RULE))]))
    for row, price in zip(
        _repeated(draw, pairs.height, section.text_examples),
        _prices(draw, section, section.text_examples),
        strict=True,
    ):
        prompt = pairs["prompt"][int(row)]
        if draw.random() < section.rescaled_share:
            prompt = rescale_prices(prompt, price / shown_price(prompt))
        prompts.append(prompt)
        answers.append(_drawn_answer(draw, section, shown_price(prompt), *said[row]))
    stages = [COPY] * section.copy_examples + [TEXT] * section.text_examples
    ids = [encode_prompts(tokenizer, prompts), encode_answers(tokenizer, answers)]
    return pl.DataFrame([stages, *ids], schema=SCHEMA)


def _drawn_answer(draw: np.random.Generator, section: CorpusSection, price: float, confidence: float, reason: str) -> str:
    action = _RULE.get(reason, "HOLD") if draw.random() < section.rule_share else ACTIONS[draw.integers(len(ACTIONS))]
    if action == "HOLD":
        return answer("HOLD", None, confidence, reason)
    passive = -1.0 if action == "BUY" else 1.0
    offset = 0.0 if draw.random() < section.at_price_share else passive * draw.random() * section.farthest_offset
    return answer(action, max(price * (1.0 + offset), 0.01), confidence, reason)


def _prices(draw: np.random.Generator, section: CorpusSection, count: int) -> list[float]:
    low, high = math.log(section.lowest_price), math.log(section.highest_price)
    return [round(float(price), 2) for price in np.exp(draw.uniform(low, high, count))]


def _repeated(draw: np.random.Generator, rows: int, count: int) -> np.ndarray:
    """`count` row numbers: whole shuffled passes, so that each row is used equally often to within one."""
    passes = [draw.permutation(rows) for _ in range(-(-count // rows))]
    return np.concatenate(passes)[:count]


def _said(text: str) -> tuple[float, str]:
    """Confidence and reason of an answer."""
    parsed = parse_order(text)
    if not isinstance(parsed, Order):
        raise TapehouseError(f"datasets.preference_pairs: chosen {text!r} is no answer: {parsed.why}")
    return parsed.confidence, parsed.reason
