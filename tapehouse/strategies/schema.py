"""Strategies: one YAML in `models_registry/strategies/` declares one. Strict: a bad key is an error with file, key and remedy.

The file's stem is the strategy's name, and the subject of its backtest.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from tapehouse.backtest.config import BacktestConfig, Guard, Guards
from tapehouse.errors import TapehouseError
from tapehouse.hashing import text_hash
from tapehouse.labels.triple_barrier import WIDTH_ATR
from tapehouse.recipe_sections import Named, Section
from tapehouse.recipes import fault_text
from tapehouse.strategies.sections import (
    REGIMES,
    CostsSection,
    GatesSection,
    LimitsSection,
    OrdersSection,
    SignalsSection,
    SizingSection,
    TailSection,
    VetoesSection,
)
from tapehouse.yaml_files import read_named

FOLDER = Path("models_registry/strategies")
NOT_CONTENT = {"name", "description", "selected", "prior_trials"}
GUARDS = ("consecutive_losses", "win_rate", "drawdown")


class Strategy(Section):
    """One strategy: signals become orders of one account, under gates, vetoes, sizes, limits and costs."""

    name: str
    description: str = Field(min_length=1)
    selected: bool = Field(True, description="Whether `make run` trades it; `make run-all` trades every strategy.")
    prior_trials: int = Field(0, ge=0, description="Settings tried before trials were logged, for the deflated Sharpe ratio.")
    signals: SignalsSection
    gates: GatesSection = GatesSection()
    vetoes: VetoesSection = VetoesSection()
    sizing: SizingSection = SizingSection()
    limits: LimitsSection = LimitsSection()
    orders: OrdersSection = OrdersSection()
    costs: CostsSection = CostsSection()
    tail: TailSection | None = None
    initial_cash: float = Field(1_000_000.0, gt=0)

    @model_validator(mode="after")
    def _fits_together(self) -> Strategy:
        source = self.signals.regime_source
        if unknown := sorted(set(self.signals.by_regime) - set(REGIMES[source])):
            raise ValueError(f"signals.by_regime: {unknown} are no regimes of {source!r}; it has {list(REGIMES[source])}")
        if self.sizing.kind == "kelly" and (self.orders.stop_atr, self.orders.take_multiple) != (WIDTH_ATR, 1.0):
            raise ValueError(
                f"sizing.kind 'kelly' bets on the probabilities of the labels' barriers: set orders.stop_atr {WIDTH_ATR} and "
                "orders.take_multiple 1.0, or size otherwise"
            )
        return self

    @property
    def hash(self) -> str:
        """Identity of what the strategy says that decides its trades."""
        return text_hash(self.model_dump_json(exclude=NOT_CONTENT))

    @property
    def predictors(self) -> tuple[str, ...]:
        """Every recipe whose predictions it reads, once: those of its signals, then its auditor."""
        auditor = (self.gates.auditor,) if self.gates.auditor else ()
        return tuple(dict.fromkeys((*self.signals.names, *auditor)))

    @property
    def regime_sources(self) -> set[str]:
        """Where regimes come from that it asks for."""
        found = {self.signals.regime_source} if self.signals.by_regime else set()
        return found | ({self.gates.regime.source} if self.gates.regime else set())

    @property
    def reads_training(self) -> bool:
        """Whether it needs the decisions of the whole training window, for a quantile or a deviation fitted there."""
        return "volatility" in self.regime_sources or self.sizing.kind == "training"

    @property
    def series(self) -> tuple[str, ...]:
        """Series of features.macro_series that the account's terms follow."""
        rate = (self.costs.rate_series,) if self.costs.rate_series else ()
        return (*rate, *self.costs.currency_series.values())

    def config(self, settlement: timedelta) -> BacktestConfig:
        """The account's rules; weights come with the decisions."""
        orders, limits = self.orders, self.limits
        declared = {name: getattr(self.vetoes, name) for name in GUARDS}
        return BacktestConfig(
            initial_cash=self.initial_cash,
            **self.costs.model_dump(include=set(BacktestConfig.model_fields)),
            gross_limit=limits.gross,
            net_limit=limits.net,
            symbol_limit=limits.symbol,
            lots=limits.lots,
            barrier_atr=orders.stop_atr,
            take_multiple=orders.take_multiple,
            vertical_barrier=orders.horizon_sessions,
            break_even_at=orders.break_even_at,
            trail_atr=orders.trail_atr,
            trail_from=orders.trail_from,
            exit_rule="hold" if orders.hold else "barrier",
            guards=Guards(**{name: Guard(**veto.model_dump()) for name, veto in declared.items() if veto is not None}),
            settlement=settlement,
        )


def load_strategies(folder: Path, recipes: dict[str, Named]) -> dict[str, Strategy]:
    """All strategies in `folder`, by name, in the order of their names.

    Raises:
        TapehouseError: a file that is none, a name that a recipe has, or a predictor that is no recipe, predicts nothing, or is
            made by name only where the strategy is made by default.
    """
    found = {path.stem: load_strategy(path) for path in sorted(folder.glob("*.yaml"))}
    for name, strategy in found.items():
        path = folder / f"{name}.yaml"
        if name in recipes:
            raise TapehouseError(f"{path}: {name} is the name of a recipe, too, and backtests go by name; rename the file")
        for predictor in strategy.predictors:
            recipe = recipes.get(predictor)
            if recipe is None or not recipe.predicts:
                known = sorted(r.name for r in recipes.values() if r.predicts)
                raise TapehouseError(f"{path}: {predictor!r} is no recipe that predicts; there are {known}")
            if strategy.selected and not recipe.selected:
                raise TapehouseError(
                    f"{path}: selected: {predictor} is made only when it is named (selected: false); say the same here"
                )
    return found


def load_strategy(path: Path) -> Strategy:
    """The strategy in `path`, named after the file. Raises TapehouseError: file, key and remedy."""
    fields = read_named(path, "strategy", "'description:' and 'signals:'")
    try:
        return Strategy.model_validate(fields)
    except ValidationError as error:
        faults = "\n".join(f"  {fault_text(fault, Strategy)}" for fault in error.errors())
        raise TapehouseError(f"{path}: not a strategy:\n{faults}") from None
