"""The engine against ledgers that can be checked on paper, against the labels, and against itself under mutation."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapehouse.backtest.config import BacktestConfig
from tapehouse.backtest.panel import symbols_by_then
from tapehouse.backtest.run import BacktestResult, panel_of, run_backtest

FIRST = date(2024, 1, 2)
STAMP = pl.Datetime("us", "UTC")
LAG = timedelta(minutes=5)
FREE = BacktestConfig(commission_bps=0, slippage_bps=0)


def day(index: int) -> date:
    return FIRST + timedelta(days=index)


def at(index: int, hour: int) -> datetime:
    return datetime.combine(day(index), datetime.min.time(), UTC) + timedelta(hours=hour)


def calendar(count: int) -> pl.DataFrame:
    """One session a calendar day, 14:00 to 21:00 UTC."""
    return pl.DataFrame(
        {
            "session": [day(i) for i in range(count)],
            "open_at": [at(i, 14) for i in range(count)],
            "close_at": [at(i, 21) for i in range(count)],
        },
        schema={"session": pl.Date, "open_at": STAMP, "close_at": STAMP},
    )


def versions(bars: dict[str, list]) -> pl.DataFrame:
    """First versions, each known at its close; a bar is (open, high, low, close), or None where it is missing."""
    rows = [
        (symbol, "1d", day(i), at(i, 21), *map(float, bar), at(i, 21), 1, "test")
        for symbol, series in bars.items()
        for i, bar in enumerate(series)
        if bar is not None
    ]
    names = ["symbol", "interval", "session", "event_at", "open", "high", "low", "close", "known_at", "version", "source"]
    return pl.DataFrame(rows, schema=names, orient="row").with_columns(pl.col("event_at", "known_at").cast(STAMP))


def actions(rows: list[tuple] = ()) -> pl.DataFrame:
    """Rows of (symbol, kind, session index, ratio, amount), known at the midnight of the ex-date."""
    return pl.DataFrame(
        [(symbol, kind, day(i), float(ratio), float(amount), at(i, 5), "test") for symbol, kind, i, ratio, amount in rows],
        schema={
            "symbol": pl.String,
            "kind": pl.String,
            "ex_date": pl.Date,
            "ratio": pl.Float64,
            "amount": pl.Float64,
            "known_at": STAMP,
            "source": pl.String,
        },
        orient="row",
    )


def decide(rows: list[tuple]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Predictions and decisions from (symbol, session index, action, ATR, limit, valid)."""
    frame = pl.DataFrame(
        [(s, at(i, 21) + LAG, action, float(atr), limit, valid) for s, i, action, atr, limit, valid in rows],
        schema={
            "symbol": pl.String,
            "decision_at": STAMP,
            "action": pl.String,
            "atr_14": pl.Float64,
            "limit_price": pl.Float64,
            "limit_valid_sessions": pl.Int32,
        },
        orient="row",
    )
    return frame.drop("atr_14"), frame.select("symbol", "decision_at", "atr_14")


def run(bars: dict, rows: list, acts=(), config: BacktestConfig | None = None, symbols=None) -> BacktestResult:
    predictions, decisions = decide(rows)
    count = max(map(len, bars.values()))
    return run_backtest(predictions, decisions, versions(bars), actions(acts), calendar(count), config, symbols or sorted(bars))


def assert_ledger_holds(result: BacktestResult) -> None:
    ledger, opening = result.ledger, result.config.initial_cash
    gains = opening + ledger["realised"] + ledger["unrealised"] + ledger["dividends"] + ledger["interest"]
    parts = gains - ledger["commission"] - ledger["slippage"] - ledger["borrow"]
    tolerance = 1e-9 * np.maximum(1.0, ledger["equity"].abs().to_numpy())
    assert (np.abs(parts.to_numpy() - ledger["equity"].to_numpy()) <= tolerance).all()
    assert ledger["unrealised"][-1] == 0.0
    assert result.trades["pnl"].sum() == pytest.approx(ledger["equity"][-1] - opening, abs=1e-6)


def test_ledger_on_paper():
    """Opening equity 100,000; one symbol; commission 5 bps, slippage 10 bps. Decided at a close of 100 with ATR 4:

    1,000 shares are ordered, the next bar opens at 90, they cost 90.09 each: 90,090.00 and 45.045 of commission.
    The stop lies at 90 - 6 = 84. The bar after opens at 83, through the stop: sold at 83 less 10 bps, 82.917.
    Proceeds are 82,917.00 less 41.4585. Equity: 100,000 - 90,090 - 45.045 + 82,917 - 41.4585 = 92,740.4965.
    """
    bars = {"A": [(99, 101, 98, 100), (90, 92, 88, 91), (83, 85, 80, 81), (81, 82, 80, 81)]}
    config = BacktestConfig(initial_cash=100_000)
    result = run(bars, [("A", 0, "BUY", 4, None, None)], config=config)
    trade = result.trades.row(0, named=True)
    assert (trade["shares"], trade["side"], trade["exit_reason"]) == (1000.0, "BUY", "stop")
    assert trade["entry_price"] == pytest.approx(90.09) and trade["exit_price"] == pytest.approx(82.917)
    assert trade["commission"] == pytest.approx(45.045 + 41.4585)
    assert trade["slippage"] == pytest.approx(90.0 + 83.0)
    assert trade["pnl"] == pytest.approx(-7259.5035)
    assert (trade["entry_session"], trade["exit_session"]) == (day(1), day(2))
    # At the close of the entry's session: 9,864.955 of cash and 1,000 shares at 91.
    assert result.equity["equity"].to_list() == pytest.approx([100_000, 100_864.955, 92_740.4965, 92_740.4965])
    assert result.equity["gross_exposure"].to_list() == pytest.approx([0, 91_000 / 100_864.955, 0, 0])
    assert_ledger_holds(result)


@pytest.mark.parametrize(
    ("action", "bars_after", "reason", "exit_price"),
    [
        ("BUY", [(100, 103, 99, 102), (102, 107, 101, 106)], "take", 106.0),  # touched: the barrier
        ("BUY", [(100, 103, 99, 102), (108, 109, 107, 108)], "take", 108.0),  # opens beyond: the open
        ("BUY", [(100, 107, 93, 100), (100, 101, 99, 100)], "stop", 94.0),  # both in the bar of entry: the stop
        ("SELL", [(100, 107, 93, 100), (100, 101, 99, 100)], "stop", 106.0),
        ("SELL", [(100, 101, 95, 96), (96, 97, 92, 93)], "take", 94.0),
        ("SELL", [(100, 101, 95, 96), (110, 111, 92, 93)], "stop", 110.0),
        ("BUY", [(100, 103, 99, 102), (102, 103, 99, 101)], "vertical", 101.0),  # horizon of 2 sessions
    ],
)
def test_exits_of_one_trade(action, bars_after, reason, exit_price):
    """Entry at an open of 100, ATR 4: barriers at 94 and 106."""
    bars = {"A": [(100, 101, 99, 100), *bars_after, (100, 101, 99, 100)]}
    config = FREE.model_copy(update={"vertical_barrier": 2})
    trade = run(bars, [("A", 0, action, 4, None, None)], config=config).trades.row(0, named=True)
    assert (trade["exit_reason"], trade["exit_price"]) == (reason, exit_price)


def test_limit_orders_need_to_be_traded_through():
    flat = (100, 101, 99, 100)
    quiet = {"A": [flat, (100, 101, 98, 100), (100, 101, 99, 100), flat]}
    touched = run(quiet, [("A", 0, "BUY", 4, 98.0, 2)], config=FREE)
    assert touched.trades.is_empty() and touched.counts["expired"] == 1
    through = {"A": [flat, (100, 101, 98, 100), (100, 101, 97.9, 100), flat]}
    # Passive: filled at 98 with commission alone; 1,000,000 / 98 shares; closed at the last close of 100 with slippage.
    result = run(through, [("A", 0, "BUY", 4, 98.0, 2)])
    trade = result.trades.row(0, named=True)
    assert (trade["entry_price"], trade["exit_reason"], trade["entry_session"]) == (98.0, "end", day(2))
    assert trade["slippage"] == pytest.approx(trade["shares"] * 100 * 0.001)
    gone = run(through, [("A", 0, "BUY", 4, 98.0, 1)], config=FREE)
    assert gone.trades.is_empty() and gone.counts["expired"] == 1


def test_limit_orders_at_the_open():
    flat = (100, 101, 99, 100)
    # Sent through the market: the open and slippage, but never worse than the limit.
    taking = run({"A": [flat, flat, flat]}, [("A", 0, "BUY", 4, 105.0, 2)])
    assert taking.trades["entry_price"][0] == pytest.approx(100.1)
    capped = run({"A": [flat, flat, flat]}, [("A", 0, "BUY", 4, 100.05, 2)])
    assert capped.trades["entry_price"][0] == 100.05
    # A resting order that the next session opens through is filled at that open.
    gap = run({"A": [flat, flat, (96, 97, 95, 96), flat]}, [("A", 0, "BUY", 40, 98.0, 2)])
    assert gap.trades["entry_price"][0] == 96.0


@pytest.mark.parametrize(("action", "limit"), [("BUY", 98.0), ("SELL", 102.0)])
def test_an_entry_inside_a_bar_takes_no_profit_on_it(action, limit):
    """Levels at 94 and 106. A bar goes through the limit and through the target: which came first nobody knows."""
    flat = (100, 101, 99, 100)
    late = run({"A": [flat, flat, (100, 107, 97, 100) if action == "BUY" else (100, 103, 93, 100), flat]},
               [("A", 0, action, 4, limit, 3)], config=FREE)  # fmt: skip
    assert late.trades.select("entry_session", "entry_price", "exit_reason").row(0) == (day(2), limit, "end")
    # A loss on it is taken: the worse of the two orders of events.
    lost = run({"A": [flat, flat, (100, 107, 93, 100), flat]}, [("A", 0, action, 4, limit, 3)], config=FREE)
    assert lost.trades.select("exit_session", "exit_reason").row(0) == (day(2), "stop")


def test_limit_fill_beyond_its_own_stop_is_stopped_at_the_fill():
    # The decision's barriers are 100 +/- 6; the limit of 93 lies below the stop of 94.
    bars = {"A": [(100, 101, 99, 100), (100, 101, 92, 100), (100, 101, 99, 100)]}
    trade = run(bars, [("A", 0, "BUY", 4, 93.0, 1)], config=FREE).trades.row(0, named=True)
    assert (trade["entry_price"], trade["exit_price"], trade["exit_reason"]) == (93.0, 93.0, "stop")


def test_split_changes_shares_and_restates_the_barriers():
    """Two for one on session 2, decided at 100 with ATR 4: barriers 94 and 106 become 47 and 53. Nothing is touched."""
    bars = {"A": [(100, 101, 99, 100), (100, 101, 99, 100), (50, 51, 49, 50), (50, 53.5, 49, 50)]}
    result = run(bars, [("A", 0, "BUY", 4, None, None)], [("A", "split", 2, 2, 0)], FREE)
    trade = result.trades.row(0, named=True)
    assert (trade["shares"], trade["exit_shares"]) == (10_000.0, 20_000.0)
    assert (trade["exit_reason"], trade["exit_price"], trade["pnl"]) == ("take", 53.0, 60_000.0)
    assert_ledger_holds(result)


def test_split_restates_a_resting_limit():
    bars = {"A": [(100, 101, 99, 100), (100, 101, 99, 100), (50, 51, 48.9, 50), (50, 51, 49, 50)]}
    trade = run(bars, [("A", 0, "BUY", 4, 98.0, 3)], [("A", "split", 2, 2, 0)], FREE).trades.row(0, named=True)
    assert (trade["entry_price"], trade["entry_session"]) == (49.0, day(2))
    assert trade["shares"] == pytest.approx(2 * 1_000_000 / 98)


@pytest.mark.parametrize(("action", "sign"), [("BUY", 1), ("SELL", -1)])
def test_dividend_is_paid_to_longs_and_by_shorts(action, sign):
    """10,000 shares, 7 a share ex on session 2: the fall to 93 is no stop, and the day ends flat."""
    bars = {"A": [(100, 101, 99, 100), (100, 101, 99, 100), (93, 94, 92, 93), (93, 94, 92, 93)]}
    result = run(bars, [("A", 0, action, 4, None, None)], [("A", "dividend", 2, 1, 7)], FREE)
    trade = result.trades.row(0, named=True)
    assert (trade["exit_reason"], trade["dividends"]) == ("end", sign * 70_000.0)
    assert trade["pnl"] == pytest.approx(0.0, abs=1e-6)
    assert result.equity["equity"].to_list() == pytest.approx([1e6] * 4)
    assert_ledger_holds(result)


def test_dividend_and_split_on_one_day():
    """Paid on the 10,000 old shares: 2 each; then two for one. Price 100 -> (100 - 2) / 2 = 49."""
    bars = {"A": [(100, 101, 99, 100), (100, 101, 99, 100), (49, 50, 48, 49), (49, 50, 48, 49)]}
    acts = [("A", "split", 2, 2, 0), ("A", "dividend", 2, 1, 2)]
    result = run(bars, [("A", 0, "BUY", 4, None, None)], acts, FREE)
    assert result.trades["dividends"][0] == 20_000.0
    assert result.equity["equity"].to_list() == pytest.approx([1e6] * 4)


def test_missing_bars_defer_fills_and_exits():
    flat = (100, 101, 99, 100)
    late = run({"A": [flat, None, (95, 96, 94, 95), flat], "B": [flat] * 4}, [("A", 0, "BUY", 4, None, None)], config=FREE)
    assert (late.trades["entry_session"][0], late.trades["entry_price"][0]) == (day(2), 95.0)
    # Held over a gap: marked at the last close, closed there at the end.
    held = run({"A": [flat, (100, 102, 99, 102), None, None], "B": [flat] * 4}, [("A", 0, "BUY", 4, None, None)], config=FREE)
    assert (held.trades["exit_session"][0], held.trades["exit_price"][0]) == (day(3), 102.0)
    assert held.trades["shares"][0] == 5_000.0  # half of the equity: two symbols share it


def test_hold_keeps_to_the_end_and_signals_are_counted():
    bars = {"A": [(100, 101, 99, 100), (100, 200, 10, 100), (150, 151, 149, 150)]}
    rows = [("A", 0, "BUY", 4, None, None), ("A", 1, "SELL", 4, None, None), ("A", 2, "BUY", 4, None, None)]
    result = run(bars, rows, config=FREE.model_copy(update={"exit_rule": "hold"}))
    assert result.trades["exit_reason"].to_list() == ["end"] and result.trades["pnl"][0] == 500_000.0
    assert result.counts == {
        "signals": 3,
        "filled": 1,
        "skipped": 1,
        "expired": 0,
        "unexecuted": 1,
        "scaled": 0,
        "refused": 0,
        "vetoed": 0,
    }


def test_gross_limit_scales_entries_alike_and_cash_stays_positive():
    bars = {s: [(100, 101, 99, 100), (110, 111, 109, 110), (110, 111, 109, 110)] for s in "AB"}
    result = run(bars, [(s, 0, "BUY", 40, None, None) for s in "AB"])
    assert result.counts["scaled"] == 2
    assert result.trades["shares"][0] == result.trades["shares"][1]
    assert result.ledger["cash"][1] == pytest.approx(0.0, abs=1e-6)
    assert result.equity["gross_exposure"][1] == pytest.approx(1.0)
    assert_ledger_holds(result)


def test_what_cannot_be_traded_is_refused():
    bars = {"A": [(100, 101, 99, 100), (100, 101, 99, 100)]}
    with pytest.raises(ValueError, match="two predictions"):
        run(bars, [("A", 0, "BUY", 4, None, None)] * 2)
    with pytest.raises(ValueError, match="unknown action"):
        run(bars, [("A", 0, "buy", 4, None, None)])
    with pytest.raises(ValueError, match="no ATR"):
        run(bars, [("A", 0, "BUY", 0, None, None)])
    with pytest.raises(ValueError, match="limit_valid_sessions"):
        run(bars, [("A", 0, "BUY", 4, 99.0, None)])
    with pytest.raises(ValueError, match="no bar"):
        run({"A": [None, (100, 101, 99, 100)]}, [("A", 0, "BUY", 4, None, None)])
    with pytest.raises(ValueError, match="not below the close"):
        run(bars, [("A", 0, "BUY", 4, None, None)], [("A", "dividend", 1, 1, 100)])


def random_market(seed: int, sessions: int, names: int = 3, missing: float = 0.03):
    """Bars on a random walk with gaps, holes, splits and dividends, and random decisions."""
    rng = np.random.default_rng(seed)
    bars, acts, rows = {}, [], []
    for symbol in "ABCDE"[:names]:
        price, series = 50.0 + 50 * rng.random(), []
        for i in range(sessions):
            opening = price * np.exp(0.01 * rng.standard_normal())
            if i and rng.random() < 0.04:
                ratio = float(rng.choice([2.0, 3.0, 0.5]))
                acts.append((symbol, "split", i, ratio, 0))
                opening /= ratio
            elif i and rng.random() < 0.04:
                amount = price * 0.05 * rng.random()
                acts.append((symbol, "dividend", i, 1, amount))
                opening -= amount
            path = opening * np.exp(np.cumsum(0.01 * rng.standard_normal(4)))
            price = path[-1]
            bar = (opening, max(opening, *path), min(opening, *path), price)
            hole = i > 0 and rng.random() < missing and not any(a[2] in (i, i + 1) for a in acts if a[0] == symbol)
            series.append(None if hole else bar)
            if not hole and rng.random() < 0.5:
                action = str(rng.choice(["BUY", "SELL", "HOLD"]))
                limit = None if rng.random() < 0.5 else float(price * (1 + 0.02 * rng.standard_normal()))
                rows.append((symbol, i, action, price * 0.02 * (0.5 + rng.random()), limit, 3))
        bars[symbol] = series
    return bars, rows, acts


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6), st.floats(0, 30), st.floats(0, 30), st.floats(0.2, 1.0))
def test_ledger_identity_holds_at_every_step(seed, commission, slippage, gross):
    bars, rows, acts = random_market(seed, sessions=40)
    config = BacktestConfig(commission_bps=commission, slippage_bps=slippage, gross_limit=gross)
    result = run(bars, rows, acts, config)
    assert_ledger_holds(result)
    counts = result.counts
    assert counts["filled"] == result.trades.height
    ended = sum(counts[name] for name in ("filled", "skipped", "expired", "unexecuted", "refused", "vetoed"))
    assert ended == counts["signals"]
    again = run(bars, rows, acts, config)
    assert again.trades.equals(result.trades) and again.ledger.equals(result.ledger)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6), st.integers(12, 30))
def test_what_happens_after_a_cut_changes_no_trade_before_it(seed, cut):
    bars, rows, acts = random_market(seed, sessions=40)
    other, _, _ = random_market(seed + 1, sessions=40)
    changed = {s: series[: cut + 1] + [b or bars[s][cut] for b in other[s][cut + 1 :]] for s, series in bars.items()}
    changed = {s: [b if b or i < cut else (60, 61, 59, 60) for i, b in enumerate(v)] for s, v in changed.items()}
    acts_before = [a for a in acts if a[2] <= cut]
    before = run(bars, rows, acts)
    after = run(changed, rows, acts_before)
    # Held trades differ; those that are over do not. Dropping the holes after the cut lets every decision stand.
    over = pl.col("exit_session") < day(cut)
    assert before.trades.filter(over).drop("trade_id").equals(after.trades.filter(over).drop("trade_id"))
    assert before.equity.filter(pl.col("session") < day(cut)).equals(after.equity.filter(pl.col("session") < day(cut)))


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6), st.integers(12, 30))
def test_what_is_listed_later_divides_nothing_before(seed, cut):
    """Of three symbols one has its first bar and decision after the cut, or none at all."""
    bars, rows, acts = random_market(seed, sessions=40)
    late = [row for row in rows if row[0] == "C" and row[1] > cut]
    own, paid = [row for row in rows if row[0] != "C"], [a for a in acts if a[0] != "C"]
    others = {s: series for s, series in bars.items() if s != "C"}
    listed = others | {"C": [None] * (cut + 1) + bars["C"][cut + 1 :]}
    found = []
    for market, said in ((others, own), (listed, own + late)):
        predictions, decisions = decide(said)
        found.append(run_backtest(predictions, decisions, versions(market), actions(paid), calendar(40)))
    before = pl.col("session") <= day(cut)
    assert found[0].ledger.filter(before).equals(found[1].ledger.filter(before))


def test_a_symbol_divides_the_capital_from_its_first_decision_on():
    flat = [(100, 101, 99, 100)] * 6
    bars = {"A": flat, "B": [None, *flat[1:]], "C": flat, "D": flat}
    rows = [("A", 0, "BUY", 40, None, None), ("B", 1, "HOLD", 40, None, None), ("C", 3, "BUY", 40, None, None)]
    predictions, decisions = decide(rows)
    panel, block = panel_of(decisions, versions(bars), actions(), calendar(6), FREE)
    assert panel.symbols == ("A", "B", "C")  # D is never decided on
    assert symbols_by_then(decisions, panel, block).tolist() == [1, 2, 2, 3, 3, 3]
    held = run_backtest(predictions, decisions, versions(bars), actions(), calendar(6), FREE)
    assert held.trades["shares"].to_list() == [10_000.0] and held.counts["refused"] == 1  # A has it all, so C finds no room
    whole = run_backtest(predictions, decisions, versions(bars), actions(), calendar(6), FREE, "ABCD")
    assert whole.trades["shares"].to_list() == [2_500.0, 2_500.0]  # a universe that was declared


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6))
def test_trades_without_costs_earn_what_their_labels_say(seed):
    """A market order that is over before the block's end is the sided triple-barrier label of its decision."""
    from tapehouse.labels.triple_barrier import triple_barrier

    bars, rows, acts = random_market(seed, sessions=60, missing=0.0)
    rows = [(s, i, a, atr, None, None) for s, i, a, atr, _, _ in rows]
    result = run(bars, rows, acts, FREE)
    closes = {(s, day(i)): bar[3] for s, series in bars.items() for i, bar in enumerate(series)}
    _, decisions = decide(rows)
    decisions = decisions.with_columns(interval=pl.lit("1d"), session=pl.col("decision_at").dt.date())
    decisions = decisions.with_columns(
        close=pl.Series([closes[key] for key in decisions.select("symbol", "session").iter_rows()])
    )
    labels = triple_barrier(versions(bars), actions(acts), decisions, at(0, 0), at(60, 0), calendar(60))
    side = pl.when(pl.col("side") == "BUY").then(1).otherwise(-1).cast(pl.Int32)
    trades = result.trades.filter(pl.col("exit_reason") != "end").with_columns(side=side)
    both = trades.join(labels, on=["symbol", "decision_at", "side"], how="left")
    earned = (both["pnl"] / (both["shares"] * both["entry_price"])).to_numpy()
    assert np.allclose(earned, both["ret"].to_numpy(), rtol=1e-9, atol=1e-9)
    assert both["entry_price_right"].equals(both["entry_price"], check_names=False) or np.allclose(
        both["entry_price_right"], both["entry_price"]
    )


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6), st.integers(1, 39), st.sampled_from([2.0, 7.0, 0.1]))
def test_a_split_is_only_a_change_of_units(seed, when, ratio):
    """The same market, quoted in new units from one session on, is worth the same at every close."""
    bars, rows, acts = random_market(seed, sessions=40)
    acts = [a for a in acts if not (a[0] == "A" and a[2] == when)]
    bars["A"] = [tuple(p / ratio for p in b) if b and i >= when else b for i, b in enumerate(bars["A"])]
    before = [(*a[:4], a[4] / ratio) if a[0] == "A" and a[2] > when else a for a in acts]
    moved = [
        (s, i, a, atr / ratio, limit and limit / ratio, valid) if s == "A" and i >= when else (s, i, a, atr, limit, valid)
        for s, i, a, atr, limit, valid in rows
    ]
    split = run(bars, moved, [*before, ("A", "split", when, ratio, 0)])
    whole = {**bars, "A": [tuple(p * ratio for p in b) if b and i >= when else b for i, b in enumerate(bars["A"])]}
    plain = run(whole, rows, acts)
    assert split.trades.height == plain.trades.height
    assert np.allclose(split.equity["equity"], plain.equity["equity"], rtol=1e-9)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_neither_the_order_of_symbols_nor_the_size_of_the_account_matters(seed, times):
    bars, rows, acts = random_market(seed, sessions=40)
    one = run(bars, rows, acts)
    other = run(bars, rows[::-1], acts[::-1], BacktestConfig(initial_cash=1e6 * times), symbols=list("CBA"))
    assert np.allclose(other.equity["equity"] / times, one.equity["equity"], rtol=1e-9)
    assert other.trades.height == one.trades.height


def test_a_correction_counts_if_it_was_known_within_the_settlement_lag():
    """The bar of the entry is corrected from an open of 100 to 90: 23 hours after its close it counts, 25 hours after not."""
    flat = (100, 101, 99, 100)
    predictions, decisions = decide([("A", 0, "BUY", 40, None, None)])
    first = versions({"A": [flat] * 4})
    for hours, price in ((23, 90.0), (25, 100.0)):
        corrected = first.filter(session=day(1)).with_columns(
            open=pl.lit(90.0),
            low=pl.lit(89.0),
            known_at=pl.col("event_at") + timedelta(hours=hours),
            version=pl.lit(2, pl.Int64),
        )
        bars = pl.concat([first, corrected])
        result = run_backtest(predictions, decisions, bars, actions(), calendar(4), FREE)
        assert result.trades["entry_price"][0] == price


def test_look_ahead_is_worth_a_fortune_and_none_is_worth_nothing():
    """On iid bars, sign(close / open) traded at the next open earns nothing; read one bar early it earns every move."""
    rng = np.random.default_rng(7)
    count, names = 2_000, "ABCDE"
    moves = 0.01 * rng.standard_normal((len(names), count))
    bars, seen, rows, early = {}, {}, [], []
    for symbol, series in zip(names, moves, strict=True):
        closes = 100.0 * np.exp(series)
        bars[symbol] = [(100.0, max(100.0, c), min(100.0, c), c) for c in closes]
        seen[symbol] = np.sign(series)
        for i, sign in enumerate(seen[symbol]):
            action = "BUY" if sign > 0 else "SELL"
            rows.append((symbol, i, action, 50, None, None))
            if i:
                early.append((symbol, i - 1, action, 50, None, None))
    one_session = FREE.model_copy(update={"vertical_barrier": 1})

    def t_statistic(decided: list) -> float:
        ret = run(bars, decided, config=one_session).equity["ret"].to_numpy()[1:]
        return float(ret.mean() / ret.std(ddof=1) * np.sqrt(len(ret)))

    assert abs(t_statistic(rows)) < 4
    assert t_statistic(early) > 50
