"""Seconds for the page of one strategy, against the 3 s that it may take (peer); ratio = peer / ours.

From its rows to HTML: 25 blocks of 120 sessions, 1,600 trades of five symbols on their price charts, 10,000 decisions, nine
gates and vetoes, costs, lags and capital, seven baselines; warm, so that plotly is compressed already. Two pages of the
same rows are the same bytes, each chart has a figure, and a page has at most 3 MB. With --quick ten blocks.
"""

import re
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.harness import report  # noqa: E402
from tapehouse.report.section import subject_of  # noqa: E402
from tapehouse.report.shell import figures_of  # noqa: E402
from tapehouse.report.subject import subject_html  # noqa: E402
from tapehouse.report.subject_provenance import subject_provenance  # noqa: E402
from tapehouse.sensitivity import Grid  # noqa: E402
from tapehouse.subject_differences import difference_rows  # noqa: E402
from tapehouse.subject_statistics import statistics_rows  # noqa: E402
from tapehouse.trials import fit_trials  # noqa: E402
from tapehouse.verdicts import curves, verdicts  # noqa: E402

AIM = 1.0
MAY_TAKE = 3.0
LARGEST = 3_000_000
BLOCKS, QUICK_BLOCKS, SESSIONS = 25, 10, 120
SYMBOLS = ("AAPL", "FB", "GOOG", "IBM", "MSFT")
BASELINES = tuple(f"baseline_{i}" for i in range(7))
TRADES, DECISIONS = 64, 400  # of a block
NAME = "ours"
COMMIT = {"git_commit": "0" * 40, "git_dirty": False}


def days(blocks: int) -> list[list[date]]:
    """Sessions of each block: weekdays, one block after the other."""
    every = [d for i in range(blocks * SESSIONS * 7 // 5 + 7) if (d := date(2001, 1, 1) + timedelta(days=i)).weekday() < 5]
    return [every[i * SESSIONS : (i + 1) * SESSIONS] for i in range(blocks)]


def tables(blocks: int) -> dict[str, pl.DataFrame]:
    """Rows of all that a strategy's page reads, drawn at random with a fixed seed."""
    draw = np.random.default_rng(5)
    spans = days(blocks)
    folds = [span[0].isoformat() for span in spans]
    equity = pl.concat(
        pl.DataFrame(
            {"subject": name, "fold": fold, "session": span, "ret": [0.0, *draw.normal(0, 0.01, SESSIONS - 1)],
             "gross_exposure": draw.random(SESSIONS), "net_exposure": draw.normal(0, 0.3, SESSIONS),
             "turnover": draw.random(SESSIONS)}
        )
        for name in (NAME, *BASELINES)
        for fold, span in zip(folds, spans, strict=True)
    )  # fmt: skip
    trades = pl.concat(_trades(draw, fold, span) for fold, span in zip(folds, spans, strict=True))
    counts = dict.fromkeys(BASELINES, 100) | {NAME: trades.height}
    found, kinds = curves(equity, counts), dict.fromkeys(BASELINES, "baseline") | {NAME: "strategy"}
    decided = [_at(span[int(i)]) for span in spans for i in draw.integers(0, SESSIONS, DECISIONS)]
    fates = ("ordered", "gate.confidence", "veto.support", "guard.win_rate", "passed_over")
    log = [
        (NAME, fold, f"veto_{i}", ("gate", "veto", "guard")[i % 3], "active", 0.5, 400, 90, 40, 0, 20, 10, 5)
        for fold in folds
        for i in range(9)
    ]
    logged = ("subject", "fold", "veto", "stage", "state", "threshold", "signals", "holds", "held_back", "missing", "window",
              "least", "cool_down")  # fmt: skip
    metrics = [(NAME, f, m, float(draw.random())) for f in folds for m in ("costs", "exposure", "trades", "turnover")]
    return {
        "reports.backtest_equity": equity,
        "reports.backtest_trades": trades,
        "reports.backtests": pl.DataFrame(metrics, schema=["subject", "fold", "metric", "value"], orient="row"),
        "reports.verdicts": verdicts(found, kinds, BASELINES, fit_trials(equity, dict.fromkeys(kinds, "h"), {}), len(SYMBOLS)),
        "reports.statistics": statistics_rows(equity.filter(subject=NAME), trades),
        "reports.differences": difference_rows(found).filter(subject=NAME),
        "reports.veto_log": pl.DataFrame(log, schema=list(logged), orient="row"),
        "reports.strategy_decisions": pl.DataFrame(
            {"subject": NAME, "fold": [f for f in folds for _ in range(DECISIONS)], "decision_at": decided,
             "action": draw.choice(["BUY", "SELL"], len(decided)), "fate": draw.choice(fates, len(decided)),
             "disagreement": draw.random(len(decided)) < 0.1}
        ),
        "reports.sensitivity": _sensitivity(draw, folds),
    }  # fmt: skip


def market(blocks: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Daily bars of the symbols, and no corporate action."""
    every = [day for span in days(blocks) for day in span]
    at = [_at(day) for day in every]
    closes = [100 * np.exp(np.cumsum(np.random.default_rng(i).normal(0, 0.01, len(every)))) for i in range(len(SYMBOLS))]
    bars = pl.concat(
        pl.DataFrame(
            {"symbol": symbol, "interval": "1d", "session": every, "event_at": at, "known_at": at, "open": close, "high": close,
             "low": close, "close": close, "volume": 1e6, "version": 1}
        )
        for symbol, close in zip(SYMBOLS, closes, strict=True)
    )  # fmt: skip
    stamp = pl.Datetime("us", "UTC")
    schema = {"symbol": pl.String, "kind": pl.String, "ex_date": pl.Date, "event_at": stamp, "known_at": stamp,
              "ratio": pl.Float64, "amount": pl.Float64}  # fmt: skip
    return bars, pl.DataFrame(schema=schema)


def page(found: dict[str, pl.DataFrame], prices: tuple[pl.DataFrame, pl.DataFrame]) -> str:
    """The page of the strategy, as its asset renders it."""
    text = "description: Drawn at random.\nsignals: {predictors: {gbm: 1.0}}\n"
    until = datetime(2100, 1, 1, tzinfo=UTC)
    path = f"models_registry/strategies/{NAME}.yaml"
    subject = subject_of(NAME, "Drawn at random.", text, path, ("gbm",), found, prices, BASELINES, until)
    return subject_html(subject, subject_provenance(subject, 1, COMMIT))


def compare(quick: bool) -> tuple[float, float, float]:
    """Seconds of a page, seconds that it may take, and the second over the first."""
    blocks = QUICK_BLOCKS if quick else BLOCKS
    found, prices = tables(blocks), market(blocks)
    first = page(found, prices)
    assert page(found, prices) == first, "two pages of the same rows differ"
    assert len(first.encode()) <= LARGEST, f"a page of {len(first.encode())} bytes"
    assert set(re.findall(r'id="([^"]+)" class="chart"', first)) == set(figures_of(first))
    assert all(f'id="{part}"' in first for part in ("equity", "statistics", "trades", "vetoes", "sensitivity", "provenance"))
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        page(found, prices)
        taken.append(time.perf_counter() - started)
    ours = min(taken)
    return ours, MAY_TAKE, MAY_TAKE / ours


def _at(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 21, tzinfo=UTC)


def _trades(draw: np.random.Generator, fold: str, span: list[date]) -> pl.DataFrame:
    """Positions of up to ten sessions of one block."""
    entered = draw.integers(1, SESSIONS - 11, TRADES)
    left = entered + draw.integers(0, 10, TRADES)
    paid = 100 * np.exp(draw.normal(0, 0.2, TRADES))
    return pl.DataFrame(
        {"subject": NAME, "fold": fold, "trade_id": range(TRADES), "symbol": draw.choice(SYMBOLS, TRADES),
         "side": draw.choice(["BUY", "SELL"], TRADES), "decision_at": [_at(span[i - 1]) for i in entered],
         "entry_session": [span[i] for i in entered], "entry_price": paid, "exit_session": [span[i] for i in left],
         "exit_price": paid * np.exp(draw.normal(0, 0.02, TRADES)), "shares": 100.0, "pnl": draw.normal(0, 500, TRADES),
         "commission": 5.0, "exit_reason": draw.choice(["take", "stop", "vertical"], TRADES)}
    )  # fmt: skip


def _sensitivity(draw: np.random.Generator, folds: list[str]) -> pl.DataFrame:
    """Every cell of the grid in every block."""
    grid, rows = Grid(), []
    cells = [("cost_and_lag", lag, bps, 1e6) for lag in grid.lags for bps in grid.costs_bps]
    cells += [("capital", 0, 10.0, capital) for capital in grid.capital]
    for fold in folds:
        for kind, lag, bps, capital in cells:
            declared = (lag, bps, capital) == (0, 10.0, 1e6)
            ret = float(draw.normal(0, 0.0005)) - bps * 1e-6
            rows.append((NAME, fold, kind, lag, bps, capital, declared, SESSIONS, ret, 0.01, ret * SESSIONS, TRADES))
    names = ["subject", "fold", "kind", "lag", "cost_bps", "capital", "declared", "sessions", "mean_ret", "sd_ret", "return",
             "trades"]  # fmt: skip
    return pl.DataFrame(rows, schema=names, orient="row")


if __name__ == "__main__":
    report("report", AIM, compare, __doc__)
