"""Two subjects over the test blocks that both were traded on: figures side by side, and where their accounts part.

What each of them is in the market with is taken from its trades, so that recipes and strategies, limits and market orders
compare alike: a position is held at a close from its entry's session until the one before its exit's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.subject_statistics import statistics_rows

SIDES: Final = ("long", "flat", "short")
ACTIONS: Final = ("BUY", "HOLD", "SELL")
FARTHEST: Final = 10  # sessions shown on which the two accounts parted most


@dataclass(frozen=True)
class Comparison:
    """All that `tapehouse compare` says of `a` and `b`.

    Attributes:
        folds: test blocks of both. daily: `fold`, `session`, `a`, `b`: returns, the first session of each block left out.
        difference: the row of `reports.differences`, of the Sharpe ratios. statistics: as `reports.statistics`, over `folds`.
        held: 3 x 3 shares of the closes of what either traded in a block, by what `a` (rows) and `b` (columns) held then, in
            the order of `SIDES`.
        answered: the same of what was answered, in the order of `ACTIONS`; None where one of them has no predictions.
        entries: `who` (both, a, b), `trades`, `pnl`, `hit_rate`, `mean_bps`: entries of both on one session, symbol and side
            (the gains are then those of `a`), and of one alone.
        blocks: `fold`, and of each `return` and `trades`. symbols: `symbol`, and of each `pnl` and `trades`.
        farthest: the rows of `daily` with the largest gaps.
    """

    a: str
    b: str
    folds: tuple[str, ...]
    daily: pl.DataFrame
    difference: Mapping[str, Any]
    statistics: pl.DataFrame
    held: list[list[float]]
    answered: list[list[float]] | None
    entries: pl.DataFrame
    blocks: pl.DataFrame
    symbols: pl.DataFrame
    farthest: pl.DataFrame

    @property
    def alike(self) -> float | None:
        """Share of the closes where either held something at which both held the same; None where neither ever did."""
        flat = SIDES.index("flat")
        some = sum(map(sum, self.held)) - self.held[flat][flat]
        return sum(self.held[i][i] for i in range(len(SIDES)) if i != flat) / some if some > 0 else None

    @property
    def claim(self) -> str:
        """What may be said of the two, for one question that was asked beforehand."""
        low, high = self.difference["low"], self.difference["high"]
        if low is None:
            return f"Nothing can be said of {self.a} and {self.b}: they share too few sessions"
        if low > 0:
            return f"{self.a} is ahead of {self.b}"
        return f"{self.a} is behind {self.b}" if high < 0 else f"{self.a} and {self.b} cannot be told apart"

    @property
    def evidence(self) -> str:
        """The figures behind it."""
        row = self.difference
        told = (
            f"Sharpe ratio {_signed(row['sharpe'])} against {_signed(row['other_sharpe'])} over the {row['sessions']:,} "
            "sessions that both have"
        )
        if row["low"] is None:
            return f"{told}."
        return f"{told}; the 95 % interval of the difference is {_signed(row['low'])} to {_signed(row['high'])}."


def compared(
    a: str, b: str, equity: pl.DataFrame, trades: pl.DataFrame, differences: pl.DataFrame, predictions: pl.DataFrame
) -> Comparison:
    """The two subjects beside each other.

    Args:
        equity, trades: rows of `reports.backtest_equity` and `reports.backtest_trades`, of both at least.
        differences: rows of `reports.differences`.
        predictions: `adapter`, `fold`, `symbol`, `interval`, `decision_at`, `action` of `models.predictions`, of tests.

    Raises:
        TapehouseError: a name without an account, the same name twice, no block in common, or no row of their difference.
    """
    known = sorted(equity["subject"].unique())
    for name in (a, b):
        if name not in known:
            raise TapehouseError(f"{name}: {unknown(name, known, 'traded subject')}")
    if a == b:
        raise TapehouseError(f"{a} and {b} are one subject: name two of {', '.join(known)}")
    blocks = {name: set(equity.filter(subject=name)["fold"]) for name in (a, b)}
    folds = tuple(sorted(blocks[a] & blocks[b]))
    if not folds:
        spans = "; ".join(f"{name} {min(own)} to {max(own)}" for name, own in blocks.items())
        raise TapehouseError(f"{a} and {b} were traded on no block in common ({spans}), so nothing of them can be compared")
    row = differences.filter(subject=a, other=b)
    equity, trades = (t.filter(pl.col("subject").is_in([a, b]), pl.col("fold").is_in(folds)) for t in (equity, trades))
    daily = _daily(equity, a, b)
    if row.is_empty() or row["sessions"][0] != daily.height:
        told = "has no row" if row.is_empty() else f"knows {row['sessions'][0]} sessions, of {daily.height},"
        raise TapehouseError(
            f"reports.differences {told} of {a} and {b}; make it: `tapehouse run --select reports/differences`"
        )
    return Comparison(
        a=a,
        b=b,
        folds=folds,
        daily=daily,
        difference=row.row(0, named=True),
        statistics=statistics_rows(equity, trades),
        held=_held(equity, trades, a, b),
        answered=_answered(predictions.filter(pl.col("fold").is_in(folds)), a, b),
        entries=_entries(trades, a, b),
        blocks=_blocks(daily, trades, a, b),
        symbols=_symbols(trades, a, b),
        farthest=daily.sort((pl.col("a") - pl.col("b")).abs(), "session", descending=[True, False]).head(FARTHEST),
    )


def unknown(name: str, known: list[str], what: str) -> str:
    """What to say of a name that is not there: the nearest ones, or all."""
    near = get_close_matches(name, known, n=3)
    there = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known) or 'none yet'}"
    return f"no {what} of this name; {there}"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _daily(equity: pl.DataFrame, a: str, b: str) -> pl.DataFrame:
    of = {}
    for key, name in (("a", a), ("b", b)):
        own = equity.filter(pl.col("subject") == name, pl.col("session") > pl.col("session").min().over("subject", "fold"))
        of[key] = own.select("fold", "session", pl.col("ret").alias(key))
    return of["a"].join(of["b"], on=["fold", "session"]).sort("fold", "session")


def _held(equity: pl.DataFrame, trades: pl.DataFrame, a: str, b: str) -> list[list[float]]:
    sessions = equity.select("fold", "session").unique()
    closes = sessions.join(trades.select("fold", "symbol").unique(), on="fold")
    of = trades.join(sessions, on="fold").filter(
        pl.col("entry_session") <= pl.col("session"), pl.col("session") < pl.col("exit_session")
    )
    sign = pl.when(pl.col("side") == "BUY").then(1).otherwise(-1)
    grain = ["fold", "session", "symbol"]
    net = of.group_by("subject", *grain).agg(sign.sum().sign().alias("net"))
    for key, name in (("a", a), ("b", b)):
        own = net.filter(pl.col("subject") == name).select(*grain, pl.col("net").alias(key))
        closes = closes.join(own, on=grain, how="left").with_columns(pl.col(key).fill_null(0))
    return _crossed(closes, [1, 0, -1])


def _answered(predictions: pl.DataFrame, a: str, b: str) -> list[list[float]] | None:
    grain = ["fold", "symbol", "interval", "decision_at"]
    mine, theirs = (
        predictions.filter(pl.col("adapter") == name).select(*grain, pl.col("action").alias(key))
        for key, name in (("a", a), ("b", b))
    )
    both = mine.join(theirs, on=grain)
    return _crossed(both, list(ACTIONS)) if both.height else None


def _crossed(rows: pl.DataFrame, values: list) -> list[list[float]]:
    """Shares of all rows by `a` (rows) and `b` (columns); all 0 without rows."""
    counts = {(x, y): n for x, y, n in rows.group_by("a", "b").len().iter_rows()}
    return [[counts.get((x, y), 0) / max(rows.height, 1) for y in values] for x in values]


def _entries(trades: pl.DataFrame, a: str, b: str) -> pl.DataFrame:
    key = ["fold", "symbol", "side", "entry_session"]
    mine, theirs = (trades.filter(pl.col("subject") == name) for name in (a, b))
    parts = {
        "both": mine.join(theirs, on=key, how="semi"),
        "a": mine.join(theirs, on=key, how="anti"),
        "b": theirs.join(mine, on=key, how="anti"),
    }
    figures = (
        pl.len().cast(pl.Int64).alias("trades"),
        pl.col("pnl").sum(),
        (pl.col("pnl") > 0).mean().alias("hit_rate"),
        (pl.col("pnl") / (pl.col("shares") * pl.col("entry_price")) * 1e4).mean().alias("mean_bps"),
    )
    return pl.concat([part.select(pl.lit(who).alias("who"), *figures) for who, part in parts.items()])


def _blocks(daily: pl.DataFrame, trades: pl.DataFrame, a: str, b: str) -> pl.DataFrame:
    gained = daily.group_by("fold").agg(((1.0 + pl.col(key)).product() - 1.0).alias(f"{key}_return") for key in "ab")
    return _counted(gained, trades, "fold", a, b).sort("fold")


def _symbols(trades: pl.DataFrame, a: str, b: str) -> pl.DataFrame:
    made = trades.select("symbol").unique()
    for key, name in (("a", a), ("b", b)):
        own = trades.filter(pl.col("subject") == name).group_by("symbol").agg(pl.col("pnl").sum().alias(f"{key}_pnl"))
        made = made.join(own, on="symbol", how="left").with_columns(pl.col(f"{key}_pnl").fill_null(0.0))
    return _counted(made, trades, "symbol", a, b).sort("symbol")


def _counted(rows: pl.DataFrame, trades: pl.DataFrame, by: str, a: str, b: str) -> pl.DataFrame:
    for key, name in (("a", a), ("b", b)):
        own = trades.filter(pl.col("subject") == name).group_by(by).agg(pl.len().cast(pl.Int64).alias(f"{key}_trades"))
        rows = rows.join(own, on=by, how="left").with_columns(pl.col(f"{key}_trades").fill_null(0))
    return rows
