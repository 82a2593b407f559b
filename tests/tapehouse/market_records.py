"""Small markets for tests: versioned bars and actions on a calendar of one session a day, and changes to their future."""

from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

FIRST = date(2019, 1, 1)
STAMP = pl.Datetime("us", "UTC")
LAG = timedelta(minutes=5)
SETTLEMENT = timedelta(days=1)
BAR = {
    "symbol": pl.String,
    "interval": pl.String,
    "session": pl.Date,
    "event_at": STAMP,
    "known_at": STAMP,
    "open": pl.Float64,
    "high": pl.Float64,
    "low": pl.Float64,
    "close": pl.Float64,
    "volume": pl.Int64,
    "version": pl.Int64,
    "source": pl.String,
}
ACTION = {
    "symbol": pl.String,
    "kind": pl.String,
    "ex_date": pl.Date,
    "ratio": pl.Float64,
    "amount": pl.Float64,
    "event_at": STAMP,
    "known_at": STAMP,
    "source": pl.String,
}


def day(index: int) -> date:
    return FIRST + timedelta(days=index)


def at(index: int, hour: float) -> datetime:
    return datetime.combine(day(index), datetime.min.time(), UTC) + timedelta(hours=hour)


def decided(index: int) -> datetime:
    """When the decision of a session is taken."""
    return at(index, 21) + LAG


def calendar(count: int) -> pl.DataFrame:
    """Sessions of 14:00 to 21:00 UTC, one a day."""
    rows = [(day(i), at(i, 14), at(i, 21)) for i in range(count)]
    return pl.DataFrame(rows, schema={"session": pl.Date, "open_at": STAMP, "close_at": STAMP}, orient="row")


def bar(symbol, index, open, high, low, close, volume=1000, known_at=None, version=1) -> dict:
    """One version of a bar, known at its close unless said otherwise."""
    return {
        "symbol": symbol,
        "interval": "1d",
        "session": day(index),
        "event_at": at(index, 21),
        "known_at": known_at or at(index, 21),
        "open": float(open),
        "high": float(high),
        "low": float(low),
        "close": float(close),
        "volume": volume,
        "version": version,
        "source": "test",
    }


def bars(symbol: str, rows: list) -> list[dict]:
    """Bars of consecutive sessions; a row is (open, high, low, close), a single price, or None for a missing bar."""
    full = [row if isinstance(row, tuple | None) else (row, row, row, row) for row in rows]
    return [bar(symbol, index, *row) for index, row in enumerate(full) if row is not None]


def frame(records: list[dict]) -> pl.DataFrame:
    return pl.DataFrame(records, schema=BAR)


def action(symbol, kind, index, value, known_at=None) -> dict:
    """A split of `value` new shares per old, or a dividend of `value` per share; known at the midnight of the ex-date."""
    return {
        "symbol": symbol,
        "kind": kind,
        "ex_date": day(index),
        "ratio": float(value) if kind == "split" else 1.0,
        "amount": float(value) if kind == "dividend" else 0.0,
        "event_at": at(index, 5),
        "known_at": known_at or at(index, 5),
        "source": "test",
    }


def action_frame(records: list[dict] = ()) -> pl.DataFrame:
    return pl.DataFrame(list(records), schema=ACTION)


def random_market(seed: int, count: int, symbols=("AAA", "BBB", "^GSPC"), late: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Random walks with splits, dividends, a missing bar now and then, and `late` corrections and late bars each."""
    rng = np.random.default_rng(seed)
    records, corporate = [], []
    for symbol in symbols:
        price = 100.0
        for index in range(count):
            if not symbol.startswith("^") and index > 1 and rng.random() < 0.03:
                if rng.random() < 0.5:
                    corporate.append(action(symbol, "split", index, 2))
                    price /= 2
                else:
                    corporate.append(action(symbol, "dividend", index, round(price * 0.02, 2)))
                    price *= 0.98
            opened = price * np.exp(rng.normal(0, 0.01))
            closed = opened * np.exp(rng.normal(0, 0.02))
            high, low = max(opened, closed) * (1 + rng.random() * 0.01), min(opened, closed) * (1 - rng.random() * 0.01)
            price = closed
            if rng.random() < 0.02:
                continue
            volume = int(rng.integers(1_000, 9_000))
            records.append(bar(symbol, index, *np.round([opened, high, low, closed], 4), volume))
    for _ in range(late):
        changed = records[rng.integers(len(records))]
        known_at = changed["known_at"] + timedelta(hours=float(rng.integers(1, 24 * 20)))
        records.append(_scaled(changed, rng) | {"known_at": known_at, "version": changed["version"] + 1})
        delayed = records[rng.integers(len(records) - 1)]
        delayed["known_at"] += timedelta(hours=float(rng.integers(0, 60)))
    for _ in range(late // 2 if corporate else 0):
        changed = corporate[rng.integers(len(corporate))]
        known_at = changed["known_at"] + timedelta(hours=float(rng.integers(1, 24 * 10)))
        corporate.append(changed | {"known_at": known_at, "amount": round(changed["amount"] * 0.5, 2)})
    unique = ["symbol", "session", "known_at"]
    return (
        frame(records).unique(unique, maintain_order=True),
        action_frame(corporate).unique(["symbol", "kind", "ex_date", "known_at"], maintain_order=True),
    )


def another_future(bars: pl.DataFrame, actions: pl.DataFrame, cut: datetime, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The same records up to `cut`, and after it other valid ones: changed, removed, inserted, corrected late."""
    rng = np.random.default_rng(seed)
    records = bars.filter(pl.col("known_at") <= cut).to_dicts()
    future = bars.filter(pl.col("known_at") > cut).to_dicts()
    records += [_scaled(record, rng) for record in future if rng.random() < 0.7]
    for record in bars.to_dicts():
        if rng.random() < 0.1:
            late = max(cut, record["known_at"]) + timedelta(hours=float(rng.integers(1, 300)))
            records.append(_scaled(record, rng) | {"known_at": late, "version": record["version"] + 7})
    for index in range((cut.date() - FIRST).days + 1):
        for symbol in bars["symbol"].unique():
            if rng.random() < 0.05:
                late = max(cut, at(index, 21)) + timedelta(hours=float(rng.integers(1, 100)))
                records.append(bar(symbol, index, 50, 60, 40, 55, known_at=late, version=99))
    corporate = actions.filter(pl.col("known_at") <= cut).to_dicts()
    for record in actions.to_dicts():
        if rng.random() < 0.5:
            corporate.append(record | {"known_at": cut + timedelta(hours=5), "amount": record["amount"] / 2})
    corporate.append(action("AAA", "split", (cut.date() - FIRST).days - 3, 3, known_at=cut + timedelta(hours=1)))
    corporate.append(action("AAA", "split", (cut.date() - FIRST).days + 3, 3))
    return (
        frame(records)
        .unique(["symbol", "session", "known_at"], keep="first", maintain_order=True)
        .sample(fraction=1, shuffle=True, seed=seed),
        action_frame(corporate).unique(["symbol", "kind", "ex_date", "known_at"], keep="first", maintain_order=True),
    )


@cache
def real_market() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Bars and actions of the default data: 2000-03 to 2013-03."""
    from tapehouse.actions import derive_actions
    from tapehouse.chains import receive
    from tapehouse.feeds import adjustments
    from tapehouse.settings import load_settings

    settings = load_settings(Path(__file__).parents[2])
    universe = settings.universe
    received = receive(settings, "bars", universe.start, universe.end).rows.with_columns(
        ingested_at=pl.lit(datetime(2026, 1, 1, tzinfo=UTC), STAMP)
    )
    derived = derive_actions(
        received, universe.start, universe.end, adjustments=adjustments(universe), calendar=universe.calendar
    )
    return received.with_columns(version=pl.lit(1, pl.Int64)).select(list(BAR)), derived.actions.select(list(ACTION))


def within(records: pl.DataFrame, start: datetime, end: datetime) -> pl.DataFrame:
    return records.filter((pl.col("event_at") >= start) & (pl.col("event_at") < end))


def _scaled(record: dict, rng: np.random.Generator) -> dict:
    factor = float(rng.uniform(0.8, 1.25))
    prices = {name: round(record[name] * factor, 4) for name in ("open", "high", "low", "close")}
    return record | prices | {"volume": int(record["volume"] * factor)}
