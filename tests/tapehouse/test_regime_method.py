"""Hidden states as a predictor: shares by hand, a planted market that it reads, and nothing from the future."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from tapehouse.folds import Fold
from tapehouse.hmm import from_rows
from tapehouse.methods import regime
from tapehouse.predictions import CHANCES
from tapehouse.training.manifest import files_digest
from tests.tapehouse.classical import KEYS, LABELS, POINTS, answers, fit, recipe
from tests.tapehouse.test_hmm import draw

STAMP = pl.Datetime("us", "UTC")
DAYS, PRICE = 900, "features.price"
OF = recipe("regime", params={"symbol": "MKT", "prior_rows": 20.0})


def day(index: int, hour: int = 22) -> datetime:
    return datetime(2019, 1, 1, hour, tzinfo=UTC) + timedelta(days=index)


FOLD = Fold(
    "f", day(0, 14), day(720, 14), day(740, 14), day(900, 14), day(910, 14), 0, day(740).date(), day(899).date(), day(660, 14)
)


@pytest.fixture(scope="module")
def inputs():
    """A market of planted states; one symbol falls in the volatile one, rises in the trend, and stays within the range."""
    rows, states = draw(DAYS, 11)
    stamps = pl.Series([day(i) for i in range(DAYS)]).cast(STAMP)
    of_market = {"symbol": "MKT", "interval": "1d"}
    market = pl.DataFrame({"decision_at": stamps, "ret_20d": rows[:, 0], "realised_vol_20d": np.exp(rows[:, 1])})
    market = market.with_columns(known_at=pl.col("decision_at"), **{name: pl.lit(value) for name, value in of_market.items()})
    points = pl.DataFrame({"symbol": "A", "interval": "1d", "decision_at": stamps, "close": 1.0, "state": states})
    known = stamps + timedelta(days=5)
    labels = points.select(
        *KEYS,
        side=pl.lit(0, pl.Int32),
        label=pl.Series(np.array([0, 1, -1])[states]).cast(pl.Int32),
        ret=pl.lit(0.0),
        label_end_at=known,
        label_known_at=known,
    )
    return {POINTS: points, LABELS: labels, PRICE: market}


def test_shares_are_counts_by_probability_and_the_base_rates(inputs, tmp_path):
    made = fit(OF, inputs, FOLD, tmp_path)
    assert made["rows"] == 655 and made["iterations"] > 1  # 660 days before the tail, the last five not yet known
    stored = load_file(tmp_path / "shares.safetensors")
    rows = inputs[POINTS][:655]
    truth = np.eye(3)[inputs[LABELS]["label"][:655].to_numpy() + 1]
    states = from_rows(json.loads((tmp_path / "states.json").read_text())["states"])
    weights = regime.probabilities(rows, inputs[PRICE], states, FOLD)
    by_hand = [(weights[:, [s]] * truth).sum(axis=0) + 20.0 * truth.mean(axis=0) for s in range(3)]
    assert np.allclose(stored["shares"], [row / row.sum() for row in by_hand])
    assert np.allclose(stored["base"], truth.mean(axis=0)) and list(made["base_rates"].values()) == stored["base"].tolist()


def test_it_reads_a_planted_market(inputs, tmp_path):
    fit(OF, inputs, FOLD, tmp_path)
    rows = answers(OF, inputs, FOLD, tmp_path)
    assert np.allclose(rows.select(CHANCES).to_numpy().sum(axis=1), 1)
    truth = rows.join(inputs[POINTS], on=KEYS, maintain_order="left")["state"].to_numpy()
    said = rows["action"].replace_strict({"HOLD": 0, "BUY": 1, "SELL": 2}, return_dtype=pl.Int64).to_numpy()
    assert (said == truth).mean() > 0.9


def test_an_answer_knows_nothing_of_later_days_and_a_fit_nothing_of_the_tail(inputs, tmp_path):
    for name, last in (("a", DAYS), ("b", 660)):
        kept = pl.int_range(pl.len()) < last
        changed = inputs[PRICE].with_columns(ret_20d=pl.when(kept).then("ret_20d").otherwise(pl.col("ret_20d") * 9 + 1))
        labels = inputs[LABELS].with_columns(label=pl.when(pl.int_range(pl.len()) < last - 5).then("label").otherwise(1))
        fit(OF, inputs | {PRICE: changed, LABELS: labels}, FOLD, tmp_path / name)
    assert files_digest(tmp_path / "a") == files_digest(tmp_path / "b")
    cut = day(800)
    late = pl.col("decision_at") > cut
    changed = inputs[PRICE].with_columns(ret_20d=pl.when(late).then(5.0).otherwise("ret_20d"))
    both = [answers(OF, inputs | {PRICE: market}, FOLD, tmp_path / "a") for market in (inputs[PRICE], changed)]
    assert both[0].filter(~late).equals(both[1].filter(~late)) and not both[0].equals(both[1])


def test_too_short_a_market_leaves_the_base_rates(inputs, tmp_path):
    short = inputs | {PRICE: inputs[PRICE].filter(pl.col("decision_at") > day(600))}
    made = fit(OF, short, FOLD, tmp_path)
    assert made["iterations"] == 0
    rows = answers(OF, short, FOLD, tmp_path).select(CHANCES).unique()
    assert rows.rows() == [tuple(made["base_rates"].values())]


def test_a_market_that_is_not_there_is_refused(inputs, tmp_path):
    of = recipe("regime", params={"symbol": "SPX"})
    with pytest.raises(ValueError, match=r"params\.symbol: features\.price has no 'SPX'; there are \['MKT'\]"):
        fit(of, inputs, FOLD, tmp_path)
