"""What was known of a symbol's trading before each session: by hand, over splits, and with corrections that come late."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from tapehouse.backtest.liquidity import known_liquidity

STAMP = pl.Datetime("us", "UTC")
FIRST = date(2024, 1, 1)
ACTIONS = {"symbol": pl.String, "kind": pl.String, "ex_date": pl.Date, "ratio": pl.Float64, "known_at": STAMP}


def at(day: int, hour: int) -> datetime:
    return datetime(2024, 1, 1, hour, tzinfo=UTC) + timedelta(days=day)


def bars(volumes: list[float], moved: float = 0.01) -> pl.DataFrame:
    """One bar a day, closing `moved` above its open in logs, known at 21:00."""
    rows = [
        ("A", "1d", FIRST + timedelta(days=i), 100.0, 100.0 * np.exp(moved), float(volume), at(i, 21), 1)
        for i, volume in enumerate(volumes)
    ]
    names = ["symbol", "interval", "session", "open", "close", "volume", "known_at", "version"]
    return pl.DataFrame(rows, schema=names, orient="row").with_columns(
        pl.col("known_at").cast(STAMP), event_at=pl.col("known_at").cast(STAMP)
    )


def block(first: int, count: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "session": [FIRST + timedelta(days=first + i) for i in range(count)],
            "open_at": [at(first + i, 14) for i in range(count)],
        },
        schema={"session": pl.Date, "open_at": STAMP},
    )


def split(*days_and_ratios: tuple[int, float]) -> pl.DataFrame:
    rows = [("A", "split", FIRST + timedelta(days=day), ratio, at(day, 5)) for day, ratio in days_and_ratios]
    return pl.DataFrame(rows, schema=ACTIONS, orient="row")


def test_a_mean_of_what_was_known_by_hand():
    ones = np.ones((3, 1))
    volume, volatility = known_liquidity(bars([10, 20, 30, 40, 50, 60, 900]), split(), block(5, 3), ("A", "B"), np.ones((3, 2)))
    # Before the sixth session five bars; before the eighth all seven. B never traded.
    assert volume[:, 0].tolist() == pytest.approx([30, 35, 1110 / 7]) and np.isnan(volume[:, 1]).all()
    assert volatility[:, 0].tolist() == pytest.approx([0.01] * 3)
    few, _ = known_liquidity(bars([10, 20, 30, 40]), split(), block(4, 3), ("A",), ones)
    assert np.isnan(few).all()


def test_volumes_are_in_the_shares_of_the_session():
    """Two for one on the seventh day: five bars of 100 old shares before it are 200 new ones each."""
    ratio = np.ones((3, 1))
    ratio[1] = 2.0
    inside, _ = known_liquidity(bars([100] * 6 + [200]), split((6, 2.0)), block(5, 3), ("A",), ratio)
    assert inside[:, 0].tolist() == pytest.approx([100, 200, 200])
    # The same with the block beginning on, or after, the day of the split.
    for first in (6, 7):
        before, _ = known_liquidity(bars([100] * 6 + [200]), split((6, 2.0)), block(first, 1), ("A",), np.ones((1, 1)))
        assert before[0, 0] == pytest.approx(200)


def test_a_split_that_nobody_knew_of_restates_nothing():
    late = split((6, 2.0)).with_columns(known_at=pl.lit(at(9, 5), STAMP))
    volume, _ = known_liquidity(bars([100] * 7), late, block(7, 1), ("A",), np.ones((1, 1)))
    assert volume[0, 0] == pytest.approx(100)


def test_a_correction_counts_from_when_it_was_known():
    first = bars([400] + [100] * 5)
    corrected = first.head(1).with_columns(volume=pl.lit(700.0), known_at=pl.lit(at(6, 18), STAMP), version=pl.lit(2, pl.Int64))
    volume, _ = known_liquidity(pl.concat([first, corrected]), split(), block(6, 2), ("A",), np.ones((2, 1)))
    assert volume[:, 0].tolist() == pytest.approx([150, 200])  # as first known, then as corrected
