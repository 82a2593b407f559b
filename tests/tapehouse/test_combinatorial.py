"""Combinatorial paths: each covers the span once, each account is the backtest of a model that never saw what it trades."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from tapehouse.backtest.config import BacktestConfig
from tapehouse.backtest.run import run_backtest
from tapehouse.combinatorial import PATHS, WHOLE, path_rows
from tapehouse.declared_splits import declared_splits, splits_frame
from tapehouse.errors import TapehouseError
from tapehouse.folds import CrossValidation, walk_forward
from tapehouse.methods import gbm
from tapehouse.metrics import sharpe
from tapehouse.predictions import likeliest
from tapehouse.training.manifest import files_digest
from tests.tapehouse.classical import ACTIONS, BARS, KEYS, LABELS, POINTS, SPEC, calendar, make_inputs, recipe

SCHEME = "paths"
DECLARED = SPEC.model_copy(
    update={"cross_validation": {SCHEME: CrossValidation(inside="span", groups=4, held_out=2, embargo_sessions=2)}}
)
BLOCKS = splits_frame(walk_forward(calendar(), DECLARED), DECLARED, calendar())
CONFIG = BacktestConfig()
AT_MARKET = {"limit_price": pl.lit(None, pl.Float64), "limit_valid_sessions": pl.lit(None, pl.Int32)}
GBM = recipe("gbm", params={"n_estimators": 5, "features": ["momentum_30d", "noise"]}, seed=3)


@pytest.fixture(scope="module")
def inputs():
    return make_inputs()


@pytest.fixture(scope="module")
def made(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return path_rows(GBM, inputs, BLOCKS, SCHEME, calendar(), CONFIG, folder), folder


def group_of(inputs: dict[str, pl.DataFrame], number: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sessions and decision points of a group."""
    start, end = BLOCKS.filter(scheme=SCHEME, block=number).select("start_at", "end_at").row(0)
    days = calendar().filter(pl.col("open_at").is_between(start, end, closed="left"))
    return days, inputs[POINTS].filter(pl.col("decision_at").is_between(start, end, closed="left"))


def test_every_path_has_each_group_once_from_a_model_fitted_without_it(made):
    rows, _ = made
    assert rows.schema == pl.Schema(PATHS)
    assert rows["path"].unique().to_list() == [0, 1, 2]  # C(3, 1) of four groups, two held out
    parts = rows.filter(pl.col("part") != WHOLE)
    for _, path in parts.group_by("path"):
        assert path["part"].sort().to_list() == ["0", "1", "2", "3"]
    assert all(part in split.split("+") for part, split in parts.select("part", "split").iter_rows())
    assert parts.select("part", "split").n_unique() == 12  # six splits of two groups, none of them twice
    whole = rows.filter(part=WHOLE)
    assert whole["split"].null_count() == 3
    for path, gained, sessions, trades in whole.select("path", "return", "sessions", "trades").iter_rows():
        own = parts.filter(path=path)
        assert gained == pytest.approx(float(np.prod(1 + own["return"].to_numpy())) - 1, rel=1e-12)
        assert (sessions, trades) == (own["sessions"].sum(), own["trades"].sum())
    assert whole["sessions"].unique().to_list() == [120 - 4]  # nothing is earned on the first of each group


def test_an_account_is_the_backtest_of_the_model_of_its_split(made, inputs, tmp_path):
    labels = inputs[LABELS].filter(side=0)
    points = inputs[POINTS].join(labels.select(*KEYS, "label", "label_end_at"), on=KEYS).sort("decision_at", "symbol")
    split = next(s for s in declared_splits(BLOCKS, points, SCHEME) if s.name == "1+3")
    train = points[split.train]
    days, own = group_of(inputs, 3)
    # Purged by hand: every label of the training rows ends before the first decision of a group held out, or starts after it.
    for number in (1, 3):
        first, last = (edge(group_of(inputs, number)[1]["decision_at"]) for edge in (pl.Series.min, pl.Series.max))
        assert train.filter((pl.col("label_end_at") >= first) & (pl.col("decision_at") <= last)).is_empty()
    end = labels["label_known_at"].max() + timedelta(days=1)
    fold = replace(
        walk_forward(calendar(), DECLARED)[0],
        train_end=end,
        test_start=end,
        test_end=end,
        embargo_end=end,
        validation_start=None,
    )
    known = inputs[LABELS].join(train.select(KEYS), on=KEYS, how="semi")
    gbm.fit(GBM, {POINTS: inputs[POINTS].join(train, on=KEYS, how="semi"), LABELS: known}, fold, tmp_path)
    answers = gbm.predict(GBM, {POINTS: own}, fold, tmp_path)
    answers = answers.with_columns(action=likeliest(answers), **AT_MARKET)
    result = run_backtest(answers, own, inputs[BARS], inputs[ACTIONS], days, CONFIG)
    row = made[0].filter(split="1+3", part="3").row(0, named=True)
    ret = result.equity["ret"].to_numpy()[1:]
    assert row["trades"] == result.trades.height >= 5
    assert row["sharpe"] == sharpe(ret) and row["sessions"] == len(ret)
    assert row["return"] == pytest.approx(result.equity["equity"][-1] / CONFIG.initial_cash - 1, rel=1e-12)
    assert (row["first_session"], row["last_session"]) == (days["session"][1], days["session"][-1])


def test_what_happened_in_a_group_is_unknown_to_the_models_that_trade_it(made, inputs, tmp_path):
    _, folder = made
    inside = pl.col("decision_at").is_in(group_of(inputs, 1)[1]["decision_at"].implode())
    turned = inputs[LABELS].with_columns(label=pl.when(inside).then(-pl.col("label")).otherwise("label"))
    path_rows(GBM, inputs | {LABELS: turned}, BLOCKS, SCHEME, calendar(), CONFIG, tmp_path)
    for split in sorted(path.name for path in folder.iterdir()):
        same = files_digest(folder / split) == files_digest(tmp_path / split)
        assert same is ("1" in split.split("+")), split


def test_beside_rows_a_model_is_not_shown_the_market_of_the_groups_held_out(inputs, tmp_path):
    # The hidden states are of a market's own series: in a group held out another market may stand.
    rng = np.random.default_rng(5)
    hours = pl.DataFrame({"before": [timedelta(hours=h) for h in range(4)]})  # four rows a session, enough to fit states on
    market = calendar().join(hours, how="cross").select(decision_at=pl.col("close_at") - pl.col("before")).sort("decision_at")
    market = market.with_columns(
        symbol=pl.lit("M"),
        interval=pl.lit("1d"),
        known_at=pl.col("decision_at"),
        ret_20d=pl.Series(rng.normal(0, 0.03, 480)),
        realised_vol_20d=pl.Series(np.exp(rng.normal(-2, 0.4, 480))),
    )
    _, points = group_of(inputs, 3)
    held = pl.col("decision_at") >= points["decision_at"].min()
    other = market.with_columns(ret_20d=pl.when(held).then(-5.0 * pl.col("ret_20d")).otherwise("ret_20d"))
    of = recipe("regime", params={"symbol": "M"})
    tables = [inputs | {"features.price": frame} for frame in (market, other)]
    for number, shown in enumerate(tables):
        path_rows(of, shown, BLOCKS, SCHEME, calendar(), CONFIG, tmp_path / str(number))
    for split in ("0+1", "0+3", "1+3", "2+3"):
        same = files_digest(tmp_path / "0" / split) == files_digest(tmp_path / "1" / split)
        assert same is ("3" in split.split("+")), split


def test_a_rule_has_one_path_and_one_that_never_trades_no_ratio(inputs, tmp_path):
    rule = path_rows(recipe("momentum"), inputs, BLOCKS, SCHEME, calendar(), CONFIG, tmp_path)
    assert rule["path"].unique().to_list() == [0] and rule["split"].null_count() == 5
    days, own = group_of(inputs, 2)
    up = pl.col("momentum_30d") > 0
    bought = own.select(*KEYS, action=pl.when(up).then(pl.lit("BUY")).otherwise(pl.lit("SELL"))).with_columns(**AT_MARKET)
    result = run_backtest(bought, own, inputs[BARS], inputs[ACTIONS], days, CONFIG)
    assert rule.filter(part="2")["sharpe"].item() == sharpe(result.equity["ret"].to_numpy()[1:])
    still = path_rows(recipe("always_hold"), inputs, BLOCKS, SCHEME, calendar(), CONFIG, tmp_path)
    assert still["sharpe"].null_count() == 5 and still["trades"].sum() == 0 and still["return"].to_list() == [0.0] * 5


def test_what_is_listed_later_divides_nothing_before(inputs, tmp_path):
    """A symbol whose first bar and decision are of the last session, after which nothing trades, or one that never comes."""
    days, points = group_of(inputs, 3)
    late, last = points["symbol"].max(), days[-1]
    at_last = {POINTS: pl.col("decision_at") >= last["close_at"].item(), BARS: pl.col("session") == last["session"].item()}
    found = []
    for known in (dict.fromkeys(at_last, pl.lit(False)), at_last):
        own = {name: inputs[name].filter((pl.col("symbol") != late) | comes) for name, comes in known.items()}
        rows = inputs | own
        rows[LABELS] = inputs[LABELS].join(rows[POINTS].select(KEYS), on=KEYS, how="semi")
        found.append(path_rows(recipe("momentum"), rows, BLOCKS, SCHEME, calendar(), CONFIG, tmp_path))
        assert rows[POINTS].filter(symbol=late).height == len(found) - 1
    assert found[0]["trades"].min() > 0 and found[0].equals(found[1])


def test_the_same_again_to_the_bit(made, inputs, tmp_path):
    assert path_rows(GBM, inputs, BLOCKS, SCHEME, calendar(), CONFIG, tmp_path).equals(made[0])


def test_a_scheme_without_every_choice_of_its_groups_is_refused(inputs, tmp_path):
    with pytest.raises(TapehouseError, match=r"models\.splits: no scheme 'pathes' of fold 'span'"):
        path_rows(GBM, inputs, BLOCKS, "pathes", calendar(), CONFIG, tmp_path)
    some = BLOCKS.filter(pl.col("split") != "0+2")
    with pytest.raises(TapehouseError, match=r"scheme 'paths' has 5 splits, and not every choice of 2 of 4 groups"):
        path_rows(GBM, inputs, some, SCHEME, calendar(), CONFIG, tmp_path)
