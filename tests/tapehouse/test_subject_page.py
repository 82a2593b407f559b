"""Pages of subjects: what they say first, what they leave out, that they repeat byte for byte, and their figures by hand."""

import math
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.evaluations.core import EVALUATIONS
from tapehouse.evaluations.reading import MEANING
from tapehouse.predictions import ACTIONS
from tapehouse.report.caveats import HINDSIGHT
from tapehouse.report.figures import LONG
from tapehouse.report.section import Subject, heat_table, subject_of
from tapehouse.report.shell import figures_of
from tapehouse.report.subject import headline, subject_html
from tapehouse.report.subject_account import monthly_returns, months_section, rolling_section, rolling_sharpe
from tapehouse.report.subject_answers import answers_section, margin_figure, reliability_figure, slices_section
from tapehouse.report.subject_limits import _rank, _threshold, tail_section, veto_section
from tapehouse.report.subject_predictors import PANELS, predictor_sections
from tapehouse.report.subject_preview import subject_png
from tapehouse.report.subject_provenance import subject_provenance
from tapehouse.report.subject_trades import outcome_section, price_section
from tapehouse.trials import fit_trials
from tapehouse.verdicts import curves, verdicts

FOLDS = {"2024-01-02": date(2024, 1, 2), "2024-06-03": date(2024, 6, 3)}
SESSIONS = 80
BASELINES = ("always_hold", "momentum", "partial")
SPLIT = date(2024, 1, 20)  # two new shares for one old
UNTIL = datetime(2025, 1, 1, tzinfo=UTC)
DECLARED = "description: What <b>we</b> try.\nsignals: {predictors: {gbm: 1.0}}\n"
COMMIT = {"git_commit": "0123456789abcdef", "git_dirty": False}


def equity() -> pl.DataFrame:
    """Two blocks of four subjects; `partial` was not traded in the second."""
    rng = np.random.default_rng(3)
    rows = []
    for fold, first in FOLDS.items():
        noise = rng.normal(0, 0.005, SESSIONS)
        for subject, drift in {"always_hold": None, "momentum": 0.001, "partial": 0.01, "ours": -0.001}.items():
            if subject == "partial" and fold != min(FOLDS):
                continue
            ret = np.zeros(SESSIONS) if drift is None else np.where(np.arange(SESSIONS) == 0, 0.0, noise + drift)
            rows += [(subject, fold, first + timedelta(days=i), float(r), 0.8, -0.2) for i, r in enumerate(ret)]
    return pl.DataFrame(
        rows, schema=["subject", "fold", "session", "ret", "gross_exposure", "net_exposure"], orient="row"
    )


def trades(name: str) -> pl.DataFrame:
    """One long over the split and one short, in the first block."""
    common = {"subject": name, "fold": min(FOLDS), "symbol": "A", "exit_reason": "take", "commission": 1.0}
    days = [date(2024, 1, 10), date(2024, 2, 1)]
    rows = [
        {**common, "trade_id": 0, "side": "BUY", "entry_session": days[0], "exit_session": days[1], "entry_price": 100.0,
         "exit_price": 55.0, "shares": 10.0, "pnl": 100.0, "decision_at": datetime(2024, 1, 9, 21, tzinfo=UTC)},
        {**common, "trade_id": 1, "side": "SELL", "entry_session": days[1], "exit_session": days[1], "entry_price": 55.0,
         "exit_price": 56.0, "shares": 20.0, "pnl": -20.0, "decision_at": datetime(2024, 1, 31, 21, tzinfo=UTC)},
    ]  # fmt: skip
    return pl.DataFrame(rows)


def market() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Daily bars of one symbol at 100, and at 50 from the split on."""
    days = [date(2024, 1, 2) + timedelta(days=i) for i in range(240)]
    closes = [100.0 if day < SPLIT else 50.0 for day in days]
    at = [datetime(d.year, d.month, d.day, 21, tzinfo=UTC) for d in days]
    prices = dict.fromkeys(("open", "high", "low", "close"), closes)
    bars = pl.DataFrame(
        {"symbol": "A", "interval": "1d", "session": days, "event_at": at, "known_at": at, **prices, "volume": 1000.0,
         "version": 1}
    )  # fmt: skip
    ex = datetime(2024, 1, 20, 5, tzinfo=UTC)
    actions = pl.DataFrame(
        {"symbol": ["A"], "kind": ["split"], "ex_date": [SPLIT], "event_at": [ex], "known_at": [ex], "ratio": [2.0],
         "amount": [0.0]}
    )  # fmt: skip
    return bars, actions


def evaluations(name: str) -> pl.DataFrame:
    """One block: hand-made figures of the whole, of two bins of confidence and of two regimes."""

    def row(part: str, level: str, metric: str, value: float, n: int = 100, spread: float | None = 0.1):
        low, high = (None, None) if spread is None else (value - spread, value + spread)
        return (name, min(FOLDS), "test", part, level, metric, value, low, high, n, 0.4)

    rows = [row("all", "", m, 0.5) for m in ("accuracy", "mcc", "log_loss", "hit_rate", "hit_rate_5d", "unparseable")]
    rows += [row("all", "", "n", 100.0, spread=None)]
    rows += [
        row("all", "", f"confusion_{a.lower()}_as_{b.lower()}", 30.0 if a == b else 10.0, spread=None)
        for a in ACTIONS
        for b in ACTIONS
    ]
    for level, said, happened, n in (("0.4-0.5", 0.45, 0.5, 90), ("0.7-0.8", 0.75, 0.6, 10)):
        rows += [row("confidence", level, "said", said, n), row("confidence", level, "happened", happened, n)]
    for level, margin, reward in (("0.00-0.05", 0.02, -0.1), ("0.20-0.25", 0.22, 0.3)):
        rows += [row("margin", level, "margin", margin), row("margin", level, "mean_reward", reward)]
    rows += [row("regime", level, "accuracy", 0.5) for level in ("bullish", "bearish")]
    return pl.DataFrame(rows, schema=EVALUATIONS, orient="row")


def importance(name: str) -> pl.DataFrame:
    """All features at once, on the first block's training window."""
    return pl.DataFrame(
        {"subject": [name], "fold": [min(FOLDS)], "kind": ["all"], "level": [""], "value": [0.004], "low": [0.003],
         "high": [0.007], "log_loss": [1.02], "base_log_loss": [1.03], "side_log_loss": [None], "base_side_log_loss": [None],
         "blocks": [5]}
    )  # fmt: skip


def made(name: str = "ours", predictors: tuple[str, ...] = (), **tables: pl.DataFrame | None) -> Subject:
    """A subject with every table but those that are given as None."""
    curve = equity().with_columns(pl.col("subject").replace("ours", name))
    counts = {"momentum": 40, "partial": 40, name: 2}
    kinds = dict.fromkeys(BASELINES, "baseline") | {name: "strategy" if predictors else "adapter"}
    judged = verdicts(curves(curve, counts), kinds, BASELINES, fit_trials(curve, dict.fromkeys(kinds, "h"), {}), 5)
    found = {
        "reports.verdicts": judged,
        "reports.backtest_equity": curve,
        "reports.backtest_trades": trades(name),
        "reports.evaluations": evaluations(name),
    } | {key.replace("__", "."): frame for key, frame in tables.items()}
    own = {table: frame for table, frame in found.items() if frame is not None}
    path = "models_registry/adapters/ours.yaml"
    return subject_of(name, "What <b>we</b> try.", DECLARED, path, predictors, own, market(), BASELINES, UNTIL)


def render(subject: Subject) -> str:
    return subject_html(subject, subject_provenance(subject, 7, COMMIT))


@pytest.fixture(scope="module")
def page() -> str:
    return render(made())


def test_the_first_screen_says_verdict_and_hindsight_before_any_figure(page):
    first = page[: page.index('id="equity-chart"')]
    assert "ours loses to momentum." in first and ">LOSES<" in first
    assert HINDSIGHT in first and "2 test blocks, one universe of 5 instruments" in first
    assert "BEATS is corrected for all subjects" in first and "LOSES is not" in first
    assert first.index(HINDSIGHT) < first.index('class="tiles"') < first.index('class="contents"')
    assert "snapshot 7 · commit 0123456789ab" in first


def test_a_page_needs_no_network_and_is_small(page):
    assert len(page.encode()) < 3_000_000
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    assert "<b>we</b>" not in page and "What &lt;b&gt;we&lt;/b&gt; try." in page


def test_every_chart_has_its_figure_and_every_link_its_section(page):
    assert set(re.findall(r'id="([^"]+)" class="chart"', page)) == set(figures_of(page))
    assert {"equity-chart", "rolling-chart", "reliability", "margin-chart", "trades-0-0"} <= set(figures_of(page))
    for name in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{name}"' in page


def test_the_same_rows_give_the_same_bytes(page):
    assert render(made()) == page
    assert subject_png(made()) == subject_png(made())


def test_what_is_absent_is_left_out(page):
    assert all(f'id="{name}"' in page for name in ("answers", "calibration", "reward", "slices", "trades", "outcomes"))
    bare = render(made(reports__evaluations=None, reports__backtest_trades=None))
    for name in ("answers", "calibration", "reward", "slices", "trades", "outcomes", "vetoes", "sensitivity", "statistics"):
        assert f'id="{name}"' not in bare
    assert set(re.findall(r'id="([^"]+)" class="chart"', bare)) == {"equity-chart", "rolling-chart"}


def test_a_strategy_points_at_the_answers_that_it_trades_on():
    text = render(made(predictors=("gbm", "sft"), reports__evaluations=None))
    assert "Answers of gbm" in text and 'href="gbm.html#answers"' in text and 'href="sft.html"' in text
    assert 'id="answers"' not in text and "Over the blocks of this page" not in text


def test_a_predictor_without_a_page_is_no_link():
    strategy = replace(made("strategy", ("gbm", "sft")), pageless=frozenset({"sft"}))
    text = render(strategy)
    assert 'href="gbm.html#answers"' in text and "Answers of sft" in text and 'href="sft.html' not in text


def test_a_strategy_shows_the_panels_of_each_predictor_as_they_are_on_the_predictors_own_page():
    rule = evaluations("rule").filter(pl.col("slice").is_in(["all", "regime"]))  # states no probability
    rows = pl.concat([evaluations("ours"), rule, evaluations("other")])
    strategy = made("strategy", ("ours", "rule"), reports__evaluations=rows, reports__importance=importance("ours"))
    shown, alone = predictor_sections(strategy), made(reports__importance=importance("ours"))
    assert [(s.name, s.title) for s in shown] == [
        ("answers-ours", "Answers of ours"), ("answers-rule", "Answers of rule")
    ]  # fmt: skip
    for panel in PANELS:
        own = panel(alone)
        assert own is not None and f"<h3>{own.title}</h3>" in shown[0].body and own.note in shown[0].body
        for name, figure in own.figures.items():
            assert shown[0].figures[f"ours-{name}"] == figure
    assert len(shown[0].figures) == 3 and not shown[1].figures
    assert "<h3>Confusion</h3>" in shown[1].body and "bullish" in shown[1].body and "Reward against" not in shown[1].body
    text = render(strategy)
    charts = re.findall(r'id="([^"]+)" class="chart"', text)
    assert {"ours-reliability", "ours-margin-chart", "ours-importance-chart"} <= set(charts)
    assert len(charts) == len(set(charts)) == len(figures_of(text)) and len(text.encode()) < 3_000_000
    assert text.index('id="answers-ours"') < text.index('id="answers-rule"') and 'href="#answers-rule"' in text


def test_answers_of_blocks_that_the_strategy_was_not_traded_on_are_left_out():
    other = evaluations("gbm").with_columns(fold=pl.lit("2030-01-02"))
    rows = pl.concat([evaluations("gbm"), other])
    strategy = made("strategy", ("gbm",), reports__evaluations=rows)
    assert strategy.predictors["gbm"]["reports.evaluations"].equals(evaluations("gbm"))
    assert predictor_sections(strategy)[0].body == predictor_sections(made("strategy", ("gbm",),
        reports__evaluations=evaluations("gbm")))[0].body  # fmt: skip


def test_who_trades_nothing_has_answers_and_no_account():
    rows = {"reports__verdicts": made().tables["reports.verdicts"].clear(), "reports__backtest_trades": None}
    models = pl.DataFrame({"adapter": ["ours"], "fold": [min(FOLDS)], "kind": ["adapter"], "method": ["reward"], "seed": [7],
                           "recipe_hash": ["h" * 64], "rows": [10], "tokens": [20], "snapshot": [3], "digest": ["d" * 64],
                           "path": ["models/ours"]})  # fmt: skip
    subject = made(reports__backtest_equity=equity().clear(), models__adapters=models, **rows)
    assert subject.record is None and subject.kind == "adapter" and not subject.baselines
    text = render(subject)
    assert headline(subject) == "ours trades nothing, so it has no verdict."
    assert 'id="answers"' in text and 'id="equity"' not in text and 'href="../models/ours/README.md"' in text


def test_a_model_that_judges_shows_the_figures_of_judging():
    rows = evaluations("ours").filter(metric="accuracy", slice="all").with_columns(metric=pl.lit("pair_accuracy"))
    assert "pair_accuracy" in MEANING
    section = answers_section(made(reports__evaluations=rows))
    assert section is not None and "pair accuracy" in section.body and section.note.startswith("Over all test blocks")


def test_a_verdict_without_an_equity_curve_is_an_error():
    with pytest.raises(ValueError, match="ours has a verdict and no rows in reports"):
        made(reports__backtest_equity=equity().filter(pl.col("subject") != "ours"))


def test_baselines_cover_every_session_and_the_strongest_is_first():
    assert list(made().baselines) == ["momentum", "always_hold"]  # cash counts as 0, partial lacks a block
    assert len(made().baselines["momentum"]) == 2 * (SESSIONS - 1)


def test_months_by_hand():
    days = [date(2024, 1, 30), date(2024, 1, 31), date(2024, 2, 1)]
    assert monthly_returns(days, np.array([0.1, -0.1, 0.02])) == pytest.approx({(2024, 1): -0.01, (2024, 2): 0.02})


@given(st.lists(st.floats(-0.2, 0.2), min_size=1, max_size=60))
def test_months_compound_to_the_whole(ret):
    days = [date(2023, 11, 1) + timedelta(days=3 * i) for i in range(len(ret))]
    whole = math.prod(1.0 + x for x in monthly_returns(days, np.array(ret)).values())
    assert whole == pytest.approx(math.prod(1.0 + x for x in ret))


def test_the_table_of_months_has_a_row_a_year():
    section = months_section(made())
    assert section is not None and section.body.count("<tr>") == 2 and "2024" in section.body
    assert months_section(made(reports__backtest_trades=None, reports__verdicts=idle())) is None


def test_shares_of_answers_show_who_follows_the_regime():
    rows = [("regime", level, "share_buy", share) for level, share in (("bullish", 1.0), ("bearish", 0.0))]
    shares = evaluations("ours").head(1).drop("slice", "level", "metric", "value").join(
        pl.DataFrame(rows, schema=["slice", "level", "metric", "value"], orient="row"), how="cross"
    )  # fmt: skip
    section = slices_section(made(reports__evaluations=shares.select(list(EVALUATIONS))))
    assert section is not None
    said = section.body.replace("\N{NO-BREAK SPACE}", " ")
    assert '<td class="word">bullish</td><td>100 %</td>' in said and '<td class="word">bearish</td><td>0 %</td>' in said


def test_exposure_of_many_sessions_is_the_mean_of_weeks():
    days = [date(2020, 1, 6) + timedelta(days=i) for i in range(LONG + 2)]  # a Monday first
    curve = pl.DataFrame({"subject": "ours", "fold": "2020-01-06", "session": days, "ret": 0.0}).with_columns(
        gross_exposure=pl.Series([0.0] * 4 + [1.0] * 4 + [0.5] * (LONG - 6)), net_exposure=pl.lit(0.0)
    )
    subject = made()
    record = replace(subject.record, ret=np.zeros(LONG + 1), sessions=tuple(days[1:]))
    section = rolling_section(replace(subject, record=record, baselines={}, tables={"reports.backtest_equity": curve}))
    assert section is not None and "means of weeks" in section.note
    gross = section.figures["rolling-chart"]["data"][-2]
    assert gross["y"][:2] == [50.0, 57.14] and gross["line"]["shape"] == "linear"  # 3 of 6 from the Tuesday; 1 and six halves


def test_a_gate_by_rank_shows_it_and_its_thresholds_over_blocks():
    row = {"veto": "confidence", "lowest": 0.4412, "highest": 0.63}
    assert _threshold(row, 0.95) == "rank 0.95: 0.44 to 0.63"
    assert _threshold(row | {"highest": 0.4412}, None) == "0.4412" and _threshold(row | {"lowest": None}, None) == "–"
    gated = replace(made(), declared="gates: {confidence: {least: 0.9}}")
    assert _rank(gated) == 0.9 and _rank(made()) is None
    assert _rank(replace(made(), declared="gates: {confidence: {least: 0.6, of: probability}}")) is None


def idle() -> pl.DataFrame:
    return made().tables["reports.verdicts"].with_columns(trades=pl.lit(0, pl.Int64))


def test_rolling_ratio_by_hand():
    ret = np.array([0.01, 0.03, 0.02, 0.02, 0.02])
    found = rolling_sharpe(ret, 2)
    assert found[0] is None and found[3] is None  # nothing moved over the last two
    assert found[1] == pytest.approx(0.02 / np.std([0.01, 0.03], ddof=1) * math.sqrt(252), abs=1e-3)


def test_trades_stand_in_the_basis_of_the_chart():
    """Bought at 100 before a split of two for one: 50 in the basis of the last day, where the close is 50."""
    section = price_section(made())
    assert section is not None
    figure = next(f for f in section.figures.values() if len(f["data"]) > 1)
    line, gained, lost = figure["data"]
    assert set(line["y"]) == {50.0}
    assert gained["y"] == [50.0, 55.0, None] and gained["marker"]["symbol"][0] == "triangle-up"
    assert lost["y"] == [55.0, 56.0, None] and lost["marker"]["symbol"][0] == "triangle-down"
    # The latest block comes first, and shows its price without a trade.
    assert len(section.figures["trades-0-0"]["data"]) == 1


def test_outcomes_by_hand():
    regimes = pl.DataFrame({"symbol": ["A"], "decision_at": [datetime(2024, 1, 9, 21, tzinfo=UTC)], "regime": ["bullish"]})
    section = outcome_section(made(features__regime=regimes))
    assert section is not None
    # 100 on 1,000 of notional are 1,000 bps; the short lost 20 on 1,100.
    assert '<td class="word">long</td><td>1</td><td>100\N{NO-BREAK SPACE}%</td><td>1000</td><td>0.1</td>' in section.body
    assert "<td>\N{MINUS SIGN}182</td>" in section.body
    assert "take-profit" in section.body and "bullish" in section.body and "not known" in section.body


def test_reliability_by_hand():
    rows = [("0.4-0.5", "said", 0.45), ("0.4-0.5", "happened", 0.5), ("0.7-0.8", "said", 0.75), ("0.7-0.8", "happened", 0.6)]
    bins = pl.DataFrame(rows, schema=["level", "metric", "value"], orient="row").with_columns(
        low=pl.col("value") - 0.1, high=pl.col("value") + 0.2, n=pl.lit(50), shuffled=pl.lit(0.3)
    )
    figure = reliability_figure(bins)
    assert figure is not None
    points = figure["data"][-1]
    assert (points["x"], points["y"]) == ([45.0, 75.0], [50.0, 60.0])
    assert (points["error_y"]["arrayminus"], points["error_y"]["array"]) == ([10.0, 10.0], [20.0, 20.0])
    assert reliability_figure(bins.clear()) is None and margin_figure(bins) is None
    # Too few for an interval: hollow, without a bar, and not smaller for it.
    none = pl.when(pl.col("level") == "0.4-0.5").then(None)
    part = reliability_figure(bins.with_columns(low=none.otherwise("low"), high=none.otherwise("high")))
    assert part is not None
    hollow, whole = part["data"][2:]
    assert (hollow["x"], hollow["marker"]["symbol"], hollow["marker"]["size"]) == ([45.0], "circle-open", [22.0])
    assert "error_y" not in hollow and whole["x"] == [75.0] and whole["error_y"]["array"] == [20.0]


def test_the_veto_log_adds_up_over_blocks():
    decisions = pl.DataFrame(
        {"subject": ["ours"] * 4, "fold": [min(FOLDS)] * 4, "action": ["BUY", "SELL", "BUY", "HOLD"],
         "fate": ["ordered", "veto.vix", "veto.vix", "none"], "disagreement": [False, True, False, True]}
    )  # fmt: skip
    log = pl.DataFrame(
        {"subject": ["ours"] * 2, "fold": list(FOLDS), "veto": ["vix"] * 2, "stage": ["veto"] * 2,
         "state": ["unavailable", "active"], "threshold": [30.0] * 2, "signals": [3, 4], "holds": [0, 5],
         "held_back": [0, 2], "missing": [3, 0], "window": [20] * 2, "least": [10] * 2, "cool_down": [5] * 2}
    )  # fmt: skip
    section = veto_section(made(predictors=("gbm", "sft"), reports__strategy_decisions=decisions, reports__veto_log=log))
    assert section is not None and "3 decisions wanted a trade" in section.note and "At 2 one predictor" in section.note
    assert "<td>2</td><td>66.7\N{NO-BREAK SPACE}%</td>" in section.body
    assert "unavailable in 1 of 2 blocks" in section.body and "<td>5</td><td>2</td><td>3</td>" in section.body


def test_a_cell_is_coloured_by_its_strength_and_not_beyond_it():
    text = heat_table(("", "a", "b", "c"), [("row", [("1", 5.0), ("-1", -0.5), ("", None)])])
    assert "var(--good) 60%" in text and "var(--bad) 30%" in text and "<td></td>" in text


def test_the_tail_target_beside_what_was_realised_over_all_blocks():
    """Blocks of 100 and 300 sessions: 10 % and 2 % are 4 % of all."""
    figures = {"tail_loss": (0.01, 0.01), "tail_target": (0.05, 0.05), "tail_realised": (0.10, 0.02),
               "tail_at_full_size": (0.2, 0.2), "tail_size": (0.5, 0.5), "sessions": (100.0, 300.0)}  # fmt: skip
    rows = [("ours", fold, name, value) for name, values in figures.items() for fold, value in zip(FOLDS, values, strict=True)]
    metrics = pl.DataFrame(rows, schema=["subject", "fold", "metric", "value"], orient="row")
    section = tail_section(made(reports__backtests=metrics))
    assert section is not None
    said = section.body.replace("\N{NO-BREAK SPACE}", " ")
    assert "at most 5.0 % of sessions lose more than 1.0 %" in said and "Realised: 4.0 %; at full size 20.0 %" in said
    assert "Above the target in 1 of 2 blocks" in said
    assert tail_section(made()) is None
