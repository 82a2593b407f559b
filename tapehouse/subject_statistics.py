"""What each subject earned and went through over all its test blocks, joined, with intervals: `reports.statistics`.

Returns are those of the verdicts (`tapehouse.verdicts.curves`): daily, after costs, without the first session of each block.
Intervals resample blocks of sessions (`tapehouse.bootstrap`), one length a subject; trades are drawn with the session that they
end in. Drawdowns are of equity that goes on from one block to the next, though every block's account opened anew.

Annual figures are of 252 sessions, ratios gross of a risk-free rate: as empyrical-reloaded has them, to 1e-12. It has no
average drawdown, no durations and nothing of trades; where it divides by zero, or where nothing was traded, a figure is null.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import polars as pl

from tapehouse.bootstrap import FEWEST, Resamples, block_length, quantiles, resample, sharpe_draws
from tapehouse.metrics import sharpe
from tapehouse.statistics.drawdowns import PERIODS_A_YEAR, annual_return, calmar, drawdowns, sortino, tail_ratio
from tapehouse.statistics.path_draws import path_draws, tail_ratio_draws
from tapehouse.statistics.ratios import standard_error
from tapehouse.verdicts import Curve, curves

ROWS: Final = {
    "subject": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n": pl.Int64,
}
# In the order of reading; units in brackets.
MEANING: Final = {
    "sharpe": "Mean over deviation of daily returns times the root of 252, gross of a risk-free rate; null without trades.",
    "sharpe_standard_error": "Of that ratio, for returns neither normal nor independent (Mertens 2002; Newey and West 1987).",
    "sortino": "Mean over root mean square of negative daily returns, times the root of 252.",
    "calmar": "Annual return over the deepest drawdown.",
    "annual_return": "Return compounded to 252 sessions [fraction a year].",
    "return": "Change of equity over all blocks, joined, after all costs [fraction].",
    "volatility": "Standard deviation of daily returns times the root of 252 [fraction].",
    "max_drawdown": "Deepest fall of equity from its highest point so far [fraction, at most 0].",
    "mean_drawdown": "Mean depth of the separate falls below an earlier high, each at its bottom [fraction, at most 0].",
    "longest_drawdown": "Longest time below an earlier high [sessions].",
    "mean_drawdown_length": "Mean time below an earlier high [sessions].",
    "tail_ratio": "95th percentile of daily returns over the size of the 5th.",
    "exposure": "Mean of longs plus shorts over equity.",
    "net_exposure": "Mean of longs less shorts over equity.",
    "turnover": "Bought plus sold notional over equity, a year [fraction].",
    "trades": "Closed trades.",
    "hit_rate": "Share of closed trades with a net gain.",
    "profit_factor": "Net gains of winning trades over net losses of losing ones.",
    "mean_trade_bps": "Mean net gain of a trade over its entry's notional [bps].",
}
OF_TRADES: Final = {"trades", "hit_rate", "profit_factor", "mean_trade_bps"}  # all others are of sessions
_YEAR: Final = math.sqrt(PERIODS_A_YEAR)


def statistics_rows(equity: pl.DataFrame, trades: pl.DataFrame) -> pl.DataFrame:
    """Rows of `ROWS`, one for each subject and metric of `MEANING`, sorted by subject, in the order of reading.

    Args:
        equity: rows of `reports.backtest_equity`. trades: of `reports.backtest_trades`.
    """
    of_trades = {str(name): rows for (name,), rows in trades.group_by("subject")}
    of_days = {str(name): rows for (name,), rows in equity.group_by("subject")}
    rows = []
    for name, curve in sorted(curves(equity, {name: own.height for name, own in of_trades.items()}).items()):
        own = _Subject(curve, of_days[name], of_trades.get(name, trades.clear()))
        values = values_of(own)
        drawn = resample(len(curve.ret), block_length(curve.ret)) if len(curve.ret) >= FEWEST else None
        draws = draws_of(own, drawn) if drawn else {}
        for metric in MEANING:
            n = curve.trades if metric in OF_TRADES else len(curve.ret)
            value = values.get(metric)
            interval = (None, None) if value is None or n < FEWEST or metric not in draws else quantiles(draws[metric], drawn)
            rows.append((name, metric, value, *interval, n))
    return pl.DataFrame(rows, ROWS, orient="row")


class _Subject:
    """The joined returns of a subject, its exposure on the same sessions, and its trades with the place of their last one."""

    def __init__(self, curve: Curve, days: pl.DataFrame, trades: pl.DataFrame):
        self.ret, self.trades, self.traded = curve.ret, trades, curve.trades > 0
        kept = pl.DataFrame({"session": curve.sessions}, schema={"session": pl.Date})
        self.days = kept.join(days, on="session", how="left", maintain_order="left")
        place = {session: t for t, session in enumerate(curve.sessions)}
        self.ended = np.array([place[session] for session in trades["exit_session"]], np.int64)

    @property
    def shares(self) -> dict[str, np.ndarray]:
        """Of each session (sessions,), what the mean is a figure of; without those that an older account did not log."""
        columns = {
            "exposure": ("gross_exposure", 1),
            "net_exposure": ("net_exposure", 1),
            "turnover": ("turnover", PERIODS_A_YEAR),
        }
        known = {metric: (self.days[column], times) for metric, (column, times) in columns.items()}
        return {metric: values.to_numpy() * times for metric, (values, times) in known.items() if not values.has_nulls()}

    @property
    def ratios(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Of each trade (trades,), numerator and denominator of the figures that are ratios of sums."""
        pnl = self.trades["pnl"].to_numpy()
        bps = pnl / (self.trades["shares"] * self.trades["entry_price"]).to_numpy() * 1e4
        one = np.ones(len(pnl))
        return {
            "hit_rate": ((pnl > 0.0) * one, one),
            "profit_factor": (np.maximum(pnl, 0.0), np.maximum(-pnl, 0.0)),
            "mean_trade_bps": (bps, one),
        }


def values_of(own: _Subject) -> dict[str, float | None]:
    """The figures themselves; what is not defined is None, or left out."""
    ret, falls = own.ret, drawdowns(own.ret)
    found: dict[str, float | None] = {
        "return": float(np.prod(1.0 + ret) - 1.0),
        "max_drawdown": falls.deepest,
        "mean_drawdown": falls.mean,
        "longest_drawdown": float(falls.longest),
        "mean_drawdown_length": falls.mean_length,
        "trades": float(own.trades.height),
        **{metric: float(values.mean()) for metric, values in own.shares.items()},
    }
    if not own.traded:
        return found
    error = standard_error(ret)
    found |= {
        "sharpe": sharpe(ret),
        "sharpe_standard_error": None if error is None else error * _YEAR,
        "sortino": sortino(ret),
        "calmar": calmar(ret),
        "annual_return": annual_return(ret),
        "volatility": float(ret.std(ddof=1)) * _YEAR if len(ret) > 1 else None,
        "tail_ratio": tail_ratio(ret),
    }
    return found | {m: float(a.sum() / b.sum()) if b.sum() > 0.0 else None for m, (a, b) in own.ratios.items()}


def draws_of(own: _Subject, drawn: Resamples) -> dict[str, np.ndarray]:
    """The same of every draw, (draws,); NaN where a draw has no such figure."""
    ret, n = own.ret, len(own.ret)
    paths = path_draws(ret, drawn)
    annual = np.where(paths.grown > 0.0, np.maximum(paths.grown, 1e-300) ** (PERIODS_A_YEAR / n) - 1.0, np.nan)
    away, worse = ret - ret.mean(), np.minimum(ret, 0.0)
    variance = (drawn.sums(away**2) - drawn.sums(away) ** 2 / n) / (n - 1)
    found = {
        "return": paths.grown - 1.0,
        "max_drawdown": paths.deepest,
        "mean_drawdown": paths.mean,
        "longest_drawdown": paths.longest,
        "mean_drawdown_length": paths.mean_length,
        "sharpe": sharpe_draws(ret, drawn) * _YEAR,
        "sortino": _over(drawn.sums(ret) / n, np.sqrt(np.maximum(drawn.sums(worse**2) / n, 0.0))) * _YEAR,
        "calmar": _over(annual, -paths.deepest),
        "annual_return": annual,
        "volatility": np.sqrt(np.maximum(variance, 0.0)) * _YEAR,
        "tail_ratio": tail_ratio_draws(ret, drawn),
        **{metric: drawn.sums(values) / n for metric, values in own.shares.items()},
    }
    for metric, (above, below) in own.ratios.items():
        sums = (drawn.sums(np.bincount(own.ended, part, n)) for part in (above, below))
        found[metric] = _over(*sums)
    return found


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Ratio of each draw, NaN where there is nothing below; running sums leave no exact zero."""
    some = below > 1e-9 * np.abs(below).max(initial=0.0)
    return np.where(some, above / np.where(some, below, 1.0), np.nan)
