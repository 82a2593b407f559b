"""A small made-up market for tests of strategies: bars, decision points and predictions over one fold of the real calendar."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl

from tapehouse.calendars import sessions
from tapehouse.folds import Fold, FoldSpec, walk_forward
from tapehouse.predictions import PREDICTIONS, TEST, VALIDATION
from tapehouse.strategies.trading import Market

STAMP = pl.Datetime("us", "UTC")
LAG = timedelta(minutes=5)
CALENDAR = sessions(datetime(2019, 1, 1, tzinfo=UTC), datetime(2019, 10, 1, tzinfo=UTC), "XNYS")
SPEC = FoldSpec(
    min_train_sessions=120,
    test_sessions=40,
    min_test_sessions=20,
    purge_sessions=5,
    embargo_sessions=5,
    validation_sessions=40,
    count=None,
)
FOLD: Fold = walk_forward(CALENDAR, SPEC)[0]
SYMBOLS = ("A", "B", "C")
ACTIONS_SCHEMA = {
    "symbol": pl.String, "kind": pl.String, "ex_date": pl.Date, "ratio": pl.Float64, "amount": pl.Float64, "known_at": STAMP,
    "source": pl.String,
}  # fmt: skip
EVENTS_SCHEMA = {
    "calendar": pl.String, "kind": pl.String, "name": pl.String, "event_at": STAMP, "known_at": STAMP, "scheduled": pl.Boolean,
}  # fmt: skip


def market(seed: int = 1, **points) -> Market:
    """A market of three random walks; `points` replaces columns of the decision points."""
    bars = _bars(seed)
    decided = bars.filter(pl.col("session") >= FOLD.train_start.date()).select(
        "symbol", "interval", "session", decision_at=pl.col("event_at") + LAG, close="close"
    )
    rows = decided.height
    draw = np.random.default_rng(seed + 100)
    columns = {
        "atr_14": 0.02 * decided["close"],
        "realised_vol_20d": pl.Series(draw.uniform(0.1, 0.4, rows)),
        "market_vol_20d": pl.Series(draw.uniform(0.1, 0.4, rows)),
        "vix": pl.Series(draw.uniform(15, 35, rows)),
        "support_distance_20d": pl.Series(draw.uniform(0, 0.02, rows)),
        "resistance_distance_20d": pl.Series(-draw.uniform(0, 0.02, rows)),
        "regime": pl.Series(draw.choice(["bullish", "bearish", "sideways"], rows)),
        "ret_1d": pl.Series(draw.normal(0, 0.01, rows)),
    }
    decided = decided.with_columns(**columns).with_columns(**points).sort("symbol", "interval", "decision_at")
    return Market(
        decided,
        bars,
        pl.DataFrame(schema=ACTIONS_SCHEMA),
        pl.DataFrame(schema=EVENTS_SCHEMA),
        None,
        instruments(),
        None,
        "XNYS",
        timedelta(days=1),
    )


def instruments(**changes) -> pl.DataFrame:
    """One row a symbol, listed before everything; `changes` replaces columns."""
    return (
        pl.DataFrame({"symbol": SYMBOLS})
        .with_columns(
            currency=pl.lit("USD"),
            tick_size=pl.lit(0.01),
            lot_size=pl.lit(1.0),
            valid_from=pl.lit(date(2010, 1, 1)),
            valid_to=pl.lit(None, pl.Date),
            known_at=pl.lit(datetime(2010, 1, 1, tzinfo=UTC), STAMP),
        )
        .with_columns(**changes)
    )


def _bars(seed: int) -> pl.DataFrame:
    draw, count = np.random.default_rng(seed), CALENDAR.height
    parts = []
    for symbol in SYMBOLS:
        close = 100 * np.exp(np.cumsum(draw.normal(0, 0.01, count)))
        opened = np.concatenate([[100.0], close[:-1]]) * np.exp(draw.normal(0, 0.004, count))
        spread = np.abs(draw.normal(0, 0.004, (2, count)))
        parts.append(
            CALENDAR.select("session", event_at="close_at", known_at="close_at").with_columns(
                symbol=pl.lit(symbol),
                interval=pl.lit("1d"),
                open=pl.Series(opened),
                high=pl.Series(np.maximum(opened, close) * (1 + spread[0])),
                low=pl.Series(np.minimum(opened, close) * (1 - spread[1])),
                close=pl.Series(close),
                volume=pl.lit(1_000_000.0),
                version=pl.lit(1),
                source=pl.lit("made up"),
            )
        )
    return pl.concat(parts)


def predictions(seed: int = 2, name: str = "p", rule: bool = False, made: Market | None = None) -> pl.DataFrame:
    """Random predictions of every decision of the validation tail and the block; of a rule without probabilities."""
    points = (made or market()).points
    tail = pl.col("decision_at").is_between(FOLD.validation_start, FOLD.train_end, closed="left")
    block = pl.col("decision_at").is_between(FOLD.test_start, FOLD.test_end, closed="left")
    rows = points.select("symbol", "interval", "decision_at").filter(tail | block).sort("symbol", "decision_at")
    chances = np.random.default_rng(seed).dirichlet((1.0, 1.0, 1.0), rows.height)
    said = np.array(["SELL", "HOLD", "BUY"])[chances.argmax(axis=1)]
    told = pl.DataFrame(
        {n: [None] * rows.height if rule else chances[:, i] for i, n in enumerate(("p_sell", "p_hold", "p_buy"))}
    )
    full = rows.with_columns(
        adapter=pl.lit(name), fold=pl.lit(FOLD.id), split=pl.when(block).then(pl.lit(TEST)).otherwise(pl.lit(VALIDATION)),
        objective=pl.lit("direction"), action=pl.Series(said), limit_price=None, confidence=None, text=None,
        parse_state=pl.lit("ok"), limit_valid_sessions=None,
    )  # fmt: skip
    return full.hstack(told).select(pl.col(c).cast(kind) for c, kind in PREDICTIONS.items())
