"""How often answers are those of the policy of reference, and who is right where they are not.

The policy is the predictor that `models_registry/judging.yaml` names; it has answered the same decisions from the same
features. Agreement that comes of the two habits alone, such as of two that nearly always hold, is taken out by Cohen's kappa
(J. Cohen, A Coefficient of Agreement for Nominal Scales, 1960).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from tapehouse.evaluations.answers import FORWARD, KEYS
from tapehouse.evaluations.core import Derived, Part, Ratio, Term
from tapehouse.evaluations.rows import Rows
from tapehouse.predictions import ACTIONS

HORIZON: Final = 10  # sessions, those of a label
MEANING: Final = {
    "policy_agreement": "Share of answers that are those of the policy that judging.yaml names.",
    "policy_kappa": "Cohen's kappa of the two: 0 is the agreement of their habits alone, 1 is always the same.",
    "policy_opposed": "Share of answers that buy what the policy sells, or the other way round.",
    "disagreement_ret": "Where they differ: mean return over 10 sessions of the answer's side less that of the policy's, gross "
    "of costs [fraction]; above 0 the answers know better.",
}


def with_policy(answers: pl.DataFrame, policy: pl.DataFrame) -> pl.DataFrame:
    """`answers` with the column `policy`: what the policy of reference would do at each decision, null where it said nothing.

    Args:
        answers: of `tapehouse.evaluations.answers.answered`. policy: rows of `models.predictions` of the policy alone.

    Raises:
        ValueError: two answers of the policy for one decision.
    """
    said = policy.select(*KEYS, pl.col("action").alias("policy"))
    doubled = said.filter(pl.struct(KEYS).is_duplicated())
    if doubled.height:
        raise ValueError(f"the policy of reference answers {doubled.select(KEYS).row(0)} twice; read one predictor alone")
    return answers.join(said, on=KEYS, how="left", validate="m:1", maintain_order="left")


def _terms(rows: Rows) -> list[Term]:
    own, policy = rows["action"], rows["policy"]
    neither = np.isnan(own) | np.isnan(policy)

    def term(name: str, values: np.ndarray) -> Term:
        return Term(name, np.where(neither, np.nan, values))

    ahead = (own - policy) * rows[FORWARD.format(HORIZON)]  # places in ACTIONS are one more than sides
    return [
        term("both", np.ones(len(rows))),
        term("same", own == policy),
        term("opposed", np.abs(own - policy) == 2),
        *(term(f"own_{i}", own == i) for i in range(len(ACTIONS))),
        *(term(f"policy_{i}", policy == i) for i in range(len(ACTIONS))),
        term("ahead", np.where(own == policy, np.nan, ahead)),
    ]


def kappa(n: np.ndarray, same: np.ndarray, *counts: np.ndarray) -> np.ndarray:
    """Cohen's kappa from the number of decisions, of equal answers, and of each answer of the one and then of the other.

    NaN where both always say one and the same.
    """
    half = len(counts) // 2
    expected = sum(a * b for a, b in zip(counts[:half], counts[half:], strict=True)) / n
    told = n - expected > 1e-9 * n
    return np.where(told, (same - expected) / np.where(told, n - expected, 1.0), np.nan)


_COUNTS = tuple(f"{who}_{i}" for who in ("own", "policy") for i in range(len(ACTIONS)))
# Permuted outcomes change neither's answers, so that agreement has no such twin; kappa's is 0 by its making.
AGREEMENT: Final = Part(
    _terms,
    (
        Ratio("policy_agreement", "same", chance=None),
        Derived("policy_kappa", ("both", "same", *_COUNTS), kappa, chance=0.0),
        Ratio("policy_opposed", "opposed", chance=None),
        Ratio("disagreement_ret", "ahead", horizon=HORIZON),
    ),
)
