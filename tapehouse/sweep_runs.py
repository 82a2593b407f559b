"""Running a sweep from the warehouse: what the settings of a strategy read of one fold, each table once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.predictions import VALIDATION
from tapehouse.reading import read_table
from tapehouse.recipes import FOLDER as RECIPES
from tapehouse.recipes import load_recipes
from tapehouse.steps.strategy import market_of
from tapehouse.strategies.schema import FOLDER, Strategy, load_strategies
from tapehouse.strategies.sweeps import Swept, sweep
from tapehouse.strategies.trading import tail_returns
from tapehouse.strategy_assets import strategy_reads
from tapehouse.tables import Read

if TYPE_CHECKING:
    from tapehouse.project import Project
    from tapehouse.warehouse import Warehouse


def run_sweep(project: Project, warehouse: Warehouse, name: str, fold: str, grid: Mapping[str, Sequence[Any]]) -> list[Swept]:
    """Trade strategy `name` over the validation tail of `fold` under every combination of `grid`; see :func:`sweep`.

    Raises:
        TapehouseError: no such strategy or fold, or no answers of its predictors in the tail.
    """
    home = project.settings.home
    strategies = load_strategies(home / FOLDER, load_recipes(home / RECIPES))
    if name not in strategies:
        raise TapehouseError(f"{FOLDER / name}.yaml: no such strategy; there are {sorted(strategies)}")
    asset = project.assets[f"reports.backtests.{name}"]
    if fold not in project.partitions(asset):
        raise TapehouseError(f"--fold {fold}: no fold of {name}; there are {list(project.partitions(asset))}")
    stored: dict[Read, pl.DataFrame] = {}
    with warehouse.reading() as (cursor, _):

        def trade(strategy: Strategy) -> np.ndarray:
            reads = {(read.table, read.writer): read for read in strategy_reads(strategy)}

            def rows(table: str, writer: str | None = None) -> pl.DataFrame:
                read = reads[table, writer]
                if read not in stored:
                    stored[read] = read_table(cursor, project, read, asset, [fold])
                return stored[read]

            market = market_of(strategy, rows, {table for table, _ in reads}, project.settings.universe)
            return tail_returns(strategy, project.folds[fold], *market)

        for predictor in strategies[name].predictors:
            read = Read("models.predictions", writer=f"models.predictions.{predictor}")
            stored[read] = read_table(cursor, project, read, asset, [fold])
            if stored[read].filter(split=VALIDATION).is_empty():
                raise TapehouseError(
                    f"{predictor} has no answers in the validation tail of {fold}; make models/predictions first"
                )
        return sweep(strategies[name], grid, fold, trade, project.settings.root)
