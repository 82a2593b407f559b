"""What a backtest earned and how: figures of one account over one test block.

Returns are simple and daily, gross of a risk-free rate (cash earns nothing for anyone). The first session has none: the
earliest order fills on the second. A figure that is not defined (no trades, no losses) is null, never zero.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tapehouse.bootstrap import FEWEST, block_length, quantiles, resample, sharpe_draws
from tapehouse.statistics.drawdowns import PERIODS_A_YEAR, annualised, drawdowns_of, sortino

if TYPE_CHECKING:
    from tapehouse.backtest.run import BacktestResult

ROWS = {"subject": pl.String, "fold": pl.String, "metric": pl.String, "value": pl.Float64}
# What each metric of reports.backtests means; units in brackets. Also the tooltips of the report.
MEANING = {
    "return": "Change of equity over the block, after all costs [fraction].",
    "return_before_costs": "The same with commission, slippage and borrow fees of the block added back [fraction].",
    "annual_return": "Return compounded to 252 sessions; the first, without a return, does not count [fraction a year].",
    "volatility": "Standard deviation of daily returns times the root of 252 [fraction].",
    "sharpe": "Mean over deviation of daily returns times the root of 252, gross of a risk-free rate; null without trades.",
    "sharpe_low": "Lower end of the 95 % interval of the Sharpe ratio; blocks of ten sessions or more resampled.",
    "sharpe_high": "Upper end of that interval.",
    "sortino": "Mean over root mean square of negative daily returns, times the root of 252.",
    "max_drawdown": "Deepest fall of equity from its highest point so far [fraction, at most 0].",
    "longest_drawdown": "Longest time below an earlier high [sessions].",
    "calmar": "Annual return over the deepest drawdown.",
    "hit_rate": "Share of closed trades with a net gain.",
    "profit_factor": "Net gains of winning trades over net losses of losing ones.",
    "mean_trade_bps": "Mean net gain of a trade over its entry's notional [bps].",
    "turnover": "Bought plus sold notional over mean equity, over the block.",
    "trades": "Closed trades.",
    "long_trades": "Closed trades that were long.",
    "sessions_held": "Mean sessions from entry to exit, both counted.",
    "exposure": "Mean of longs plus shorts over equity.",
    "net_exposure": "Mean of longs less shorts over equity.",
    "costs": "Commission, slippage (half-spread and impact with it) and borrow fees over opening equity [fraction].",
    "dividends": "Dividends received less those paid on shorts, over opening equity [fraction].",
    "sessions": "Sessions of the block.",
    "signals": "Decisions to buy or sell.",
    "skipped": "Signals passed over: the symbol had a position or a resting order.",
    "expired": "Limit orders that were not filled in time.",
    "unexecuted": "Signals of the last session.",
    "scaled": "Entries made smaller by a limit.",
    "refused": "Entries for which a limit left no room.",
    "vetoed": "Signals that a veto kept from the market.",
}


def performance(result: BacktestResult) -> dict[str, float | None]:
    """The metrics of `MEANING` for one backtest, in that order."""
    opening, equity = result.config.initial_cash, result.equity["equity"].to_numpy()
    trades = result.trades
    ret = result.equity["ret"].to_numpy()[1:]
    gained = float(equity[-1] / opening - 1.0)
    costs = sum(float(result.ledger[name][-1]) for name in ("commission", "slippage", "borrow")) / opening
    falls = drawdowns_of(np.concatenate([[opening], equity]))
    annual = annualised(1.0 + gained, len(ret))
    traded = trades.height > 0
    low, high = sharpe_interval(ret) if traded else (None, None)
    won = float(trades.filter(pl.col("pnl") > 0)["pnl"].sum())
    lost = -float(trades.filter(pl.col("pnl") < 0)["pnl"].sum())
    figures = {
        "return": gained,
        "return_before_costs": gained + costs,
        "annual_return": annual,
        "volatility": float(ret.std(ddof=1)) * math.sqrt(PERIODS_A_YEAR) if len(ret) > 1 else None,
        "sharpe": sharpe(ret) if traded else None,
        "sharpe_low": low,
        "sharpe_high": high,
        "sortino": sortino(ret) if traded else None,
        "max_drawdown": falls.deepest,
        "longest_drawdown": float(falls.longest),
        "calmar": annual / -falls.deepest if annual is not None and falls.deepest < 0 else None,
        "hit_rate": float((trades["pnl"] > 0).mean()) if traded else None,
        "profit_factor": won / lost if lost > 0 else None,
        "mean_trade_bps": _mean(trades, pl.col("pnl") / (pl.col("shares") * pl.col("entry_price")) * 1e4),
        "turnover": float(result.ledger["traded"].sum() / equity.mean()),
        "trades": float(trades.height),
        "long_trades": float((trades["side"] == "BUY").sum()),
        "sessions_held": _sessions_held(result),
        "exposure": float(result.equity["gross_exposure"].mean()),
        "net_exposure": float(result.equity["net_exposure"].mean()),
        "costs": costs,
        "dividends": float(result.ledger["dividends"][-1]) / opening,
        "sessions": float(len(equity)),
        **{name: float(count) for name, count in result.counts.items() if name != "filled"},
    }
    return {name: figures[name] for name in MEANING}


def backtest_rows(subject: str, fold: str, result: BacktestResult) -> pl.DataFrame:
    """Rows of `reports.backtests`: subject, fold, metric, value."""
    return metric_rows(subject, fold, performance(result))


def metric_rows(subject: str, fold: str, figures: dict[str, float | None]) -> pl.DataFrame:
    """`figures` as long rows, in their order; a null value is kept, since "not defined" is an answer."""
    return pl.DataFrame(
        [(subject, fold, name, value) for name, value in figures.items()],
        schema=ROWS,
        orient="row",
    )


def sharpe(ret: np.ndarray) -> float | None:
    """Annualised ratio of mean to standard deviation (n - 1) of daily returns; None below two, or without variation."""
    if len(ret) < 2 or not ret.std(ddof=1) > 0:
        return None
    return float(ret.mean() / ret.std(ddof=1) * math.sqrt(PERIODS_A_YEAR))


def sharpe_interval(ret: np.ndarray) -> tuple[float, float] | tuple[None, None]:
    """95 % block-bootstrap interval of the Sharpe ratio of daily returns (sessions,); none below 30."""
    if len(ret) < FEWEST:
        return None, None
    drawn = resample(len(ret), block_length(ret))
    return quantiles(sharpe_draws(ret, drawn) * math.sqrt(PERIODS_A_YEAR), drawn)


def _mean(trades: pl.DataFrame, value: pl.Expr) -> float | None:
    return float(np.mean(trades.select(value).to_series().to_numpy())) if trades.height else None


def _sessions_held(result: BacktestResult) -> float | None:
    position = {session: i for i, session in enumerate(result.equity["session"])}
    spans = [
        position[out] - position[into] + 1 for into, out in result.trades.select("entry_session", "exit_session").iter_rows()
    ]
    return float(np.mean(spans)) if spans else None
