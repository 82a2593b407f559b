"""Rows for reinforcement learning beside the tiny world of `training_jobs`: prompts of one form, with their windows."""

from pathlib import Path

import polars as pl

from tapehouse.methods.grpo import training_rows
from tapehouse.rl_prompts import SCHEMA
from tapehouse.token_rows import ORDER_ROOM, prompt_tokens
from tapehouse.tokens import load_tokenizer
from tests.tapehouse.training_jobs import adapter_recipe, pairs

ROLLOUT = {"group": 4, "most_tokens": 24, "redraws": 1}


def grpo_recipe(**changes):
    fields = {
        "data": {"stage": "structure"},
        "rollout": ROLLOUT,
        "budget": {"steps": 3, "batch_size": 8, "precision": "fp32"},
    }
    return adapter_recipe("grpo", **(fields | changes))


def rl_prompts(count: int = 24) -> pl.DataFrame:
    """Rows of datasets.rl_prompts, the prompts of `pairs`; stages take turns."""
    rows = []
    for place, pair in enumerate(pairs(count).iter_rows(named=True)):
        price = float(pair["prompt"].split()[-1])
        rows.append(
            {
                "symbol": pair["symbol"],
                "interval": "1d",
                "decision_at": pair["decision_at"],
                "family": "order",
                "objective": "patient",
                "prompt": pair["prompt"],
                "stage": ("structure", "decision")[place % 2],
                "difficulty": 0.5,
                "volatility": 0.01,
                "side": pair["side"],
                "arrival": price,
                "window_sessions": 2,
                "weight_price": 1.0,
                "weight_certainty": 0.5,
                "weight_risk": 0.5,
                "weight_fees": 1.0,
                "half_spread_bps": 2.0,
                "maker_fee_bps": 0.5,
                "taker_fee_bps": 3.0,
                "unfilled_penalty_bps": 20.0,
                "window_open": [price, price],
                "window_high": [price * 1.01, price * 1.002],
                "window_low": [price * 0.995, price * 0.989],
                "window_close": [price * 1.005, price * 0.995],
                "window_shares": [1.0, 1.0],
                "window_cash": [0.0, 0.0],
                "reason": "trend up",
                "confidence": 0.65,
                "label_end_at": pair["reward_end_at"],
                "label_known_at": pair["reward_known_at"],
                "template": pair["template"],
            }
        )
    return pl.DataFrame(rows, schema_overrides=SCHEMA).select(
        pl.col(name).cast(kind) if name in rows[0] else pl.lit(None, kind).alias(name) for name, kind in SCHEMA.items()
    )


def grpo_rows(tokenizer_dir: Path, recipe, count: int = 24) -> pl.DataFrame:
    """What a job of the recipe is given."""
    rows = rl_prompts(count)
    tokens = prompt_tokens(rows, {"test": load_tokenizer(tokenizer_dir)}, "test", "test", ORDER_ROOM).rows
    return training_rows(recipe, tokens, {"datasets.rl_prompts": rows})
