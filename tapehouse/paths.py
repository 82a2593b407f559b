"""What came after a decision, as labels and rewards see it: settled bars and actions on the grid of sessions.

A bar is settled one settlement lag after its session's close: the version known then is the one that counts, and a bar
first known later is missing for good. The same holds for a corporate action, whose session is the first at or after its
ex-date. So whatever is read up to some session is known by that session's close plus the lag, and a later correction
cannot change a label or a reward once its own cutoff has passed.

A share held through an action becomes `shares` shares and `cash` of dividends. Restating a later price to an earlier
day's basis is `price * shares + cash`: neither a split nor a dividend looks like a fall.
"""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
from numba import njit

from tapehouse.errors import TapehouseError
from tapehouse.versions import ACTION_KEY, BAR_KEY, as_known, require_declared_intervals

SETTLEMENT_LAG = timedelta(days=1)


@dataclass(frozen=True)
class Paths:
    """Settled bars of several symbols, one row a symbol and one column a session.

    Attributes:
        symbols: (s,) symbol of each row. sessions: frame of `session`, `open_at`, `close_at`, one row a column.
        open, high, low, close: (s, n) raw prices, NaN where no bar is settled.
        shares, cash: (s, n) what one share of the session before becomes: the number of shares, and dividends per
            share of the session before.
    """

    symbols: list[str]
    sessions: pl.DataFrame
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    shares: np.ndarray
    cash: np.ndarray

    def places(self, rows: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of each decision's own session.

        Raises:
            TapehouseError: for a session that the calendar does not have.
        """
        row = rows["symbol"].cast(pl.Enum(self.symbols), strict=False).to_physical().cast(pl.Int64).fill_null(-1)
        column = session_columns(rows["session"], self.sessions["session"])
        lost = (row < 0) | (column < 0)
        if lost.any():
            first = rows.row(lost.arg_true()[0], named=True)
            raise TapehouseError(
                f"decision of {first['symbol']} on {first['session']}: not a session of the calendar that labels, orders and "
                "accounts follow (`calendar` in sources.yaml); declare the instrument there with tradable: false, or give the "
                "instruments of its calendar a warehouse of their own"
            )
        return row.to_numpy(writable=True), column.to_numpy(writable=True)

    def times(self, name: str, columns: np.ndarray) -> pl.Series:
        """`open_at` or `close_at` of the given columns, null where a column is negative."""
        picked = pl.Series(columns)
        return self.sessions[name].gather(picked.set(picked < 0, None))


_SYMBOLS = {"symbol": pl.String, "row": pl.Int64}


def settled_paths(
    versions: pl.DataFrame,
    actions: pl.DataFrame,
    sessions: pl.DataFrame,
    symbols: list[str],
    settlement_lag: timedelta = SETTLEMENT_LAG,
) -> Paths:
    """Bars and actions of `symbols` in the versions known one settlement lag after their session's close.

    Args:
        versions: `staging.bars` of daily bars.
        actions: `raw.corporate_actions`.
        sessions: `session`, `open_at`, `close_at`, ascending, without gaps over the decisions and what follows them.
        symbols: those to keep; one without bars gets an empty path.
        settlement_lag: how long after a session's close its records still count.

    Raises:
        TapehouseError: a bar of another interval, of which a session would hold several.
    """
    require_declared_intervals(versions, "labels and rewards")
    grid = sessions.select("session", "open_at", "close_at").with_row_index("column")
    rows = pl.DataFrame({"symbol": symbols, "row": range(len(symbols))}, schema_overrides=_SYMBOLS)
    due = pl.col("close_at") + settlement_lag

    at, bars = _placed(versions, symbols, sessions)
    known = bars["known_at"].to_physical().to_numpy() <= sessions.select(due.to_physical()).to_series().to_numpy()[at[1]]
    cells = at[0][known] * len(sessions) + at[1][known]
    # Corrections within the lag are rare, and a bar of one version needs no ordering.
    if cells.size and np.bincount(cells).max() > 1:
        bars = bars.with_columns(row=at[0], column=at[1]).filter(pl.Series(known))
        bars = as_known(bars, BAR_KEY, pl.col("known_at"))
        cells, known = (bars["row"] * len(sessions) + bars["column"]).to_numpy(), slice(None)
    prices = {}
    for name in ("open", "high", "low", "close"):
        flat = np.full(len(symbols) * len(sessions), np.nan)
        flat[cells] = bars[name].to_numpy()[known]
        prices[name] = flat.reshape(len(symbols), len(sessions))

    effects = actions.join(rows, on="symbol").sort("ex_date")
    effects = effects.join_asof(grid, left_on="ex_date", right_on="session", strategy="forward", coalesce=False)
    effects = as_known(effects.drop_nulls("column"), ACTION_KEY, due)
    # A dividend is paid per share of the day before, so on one day it goes before the split.
    effects = effects.sort("row", "column", "ex_date", "kind")
    shares, cash = np.ones((len(symbols), len(sessions))), np.zeros((len(symbols), len(sessions)))
    _apply(
        effects["row"].to_numpy(writable=True),
        effects["column"].to_numpy(writable=True),
        effects["ratio"].to_numpy(writable=True),
        effects["amount"].to_numpy(writable=True),
        shares,
        cash,
    )
    return Paths(symbols=list(symbols), sessions=sessions, **prices, shares=shares, cash=cash)


def _placed(
    records: pl.DataFrame, symbols: list[str], sessions: pl.DataFrame
) -> tuple[tuple[np.ndarray, np.ndarray], pl.DataFrame]:
    """Row and column of each record, and the records that have both."""
    row = records["symbol"].cast(pl.Enum(symbols), strict=False).to_physical().cast(pl.Int64)
    column = session_columns(records["session"], sessions["session"])
    both = row.is_not_null() & (column >= 0)
    if not both.all():
        records, row, column = records.filter(both), row.filter(both), column.filter(both)
    return (row.to_numpy(), column.to_numpy()), records


def session_columns(days: pl.Series, sessions: pl.Series) -> pl.Series:
    """Place of each day among the ascending sessions, -1 where it is none."""
    if not len(sessions):
        return pl.Series(np.full(len(days), -1), dtype=pl.Int64)
    numbers, known = days.to_physical().cast(pl.Int64).fill_null(-1).to_numpy(), sessions.to_physical().to_numpy()
    places = np.full(int(known[-1]) - int(known[0]) + 1, -1, np.int64)
    places[known - known[0]] = np.arange(known.size)
    inside = (numbers >= known[0]) & (numbers <= known[-1])
    return pl.Series(np.where(inside, places[np.where(inside, numbers - known[0], 0)], -1))


@njit(cache=True)
def _apply(rows, columns, ratios, amounts, shares, cash):
    for i in range(rows.size):
        row, column = rows[i], columns[i]
        cash[row, column] += shares[row, column] * amounts[i]
        shares[row, column] *= ratios[i]
