"""Adjusted prices as of a given time: raw bars restated by the splits and dividends that were ex, and known, by then.

A vendor's adjusted close has all later actions in it, also those that no one could know. Here the time is said: what is asked
as of T uses the bars known by T in their latest version of then, and the actions that had gone ex by T and were known by T.
So the series as of T never changes with what happens later, and its last price is the raw one: it is in the basis of T.

Prices before a split are divided by its ratio, volumes multiplied by it; prices before a dividend of D are multiplied by
1 - D / (the last close before the ex-date), the form of CRSP, so that ratios of adjusted closes are total returns.
"""

from datetime import datetime

import numpy as np
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.features.kernels import restating_factors
from tapehouse.versions import ACTION_KEY, BAR_KEY, as_known, microseconds

PRICES = ("open", "high", "low", "close")
NO_SESSION = np.iinfo(np.int64).max  # after every ex-date
NEVER = np.iinfo(np.int64).min


def adjusted_prices(versions: pl.DataFrame, actions: pl.DataFrame, at: datetime, dividends: bool = True) -> pl.DataFrame:
    """Every bar that was known at `at`, in the price basis of `at`.

    Args:
        versions: `staging.bars`, every version: `symbol, interval, session, event_at, known_at`, prices and `volume`.
        actions: `raw.corporate_actions`, every version. One is in force from 00:00 exchange time of its ex-date (`event_at`),
            so that at that hour, before the first bar in the new basis, the past is restated already.
        at: the instant, with its time zone.
        dividends: whether dividends are taken out too; without them prices are adjusted for splits alone.

    Returns:
        One row per (symbol, interval, session), sorted by it: raw `close`, `adjusted_open` to `adjusted_close` and
        `adjusted_volume` (shares of `at`), `factor` (adjusted price over raw price), `event_at`, and `known_at`: the latest of
        the bar and of the actions that restate it.

    Raises:
        TapehouseError: `at` has no time zone, or a dividend is not below the close before it.
    """
    if at.tzinfo is None:
        raise TapehouseError(f"adjusted prices as of {at}: the instant has no time zone; pass a UTC datetime")
    bars = as_known(versions, BAR_KEY, pl.lit(at)).filter(pl.col("event_at") <= at)
    due = as_known(actions, ACTION_KEY, pl.lit(at)).filter(pl.col("event_at") <= at)
    if not dividends:
        due = due.filter(pl.col("kind") == "split")
    # On one day the dividend goes first: its amount is per share of the day before.
    due = due.sort("symbol", "ex_date", "kind")
    parts = [
        _of_symbol(group, due.filter(pl.col("symbol") == symbol))
        for (symbol, _), group in bars.sort(BAR_KEY).group_by(["symbol", "interval"], maintain_order=True)
    ]
    return pl.concat(parts) if parts else _of_symbol(bars, due)


def _of_symbol(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """Bars of one symbol and interval in order of session, restated by its actions."""
    days = bars["session"].to_physical().cast(pl.Int64).to_numpy()
    known = microseconds(bars["known_at"])
    # A last bar that is not there takes what has gone ex since the last one that is.
    steps, volume_steps, when, bad = restating_factors(
        np.append(days, NO_SESSION),
        np.append(bars["close"].to_numpy(), np.inf),
        np.full(bars.height + 1, NEVER),
        actions["ex_date"].to_physical().cast(pl.Int64).to_numpy(writable=True),
        actions["ratio"].to_numpy(writable=True),
        actions["amount"].to_numpy(writable=True),
        microseconds(actions["known_at"]),
    )
    if bad >= 0:
        action = actions.row(bad, named=True)
        raise TapehouseError(
            f"raw.corporate_actions: the dividend of {action['symbol']} ex {action['ex_date']} ({action['amount']}) is "
            "not below the close before it; correct the action or the bar by a later version"
        )
    # Multiplied one by one from the newest to the oldest: the same bits whatever lies before.
    factor = np.cumprod(steps[::-1])[::-1][1:]
    volume_factor = np.cumprod(volume_steps[::-1])[::-1][1:]
    # A step needs its actions, and the close before them.
    when[1:] = np.where(when[1:] > NEVER, np.maximum(when[1:], known), NEVER)
    restated = np.maximum.accumulate(when[::-1])[::-1][1:]
    return bars.select("symbol", "interval", "session", "event_at", "close").with_columns(
        pl.Series("known_at", np.maximum(known, restated)).cast(pl.Datetime("us", "UTC")),
        *(pl.Series(f"adjusted_{name}", bars[name].to_numpy() * factor) for name in PRICES),
        pl.Series("adjusted_volume", bars["volume"].cast(pl.Float64).to_numpy() * volume_factor),
        pl.Series("factor", factor),
    )
