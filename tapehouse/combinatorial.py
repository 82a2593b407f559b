"""Combinatorial purged paths: what a predictor would have earned over the whole span, by each way of leaving blocks out.

The span is cut into groups of sessions. Every choice of those held out is a split: the model is fitted on the others, purged
and embargoed, and traded over each group that was held out, in an account of its own that ends flat. The groups put together
again are paths, each of which covers the span once (M. López de Prado, Advances in Financial Machine Learning, 2018, 12.4).

A path says nothing of what could have been earned: a model that trades 2003 was fitted on 2010. Nor are the paths independent:
they are of the same sessions, by models that share most of their rows, and a model without a group leans away from it: the
rest of a span that rose as a whole rose less where the group rose more. What they show is how much of a Sharpe ratio hangs on
which rows the model was fitted on. So they are a distribution, and no subject is ranked by them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from tapehouse.backtest.config import BacktestConfig
from tapehouse.backtest.panel import Panel, build_orders
from tapehouse.backtest.run import panel_of, simulate_orders
from tapehouse.declared_splits import SPAN, declared_splits
from tapehouse.errors import TapehouseError
from tapehouse.feature_matrix import labelled
from tapehouse.folds import Fold
from tapehouse.metrics import sharpe
from tapehouse.predictions import KEYS, as_predictions
from tapehouse.recipes import method_module
from tapehouse.splits import Split, backtest_paths
from tapehouse.statistics.drawdowns import PERIODS_A_YEAR, drawdowns

if TYPE_CHECKING:
    from tapehouse.recipe_sections import ClassicalRecipe

Tables = dict[str, pl.DataFrame]

POINTS, LABELS = "features.decision_points", "labels.triple_barrier"
BARS, ACTIONS = "staging.bars", "raw.corporate_actions"
NOT_SHOWN: Final = (BARS, ACTIONS)  # to any model: what the account is kept by
WHOLE: Final = "all"
PATHS: Final = {
    "subject": pl.String,
    "path": pl.Int32,
    "part": pl.String,
    "split": pl.String,
    "first_session": pl.Date,
    "last_session": pl.Date,
    "sessions": pl.Int64,
    "trades": pl.Int64,
    "return": pl.Float64,
    "sharpe": pl.Float64,
    "volatility": pl.Float64,
    "max_drawdown": pl.Float64,
}


@dataclass(frozen=True)
class Group:
    """One group of sessions, ready to be traded: its window as a test block, the decisions in it, and the prices."""

    fold: Fold
    points: pl.DataFrame
    panel: Panel
    sessions: pl.DataFrame


@dataclass(frozen=True)
class Account:
    """What one account earned over a group: returns of each session but the first, on which nothing can be earned."""

    split: str
    sessions: Sequence[date]
    ret: np.ndarray
    trades: int


def path_rows(
    recipe: ClassicalRecipe,
    tables: Tables,
    blocks: pl.DataFrame,
    scheme: str,
    sessions: pl.DataFrame,
    config: BacktestConfig,
    folder: Path,
) -> pl.DataFrame:
    """Rows of `reports.paths` of one recipe: each path, by group and over all of them.

    A rule, for which nothing is fitted, has one path: it does the same whatever is held out.

    Args:
        tables: over the whole span the tables that the method reads, and the bars and actions of the accounts.
        blocks: rows of `models.splits`. scheme: a combinatorial one over the span.
        sessions: `session`, `open_at`, `close_at` of the span, ascending. config: of the accounts.
        folder: an empty one, where the models of the splits are left.

    Raises:
        TapehouseError: no such scheme over the span, or one whose splits are not every choice of its groups.
    """
    own = blocks.filter(scheme=scheme, fold=SPAN)
    whole = _span_fold(tables)
    rows = labelled(tables[POINTS], tables[LABELS], whole)
    splits = declared_splits(blocks, rows, scheme)
    groups = _groups(own, sessions, tables, whole, config)
    held_out = max(len(split.name.split("+")) for split in splits)
    if len(splits) != math.comb(len(groups), held_out):
        raise TapehouseError(
            f"models.splits: scheme {scheme!r} has {len(splits)} splits, and not every choice of {held_out} of {len(groups)} "
            "groups, which paths are made of; declare it in models_registry/folds.yaml and make models/splits"
        )
    shown = {name: frame for name, frame in tables.items() if name not in NOT_SHOWN}
    accounts: dict[tuple[int, int], Account] = {}
    if hasattr(method_module(recipe.method), "fit"):
        paths = backtest_paths(len(groups), held_out)
        for number, split in enumerate(splits):
            model = folder / split.name
            model.mkdir(parents=True)
            _fit(recipe, shown, rows, split, whole, model)
            for place in map(int, split.name.split("+")):
                accounts[number, place] = _traded(recipe, shown, groups[place], split.name, config, model)
    else:
        paths = np.zeros((1, len(groups)), np.int64)
        for place, group in enumerate(groups):
            accounts[0, place] = _traded(recipe, shown, group, "", config, folder)
    return pl.concat(
        _path(recipe.name, number, [accounts[int(split), place] for place, split in enumerate(chosen)])
        for number, chosen in enumerate(paths)
    )


def _span_fold(tables: Tables) -> Fold:
    """The span as a training window without an end that would keep a row out: splits alone say which rows train."""
    points, labels = tables[POINTS], tables[LABELS]
    start, last = points["decision_at"].min(), max(points["decision_at"].max(), labels["label_known_at"].max())
    end = last + timedelta(days=1)
    return Fold(SPAN, start, end, end, end, end, 0, end.date(), end.date())


def _groups(blocks: pl.DataFrame, sessions: pl.DataFrame, tables: Tables, whole: Fold, config: BacktestConfig) -> list[Group]:
    """The groups of a scheme in order of time."""
    made = []
    edges = blocks.select("block", "start_at", "end_at").unique().sort("block")
    for start, end in edges.select("start_at", "end_at").iter_rows():
        own = sessions.filter(pl.col("open_at").is_between(start, end, closed="left"))
        points = tables[POINTS].filter(pl.col("decision_at").is_between(start, end, closed="left"))
        panel, traded = panel_of(points, tables[BARS], tables[ACTIONS], own, config)
        fold = replace(whole, test_start=start, test_end=end, embargo_end=end)
        made.append(Group(fold, points, panel, traded))
    return made


def _fit(recipe: ClassicalRecipe, tables: Tables, rows: pl.DataFrame, split: Split, whole: Fold, folder: Path) -> None:
    """Fit on the training rows of a split; of what else the method reads it is not shown what lies in the test blocks."""
    train = rows[split.train].select(KEYS)
    inputs = {}
    for name, frame in tables.items():
        if name in (POINTS, LABELS):
            inputs[name] = frame.join(train, on=KEYS, how="semi")
        elif "decision_at" in frame.columns:
            held = [pl.col("decision_at").is_between(first, last) for first, last in split.blocks]
            inputs[name] = frame.filter(~pl.any_horizontal(held))
        else:
            inputs[name] = frame
    method_module(recipe.method).fit(recipe, inputs, whole, folder, None)


def _traded(recipe: ClassicalRecipe, tables: Tables, group: Group, split: str, config: BacktestConfig, folder: Path) -> Account:
    """What an account earned over a group by the answers of the model in `folder`."""
    answers = method_module(recipe.method).predict(recipe, tables | {POINTS: group.points}, group.fold, folder)
    predictions = as_predictions(answers, recipe.name, group.fold)
    orders = build_orders(predictions, group.points, group.panel, group.sessions, config.weight)
    result = simulate_orders(group.panel, orders, config)
    return Account(split, group.panel.sessions[1:], result.equity["ret"].to_numpy()[1:], result.trades.height)


def _path(subject: str, number: int, accounts: Sequence[Account]) -> pl.DataFrame:
    """The rows of one path: each group by its number, and all of them joined."""
    joined = np.concatenate([account.ret for account in accounts])
    first, last, trades = accounts[0].sessions[0], accounts[-1].sessions[-1], sum(account.trades for account in accounts)
    rows = [(subject, number, WHOLE, None, first, last, *_figures(joined, trades))]
    for place, account in enumerate(accounts):
        ends = account.sessions[0], account.sessions[-1]
        rows.append((subject, number, str(place), account.split or None, *ends, *_figures(account.ret, account.trades)))
    return pl.DataFrame(rows, schema=PATHS, orient="row")


def _figures(ret: np.ndarray, trades: int) -> tuple[int, int, float, float | None, float | None, float]:
    """Sessions, trades, return, Sharpe ratio (none without trades), volatility a year, and the deepest drawdown."""
    volatility = float(ret.std(ddof=1)) * math.sqrt(PERIODS_A_YEAR) if len(ret) > 1 else None
    gained = float(np.prod(1.0 + ret) - 1.0)
    return len(ret), trades, gained, sharpe(ret) if trades else None, volatility, drawdowns(ret).deepest
