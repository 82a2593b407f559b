"""How well a reward model's scores go with the rewards that were earned, apart from any account."""

from __future__ import annotations

import numpy as np
import polars as pl

from tapehouse.bootstrap import ratio_interval
from tapehouse.evaluation import rank_correlation
from tapehouse.metrics import metric_rows

# What each metric means. In reports.evaluations beside those of tapehouse/evaluation.py.
MEANING = {
    "n_pairs": "Pairs of answers decided in the test block.",
    "pair_accuracy": "Share of pairs whose better paid answer has the higher score; one half is chance.",
    "pair_accuracy_low": "Lower end of its 95 % interval; blocks of ten sessions or more, all symbols together.",
    "pair_accuracy_high": "Upper end.",
    "reward_rank_ic": "Spearman correlation of score and realised reward over all answers: prompts and placements, pooled.",
    "reward_rank_ic_low": "Lower end of its 95 % interval.",
    "reward_rank_ic_high": "Upper end.",
    "margin_rank_ic": "Spearman correlation of the pair's difference of scores with that of its rewards, near less far limit.",
    "margin_rank_ic_low": "Lower end of its 95 % interval.",
    "margin_rank_ic_high": "Upper end.",
}


def judgement_rows(subject: str, fold: str, pairs: pl.DataFrame) -> pl.DataFrame:
    """Rows of `reports.evaluations` for a reward model: subject, fold, metric, value."""
    return metric_rows(subject, fold, judged(pairs))


def judged(pairs: pl.DataFrame) -> dict[str, float | None]:
    """The metrics of `MEANING` for the pairs of one block, in that order; null where not defined.

    Args:
        pairs: symbol, decision_at, chosen_reward, rejected_reward, chosen_offset_atr, rejected_offset_atr, and the scores
            chosen_score, rejected_score.

    The chosen answer is the better paid one, so that differences of chosen less rejected would all be of one sign; they are
    taken of the nearer limit less the farther one, which was decided without a look at the rewards.
    """
    pairs = pairs.sort("decision_at", "symbol")
    dates = pairs.select(pl.col("decision_at").rle_id()).to_series().to_numpy().astype(np.int64)
    sessions = int(dates.max()) + 1 if pairs.height else 0
    scores, rewards = ((pairs[f"chosen_{kind}"], pairs[f"rejected_{kind}"]) for kind in ("score", "reward"))
    right = (scores[0] > scores[1]).to_numpy().astype(float)
    nearer = (pairs["chosen_offset_atr"].abs() <= pairs["rejected_offset_atr"].abs()).to_numpy() * 2.0 - 1.0
    low, high = ratio_interval(np.bincount(dates, right, sessions), np.bincount(dates, minlength=sessions).astype(float))
    both = np.concatenate([dates, dates])
    figures = [
        float(pairs.height),
        float(right.mean()) if pairs.height else None,
        low,
        high,
        *rank_correlation(pl.concat(list(scores)).to_numpy(), pl.concat(list(rewards)).to_numpy(), both, sessions),
        *rank_correlation(
            (scores[0] - scores[1]).to_numpy() * nearer, (rewards[0] - rewards[1]).to_numpy() * nearer, dates, sessions
        ),
    ]
    return dict(zip(MEANING, figures, strict=True))
