"""The sections of a strategy's YAML, typed and frozen: signals, gates, vetoes, sizing, limits, orders, costs and overlay.

Thresholds and sizes read what is known at the decision alone; a fit behind them (a quantile, a tail loss, a volatility) is made
on the validation tail or the training window of the fold.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tapehouse.labels.triple_barrier import HORIZON_SESSIONS, WIDTH_ATR
from tapehouse.recipe_sections import Section

RegimeSource = Literal["rule", "hidden", "volatility"]


class FusionSection(Section):
    """A policy that is asked at every bar, and a language model that is asked now and then and remembered.

    The language model's share is `weight · decay^age`, with the age of its answer in bars; an answer of less than `confidence`
    is passed over.
    """

    policy: str
    language: str
    weight: float = Field(0.3, gt=0, lt=1)
    confidence: float = Field(0.7, ge=0, le=1)
    every: int = Field(5, ge=1, description="Bars of the symbol from one question to the next, from the start of the block.")
    decay: float = Field(0.8, gt=0, le=1)


class SignalsSection(Section):
    """Whose predictions are followed, and how several become one.

    `weight` averages probabilities, `vote` counts weights by action (a tie is HOLD), `regime` averages by the weights of the
    regime that holds, and `fusion` is a policy with a language model's answers mixed in.
    """

    predictors: dict[str, float] = Field({}, description="Recipe to weight.")
    combine: Literal["weight", "vote", "regime", "fusion"] = "weight"
    regime_source: RegimeSource = "rule"
    by_regime: dict[str, dict[str, float]] = Field(
        {}, description="Regime to recipe to weight; of any other regime `predictors`."
    )
    fusion: FusionSection | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> SignalsSection:
        if (self.combine == "fusion") != (self.fusion is not None):
            raise ValueError("combine 'fusion' and the section fusion belong together: give both or neither")
        if self.fusion is not None and self.predictors:
            raise ValueError("fusion names its own two predictors; remove predictors")
        if self.fusion is None and not self.predictors:
            raise ValueError("name at least one recipe, as in 'predictors: {gbm: 1.0}'")
        if (self.combine == "regime") != bool(self.by_regime):
            raise ValueError("combine 'regime' and by_regime belong together: give both or neither")
        for regime, weights in {"": self.predictors, **self.by_regime}.items():
            if any(weight < 0 for weight in weights.values()) or (weights and not sum(weights.values()) > 0):
                raise ValueError(f"weights {regime or 'of predictors'} must be 0 or more, and not all 0")
            if unknown := sorted(set(weights) - set(self.predictors)):
                raise ValueError(f"by_regime.{regime}: {unknown} are not among predictors; add them there")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Every recipe whose predictions are read."""
        return (self.fusion.policy, self.fusion.language) if self.fusion else tuple(self.predictors)


class ConfidenceGate(Section):
    """Only the more confident decisions: by probability, or by rank among the decisions of the validation tail.

    A rank of 0.95 lets through what is more confident than 95 % of the buys and sells of the tail. Calibrated probabilities of
    nearly random moves stay near their base rates, so that a threshold of probability alone may let nothing through.
    """

    least: float = Field(gt=0, le=1)
    of: Literal["probability", "rank"] = "rank"


class RegimeGate(Section):
    """No entries in some regimes: of the rule, of the hidden states, or by thirds of the market's volatility in training."""

    source: RegimeSource = "volatility"
    blocked: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _known(self) -> RegimeGate:
        known = REGIMES[self.source]
        if unknown := sorted(set(self.blocked) - set(known)):
            raise ValueError(f"blocked: {unknown} are no regimes of source {self.source!r}; it has {list(known)}")
        return self


class GatesSection(Section):
    """What turns a signal into none before any account sees it."""

    confidence: ConfidenceGate | None = None
    regime: RegimeGate | None = None
    auditor: str | None = Field(None, description="Recipe that has to want the same trade.")


class Paced(Section):
    """The three numbers of every veto, in sessions (closed trades for the win rate)."""

    window: int = Field(20, ge=1, description="What is looked at; a veto of the market holds no longer than that in a row.")
    least: int = Field(10, ge=1, description="Fewest known values in the window for a judgement.")
    cool_down: int = Field(
        5, ge=1, description="Pause of entries after losses; release of entries after a veto's longest hold."
    )

    @model_validator(mode="after")
    def _can_hold(self) -> Paced:
        if self.least > self.window:
            raise ValueError(f"least {self.least} is more than the window {self.window}: the veto could never hold")
        return self


class LossesVeto(Paced):
    """A pause after losses in a row, whenever they were: the row itself is its window and its sample."""

    limit: int = Field(3, ge=1)

    @model_validator(mode="after")
    def _says_what_counts(self) -> LossesVeto:
        if idle := sorted({"window", "least"} & self.model_fields_set):
            raise ValueError(f"{' and '.join(idle)} of losses in a row would have no effect: remove them; limit is how many")
        return self


class WinRateVeto(Paced):
    """A pause where fewer than this share of the last closed trades won."""

    limit: float = Field(0.4, gt=0, le=1)


class DrawdownVeto(Paced):
    """A pause where equity lies this far below the highest close of the window."""

    limit: float = Field(0.2, gt=0, lt=1)


class VixVeto(Paced):
    """No entries while the volatility index, as known, is above a limit."""

    limit: float = Field(30.0, gt=0)


class DistanceVeto(Paced):
    """No shorts close above a support, no longs close below a resistance: by share of the price, or of the ATR."""

    limit: float | None = Field(0.002, gt=0, description="Of the close.")
    limit_atr: float | None = Field(None, gt=0, description="Of the ATR of the decision.")

    @model_validator(mode="after")
    def _says_a_distance(self) -> DistanceVeto:
        if self.limit is None and self.limit_atr is None:
            raise ValueError("needs limit or limit_atr: how close is too close")
        return self


class HoursVeto(Paced):
    """Entries only between two times of the exchange's day, for bars within a day."""

    first: str = Field("10:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    last: str = Field("15:30", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")


class EventsVeto(Paced):
    """No entries where something is scheduled before the close of the next sessions."""

    kinds: list[Literal["release", "expiry"]] = Field(["release"], min_length=1)
    names: list[str] = Field([], description="Of the events; none means all of these kinds.")
    sessions: int = Field(1, ge=1)


class VetoesSection(Section):
    """Reasons to keep out of the market; an empty mapping takes a veto's usual numbers."""

    consecutive_losses: LossesVeto | None = None
    win_rate: WinRateVeto | None = None
    drawdown: DrawdownVeto | None = None
    vix: VixVeto | None = None
    support: DistanceVeto | None = None
    resistance: DistanceVeto | None = None
    hours: HoursVeto | None = None
    events: EventsVeto | None = None


class SizingSection(Section):
    """Notional of an entry over equity, by what is known at the decision.

    equal: one over the number of symbols. fraction: `size`. risk: `size` of equity is lost at the stop. volatility: as large
    as makes the deviation of the position `size` a year, over the number of symbols. kelly: `size` times the fraction of Kelly
    (1956) for the calibrated probabilities of target and stop. training: an equal share, scaled so that the equal-weight
    universe of the training window had a deviation of `size` a year.
    """

    kind: Literal["equal", "fraction", "risk", "volatility", "kelly", "training"] = "equal"
    size: float | None = Field(None, gt=0)
    most: float | None = Field(None, gt=0, description="Cap of the notional over equity.")

    @model_validator(mode="after")
    def _has_its_number(self) -> SizingSection:
        if (self.size is None) != (self.kind == "equal"):
            raise ValueError("size is the number of every kind but 'equal': give it with the one, remove it with the other")
        if self.kind == "kelly" and self.most is None:
            raise ValueError("kelly needs most: uncapped, an overconfident predictor bets the account")
        return self


class LimitsSection(Section):
    """Of one cash pool, as shares of equity; entries of one session above a limit are scaled alike."""

    gross: float = Field(1.0, gt=0)
    net: float | None = Field(None, gt=0)
    symbol: float | None = Field(None, gt=0)
    lots: int = Field(1, ge=1, le=16)


class OrdersSection(Section):
    """How a decision becomes an order for the next session, and how its position ends."""

    entry: Literal["market", "limit", "predicted"] = Field(
        "market", description="At the next open; at a distance from the close; as its predictor says."
    )
    limit_atr: float | None = Field(None, ge=0, description="Distance of a limit from the close, in ATR, on the better side.")
    valid_sessions: int = Field(3, ge=1, description="A limit rests so long.")
    stop_atr: float = Field(WIDTH_ATR, gt=0)
    take_multiple: float = Field(2.0, gt=0, description="Of the stop's distance.")
    break_even_at: float | None = Field(None, gt=0, description="Gain in risks that moves the stop to the entry.")
    trail_atr: float | None = Field(None, gt=0)
    trail_from: float = Field(0.0, ge=0)
    horizon_sessions: int = Field(HORIZON_SESSIONS, ge=1)
    exit_on_opposite: bool = Field(False, description="A signal for the other side ends the position, vetoed or not.")
    hold: bool = Field(False, description="No exits before the end of the block.")

    @model_validator(mode="after")
    def _fits_together(self) -> OrdersSection:
        if (self.entry == "limit") != (self.limit_atr is not None):
            raise ValueError("entry 'limit' and limit_atr belong together: give both or neither")
        if self.hold and (self.break_even_at or self.trail_atr or self.exit_on_opposite):
            raise ValueError("hold keeps a position to the end: remove break_even_at, trail_atr and exit_on_opposite")
        return self


class CostsSection(Section):
    """Of the account, as in `tapehouse.backtest.config` (the numbers of every other account are the default), and its terms.

    Series are named as in features.macro_series; of each the level that was known at the session before counts.
    """

    commission_bps: float = Field(5.0, ge=0)
    half_spread_bps: float = Field(0.0, ge=0)
    slippage_bps: float = Field(10.0, ge=0)
    impact: float = Field(0.0, ge=0)
    borrow_bps: float = Field(0.0, ge=0)
    participation: float | None = Field(None, gt=0, le=1)

    ticks: bool = Field(False, description="Prices are whole ticks of raw.instruments, those paid the worse.")
    whole_lots: bool = Field(False, description="Quantities are whole lots of raw.instruments.")
    delisting_return: float = Field(0.0, ge=-1, description="From the last close to what a delisted position is worth.")
    rate_series: str | None = Field(None, description="Percent a year that cash earns; by default nothing.")
    currency: str = "USD"
    currency_series: dict[str, str] = Field({}, description="Currency to the series of its price in the account's.")


class TailSection(Section):
    """Conformal risk control of the account's size (`tapehouse.strategies.tail`)."""

    loss: float = Field(0.01, gt=0, lt=1, description="Of a session, as a share of equity.")
    rate: float = Field(0.05, gt=0, lt=1, description="Share of sessions that may lose more.")
    window: int = Field(250, ge=20, description="Latest sessions that the size is set by.")


REGIMES: dict[str, tuple[str, ...]] = {
    "rule": ("bullish", "bearish", "sideways"),
    "hidden": ("low_volatility_range", "trend", "high_volatility"),
    "volatility": ("low", "middle", "high"),
}
