"""Futures that roll and perpetuals that pay funding: worked examples by hand, then the simulator's contracts."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tapehouse.calendars import sessions
from tapehouse.errors import TapehouseError
from tapehouse.instruments import declared_instruments
from tapehouse.rolls import continuous, contracts_of, funding_cash_flows, roll_schedule
from tapehouse.settings import load_settings
from tapehouse.sources.base import Ask
from tapehouse.sources.simulator import Declaration, deliver, universe_lines

WEEK = sessions(date(2005, 3, 7), date(2005, 3, 19))  # two weeks of five sessions
DAYS = WEEK["session"].to_list()
CONTRACTS = pl.DataFrame({"symbol": ["H", "M"], "expires": [DAYS[4], DAYS[9]], "sessions_before": [2, 2]})
CLOSES = {"H": [100.0, 101.0, 102.0, 103.0, 104.0], "M": [110.0, 111.0, 112.2, 113.3, 114.4, 115.5, 116.6, 117.7, 118.8, 119.9]}


def bars(closes=CLOSES) -> pl.DataFrame:
    """Bars whose prices are all the close, known at it."""
    rows = [(symbol, "1d", *WEEK.row(at)[::2], close) for symbol, prices in closes.items() for at, close in enumerate(prices)]
    frame = pl.DataFrame(rows, schema=["symbol", "interval", "session", "event_at", "close"], orient="row")
    return frame.with_columns(known_at=pl.col("event_at"), **{name: pl.col("close") for name in ("open", "high", "low")})


def held(at: int = 9, method="ratio", frame=None) -> pl.DataFrame:
    return continuous(bars() if frame is None else frame, CONTRACTS, WEEK, WEEK["close_at"][at], method)


def test_the_schedule_counts_sessions_before_the_last_one():
    schedule = roll_schedule(CONTRACTS.reverse(), WEEK)
    assert schedule.select("symbol", "rolls_on").rows() == [("H", DAYS[2]), ("M", DAYS[7])]
    assert schedule["rolls_at"][0] == WEEK["close_at"][2]
    assert roll_schedule(CONTRACTS.with_columns(sessions_before=0), WEEK)["rolls_on"].to_list() == [DAYS[4], DAYS[9]]


def test_a_roll_by_hand():
    """H is held to the close of the third session, at 102, while M closes at 112.2: the ratio is 1.1, the difference 10.2."""
    found = held()
    assert found["symbol"].to_list() == ["H"] * 3 + ["M"] * 5
    assert found["close"].to_list() == [100.0, 101.0, 102.0, 113.3, 114.4, 115.5, 116.6, 117.7]
    assert found["adjusted_close"].to_list() == pytest.approx([110.0, 111.1, 112.2, 113.3, 114.4, 115.5, 116.6, 117.7])
    assert held(method="difference")["adjusted_close"].to_list()[:4] == pytest.approx([110.2, 111.2, 112.2, 113.3])
    # The session after the roll: 113.3 / 112.2, and not 113.3 / 102.
    assert found["ret"].to_list()[1:4] == pytest.approx([101 / 100 - 1, 102 / 101 - 1, 113.3 / 112.2 - 1])
    assert found["known_at"].to_list()[0] == WEEK["close_at"][2]  # the adjusted price of the first session needs the roll


def test_as_of_a_time_no_later_roll_is_applied():
    before = held(1)
    assert before["adjusted_close"].to_list() == [100.0, 101.0] and before["symbol"].to_list() == ["H", "H"]
    assert held(2)["adjusted_close"].to_list() == pytest.approx([110.0, 111.1, 112.2])  # at the close of the roll session
    late = bars().with_columns(
        pl.when((pl.col("symbol") == "H") & (pl.col("session") == DAYS[0])).then(99.0).otherwise("close").alias("close"),
        pl.lit(WEEK["close_at"][8]).alias("known_at"),
    )
    corrected = pl.concat([bars(), late.filter(symbol="H", session=DAYS[0])])
    assert held(7, frame=corrected)["close"][0] == 100.0 and held(8, frame=corrected)["close"][0] == 99.0


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_adjusted_ratio_series_has_the_holders_returns_and_another_future_changes_nothing(data):
    price = st.floats(10, 1000)
    closes = {symbol: data.draw(st.lists(price, min_size=len(c), max_size=len(c))) for symbol, c in CLOSES.items()}
    at = data.draw(st.integers(0, 9))
    found = held(at, frame=bars(closes))
    steps = found["adjusted_close"].to_numpy()
    np.testing.assert_allclose(found["ret"].to_numpy()[1:], steps[1:] / steps[:-1] - 1, rtol=1e-9, atol=1e-9)
    moves = np.diff(held(at, "difference", bars(closes))["adjusted_close"].to_numpy())
    paid = found["close"].to_numpy()[1:] / (1 + found["ret"].to_numpy()[1:])
    np.testing.assert_allclose(moves, found["close"].to_numpy()[1:] - paid, rtol=1e-7, atol=1e-7)
    other = {symbol: [p if day <= at else p * 3 for day, p in enumerate(prices)] for symbol, prices in closes.items()}
    assert_frame_equal(held(at, frame=bars(other)), found, check_exact=True)


def test_a_roll_without_the_new_contracts_bar_is_refused(tmp_path):
    frame = bars().filter(~((pl.col("symbol") == "M") & (pl.col("session") == DAYS[2])))
    with pytest.raises(TapehouseError, match="roll from H to M: M has no bar on 2005-03-09"):
        held(frame=frame)
    with pytest.raises(TapehouseError, match="do not roll one after the other"):
        roll_schedule(CONTRACTS.with_columns(expires=pl.lit(DAYS[4])), WEEK)
    with pytest.raises(TapehouseError, match="no session of those given"):
        roll_schedule(CONTRACTS.with_columns(expires=pl.lit(date(2005, 3, 12))), WEEK)
    with pytest.raises(TapehouseError, match=r"universe\.SIM:FUT-H5: no roll is declared"):
        contracts_of(instruments(tmp_path).with_columns(roll_sessions_before=pl.lit(None, pl.Int32)), "SIM:INDEX")


DECLARED = Declaration(
    kind="simulator",
    seed=5,
    start=date(2005, 1, 1),
    equities=0,
    futures={"SIM:FUT-H5": date(2005, 3, 18), "SIM:FUT-M5": date(2005, 6, 17)},
    perpetuals={"SIM:PERP": {}},
)


def instruments(folder: Path) -> pl.DataFrame:
    """`raw.instruments` of the simulated universe."""
    content = yaml.safe_load((Path(__file__).parents[2] / "sources.yaml").read_text())
    content |= {"universe": universe_lines(DECLARED, "simulator"), "benchmark": "SIM:INDEX", "feeds": {}}
    content |= {"sources": {"simulator": DECLARED.model_dump(exclude_none=True)}}
    (folder / "sources.yaml").write_text(yaml.safe_dump(content))
    (folder / "workspace.yaml").touch()
    return declared_instruments(load_settings(folder))


def simulated(offer: str, *symbols: str) -> pl.DataFrame:
    start, end = datetime(2005, 1, 1, tzinfo=UTC), datetime(2005, 7, 1, tzinfo=UTC)
    return deliver(DECLARED, Ask(offer, "simulator", symbols, start, end, None)).rows


def test_two_simulated_contracts_roll_without_a_jump(tmp_path):
    """The later contract is dearer by three months of carry: that step is in the raw prices and in nobody's return."""
    contracts = contracts_of(instruments(tmp_path), "SIM:INDEX")
    assert contracts.rows() == [(symbol, expires, 5) for symbol, expires in DECLARED.futures.items()]
    frame, year = simulated("bars", *DECLARED.futures), sessions(date(2005, 1, 1), date(2005, 12, 1))
    found = continuous(frame, contracts, year, datetime(2005, 6, 1, tzinfo=UTC))
    index = simulated("bars", "SIM:INDEX").select("session", index_close="close")
    compared = found.join(index, on="session").with_columns(index_ret=pl.col("index_close") / pl.col("index_close").shift() - 1)
    assert found["symbol"].unique(maintain_order=True).to_list() == ["SIM:FUT-H5", "SIM:FUT-M5"]
    excess = compared.select(pl.col("ret") - pl.col("index_ret")).to_series().drop_nulls()
    assert excess.abs().max() < 6e-4  # what is left is carry and the rounding of prices
    at = compared["symbol"].to_list().index("SIM:FUT-M5")
    jump = found["close"][at] / found["close"][at - 1] - 1 - found["ret"][at]
    assert jump == pytest.approx(0.03 * 91 / 365, abs=1e-3)


def test_funding_by_hand():
    """Long 2 at a mark of 100 and a rate of 1 bp pays 2 cents; short 3 is paid 3 cents; a negative rate turns it round."""
    hour = [datetime(2005, 5, 2, h, tzinfo=UTC) for h in (0, 8, 16)]
    funding = pl.DataFrame({"event_at": hour, "rate": [1e-4, 1e-4, -2e-4], "mark_price": [100.0, 100.0, 50.0]})
    positions = pl.DataFrame({"since": [hour[0] - timedelta(hours=1), hour[1] - timedelta(seconds=1)], "quantity": [2.0, -3.0]})
    found = funding_cash_flows(funding, positions)
    assert found["quantity"].to_list() == [2.0, -3.0, -3.0]
    assert found["cash"].to_list() == pytest.approx([-0.02, 0.03, -0.03])
    assert funding_cash_flows(funding, positions, multiplier=10.0)["cash"][0] == pytest.approx(-0.2)
    # What is bought at the instant of a funding has not been held.
    assert funding_cash_flows(funding, pl.DataFrame({"since": hour[:1], "quantity": [2.0]}))["quantity"].to_list() == [
        0.0,
        2.0,
        2.0,
    ]
    with pytest.raises(TapehouseError, match="funding: two rows at 2005-05-02 00:00"):
        funding_cash_flows(pl.concat([funding, funding]), positions)


def test_funding_of_the_simulated_perpetual_is_a_transfer():
    funding = simulated("funding", "SIM:PERP")
    start = datetime(2005, 1, 1, 4, tzinfo=UTC)
    sides = [funding_cash_flows(funding, pl.DataFrame({"since": [start], "quantity": [side]}))["cash"] for side in (1.0, -1.0)]
    assert (sides[0] + sides[1]).abs().max() == 0.0  # what longs pay shorts get
    held = funding.filter(pl.col("event_at") > start)
    expected = [-row["rate"] * row["mark_price"] for row in held.to_dicts()]
    assert sides[0].to_list()[1:] == pytest.approx(expected) and sides[0][0] == 0.0
    assert held.height == 181 * 3 - 1
