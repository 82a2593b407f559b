"""Answers of a model to prompts: greedy, batched, with a key-value cache, and the probabilities of the three actions.

Prompts of equal length share a batch, so that nothing is padded: an answer depends neither on an attention mask nor on
positions shifted by padding.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from tapehouse.prompts.orders import ACTIONS, parse_orders
from tapehouse.tokens import decode_answer, encode_answers, encode_prompts, load_tokenizer, stop_id

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM

MAX_ANSWER_TOKENS: Final = 32  # the longest answer of an order has 21
SCHEMA: Final = {
    "text": pl.String,
    "parse_state": pl.String,
    "action": pl.String,
    "limit_price": pl.Float64,
    "confidence": pl.Float64,
    "p_sell": pl.Float64,
    "p_hold": pl.Float64,
    "p_buy": pl.Float64,
}


def predict(
    base_dir: Path, adapter_dir: Path | None, tokenizer: Path, prompts: Sequence[str], batch: int = 128, threads: int = 1
) -> pl.DataFrame:
    """One row a prompt, in their order: text, parse_state, action, limit_price (currency), confidence, p_sell, p_hold, p_buy.

    `tokenizer` is the folder it is stored in. `adapter_dir` None asks the base. An answer that did not stop within
    32 tokens, or is no text, has a null `text` and state 'not_text'; like an unparseable one it acts as HOLD. The
    probabilities are those of the first token after the prompt, renormalised over the three actions.
    """
    import torch

    torch.set_num_threads(threads)  # the order of sums, and so the last bits of probabilities
    vocabulary = load_tokenizer(tokenizer)
    texts, chances = generate(load_model(base_dir, adapter_dir), vocabulary, prompts, batch)
    answers = pl.Series("text", texts, dtype=pl.String)
    parsed = parse_orders(answers, pl.Series(prompts, dtype=pl.String))
    columns = [f"p_{action.lower()}" for action in ACTIONS]
    scores = pl.DataFrame(chances, schema=dict.fromkeys(columns, pl.Float64), orient="row")
    return pl.concat([answers.to_frame(), parsed, scores], how="horizontal").select(list(SCHEMA)).cast(SCHEMA)


def load_model(base_dir: Path, adapter_dir: Path | None) -> LlamaForCausalLM:
    """The base in float32, with the adapter merged into its weights where there is one."""
    from transformers import LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # a bar for a model of 4 MB
    model = LlamaForCausalLM.from_pretrained(base_dir, local_files_only=True)
    if adapter_dir is not None:
        # On import bitsandbytes warns of an optional kernel package for 4-bit inference, which is not used here.
        logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter_dir, local_files_only=True).merge_and_unload()
    return model.eval()


def generate(
    model: LlamaForCausalLM, tokenizer: Tokenizer, prompts: Sequence[str], batch: int
) -> tuple[list[str | None], list[tuple[float, ...]]]:
    """Greedy answers, and probabilities in the order of `ACTIONS`; one entry a prompt."""
    encoded = encode_prompts(tokenizer, prompts)
    firsts = [ids[0] for ids in encode_answers(tokenizer, ACTIONS)]
    if len(set(firsts)) != len(ACTIONS):
        raise ValueError(f"inference: the actions {ACTIONS} do not differ in their first token; train the tokenizer again")
    texts: list[str | None] = [None] * len(encoded)
    chances: list[tuple[float, ...]] = [()] * len(encoded)
    by_length = sorted(range(len(encoded)), key=lambda row: (len(encoded[row]), row))
    for _, same in groupby(by_length, key=lambda row: len(encoded[row])):
        rows = list(same)
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            ids, first_logits = _greedy(model, [encoded[row] for row in part], stop_id(tokenizer))
            shares = first_logits[:, firsts].double().softmax(dim=1).tolist()
            for row, answer, share in zip(part, ids, shares, strict=True):
                texts[row] = decode_answer(tokenizer, answer)
                chances[row] = tuple(share)
    return texts, chances


def _greedy(model: LlamaForCausalLM, prompts: list[list[int]], stop: int) -> tuple[list[list[int]], torch.Tensor]:
    """Generated ids, one list a prompt, and the logits of the first, (prompts, vocabulary); prompts of one length."""
    import torch

    steps: list[torch.Tensor] = []
    with torch.inference_mode():
        out = model(input_ids=torch.tensor(prompts), use_cache=True, logits_to_keep=1)
        first_logits = out.logits[:, -1].float()
        token = first_logits.argmax(dim=-1)
        stopped = torch.zeros_like(token, dtype=torch.bool)
        while True:
            steps.append(token)
            stopped |= token == stop
            if stopped.all() or len(steps) == MAX_ANSWER_TOKENS:
                return torch.stack(steps, dim=1).tolist(), first_logits
            out = model(input_ids=token[:, None], past_key_values=out.past_key_values, use_cache=True)
            token = out.logits[:, -1].argmax(dim=-1)
