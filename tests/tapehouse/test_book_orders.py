from pathlib import Path

import polars as pl
import pytest

from tapehouse.book_orders import BookCosts, load_book_objectives, paid
from tapehouse.errors import TapehouseError

DECLARED = Path(__file__).parents[2] / "book_objectives.yaml"
COSTS = BookCosts(maker_fee_bps=2, taker_fee_bps=5, unfilled_penalty_bps=10)
WEIGHTS = {"price_weight": 1.0, "certainty_weight": 0.5, "risk_weight": 0.25, "fees_weight": 2.0}


def pay(outcome: str, side: int, price: float | None, worst: float | None = None, markout: float | None = None) -> dict:
    row = {
        "outcome": outcome,
        "filled": None if price is None else outcome != "ended",
        "exec_price": price,
        "worst_mid": worst,
        "markout_mid": markout,
        "side": side,
        "arrival": 100.0,
        **WEIGHTS,
    }
    kinds = {"filled": pl.Boolean, "exec_price": pl.Float64, "worst_mid": pl.Float64, "markout_mid": pl.Float64}
    return paid(pl.DataFrame([row], schema_overrides=kinds), COSTS).row(0, named=True)


def test_a_filled_buy_earns_its_distance_less_the_maker_s_fee():
    found = pay("queue", 1, 99.9, worst=100.2, markout=99.95)
    assert found["shortfall_bps"] == pytest.approx(10.0)
    assert (found["fees_bps"], found["certainty_bps"], found["risk_bps"]) == (2.0, 0.0, pytest.approx(-20.0))
    assert found["reward_bps"] == pytest.approx(10 - 2 * 2 - 0.25 * 20)
    assert found["markout_bps"] == pytest.approx((99.95 / 99.9 - 1) * 1e4)


def test_an_unfilled_sell_pays_the_drift_the_taker_s_fee_and_its_penalty():
    found = pay("ended", -1, 99.5, worst=99.4)
    assert found["shortfall_bps"] == pytest.approx(-50.0)
    assert (found["fees_bps"], found["certainty_bps"], found["risk_bps"]) == (5.0, -10.0, pytest.approx(-60.0))
    assert found["reward_bps"] == pytest.approx(-50 - 2 * 5 - 0.5 * 10 - 0.25 * 60)
    assert found["markout_bps"] is None


def test_what_takes_on_arrival_pays_the_taker_s_fee_and_a_move_in_favour_is_no_risk():
    found = pay("taken", 1, 100.1, worst=99.9, markout=100.2)
    assert (found["fees_bps"], found["certainty_bps"], found["risk_bps"]) == (5.0, 0.0, 0.0)


def test_an_unknown_outcome_is_paid_nothing():
    found = pay("unknown", 1, None)
    assert {
        found[name] for name in ("shortfall_bps", "fees_bps", "certainty_bps", "risk_bps", "reward_bps", "markout_bps")
    } == {None}


def test_the_declared_objectives_are_those_of_the_design():
    declared = load_book_objectives(DECLARED)
    ranges = {"aggressive": (1.0, 5.0), "patient": (5.0, 15.0), "risk_averse": (10.0, 30.0)}
    assert {name: objective.share for name, objective in declared.objectives.items()} == {
        "aggressive": 0.33, "patient": 0.34, "risk_averse": 0.33,
    }  # fmt: skip
    for name, (low, high) in ranges.items():
        strata = declared.objectives[name].strata
        assert min(s.near[0] for s in strata) == low and max(s.far[1] for s in strata) == high
    assert declared.fills.window_seconds == 300
    assert declared.windows == {"aggressive": 30.0, "patient": 300.0, "risk_averse": 600.0}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("share: 0.34", "share: 0.4", "the shares sum to 1.06"),
        ("cancellations: behind", "cancellations: sideways", "fills.cancellations"),
        ("latency_ms", "latency", "fills.latency"),
        ("{SIM:PERP: 0.01}", "{SIM:PERP: 0}", "must be above zero"),
        ("{aggressive: 0.55", "{agressive: 0.55", "no objective"),
        ("{bullish: 0.7", "{bulish: 0.7", "buy_share.bulish.*'bullish', 'bearish' or 'sideways'"),
    ],
)
def test_a_wrong_declaration_is_refused_by_file_and_key(tmp_path, old, new, said):
    text = DECLARED.read_text()
    assert old in text
    file = tmp_path / "book_objectives.yaml"
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(TapehouseError, match=said):
        load_book_objectives(file)
