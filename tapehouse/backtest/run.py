"""One backtest: predictions in, trades, equity and ledger out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tapehouse.backtest.account import simulate
from tapehouse.backtest.config import BPS, BacktestConfig
from tapehouse.backtest.layout import COUNTS, EXIT_REASONS, LEDGER, TRADE_INDICES, TRADE_NUMBERS
from tapehouse.backtest.panel import Orders, Panel, build_orders, build_panel
from tapehouse.backtest.ticks import in_currency, in_ticks

TRADES = {
    "trade_id": pl.Int64,
    "symbol": pl.String,
    "side": pl.String,
    "decision_at": pl.Datetime("us", "UTC"),
    "entry_session": pl.Date,
    "entry_price": pl.Float64,
    "exit_session": pl.Date,
    "exit_price": pl.Float64,
    "shares": pl.Float64,
    "exit_shares": pl.Float64,
    "pnl": pl.Float64,
    "commission": pl.Float64,
    "slippage": pl.Float64,
    "dividends": pl.Float64,
    "borrow": pl.Float64,
    "exit_reason": pl.String,
}


@dataclass(frozen=True)
class BacktestResult:
    """What one account did.

    trades: one row a closed position, in the order of entry (symbols of one session in the panel's order). Prices are
        as executed, slippage included, each in the raw basis of its own day; `shares` and `exit_shares` differ by the
        splits between. `pnl` is net: price gain + dividends - commission - slippage - borrow.
    equity: one row a session: `equity`, `cash` (short proceeds included), `gross_exposure` and `net_exposure` as shares
        of equity, `turnover` what was bought and sold over equity, `ret` the simple return since the session before.
    ledger: one row a session, in currency. At every row
        opening equity + realised + unrealised + dividends + interest - commission - slippage - borrow = equity; all but
        `unrealised`, values and `traded` (the session's turnover) are running totals. `slippage` is all that was paid
        beyond prices: half-spread, slippage and impact.
    counts: decisions that wanted a trade (`signals`), orders `filled`, decisions `skipped` because the symbol had a
        position or a resting order, limit orders `expired`, decisions with no session left (`unexecuted`), entries
        `scaled` down by a limit, those `refused` because it left no room at all, and decisions `vetoed`.
    fate: (sessions, symbols) what became of each decision, by the numbers in `tapehouse.backtest.layout`.
    """

    trades: pl.DataFrame
    equity: pl.DataFrame
    ledger: pl.DataFrame
    counts: dict[str, int]
    config: BacktestConfig
    fate: np.ndarray


def run_backtest(
    predictions: pl.DataFrame,
    decisions: pl.DataFrame,
    versions: pl.DataFrame,
    actions: pl.DataFrame,
    sessions: pl.DataFrame,
    config: BacktestConfig | None = None,
    symbols: Sequence[str] | None = None,
) -> BacktestResult:
    """Trade `predictions` over `sessions` and flatten at the last close.

    Args:
        predictions: rows of `models.predictions` of one subject and fold, one a decision.
        decisions: `symbol`, `decision_at`, `atr_14` of `features.decision_points`.
        versions: rows of `staging.bars` of one interval.
        actions: rows of `raw.corporate_actions`.
        sessions: `session`, `open_at`, `close_at` of the test block (`tapehouse.calendars.sessions`), without gaps.
        config: costs, sizes and exits.
        symbols: the universe, all of which divides the capital; by default the symbols of `decisions` in these sessions,
            each from its first decision on, so that every subject of a fold has the same, whatever it predicts.

    Raises:
        ValueError: see `build_panel` and `build_orders`.
    """
    config = config or BacktestConfig()
    panel, sessions = panel_of(decisions, versions, actions, sessions, config, symbols)
    weight = 1.0 / len(panel.symbols) if config.weight is None and symbols is not None else config.weight
    orders = build_orders(predictions, decisions, panel, sessions, weight)
    return simulate_orders(panel, orders, config)


def panel_of(
    decisions: pl.DataFrame,
    versions: pl.DataFrame,
    actions: pl.DataFrame,
    sessions: pl.DataFrame,
    config: BacktestConfig,
    symbols: Sequence[str] | None = None,
    liquidity: bool = False,
) -> tuple[Panel, pl.DataFrame]:
    """The panel of a test block, and its sessions up to the last that has a price; arguments as of `run_backtest`.

    Args:
        liquidity: volume and volatility are looked up even where `config` asks for neither: they change no account of it.

    Raises:
        ValueError: no bar of the symbols in the block; see `build_panel`.
    """
    sessions = sessions.sort("session")
    if symbols is None:
        inside = pl.col("decision_at").is_between(sessions["close_at"][0], sessions["close_at"][-1] + config.settlement)
        symbols = sorted(decisions.filter(inside)["symbol"].unique())
    # Where the data ends inside the block, so does the account: it cannot be flattened at a price that is not there.
    priced = versions.filter(pl.col("symbol").is_in(list(symbols)))["session"]
    sessions = sessions.filter(pl.col("session") <= priced.max()) if len(priced) else sessions.clear()
    if sessions.is_empty():
        raise ValueError("no bar of these symbols up to the end of the test block")
    liquid = liquidity or config.needs_liquidity
    return build_panel(versions, actions, sessions, symbols, config.settlement, liquid), sessions


def simulate_orders(panel: Panel, orders: Orders, config: BacktestConfig) -> BacktestResult:
    """Run the kernel on arrays that are ready, and name what comes out."""
    ledger, numbers, indices, counts, fate = account(panel, orders, config)
    ledger_frame = pl.DataFrame({"session": panel.sessions}, schema={"session": pl.Date}).with_columns(
        [pl.Series(name, ledger[:, i]) for i, name in enumerate(LEDGER)]
    )
    return BacktestResult(
        trades=_trades(panel, orders, numbers, indices),
        equity=_equity(ledger_frame, config.initial_cash),
        ledger=ledger_frame,
        counts=dict(zip(COUNTS, counts.tolist(), strict=True)),
        config=config,
        fate=fate,
    )


def account(panel: Panel, orders: Orders, config: BacktestConfig) -> tuple[np.ndarray, ...]:
    """The kernel's own arrays (`tapehouse.backtest.account.simulate`): ledger, trade numbers, trade indices, counts, fate.

    For what runs many accounts over one panel, where naming what comes out would take longer than the account. Prices are in
    currency on either side of it, and whole ticks within where a tick is declared (`tapehouse.backtest.ticks`).

    Raises:
        ValueError: see `in_ticks`.
    """
    hold = config.exit_rule == "hold"
    panel, orders = in_ticks(panel, orders)
    ledger, numbers, indices, counts, fate = simulate(
        panel.open,
        panel.high,
        panel.low,
        panel.close,
        panel.ratio,
        panel.dividend,
        panel.fx,
        panel.volume,
        panel.volatility,
        panel.delisting,
        panel.elapsed,
        panel.rate,
        panel.tick,
        panel.lot,
        orders.signal,
        orders.limit,
        orders.valid,
        orders.atr,
        orders.weight,
        orders.command,
        orders.blocked_long,
        orders.blocked_short,
        config.initial_cash,
        config.commission_bps * BPS,
        config.half_spread_bps * BPS,
        config.slippage_bps * BPS,
        config.impact,
        config.borrow_bps * BPS,
        _or_none(config.participation),
        config.gross_limit,
        _or_none(config.net_limit),
        _or_none(config.symbol_limit),
        config.lots,
        np.inf if hold else config.barrier_atr,
        np.inf if hold else config.take_multiple,
        0 if hold else config.vertical_barrier,
        _or_none(config.break_even_at),
        _or_none(config.trail_atr),
        config.trail_from,
        config.centre == "fill",
        config.guards.array,
    )
    in_currency(numbers, indices[:, TRADE_INDICES.index("symbol")], panel.tick)
    return ledger, numbers, indices, counts, fate


def _or_none(limit: float | None) -> float:
    """A limit for the kernel; one that is not declared never binds."""
    return np.inf if limit is None else limit


def _equity(ledger: pl.DataFrame, initial: float) -> pl.DataFrame:
    long, short, equity = pl.col("long_value"), pl.col("short_value"), pl.col("equity")
    return ledger.select(
        "session",
        equity,
        "cash",
        ((long + short) / equity).alias("gross_exposure"),
        ((long - short) / equity).alias("net_exposure"),
        (pl.col("traded") / equity).alias("turnover"),
        (equity / equity.shift(1, fill_value=initial) - 1.0).alias("ret"),
    )


def _trades(panel: Panel, orders: Orders, numbers: np.ndarray, indices: np.ndarray) -> pl.DataFrame:
    number = {name: numbers[:, i] for i, name in enumerate(TRADE_NUMBERS)}
    index = {name: indices[:, i].tolist() for i, name in enumerate(TRADE_INDICES)}
    at = zip(index["decision"], index["symbol"], strict=True)
    return pl.DataFrame(
        {
            "trade_id": range(len(numbers)),
            "symbol": [panel.symbols[i] for i in index["symbol"]],
            "side": ["BUY" if side > 0 else "SELL" for side in index["side"]],
            "decision_at": [orders.decision_at[cell] for cell in at],
            "entry_session": [panel.sessions[i] for i in index["entry"]],
            "exit_session": [panel.sessions[i] for i in index["exit"]],
            "exit_reason": [EXIT_REASONS[i] for i in index["reason"]],
            **number,
        },
        schema_overrides=TRADES,
    ).select(*TRADES)
