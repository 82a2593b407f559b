"""What a model could learn from preference pairs without reading a prompt, and how balanced they are.

A pair is told apart by four rules that know nothing of the market: which answer is longer, which limit is farther away,
both offsets by terciles for each side, and boosted trees on offsets, side and objective. Each is fitted on the pairs of a
fold's training window whose reward was known by its end, and scored on the fold's test block; where a rule does better
than even there, the pairs teach it. In-sample accuracies by objective, on all pairs, say how much there is to learn at
most: a rule of many cells fits chance, too, and of trees, which fit anything, none is told.

The interval of an accuracy takes the pairs of a fortnight (on books, of an hour) as one draw: their windows overlap, and
symbols move together (cluster-robust deviation of a ratio, K.-Y. Liang, S. Zeger, Biometrika 73, 1986).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.folds import Fold, block_rows, training_rows

ALL: Final = "all"
LAST_THIRD: Final = "last third"
EVEN: Final = 0.5
CLUSTER: Final = timedelta(days=14)  # of windows that span sessions, up to fifteen of them
CLUSTER_ON_BOOKS: Final = timedelta(hours=1)  # of windows of minutes
Z: Final = 1.96  # two-sided 95 % of a normal
TERCILES: Final = (1 / 3, 2 / 3)
QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
BASELINES: Final = {
    "length": "picks the longer (or the shorter) answer",
    "offset": "picks the farther (or the nearer) limit of an objective",
    "offset_cells": "picks by the terciles of both offsets within an objective and a side",
    "offset_trees": "picks by boosted trees on both offsets, side and objective",
}
TREES_RULE: Final = "offset_trees"
TREES: Final = {"n_estimators": 200, "max_depth": 3, "learning_rate": 0.05, "n_jobs": 1, "random_state": 0}
BALANCED: Final = ("regime", "objective", "side", "symbol")
SCHEMA: Final = {
    "dataset": pl.String,
    "fold": pl.String,
    "objective": pl.String,
    "measure": pl.String,
    "level": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "pairs": pl.Int64,
}


@dataclass(frozen=True)
class Rule:
    """Fitted rules of one objective.

    Attributes:
        longer: +1 where the longer answer was chosen more often in training, -1 the shorter, 0 neither.
        farther: +1 where the farther limit was, -1 the nearer.
        near_cuts, far_cuts: terciles of the nearer and of the farther offset.
        cells: (2, 3, 3) as `farther`, by side and the terciles of both.
    """

    longer: int
    farther: int
    near_cuts: np.ndarray
    far_cuts: np.ndarray
    cells: np.ndarray


@dataclass(frozen=True)
class Fitted:
    """What was learnt from pairs without their prompts: a `Rule` by objective, and trees over all objectives (`names`)."""

    rules: dict[str, Rule]
    trees: Any
    names: tuple[str, ...]


def diagnostics(dataset: str, told: pl.DataFrame, folds: Sequence[Fold]) -> pl.DataFrame:
    """Rows of `reports.pair_diagnostics` for one dataset, sorted by their grain.

    Args:
        dataset: its name, such as `datasets.preference_pairs`.
        told: its pairs as `described` gives them.
        folds: of `models.folds`; one without training or test pairs gives no rows. Where none has both, as with a few days of
            books, the last third of the decisions is the test block.

    Raises:
        TapehouseError: there are no pairs.
    """
    if told.is_empty():
        raise TapehouseError(f"{dataset} has no rows to diagnose; materialise it first")
    rows, fitted = _whole(told), fit(told)
    for name, part in _by_objective(told):
        rows += [(ALL, name, *row) for row in _accuracies(part, fitted) if row[0] != f"{TREES_RULE}_accuracy"]
    tested = [(f.id, training_rows(told, f, "reward_known_at"), block_rows(told, f)) for f in folds]
    tested = [part for part in tested if part[1].height and part[2].height] or _last_third(told)
    for fold, train, test in tested:
        fitted = fit(train)
        for name, part in _by_objective(test):
            rows += [(fold, name, *row) for row in _accuracies(part, fitted)]
            trained = _of(train, name).height
            rows.append((fold, name, "train_pairs", "", float(trained), None, None, trained))
    schema = {name: kind for name, kind in SCHEMA.items() if name != "dataset"}
    table = pl.DataFrame(rows, schema=schema, orient="row").with_columns(dataset=pl.lit(dataset))
    return table.select(list(SCHEMA)).sort("dataset", "fold", "objective", "measure", "level")


def _last_third(told: pl.DataFrame) -> list[tuple[str, pl.DataFrame, pl.DataFrame]]:
    """The last third of the decisions, and the pairs before it whose reward was known when it began."""
    instants = told["decision_at"].unique().sort()
    cut = instants[2 * len(instants) // 3]
    train, test = told.filter(pl.col("reward_known_at") < cut), told.filter(pl.col("decision_at") >= cut)
    return [(LAST_THIRD, train, test)] if train.height else []


def described(pairs: pl.DataFrame) -> pl.DataFrame:
    """The pairs with what the rules and the balances go by.

    Added: `length_difference` (characters of chosen less rejected), `same_form` (equal but for their digits), `near`, `far`
    (the offsets, in their own unit), `far_wins`, and `cluster`; a regime that is not known is 'unknown'.

    Args:
        pairs: `symbol, decision_at, objective, regime, side, chosen, rejected, margin_bps, reward_known_at`, the offsets
            `chosen_offset_<unit>` and `rejected_offset_<unit>`, and `chosen_filled, rejected_filled` where they are told.

    Raises:
        TapehouseError: no offsets.
    """
    offset = next((name.removeprefix("chosen_") for name in pairs.columns if name.startswith("chosen_offset_")), None)
    if offset is None:
        raise TapehouseError(f"pairs without a column chosen_offset_<unit>; they have {pairs.columns}")
    chosen, rejected = pl.col(f"chosen_{offset}"), pl.col(f"rejected_{offset}")
    digits = r"[0-9]"
    longest = pairs.select((pl.col("reward_known_at") - pl.col("decision_at")).max()).item()
    width = CLUSTER if longest is None or longest >= timedelta(days=1) else CLUSTER_ON_BOOKS
    return pairs.with_columns(
        length_difference=pl.col("chosen").str.len_chars().cast(pl.Int64) - pl.col("rejected").str.len_chars().cast(pl.Int64),
        same_form=pl.col("chosen").str.replace_all(digits, "0") == pl.col("rejected").str.replace_all(digits, "0"),
        near=pl.min_horizontal(chosen, rejected),
        far=pl.max_horizontal(chosen, rejected),
        far_wins=chosen > rejected,
        regime=pl.col("regime").fill_null("unknown"),
        cluster=pl.col("decision_at").dt.epoch("s").floordiv(int(width.total_seconds())),
    )


def fit(train: pl.DataFrame) -> Fitted:
    """The rules, fitted on described pairs."""
    from xgboost import XGBClassifier

    rules = {name: _fit_one(part) for name, part in _by_objective(train) if name != ALL}
    wins = train["far_wins"].to_numpy()
    # Of pairs that are all alike there is nothing for trees to split.
    trees = XGBClassifier(**TREES).fit(_seen(train, tuple(rules)), wins) if wins.any() and not wins.all() else None
    return Fitted(rules, trees, tuple(rules))


def _seen(rows: pl.DataFrame, names: tuple[str, ...]) -> np.ndarray:
    """What trees see of each pair: both offsets, their difference, the side, and the objective."""
    near, far = rows["near"].to_numpy(), rows["far"].to_numpy()
    objectives = rows["objective"].to_numpy()
    return np.column_stack([near, far, far - near, _buys(rows), *(objectives == name for name in names)]).astype(np.float64)


def _fit_one(train: pl.DataFrame) -> Rule:
    signed = np.where(train["far_wins"].to_numpy(), 1, -1)
    near, far = train["near"].to_numpy(), train["far"].to_numpy()
    near_cuts, far_cuts = np.quantile(near, TERCILES), np.quantile(far, TERCILES)
    cells = np.zeros((2, 3, 3), np.int64)
    np.add.at(cells, (_buys(train), _tercile(near, near_cuts), _tercile(far, far_cuts)), signed)
    longer = int(np.sign(np.sign(train["length_difference"].to_numpy()).sum()))
    return Rule(longer, int(np.sign(signed.sum())), near_cuts, far_cuts, np.sign(cells))


def scores(rows: pl.DataFrame, fitted: Fitted) -> dict[str, np.ndarray]:
    """For each rule 1 where it picks the chosen answer, 0 where the other, 1/2 where it cannot tell: (n,) each."""
    found = {name: np.full(rows.height, EVEN) for name in BASELINES}
    objectives = rows["objective"].to_numpy()
    difference, far_wins = rows["length_difference"].to_numpy(), rows["far_wins"].to_numpy()
    near, far, buys = rows["near"].to_numpy(), rows["far"].to_numpy(), _buys(rows)
    signed = np.where(far_wins, 1, -1)
    for objective, rule in fitted.rules.items():
        mine = objectives == objective
        cells = rule.cells[buys[mine], _tercile(near[mine], rule.near_cuts), _tercile(far[mine], rule.far_cuts)]
        found["length"][mine] = (1 + rule.longer * np.sign(difference[mine])) / 2
        found["offset"][mine] = (1 + rule.farther * signed[mine]) / 2
        found["offset_cells"][mine] = (1 + cells * signed[mine]) / 2
    if fitted.trees is None:
        found[TREES_RULE] = found["offset"].copy()
    else:
        chance = fitted.trees.predict_proba(_seen(rows, fitted.names))[:, 1]
        found[TREES_RULE] = (1 + np.sign(chance - EVEN) * signed) / 2
    return found


def _buys(rows: pl.DataFrame) -> np.ndarray:
    return (rows["side"] == "BUY").to_numpy().astype(np.int64)


def _tercile(values: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    return np.searchsorted(cuts, values, side="right")


def _accuracies(rows: pl.DataFrame, fitted: Fitted) -> list[tuple]:
    clusters = rows["cluster"].to_numpy()
    found = []
    for name, score in scores(rows, fitted).items():
        value, half = accuracy(score, clusters)
        low, high = (None, None) if half is None else (max(0.0, value - half), min(1.0, value + half))
        found.append((f"{name}_accuracy", "", value, low, high, len(score)))
    return found


def accuracy(score: np.ndarray, clusters: np.ndarray) -> tuple[float, float | None]:
    """Mean score, and half the width of its 95 % interval over clusters; None for fewer than two of them."""
    value = float(score.mean())
    _, place = np.unique(clusters, return_inverse=True)
    sums = np.bincount(place, weights=score - value)
    count = len(sums)
    if count < 2:
        return value, None
    return value, float(Z * np.sqrt(count / (count - 1) * np.square(sums).sum()) / len(score))


def _whole(told: pl.DataFrame) -> list[tuple]:
    """What is said of all pairs, and of each objective's."""
    rows: list[tuple] = []
    for name, part in _by_objective(told):
        n = part.height

        def add(measure: str, value: float | None, level: str = "", name: str = name, pairs: int = n) -> None:
            rows.append((ALL, name, measure, level, None if value is None else float(value), None, None, pairs))

        difference, margin = part["length_difference"], part["margin_bps"]
        add("pairs", n)
        add("length_difference_mean", int(difference.sum()) / n)
        add("length_difference_largest", int(difference.abs().max()))
        add("same_form", int(part["same_form"].sum()) / n)
        add("farther_chosen", int(part["far_wins"].sum()) / n)
        for which in ("chosen_filled", "rejected_filled"):
            if which in part.columns:
                add(which, int(part[which].sum()) / n)
        for q in QUANTILES:
            add("margin_bps", margin.quantile(q, "linear"), f"q{round(q * 100):02d}")
        for column in BALANCED:
            for level, count in sorted(part[column].value_counts().iter_rows()):
                add("share", count / n, f"{column} {level}")
        for column in ("regime", "symbol"):
            for (level,), some in sorted(part.group_by([column]), key=lambda item: item[0]):
                add("buy_share", int((some["side"] == "BUY").sum()) / some.height, f"{column} {level}", pairs=some.height)
    return rows


def _by_objective(rows: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    names = sorted(rows["objective"].unique())
    return [(ALL, rows), *((name, _of(rows, name)) for name in names)]


def _of(rows: pl.DataFrame, objective: str) -> pl.DataFrame:
    return rows if objective == ALL else rows.filter(pl.col("objective") == objective)
