"""How much of a symbol trades and how much it moves, as known before each session: what caps and impact are made of."""

import math
from datetime import date, datetime

import numpy as np
import polars as pl

from tapehouse.versions import ACTION_KEY, BAR_KEY, as_known

WINDOW = 20  # sessions, a month
FEWEST = 5


def known_liquidity(
    versions: pl.DataFrame, actions: pl.DataFrame, sessions: pl.DataFrame, symbols: tuple[str, ...], ratio: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Average daily volume and volatility of each symbol before each session, (sessions, symbols).

    Both look at the last 20 bars known at the session's open, at least 5, each in the version known then. Volume is in shares
    of the session's basis. Volatility is the root mean square of log(close / open) and needs neither a split nor a
    dividend; what happens overnight is not in it.

    Args:
        versions: rows of `staging.bars` of one interval, from about six weeks before the first session.
        actions: rows of `raw.corporate_actions`; splits up to the first session restate the bars before them.
        sessions: `session`, `open_at`, ascending. symbols: the columns.
        ratio: (sessions, symbols) shares that one of the session before becomes.

    Returns:
        Two arrays, NaN where fewer bars were known.
    """
    volume, volatility = np.full(ratio.shape, np.nan), np.full(ratio.shape, np.nan)
    days, opens = sessions["session"].to_list(), sessions["open_at"].to_list()
    # Shares of the first session's basis that one share of each session is.
    basis = np.cumprod(ratio, axis=0)
    place = {day: t for t, day in enumerate(days)}
    splits = _splits_before(actions, days[0], opens[0])
    latest = as_known(versions, BAR_KEY, pl.lit(versions["known_at"].max())).sort("event_at")
    settled, all_versions = (frame.partition_by("symbol", as_dict=True) for frame in (latest, versions))
    for s, symbol in enumerate(symbols):
        if (symbol,) not in settled:
            continue
        own, final, ratios = all_versions[symbol,], settled[symbol,], splits.get(symbol, [])
        # Where no bar was ever corrected and none came out of order, what was known of it is its start.
        plain = final.height == own.height and final["known_at"].is_sorted()
        bars = _in_shares(final, place, basis[:, s], ratios) if plain else None
        until = np.searchsorted(final["known_at"].to_numpy(), sessions["open_at"].to_numpy(), side="left")
        for t, opened in enumerate(opens):
            if plain:
                lots, moved = (values[max(until[t] - WINDOW, 0) : until[t]] for values in bars)
            else:
                known = as_known(own, BAR_KEY, pl.lit(opened)).sort("event_at").filter(pl.col("known_at") < opened)
                lots, moved = _in_shares(known.tail(WINDOW), place, basis[:, s], ratios)
            if len(lots) < FEWEST:
                continue
            volume[t, s] = (lots * basis[t, s]).sum() / len(lots)
            volatility[t, s] = np.sqrt((moved**2).sum() / len(moved))
    return volume, volatility


def _in_shares(
    bars: pl.DataFrame, place: dict[date, int], basis: np.ndarray, splits: list[tuple[date, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Volume of each bar in shares of the first session, and its log(close / open)."""
    held = np.array([basis[place[day]] if day in place else _shares(day, splits) for day in bars["session"]])
    return bars["volume"].cast(pl.Float64).to_numpy() / held, np.log(bars["close"].to_numpy() / bars["open"].to_numpy())


def _splits_before(actions: pl.DataFrame, first: date, opened: datetime) -> dict[str, list[tuple[date, float]]]:
    """Ex-date and ratio of each symbol's splits up to the first session, as known at its open."""
    known = as_known(actions.filter(kind="split"), ACTION_KEY, pl.lit(opened)).filter(pl.col("ex_date") <= first)
    found: dict[str, list[tuple[date, float]]] = {}
    for symbol, ex_date, ratio in known.select("symbol", "ex_date", "ratio").iter_rows():
        found.setdefault(symbol, []).append((ex_date, ratio))
    return found


def _shares(day: date, splits: list[tuple[date, float]]) -> float:
    """Shares of `day` that one of the first session is: below 1 where splits have multiplied them since."""
    return 1.0 / math.prod(ratio for ex_date, ratio in splits if day < ex_date)
