"""How much of a symbol trades and how much it moves, as known before each session: what caps and impact are made of."""

import numpy as np
import polars as pl

from tapehouse.versions import BAR_KEY, as_known

WINDOW = 20  # sessions, a month
FEWEST = 5


def known_liquidity(
    versions: pl.DataFrame, sessions: pl.DataFrame, symbols: tuple[str, ...], ratio: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Average daily volume and volatility of each symbol before each session, (sessions, symbols).

    Both look at the last 20 bars known at the session's open, at least 5, each in the version known then. Volume is in shares
    of the session's basis. Volatility is the root mean square of log(close / open) and needs neither a split nor a
    dividend; what happens overnight is not in it.

    Args:
        versions: rows of `staging.bars` of one interval, from about six weeks before the first session.
        sessions: `session`, `open_at`, ascending. symbols: the columns.
        ratio: (sessions, symbols) shares that one of the session before becomes. Splits before the first session are not
            known here: a bar from before one would be in another basis, so the caller passes bars with none between.

    Returns:
        Two arrays, NaN where fewer bars were known.
    """
    volume, volatility = np.full(ratio.shape, np.nan), np.full(ratio.shape, np.nan)
    days, opens = sessions["session"].to_list(), sessions["open_at"].to_list()
    # Shares of the first session's basis that one share of each session is.
    basis = np.cumprod(ratio, axis=0)
    place = {day: t for t, day in enumerate(days)}
    for s, symbol in enumerate(symbols):
        own = versions.filter(pl.col("symbol") == symbol)
        if own.is_empty():
            continue
        final = as_known(own, BAR_KEY, pl.lit(own["known_at"].max())).sort("event_at")
        revised = final.height < own.height
        for t, opened in enumerate(opens):
            known = as_known(own, BAR_KEY, pl.lit(opened)).sort("event_at") if revised else final
            known = known.filter(pl.col("known_at") < opened).tail(WINDOW)
            if known.height < FEWEST:
                continue
            held = np.array([basis[place[day], s] if day in place else 1.0 for day in known["session"]])
            volume[t, s] = np.mean(known["volume"].cast(pl.Float64).to_numpy() / held * basis[t, s])
            moved = np.log(known["close"].to_numpy() / known["open"].to_numpy())
            volatility[t, s] = np.sqrt(np.mean(moved**2))
    return volume, volatility
