"""Price features of daily bars, each row in the price basis of its own decision and from what was known then.

What a decision sees is in `tapehouse.features.history`: the bars, splits and dividends known by then, from 1 May two
years before its year. Of TA-Lib's indicators every value agrees with TA-Lib to 1e-6 of the larger of the two and the
price, once 400 bars have gone before it; all other values are exact by their definitions, in `tapehouse.features.windows`
and `tapehouse.features.kernels`. Units, windows and warm-up of each column are in `checks/features/price.yaml`.
"""

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from tapehouse.features import kernels, windows
from tapehouse.features.collected import Collected
from tapehouse.features.history import DECISION_LAG, UTC_DATETIME, Batch, batches, in_order

MARKET = "^GSPC"
FEATURES = (
    "ret_1d",
    "ret_5d",
    "ret_10d",
    "ret_20d",
    "ret_63d",
    "atr_14",
    "rsi_14",
    "macd",
    "macd_signal",
    "macd_hist",
    "plus_di_14",
    "minus_di_14",
    "adx_14",
    "realised_vol_20d",
    "parkinson_vol_20d",
    "garman_klass_vol_20d",
    "momentum_10d",
    "momentum_30d",
    "gap_1d",
    "range_1d",
    "vwap_distance_20d",
    "bollinger_position_20d",
    "support_distance_20d",
    "resistance_distance_20d",
    "market_divergence_1d",
    "market_divergence_5d",
    "relative_strength_20d",
    "volume_zscore_20d",
)
SCHEMA = {
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": UTC_DATETIME,
    "session": pl.Date,
    "known_at": UTC_DATETIME,
    "open": pl.Float64,
    "high": pl.Float64,
    "low": pl.Float64,
    "close": pl.Float64,
    "volume": pl.Int64,
    **dict.fromkeys(FEATURES, pl.Float64),
    "bars_of_history": pl.Int32,
}


def price_features(
    versions: pl.DataFrame,
    actions: pl.DataFrame,
    start: datetime,
    end: datetime,
    decision_lag: timedelta = DECISION_LAG,
    market: str = MARKET,
) -> pl.DataFrame:
    """Features of every decision in [start, end).

    Args:
        versions: `staging.bars`, at least those with `event_at` in [start - 33 months, end), in any order.
        actions: `raw.corporate_actions` of the same span.
        start, end: UTC bounds of `decision_at`.
        decision_lag: how long after a session's close its decision is taken.
        market: the symbol of the index that divergence and relative strength are measured against.

    Returns:
        One row per (symbol, interval, decision_at), sorted by it, for every bar that was known at its own decision.
        Prices and volume are raw, as known then; units of the features are in `checks/features/price.yaml`. A feature
        is null until enough bars have gone before it, and where it is not defined.

    Raises:
        TapehouseError: for an interval without a declared anchor, or a dividend that is not below the close before it.
    """
    bars = in_order(versions)
    rows = Collected(bars, FEATURES)
    for batch in batches(bars, actions, start, end, decision_lag, market, "features.price"):
        rows.add(batch, *_features(batch))
    return rows.frame(list(SCHEMA)).cast(SCHEMA)


def _features(batch: Batch) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Feature to its values for every bar in [batch.first, batch.stop), and the latest `known_at` of their inputs."""
    own, index = batch.own, batch.market
    years = batch.restarts, batch.firsts, batch.stops
    _, highs, lows, closes = own.prices
    features = dict(
        zip(kernels.RECURSIVE, kernels.recursive_features(*years, highs, lows, closes, own.price_factors), strict=True)
    )
    daily = windows.daily_log_returns(batch.restarts[0], batch.stops[-1], closes, own.price_factors)
    of_windows = windows.window_features(*years, *own.prices, own.volumes, own.price_factors, own.volume_factors, daily)
    features |= zip(windows.WINDOWED, of_windows, strict=True)

    lengths = np.array(sorted({*windows.RETURNS, *windows.MOMENTA, *windows.DIVERGENCES}))
    returns = dict(zip(lengths.tolist(), windows.log_returns(*years, closes, own.price_factors, lengths), strict=True))
    features |= {f"ret_{bars}d": returns[bars] for bars in windows.RETURNS}
    features |= {f"momentum_{bars}d": windows.simple_returns(returns[bars]) for bars in windows.MOMENTA}

    lengths = np.array(windows.DIVERGENCES)
    of_market, market_known = windows.market_returns(
        *years, batch.matched, index.prices[3], index.price_factors, index.latest, lengths
    )
    divergences = (returns[bars] - values for bars, values in zip(windows.DIVERGENCES, of_market, strict=True))
    features |= zip(("market_divergence_1d", "market_divergence_5d", "relative_strength_20d"), divergences, strict=True)
    known = np.maximum(kernels.latest_known(*years, own.latest), market_known)
    return features, known
