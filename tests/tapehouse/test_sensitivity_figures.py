"""What the figures of later and dearer orders show, and the sentences beside them."""

import json

import polars as pl
import pytest

from tapehouse.report.sensitivity_figures import break_even_bps, capacity_figure, cost_lag_figure, sensitivity_words
from tapehouse.sensitivity import CAPITAL, COST


def cells(mean: float = 0.001, trades: int = 10, impact: float = 0.0) -> pl.DataFrame:
    """Joined cells: two lags, three costs of which 15 is declared, three amounts of capital; a bp of cost is 0.00005 a day."""
    rows = [
        (COST, lag, cost, 1e6, lag == 0 and cost == 15.0, mean - 5e-5 * cost - 2e-4 * lag)
        for lag in (0, 1)
        for cost in (5.0, 15.0, 50.0)
    ]
    rows += [(CAPITAL, 0, 15.0, capital, False, mean - 7.5e-4 - impact * capital) for capital in (1e5, 1e6, 1e7)]
    frame = pl.DataFrame(rows, schema=["kind", "lag", "cost_bps", "capital", "declared", "mean_ret"], orient="row")
    return frame.with_columns(
        subject=pl.lit("a"),
        trades=pl.lit(trades),
        sharpe=pl.col("mean_ret") * 1000 if trades else pl.lit(None, pl.Float64),
        annual_return=pl.col("mean_ret") * 252,
        **{"return": pl.col("mean_ret") * 100},
    ).sample(fraction=1.0, shuffle=True, seed=1)


def test_the_grid_is_a_table_with_the_declared_cell_framed():
    figure = cost_lag_figure(cells())
    heat = figure["data"][0]
    assert heat["x"] == ["5", "15", "50"] and heat["y"] == ["0", "1"]
    assert heat["z"][0] == pytest.approx([0.75, 0.25, -1.5]) and heat["z"][1] == pytest.approx([0.55, 0.05, -1.7])
    assert heat["zmax"] == -heat["zmin"] == pytest.approx(1.7)
    assert heat["text"][0] == ["0.75", "0.25", "\N{MINUS SIGN}1.50"]
    frame = figure["layout"]["shapes"][0]
    assert (frame["x0"] + frame["x1"]) / 2 == 1 and (frame["y0"] + frame["y1"]) / 2 == 0
    assert json.dumps(figure, allow_nan=False) == json.dumps(cost_lag_figure(cells()), allow_nan=False)


def test_who_never_traded_has_an_empty_grid():
    never = cells(0.0, trades=0)
    assert cost_lag_figure(never)["data"][0]["z"] == [[None] * 3] * 2
    assert cost_lag_figure(never)["layout"]["shapes"] == []
    assert capacity_figure(never)["layout"]["shapes"] == []
    assert "never traded" in sensitivity_words(never)[0]


def test_the_curve_over_capital():
    figure = capacity_figure(cells())
    ratio, profit = figure["data"]
    assert ratio["x"] == [1e5, 1e6, 1e7] and profit["yaxis"] == "y2"
    assert profit["y"] == pytest.approx([6.3] * 3) and profit["customdata"] == [6300, 63000, 630000]
    assert [(line["yref"], line["y0"]) for line in figure["layout"]["shapes"]] == [("y", 0.25), ("y2", 6.3)]


def test_the_sentences():
    costs, later, capital = sensitivity_words(cells())
    assert "used up at 20 bps" in costs  # 0.001 of 0.00005 a bp
    assert "of 0.25 is 0.05 where orders are sent 1 to 1 sessions later" in later
    assert "of 0.25 on 100,000, more than half is left on 10,000,000" in capital
    # With impact of half the gain for each million nothing is left on two.
    dear = sensitivity_words(cells(impact=1.25e-10))[2]
    assert "0.24 on 100,000, more than half is left on 1,000,000, and \N{MINUS SIGN}1.00 on 10,000,000" in dear
    assert "Even at 5 bps" in sensitivity_words(cells(0.0))[0] and "nothing even on 100,000" in sensitivity_words(cells(0.0))[2]
    assert "up to 50 bps" in sensitivity_words(cells(0.01))[0]


def test_break_even_lies_between_two_cells():
    assert break_even_bps([0.0, 10.0], [3.0, -1.0]) == 7.5
    assert break_even_bps([0.0, 10.0], [3.0, 1.0]) is None and break_even_bps([0.0], [1.0]) is None
