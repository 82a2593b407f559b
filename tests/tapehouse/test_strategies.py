"""What strategies are made of: declarations, combined signals, gates, vetoes, sizes and the tail, each by hand."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.predictions import PREDICTIONS
from tapehouse.recipes import FOLDER as RECIPES
from tapehouse.recipes import load_recipes
from tapehouse.strategies.gates import gate
from tapehouse.strategies.schema import FOLDER, Strategy, load_strategies, load_strategy
from tapehouse.strategies.sections import (
    DistanceVeto,
    EventsVeto,
    GatesSection,
    HoursVeto,
    OrdersSection,
    Paced,
    SignalsSection,
    SizingSection,
    TailSection,
    VetoesSection,
    VixVeto,
)
from tapehouse.strategies.signals import signals_of
from tapehouse.strategies.sizing import kelly, training_deviation, weights_of
from tapehouse.strategies.states import states_of
from tapehouse.strategies.tail import allowed_size, share_beyond, sizes
from tapehouse.strategies.vetoes import NUMBER, blocked, judge_market, paced
from tests.tapehouse.strategy_market import CALENDAR, EVENTS_SCHEMA, FOLD, market

ROOT = Path(__file__).parents[2]
FIRST = datetime(2024, 1, 2, 21, 5, tzinfo=UTC)


def answers(rows: list[dict], split: str = "test") -> pl.DataFrame:
    """Predictions of symbol A, one a session; a row gives `action` and any of the other columns."""
    full = [
        {
            **dict.fromkeys(PREDICTIONS),
            "split": split,
            "symbol": "A",
            "interval": "1d",
            "decision_at": FIRST + timedelta(days=i),
            **r,
        }
        for i, r in enumerate(rows)
    ]
    return pl.DataFrame(full, schema=PREDICTIONS)


def chances(sell: float, hold: float, buy: float, **more) -> dict:
    action = ("SELL", "HOLD", "BUY")[int(np.argmax([sell, hold, buy]))]
    return {"action": action, "p_sell": sell, "p_hold": hold, "p_buy": buy, **more}


# ---------------------------------------------------------------- declarations


def test_what_is_shipped_loads_and_costs_the_same_for_all():
    found = load_strategies(ROOT / FOLDER, load_recipes(ROOT / RECIPES))
    assert {"sniper", "reckless", "tail_target", "buy_and_hold_scaled", "momentum_guarded"} <= set(found)
    assert len({s.costs.model_dump_json() for s in found.values()}) == 1 and len({s.initial_cash for s in found.values()}) == 1
    assert (found["sniper"].gates.confidence.least, found["sniper"].gates.regime.blocked) == (0.95, ["low"])
    assert found["reckless"].gates.confidence.least == 0.75
    guards = found["sniper"].config(timedelta(days=1)).guards
    assert (guards.consecutive_losses.limit, guards.win_rate.limit, guards.drawdown.limit) == (3, 0.4, 0.2)
    assert (guards.win_rate.window, guards.win_rate.least, guards.win_rate.cool_down) == (20, 10, 5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("signals: {predictors: {gbm: 1.0}}", "description: missing"),
        (
            "description: x\nsignals: {predictors: {gbm: 1.0}, combin: vote}",
            "signals.combin: unknown key; did you mean 'combine'",
        ),
        ("description: x\nsignals: {predictors: {gbm: 0.0}}", "not all 0"),
        ("description: x\nsignals: {combine: fusion}", "fusion belong together"),
        ("description: x\nsignals: {predictors: {gbm: 1.0}, combine: regime}", "by_regime belong together"),
        (
            "description: x\nsignals: {predictors: {gbm: 1.0}}\ngates: {regime: {source: rule, blocked: [low]}}",
            "no regimes of source",
        ),
        ("description: x\nsignals: {predictors: {gbm: 1.0}}\nvetoes: {vix: {window: 5}}", "could never hold"),
        ("description: x\nsignals: {predictors: {gbm: 1.0}}\nvetoes: {consecutive_losses: {least: 3}}", "have no effect"),
        ("description: x\nsignals: {predictors: {gbm: 1.0}}\nsizing: {kind: kelly, size: 0.5, most: 0.2}", "take_multiple 1.0"),
        ("description: x\nsignals: {predictors: {gbm: 1.0}}\nsizing: {kind: risk}", "size is the number"),
        ("description: x\nsignals: {predictors: {gbm: 1.0}}\norders: {entry: limit}", "limit_atr belong together"),
        ("name: y", "name: follows from the file's stem"),
        ("[1, 2]", "mapping of keys"),
    ],
)
def test_a_declaration_that_cannot_be_names_file_and_key(tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(TapehouseError, match=r"mine\.yaml") as caught:
        load_strategy(path)
    assert said in str(caught.value)


def test_a_predictor_must_be_a_recipe_that_is_made(tmp_path):
    recipes = load_recipes(ROOT / RECIPES)

    def load(name: str, predictor: str) -> None:
        (tmp_path / f"{name}.yaml").write_text(f"description: x\nsignals: {{predictors: {{{predictor}: 1.0}}}}\n")
        try:
            load_strategies(tmp_path, recipes)
        finally:
            (tmp_path / f"{name}.yaml").unlink()

    with pytest.raises(TapehouseError, match="'gmb' is no recipe that predicts"):
        load("mine", "gmb")
    with pytest.raises(TapehouseError, match="gbm is the name of a recipe"):
        load("gbm", "momentum")
    with pytest.raises(TapehouseError, match="trend_agent is made only when it is named"):
        load("mine", "trend_agent")


def test_identity_is_content_and_not_its_name():
    base = Strategy(name="a", description="x", signals=SignalsSection(predictors={"gbm": 1.0}))
    assert base.hash == base.model_copy(update={"name": "b", "description": "y", "selected": False}).hash
    assert base.hash != base.model_copy(update={"gates": GatesSection(auditor="gbm")}).hash


# ---------------------------------------------------------------- signals


def test_one_predictor_is_followed_as_it_speaks():
    said = answers(
        [chances(0.2, 0.2, 0.6), {"action": "SELL", "confidence": 0.8, "limit_price": 9.0, "limit_valid_sessions": 2}]
    )
    rows = signals_of(SignalsSection(predictors={"p": 1.0}), {"p": said}, None)
    assert rows["action"].to_list() == ["BUY", "SELL"] and rows["confidence"].to_list() == [0.6, 0.8]
    assert rows["limit_price"].to_list() == [None, 9.0] and rows["limit_valid_sessions"].to_list() == [0, 2]


def test_an_average_by_hand():
    # (0.1 0.2 0.7) at weight 3 and a rule's SELL at weight 1: (0.325 0.15 0.525). At weights 1 and 1: (0.55 0.1 0.35).
    frames = {"p": answers([chances(0.1, 0.2, 0.7)]), "rule": answers([{"action": "SELL"}])}
    rows = signals_of(SignalsSection(predictors={"p": 3.0, "rule": 1.0}), frames, None)
    assert rows["action"][0] == "BUY" and rows["confidence"][0] == pytest.approx(0.525)
    assert rows["disagreement"][0] and rows["said"][0] == "p=BUY rule=SELL"
    even = signals_of(SignalsSection(predictors={"p": 1.0, "rule": 1.0}), frames, None)
    assert (even["action"][0], even["p_sell"][0]) == ("SELL", pytest.approx(0.55))


def test_votes_count_and_a_tie_is_hold():
    frames = {
        n: answers([{"action": a}, {"action": b}])
        for n, a, b in (("x", "BUY", "BUY"), ("y", "SELL", "BUY"), ("z", "HOLD", "SELL"))
    }
    rows = signals_of(SignalsSection(predictors=dict.fromkeys("xyz", 1.0), combine="vote"), frames, None)
    assert rows["action"].to_list() == ["HOLD", "BUY"]
    assert rows["confidence"][1] == pytest.approx(2 / 3)


def test_weights_follow_the_regime():
    frames = {"x": answers([{"action": "BUY"}] * 3), "y": answers([{"action": "SELL"}] * 3)}
    section = SignalsSection(
        predictors={"x": 0.0, "y": 1.0}, combine="regime", by_regime={"bullish": {"x": 1.0}, "bearish": {"x": 0.4, "y": 0.6}}
    )
    states = frames["x"].select("symbol", "interval", "decision_at", regime=pl.Series(["bullish", "bearish", None]))
    rows = signals_of(section, frames, states)
    assert rows["action"].to_list() == ["BUY", "SELL", "SELL"]  # where no regime is known, the usual weights
    assert rows["confidence"].to_list() == pytest.approx([1.0, 0.6, 1.0])


def test_a_remembered_answer_fades_and_an_unsure_one_is_passed_over():
    # Asked at bars 0 and 2 (sure of SELL, then unsure); the policy always says (0 0.4 0.6). Weight 0.5, decay 0.5.
    policy = answers([chances(0.0, 0.4, 0.6)] * 4)
    language = answers([{"action": "SELL", "confidence": c} for c in (1.0, 1.0, 0.6, 1.0)])
    section = SignalsSection(
        combine="fusion", fusion={"policy": "p", "language": "l", "weight": 0.5, "confidence": 0.7, "every": 2, "decay": 0.5}
    )
    rows = signals_of(section, {"p": policy, "l": language}, None)
    assert rows["p_sell"].to_list() == pytest.approx([0.5, 0.25, 0.0, 0.0])
    assert rows["action"].to_list() == ["SELL", "BUY", "BUY", "BUY"]


def test_a_limit_is_that_of_the_first_who_wants_the_same():
    limit = {"limit_price": 9.0, "limit_valid_sessions": 3}
    frames = {"x": answers([{"action": "SELL"}]), "y": answers([{"action": "BUY", **limit}]), "z": answers([{"action": "BUY"}])}
    rows = signals_of(SignalsSection(predictors=dict.fromkeys("xyz", 1.0)), frames, None)
    assert (rows["action"][0], rows["limit_price"][0]) == ("BUY", 9.0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8), st.floats(0.1, 10))
def test_neither_the_order_of_rows_nor_the_scale_of_weights_matters(points, times):
    rows = [chances(a, b, c) for a, b, c in points]
    frames = {"x": answers(rows), "y": answers(rows[::-1])}
    one = signals_of(SignalsSection(predictors={"x": 2.0, "y": 1.0}), frames, None)
    scaled = SignalsSection(predictors={"x": 2.0 * times, "y": times})
    other = signals_of(scaled, {n: f.sample(fraction=1.0, shuffle=True, seed=1) for n, f in frames.items()}, None)
    assert np.allclose(one.select("p_sell", "p_hold", "p_buy"), other.select("p_sell", "p_hold", "p_buy"))


# ---------------------------------------------------------------- gates


def signalled(tail: list[float], block: list[float]) -> pl.DataFrame:
    frames = [
        answers([chances(0, 1 - c, c) | {"action": "BUY"} for c in part], split)
        for part, split in ((tail, "validation"), (block, "test"))
    ]
    frames[1] = frames[1].with_columns(pl.col("decision_at") + timedelta(days=1000))
    return signals_of(SignalsSection(predictors={"p": 1.0}), {"p": pl.concat(frames)}, None)


def test_a_rank_is_taken_among_the_validation_tail():
    signals = signalled([i / 100 for i in range(1, 41)], [0.2, 0.38, 0.39, 0.9])
    rows = signals.filter(split="test")
    (found,) = gate(GatesSection(confidence={"least": 0.95, "of": "rank"}), rows, signals, None, {})
    # Of 40 confidences 0.01 to 0.40 the 95 % point, rounded up, is the 39th.
    assert found.threshold == 0.39 and found.blocks.tolist() == [True, True, False, False]
    (plain,) = gate(GatesSection(confidence={"least": 0.5, "of": "probability"}), rows, signals, None, {})
    assert plain.blocks.tolist() == [True, True, True, False]


def test_where_the_tail_is_traded_a_rank_is_taken_among_what_was_before():
    tail = [i / 100 for i in range(40, 5, -1)]  # 35 decisions, each less confident than all before
    signals = signalled([*tail, 0.9, 0.2, 0.99], [0.5])
    rows = signals.filter(split="validation")
    (found,) = gate(GatesSection(confidence={"least": 0.5, "of": "rank"}), rows, signals, None, {})
    assert found.missing.tolist() == [True] * 30 + [False] * 8 and found.state == "active" and found.threshold is None
    # Of 35 confidences 0.40 to 0.06 the middle is 0.23; 0.9 is above it, and counts for what comes after.
    assert found.blocks.tolist() == [True] * 35 + [False, True, False]
    less = signals.filter(pl.col("decision_at") <= rows["decision_at"][32])
    (cut,) = gate(GatesSection(confidence={"least": 0.5, "of": "rank"}), less, less, None, {})
    assert cut.blocks.tolist() == found.blocks[:33].tolist()


def test_a_rank_without_a_tail_lets_nothing_through_and_says_so():
    signals = signalled([0.5] * 29, [0.9])
    (found,) = gate(GatesSection(confidence={"least": 0.5}), signals.filter(split="test"), signals, None, {})
    assert found.state == "unavailable" and found.blocks.all() and found.missing.all()


def test_regimes_and_auditors():
    signals = signalled([], [0.6, 0.6, 0.6])
    keys = signals.select("symbol", "interval", "decision_at")
    states = keys.with_columns(regime=pl.Series(["low", "high", None]))
    audit = keys.with_columns(action=pl.Series(["BUY", "HOLD", "BUY"]))
    section = GatesSection(regime={"source": "volatility", "blocked": ["low"]}, auditor="audit")
    regime, auditor = gate(section, signals, signals, states, {"audit": audit})
    assert regime.blocks.tolist() == [True, False, False] and regime.missing.tolist() == [False, False, True]
    assert auditor.blocks.tolist() == [False, True, False]


# ---------------------------------------------------------------- vetoes


def test_a_veto_lets_go_after_its_window():
    veto = Paced(window=3, least=1, cool_down=2)
    blocks, _ = paced(np.ones(10, bool), np.ones(10, bool), veto)
    assert blocks.tolist() == [True] * 3 + [False] * 2 + [True] * 3 + [False] * 2


def test_a_veto_needs_its_sample():
    known = np.array([True, False, True, True, True])
    blocks, judged = paced(np.ones(5, bool), known, Paced(window=3, least=2, cool_down=1))
    assert judged.tolist() == [False, False, True, True, True] and blocks.tolist() == [False, False, True, True, True]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), max_size=60), st.integers(1, 8), st.integers(1, 4))
def test_no_veto_locks_for_ever(holds, window, cool_down):
    blocks, _ = paced(np.array(holds, bool), np.ones(len(holds), bool), Paced(window=window, least=1, cool_down=cool_down))
    assert not (blocks & ~np.array(holds, bool)).any()
    runs = "".join("x" if b else " " for b in blocks).split()
    assert max(map(len, runs), default=0) <= window


def points(**columns) -> pl.DataFrame:
    rows = len(next(iter(columns.values())))
    days = pl.Series(
        [datetime(2024, 1, 2, 21, 5, tzinfo=UTC) + timedelta(days=i) for i in range(rows)], dtype=pl.Datetime("us", "UTC")
    )
    frame = pl.DataFrame({"symbol": ["A"] * rows, "interval": ["1d"] * rows, "decision_at": days})
    return frame.with_columns(close=pl.lit(100.0), atr_14=pl.lit(2.0)).with_columns(
        **{n: pl.Series(v) for n, v in columns.items()}
    )


NO_EVENTS = pl.DataFrame(schema=EVENTS_SCHEMA)
AT_ONCE = {"window": 20, "least": 1, "cool_down": 1}


def test_market_vetoes_by_hand():
    rows = points(
        vix=[29.0, 31.0, None], support_distance_20d=[0.001, 0.01, 0.01], resistance_distance_20d=[-0.01, -0.001, -0.0039]
    )
    section = VetoesSection(
        vix=VixVeto(**AT_ONCE), support=DistanceVeto(**AT_ONCE), resistance=DistanceVeto(limit=None, limit_atr=0.2, **AT_ONCE)
    )
    vix, support, resistance = judged = judge_market(section, rows, NO_EVENTS, "XNYS")
    assert vix.blocks.tolist() == [False, True, False] and vix.missing.tolist() == [False, False, True]
    assert support.blocks.tolist() == [True, False, False]
    assert resistance.blocks.tolist() == [False, True, True]  # nearer than 0.2 x 2 / 100
    longs, shorts = blocked(judged, 3)
    assert longs.tolist() == [-1, NUMBER["vix"], NUMBER["resistance"]]
    assert shorts.tolist() == [NUMBER["support"], NUMBER["vix"], -1]


def test_what_is_never_known_is_unavailable_and_what_says_nothing_not_applicable():
    rows = points(vix=pl.Series([None] * 3, dtype=pl.Float64))
    vix, hours = judge_market(VetoesSection(vix=VixVeto(**AT_ONCE), hours=HoursVeto()), rows, NO_EVENTS, "XNYS")
    assert (vix.state, hours.state) == ("unavailable", "not_applicable") and not vix.blocks.any() and not hours.blocks.any()
    within = rows.with_columns(interval=pl.lit("1h"), decision_at=pl.Series([FIRST.replace(hour=h) for h in (14, 15, 20)]))
    (hours,) = judge_market(VetoesSection(hours=HoursVeto(**AT_ONCE)), within, NO_EVENTS, "XNYS")
    assert hours.blocks.tolist() == [True, False, False]  # 09:05, 10:05 and 15:05 in New York


def test_an_event_keeps_out_only_who_can_know_of_it():
    """A release on Thursday 4 January 14:00 New York, announced on the 3rd; one on the 5th is listed, then called off."""
    thursday, friday = datetime(2024, 1, 4, 19, tzinfo=UTC), datetime(2024, 1, 5, 19, tzinfo=UTC)
    listed = [
        ("us", "release", "FOMC", thursday, datetime(2024, 1, 3, 12, tzinfo=UTC), True),
        ("us", "release", "CPI", friday, datetime(2023, 12, 1, tzinfo=UTC), True),
        ("us", "closure", "CPI", friday, datetime(2024, 1, 4, 12, tzinfo=UTC), False),
    ]
    events = pl.DataFrame(listed, schema=EVENTS_SCHEMA, orient="row")
    rows = points(vix=[20.0] * 4)  # decided in the evenings of the 2nd (Tuesday) to the 5th
    (next_session,) = judge_market(VetoesSection(events=EventsVeto(**AT_ONCE)), rows, events, "XNYS")
    assert next_session.blocks.tolist() == [False, True, False, False]
    at_the_close = rows.with_columns(pl.col("decision_at").dt.offset_by("-5m"))
    (same,) = judge_market(VetoesSection(events=EventsVeto(**AT_ONCE)), at_the_close, events, "XNYS")
    assert same.blocks.tolist() == next_session.blocks.tolist()
    (two,) = judge_market(VetoesSection(events=EventsVeto(sessions=2, **AT_ONCE)), rows, events, "XNYS")
    assert two.blocks.tolist() == [False, True, False, False]  # on the 2nd the FOMC is not yet announced
    (three,) = judge_market(VetoesSection(events=EventsVeto(sessions=3, **AT_ONCE)), rows, events, "XNYS")
    assert three.blocks.tolist() == [True, True, False, False]  # on the 2nd the CPI still stands


# ---------------------------------------------------------------- sizes


def test_sizes_by_hand():
    rows = pl.DataFrame(
        {"action": ["BUY", "SELL"], "p_sell": [0.2, 0.5], "p_buy": [0.6, 0.3], "close": [100.0, 50.0], "atr_14": [2.0, 4.0],
         "realised_vol_20d": [0.2, None]}
    )  # fmt: skip
    orders = OrdersSection(stop_atr=1.5, take_multiple=1.0)

    def sized(kind: str, **more) -> list[float]:
        return weights_of(SizingSection(kind=kind, **more), orders, rows, 4, 0.2).tolist()

    assert sized("equal") == [0.25, 0.25]
    assert sized("fraction", size=0.02) == [0.02, 0.02]
    # Stops of 3 and 6: a hundredth of the equity is lost at 3 % and at 12 %.
    assert sized("risk", size=0.01) == pytest.approx([1 / 3, 1 / 12])
    assert sized("risk", size=0.01, most=0.2) == pytest.approx([0.2, 1 / 12])
    assert sized("volatility", size=0.1)[0] == pytest.approx(0.125) and np.isnan(sized("volatility", size=0.1)[1])
    assert sized("training", size=0.1) == pytest.approx([0.125, 0.125])
    # (0.6 - 0.2) / 0.8 and (0.5 - 0.3) / 0.8 of equity at risk, half of it, over 3 % and 12 %, at most 1.
    assert sized("kelly", size=0.5, most=1.0) == pytest.approx([1.0, 0.125 / 0.12 if 0.125 / 0.12 < 1 else 1.0])


@settings(max_examples=50, deadline=None)
@given(st.floats(0.05, 0.6), st.floats(0.05, 0.39), st.floats(0.5, 3))
def test_kelly_grows_fastest(win, lose, multiple):
    found = float(kelly(np.array([win]), np.array([lose]), pl.Series(["BUY"]), multiple)[0])

    def growth(f: float) -> float:
        return win * np.log1p(multiple * f) + lose * np.log1p(-f)

    assert growth(found) >= max(growth(f) for f in np.linspace(0, 0.99, 200)) - 1e-9


def test_the_deviation_of_training_reads_nothing_later():
    made = market()
    found = training_deviation(made.points, FOLD)
    late = pl.col("decision_at") >= FOLD.validation_start
    moved = made.points.with_columns(ret_1d=pl.when(late).then(9.0).otherwise("ret_1d"))
    assert found == training_deviation(moved, FOLD) and found == pytest.approx(0.01 / np.sqrt(3) * np.sqrt(252), rel=0.25)


# ---------------------------------------------------------------- tail


def test_the_allowed_size_by_hand():
    # 59 losses, a rate of 5 %: 0.05 * 60 - 1 = 2 sessions may lose more than a hundredth. The third largest loss is 2 %.
    losses = np.array([0.05, 0.04, 0.02, 0.015] + [0.0] * 55)
    assert allowed_size(losses, 0.01, 0.05) == pytest.approx(0.5)
    assert allowed_size(losses[2:], 0.02, 0.05) == 1.0
    assert allowed_size(losses[:10], 0.01, 0.05) == 0.0  # ten losses say nothing about one in twenty


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-0.2, 0.2), min_size=1, max_size=300), st.floats(0.005, 0.05), st.floats(0.02, 0.3))
def test_the_bound_of_risk_control_holds_and_is_not_slack(losses, limit, rate):
    seen = np.array(losses)
    size = allowed_size(seen, limit, rate)
    beyond = (seen * size > limit * (1 + 1e-12)).sum()
    assert size == 0.0 or (beyond + 1) / (len(seen) + 1) <= rate + 1e-9
    if 0.0 < size < 1.0:
        assert ((seen * size * (1 + 1e-6) > limit).sum() + 1) / (len(seen) + 1) > rate


def test_on_exchangeable_losses_the_target_is_kept():
    draw = np.random.default_rng(5)
    shares = []
    for _ in range(200):
        returns = 0.01 * draw.standard_t(4, 200)
        section = TailSection(loss=0.01, rate=0.05, window=250)
        size = sizes(returns[:60], returns[60:], section)
        shares.append(share_beyond(size[:-1] * returns[61:], 0.01))
    assert np.mean(shares) <= 0.05 and np.mean(shares) > 0.035


def test_a_size_knows_no_later_session():
    draw = np.random.default_rng(3)
    before, during = 0.01 * draw.standard_normal(60), 0.01 * draw.standard_normal(40)
    section = TailSection(loss=0.01, rate=0.05)
    changed = np.concatenate([during[:21], -10 * np.abs(during[21:])])
    assert np.array_equal(sizes(before, during, section)[:21], sizes(before, changed, section)[:21])
    assert sizes(before, changed, section)[21] <= sizes(before, during, section)[21]


# ---------------------------------------------------------------- assets


def test_a_file_is_an_asset_over_the_folds_of_its_predictors(tmp_path):
    from tapehouse.strategy_assets import TABLES, strategy_assets

    for folder in (FOLDER, RECIPES, RECIPES.parent / "base"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for path in (ROOT / RECIPES).glob("*.yaml"):
        (tmp_path / RECIPES / path.name).write_text(path.read_text())
    before = strategy_assets(tmp_path)
    assert before == []
    for name, predictor in (("cheap", "gbm"), ("dear", "sft_orders")):
        (tmp_path / FOLDER / f"{name}.yaml").write_text(f"description: x\nsignals: {{predictors: {{{predictor}: 1.0}}}}\n")
    cheap, dear = strategy_assets(tmp_path)
    assert (cheap.name, cheap.by, dear.by) == ("reports.backtests.cheap", "folds", "adapter_folds")
    assert [o.table for o in cheap.outputs] == list(TABLES) and {o.key for o in cheap.outputs} == {(("subject", "cheap"),)}
    assert [r.writer for r in cheap.reads if r.table == "models.predictions"] == ["models.predictions.gbm"]
    (tmp_path / FOLDER / "states.yaml").write_text(
        "description: x\nsignals: {predictors: {gbm: 1.0}}\ngates: {regime: {source: hidden, blocked: [trend]}}\n"
    )
    states = strategy_assets(tmp_path)[-1]
    assert states.name.endswith(".states") and states.by == "adapter_folds"  # as models.regimes, which it reads
    version = cheap.code_version
    (tmp_path / FOLDER / "cheap.yaml").write_text("description: y\nsignals: {predictors: {gbm: 1.0}}\n")
    assert strategy_assets(tmp_path)[0].code_version == version
    (tmp_path / FOLDER / "cheap.yaml").write_text("description: y\nsignals: {predictors: {gbm: 1.0}}\nlimits: {gross: 0.5}\n")
    assert strategy_assets(tmp_path)[0].code_version != version


# ---------------------------------------------------------------- regimes


def test_thirds_of_volatility_are_those_of_what_was_fitted_on():
    """Fitted on 60 decisions of the market at 0.01 to 0.60, one a session: thirds at 0.2067 and 0.4033."""
    before = CALENDAR.filter(pl.col("close_at") < FOLD.validation_start).head(60)
    later = CALENDAR.filter(pl.col("session") >= FOLD.test_first_session).head(4)
    decided = pl.concat([before, later])["close_at"] + timedelta(minutes=5)
    values = [i / 100 for i in range(1, 61)] + [0.20, 0.21, 0.41, None]
    rows = pl.DataFrame({"symbol": ["A"] * 64, "interval": ["1d"] * 64, "decision_at": decided, "market_vol_20d": values})
    assert states_of("volatility", rows, None, FOLD)["regime"].tail(4).to_list() == ["low", "middle", "high", None]
    few = rows.tail(63)
    assert states_of("volatility", few, None, FOLD)["regime"].null_count() == 63


def test_hidden_states_are_looked_up_and_missing_ones_null():
    rows = market().points.head(3)
    hidden = rows.head(2).select("symbol", "interval", "decision_at", regime=pl.Series(["trend", "high_volatility"]))
    assert states_of("hidden", rows, hidden, FOLD)["regime"].to_list() == ["trend", "high_volatility", None]
