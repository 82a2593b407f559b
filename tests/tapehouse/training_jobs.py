"""A tiny world for tests of training and inference: a few prompts, a tokenizer, a base of some thousand weights."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from tapehouse.prompts.orders import answer
from tapehouse.recipes import parse_recipe
from tapehouse.token_rows import preference_tokens, supervised_tokens
from tapehouse.tokens import load_tokenizer
from tapehouse.training.__main__ import train
from tapehouse.training.corpus import pretraining_tokens
from tapehouse.training.jobs import export_job
from tapehouse.vocabularies import train_tokenizer

START = datetime(2012, 1, 3, 21, 5, tzinfo=UTC)
TRAIN_END = START + timedelta(days=20)
PROVENANCE = {"snapshot": 7, "fold": "2012-05-29", "train_end": TRAIN_END, "git_commit": "abc", "git_dirty": False}

NANO = {
    "name": "tiny",
    "description": "x",
    "method": "pretrain",
    "architecture": {"hidden_size": 32, "intermediate_size": 64, "layers": 2, "heads": 2},
    "corpus": {
        "copy_examples": 64,
        "text_examples": 48,
        "rescaled_share": 0.5,
        "at_price_share": 0.6,
        "farthest_offset": 0.005,
        "rule_share": 0.6,
    },
    "curriculum": {"copy_steps": 6, "copy_batch": 8, "text_steps": 6, "text_batch": 4, "warmup_steps": 2},
    "optimiser": {"learning_rate": 3.0e-3},
}


def pairs(count: int = 24) -> pl.DataFrame:
    """Rows of datasets.preference_pairs, one a day; the last ones are known after TRAIN_END."""
    rows = []
    for day in range(count):
        price, side = 20.0 + 7.31 * day, ("BUY", "SELL")[day % 2]
        confidence = round(0.5 + 0.05 * (day % 9), 2)
        reason = ("trend up", "trend down", "rsi low", "rsi high")[day % 4]
        rows.append(
            {
                "symbol": "IBM",
                "interval": "1d",
                "decision_at": START + timedelta(days=day),
                "objective": "patient",
                "side": side,
                "prompt": f"IBM daily order for a better price\nrsi {40 + day}\natr 0002.31\nprice {price:07.2f}\n",
                "chosen": answer(side, price * 1.001, confidence, reason),
                "rejected": answer(side, price * 1.01, confidence, reason),
                "margin_bps": 10.0,
                "reward_end_at": START + timedelta(days=day + 2),
                "reward_known_at": START + timedelta(days=day + 3),
                "template": "order_v2",
            }
        )
    return pl.DataFrame(rows)


def make_tokenizer(folder: Path, markers: Sequence[str] = ()) -> str:
    rows = pairs()
    return train_tokenizer([*(rows["prompt"] + rows["chosen"]), *(rows["prompt"] + "HOLD because trend up")], folder, markers)


def sft_rows(tokenizer_dir: Path) -> pl.DataFrame:
    examples = pairs().with_columns(
        action=pl.col("side"),
        answer=pl.col("chosen"),
        label_end_at=pl.col("reward_end_at"),
        label_known_at=pl.col("reward_known_at"),
    )
    return supervised_tokens(examples, {"test": load_tokenizer(tokenizer_dir)}, "test", "test").rows


def dpo_rows(tokenizer_dir: Path) -> pl.DataFrame:
    return preference_tokens(pairs(), {"test": load_tokenizer(tokenizer_dir)}, "test", "test").rows


def nano_recipe(**changes):
    return parse_recipe(NANO | changes, "test")


def adapter_recipe(method: str, **changes):
    fields = {
        "name": f"tiny_{method}",
        "description": "x",
        "method": method,
        "adapter": {"rank": 2, "alpha": 4, "targets": ["q_proj", "v_proj"]},
        "optimiser": {"learning_rate": 1.0e-2},
        "schedule": {"warmup_steps": 1},
        "budget": {"steps": 3, "batch_size": 2},
        "prompt": {"objective": "patient"},
    }
    return parse_recipe(fields | changes, "test")


def export_base(jobdir: Path, tokenizer_dir: Path, seed: int = 3) -> None:
    recipe = nano_recipe()
    tokens = pretraining_tokens(pairs(), recipe.corpus, load_tokenizer(tokenizer_dir), seed)
    export_job(jobdir, recipe, tokens, None, tokenizer_dir, seed, {**PROVENANCE, "fold": None}, threads=1)


def make_base(folder: Path, tokenizer_dir: Path) -> Path:
    export_base(folder / "job", tokenizer_dir)
    train(folder / "job", folder / "tiny", lambda facts: None)
    return folder / "tiny"
