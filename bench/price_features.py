"""Price features of 10 million daily bars of 500 symbols, in seconds: ours, and the same by TA-Lib; ratio = peer / ours.

TA-Lib runs through polars-talib, `over("symbol")`; what it has no function for is written with its LN, SUM, SMA, STDDEV,
MIN and MAX and plain polars arithmetic. Both get the same frame, sorted by symbol and session, and one thread; neither
gets a corporate action, since TA-Lib knows none. Ours also selects the versions known at each decision and restarts every
recursion each year, 20 to 32 months before its rows, so that a month alone has the same bits, which is asserted; TA-Lib's
recursions run over all history. The values must agree to 1e-6 once 400 bars have gone before them. With --quick a million
bars, the least of three runs. The time is that of the processor; the peaks of memory go to the error stream.
"""

import os

os.environ["POLARS_MAX_THREADS"] = "1"  # read once, when polars is imported

import math
import resource
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.harness import report  # noqa: E402
from tapehouse.features.price import price_features  # noqa: E402

AIM = 0.5  # at most twice the peer's time
SYMBOLS, BARS, QUICK_BARS, QUICK_RUNS = 500, 20_000, 2_000, 3
MARKET = "^INDEX"
WARM_UP = 400
TOLERANCE = 1e-6
START = datetime(1940, 1, 1, tzinfo=UTC)
YEAR = math.sqrt(252)
# What a difference is measured against where the reference is near zero: the price, the whole of a percentage, or one.
OF_PRICE = ("atr_14", "macd", "macd_signal", "macd_hist")
OF_PERCENT = ("rsi_14", "plus_di_14", "minus_di_14", "adx_14")
DIVERGENCES = {"market_divergence_1d": 1, "market_divergence_5d": 5, "relative_strength_20d": 20}
KEPT = ("symbol", "interval", "session", "known_at", "event_at", "open", "high", "low", "close", "volume", "version", "source")
STAMP = pl.Datetime("us", "UTC")


def market(symbols: int, bars: int) -> pl.DataFrame:
    """Random walks of `symbols` symbols, the index among them, over the same weekdays: rows of `staging.bars`, sorted."""
    rng = np.random.default_rng(4)
    days = np.busday_offset(np.datetime64("1940-01-01"), np.arange(bars), roll="forward")
    closes = pl.Series(days.astype("datetime64[us]")).cast(STAMP) + timedelta(hours=21)
    frames = []
    for symbol in [MARKET, *(f"S{i:03d}" for i in range(symbols - 1))]:
        steps = rng.normal(0.0, 0.01, (2, bars))
        close = 100.0 * np.exp(np.cumsum(steps.sum(axis=0)))
        opened = close * np.exp(-steps[1])
        reach = np.abs(rng.normal(0.0, 0.005, (2, bars)))
        frames.append(
            pl.DataFrame(
                {
                    "session": days,
                    "event_at": closes,
                    "known_at": closes,
                    "open": opened,
                    "high": np.maximum(opened, close) * (1.0 + reach[0]),
                    "low": np.minimum(opened, close) * (1.0 - reach[1]),
                    "close": close,
                    "volume": rng.integers(100_000, 900_000, bars),
                }
            ).with_columns(symbol=pl.lit(symbol), interval=pl.lit("1d"), version=pl.lit(1, pl.Int64), source=pl.lit("walk"))
        )
    return pl.concat(frames, rechunk=True).sort("symbol", "session").with_columns(pl.col("session").cast(pl.Date))


def by_talib(bars: pl.DataFrame) -> pl.DataFrame:
    """The features of all symbols, whose rows are sorted by symbol and session."""
    import polars_talib as ta

    open_, high, low, close = (pl.col(name) for name in ("open", "high", "low", "close"))
    typical = (high + low + close) / 3.0
    volume, log, index = pl.col("volume"), pl.col("log"), pl.col("index_log")
    to_sample = math.sqrt(20 / 19)
    spreads, bodies = ta.sum(pl.col("spread"), 20), ta.sum(pl.col("body"), 20)
    beside = bars.join(
        bars.filter(pl.col("symbol") == MARKET).select("event_at", index_log=ta.ln(close)),
        on="event_at",
        how="left",
        maintain_order="left",
    ).with_columns(
        volume=volume.cast(pl.Float64), log=ta.ln(close), spread=ta.ln(high / low) ** 2, body=ta.ln(close / open_) ** 2
    )
    of_symbol = {
        **{f"ret_{n}d": log - log.shift(n) for n in (1, 5, 10, 20, 63)},
        "atr_14": ta.atr(high, low, close, 14),
        "rsi_14": ta.rsi(close, 14),
        "of_macd": ta.macd(close, 12, 26, 9),
        "plus_di_14": ta.plus_di(high, low, close, 14),
        "minus_di_14": ta.minus_di(high, low, close, 14),
        "adx_14": ta.adx(high, low, close, 14),
        "realised_vol_20d": ta.stddev(log.diff().fill_null(0.0), 20, 1.0) * (to_sample * YEAR),
        "parkinson_vol_20d": (spreads / (80.0 * math.log(2.0))).sqrt() * YEAR,
        "garman_klass_vol_20d": ((0.5 * spreads - (2.0 * math.log(2.0) - 1.0) * bodies) / 20.0).sqrt() * YEAR,
        "momentum_10d": ta.rocp(close, 10),
        "momentum_30d": ta.rocp(close, 30),
        "gap_1d": ta.ln(open_ / close.shift(1)),
        "vwap_distance_20d": close / (ta.sum(typical * volume, 20) / ta.sum(volume, 20)) - 1.0,
        "bands": ta.bbands(close, 20, 2.0, 2.0, 0),
        "support_distance_20d": close / ta.min(low, 20) - 1.0,
        "resistance_distance_20d": close / ta.max(high, 20) - 1.0,
        "volume_zscore_20d": (volume - ta.sma(volume, 20).shift(1)) / (ta.stddev(volume, 20, 1.0).shift(1) * to_sample),
        **{name: log - log.shift(n) - (index - index.shift(n)) for name, n in DIVERGENCES.items()},
    }
    macd, bands = pl.col("of_macd").struct, pl.col("bands").struct
    return (
        beside.with_columns(expression.over("symbol").alias(name) for name, expression in of_symbol.items())
        .with_columns(
            range_1d=(high - low) / close,
            macd=macd[0],
            macd_signal=macd[1],
            macd_hist=macd[2],
            bollinger_position_20d=(close - bands[2]) / (bands[0] - bands[2]),
        )
        .drop("log", "index_log", "spread", "body", "of_macd", "bands")
    )


def agree(ours: pl.DataFrame, theirs: pl.DataFrame, bars: int) -> None:
    """Each of our features is TA-Lib's, where 400 bars have gone before it."""
    assert ours["symbol"].equals(theirs["symbol"]) and ours["session"].equals(theirs["session"])
    warm = np.arange(ours.height) % bars >= WARM_UP
    names = [name for name in ours.columns if name in theirs.columns and name not in KEPT]
    assert len(names) == 28, names
    for name in names:
        mine, reference = (frame[name].to_numpy()[warm] for frame in (ours, theirs))
        scale = theirs["close"].to_numpy()[warm] if name in OF_PRICE else 100.0 if name in OF_PERCENT else 1.0
        worst = np.max(np.abs(mine - reference) / np.maximum(np.abs(reference), scale))
        assert worst <= TOLERANCE, f"{name}: off by {worst} of the larger of the value and its scale"


def compare(quick: bool) -> tuple[float, float, float]:
    """Seconds of ours and of TA-Lib, and TA-Lib's over ours."""
    bars = QUICK_BARS if quick else BARS
    versions = market(SYMBOLS, bars)
    actions = pl.DataFrame(
        schema={
            "symbol": pl.String, "kind": pl.String, "ex_date": pl.Date, "ratio": pl.Float64, "amount": pl.Float64,
            "event_at": STAMP, "known_at": STAMP, "source": pl.String,
        }
    )  # fmt: skip
    end = START + timedelta(days=bars * 2)
    few = versions.head(4 * WARM_UP)
    price_features(few, actions, START, end, market=MARKET)  # machine code is made or loaded before the clock starts
    by_talib(few)

    seconds, of_peer = math.inf, math.inf
    for _ in range(QUICK_RUNS if quick else 1):
        ours = theirs = None
        started = time.process_time()
        ours = price_features(versions, actions, START, end, market=MARKET)
        seconds = min(seconds, time.process_time() - started)
        peak = _peak()
        started = time.process_time()
        theirs = by_talib(versions)
        of_peer = min(of_peer, time.process_time() - started)
        print(f"memory: {peak:.1f} GiB with ours, {_peak():.1f} GiB with both", file=sys.stderr)
    assert ours.height == versions.height, "decisions are missing"
    agree(ours, theirs, bars)
    month = datetime(1944, 5, 1, tzinfo=UTC), datetime(1944, 6, 1, tzinfo=UTC)
    seen = versions.filter(pl.col("event_at").is_between(datetime(1941, 8, 1, tzinfo=UTC), month[1], closed="left"))
    alone = price_features(seen, actions, *month, market=MARKET)
    assert alone.equals(ours.filter(pl.col("decision_at").is_between(*month, closed="left"))), "a month alone has other bits"
    return seconds, of_peer, of_peer / seconds


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    report("price_features", AIM, compare, __doc__)
