"""What is fitted for a fold, and what follows from it: no row known before a cut depends on what was known after it."""

import random
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from tapehouse.errors import TapehouseError
from tapehouse.leakage import around, find_leaks, mutate
from tapehouse.scratch import needed_months, read_raw, rebuild
from tests.house import House, copy_project

FITTED = [
    "models.fits",
    "models.regimes",
    "models.signal_classes",
    "models.scaled",
    "models.fractional",
    "models.sample_weights",
]
TRAINED_UNTIL = datetime(2004, 11, 19, 14, 30, tzinfo=UTC)
CUTS = [TRAINED_UNTIL, datetime(2005, 2, 24, 21, 5, tzinfo=UTC)]
DRAWN = [TRAINED_UNTIL + timedelta(seconds=random.Random(seed).randrange(190 * 86_400)) for seed in range(4)]
# Every row of the fold is smoothed over the whole of it: the backward pass has seen the end of the test block.
SMOOTHED = {
    "assets/models/smoothed.py": '''
        """One row per (fold, interval, decision_at): the likeliest state of the market, seen from the end of the fold."""

        from tapehouse.tables import reads, table


        @table(reads("features.price", window="fold"), reads("models.fits"))
        def build(b):
            import numpy as np
            import polars as pl
            from hmmlearn.hmm import GaussianHMM

            from tapehouse.fits import values_of
            from tapehouse.hmm import INPUTS, KIND, from_rows, inputs

            market = inputs(b.read("features.price").filter(symbol="^GSPC"))
            states = from_rows(values_of(b.read("models.fits"), b.fold, KIND))
            model = GaussianHMM(3, covariance_type="full", init_params="")
            model.startprob_, model.transmat_ = np.full(3, 1 / 3), states.transition
            model.means_, model.covars_ = states.means, states.covariances
            smoothed = model.predict_proba(market.select(INPUTS).to_numpy())[:, 1]
            end = pl.lit(b.fold.train_end).cast(pl.Datetime("us", "UTC"))
            return market.select(
                fold=pl.lit(b.fold.id),
                interval=pl.lit("1d"),
                decision_at="decision_at",
                known_at=pl.max_horizontal("known_at", end),
                p_trend=pl.Series(smoothed),
            )
        ''',
    "checks/models/smoothed.yaml": """
        partition: fold
        cutoff: known_at
        columns:
          fold: {type: varchar, doc: "Fold."}
          interval: {type: varchar, doc: "Length of the bars."}
          decision_at: {type: timestamptz, doc: "When it was decided, it says."}
          known_at: {type: timestamptz, doc: "When it was known, it says."}
          p_trend: {type: double, doc: "Smoothed probability."}
        """,
    # Quantiles of all scores there are.
    "assets/models/hindsight.py": '''
        """One row per (fold, kind, key): the median score of the whole span."""

        from tapehouse.tables import reads, table


        @table(reads("labels.signal", window="all"))
        def build(b):
            from tapehouse.fits import Fitted, fit_rows

            scores = b.read("labels.signal")["score"].drop_nulls()
            return fit_rows(b.fold, [Fitted("median", {"score": scores.median()}, len(scores))])
        ''',
}


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """The real declarations with leaks beside them; raw tables alone are made, for one fold tested from December 2004 on."""
    house = House(copy_project(tmp_path_factory.mktemp("folds"), date(2003, 9, 1), date(2005, 7, 1)))
    checks = (house.home / "checks/models/fits.yaml").read_text().split("contract:")[0]
    for path, text in (SMOOTHED | {"checks/models/hindsight.yaml": checks}).items():
        house.write(path, text)
    house.reload()
    (fold,) = house.project.folds.values()
    assert fold.train_end == TRAINED_UNTIL
    for name in ("raw.instruments", "raw.bars", "raw.corporate_actions"):
        house.make(name)
    return house


@pytest.fixture(scope="module")
def raw(house):
    with house.warehouse.reading() as (cursor, _):
        return read_raw(cursor, house.project, FITTED, *around(house.project, FITTED, CUTS[1]))


@pytest.mark.parametrize("cut", [*CUTS, *DRAWN], ids=str)
def test_fits_and_what_follows_from_them_know_nothing_of_later(house, raw, cut):
    assert [str(leak) for leak in find_leaks(house.project, raw, FITTED, cut, 3)] == []


def test_smoothed_probabilities_and_hindsight_are_caught(house, raw):
    planted = ["models.smoothed", "models.hindsight"]
    leaks = find_leaks(house.project, raw, planted, CUTS[1], 3)
    assert {(leak.table, leak.column) for leak in leaks} >= {("models.smoothed", "p_trend"), ("models.hindsight", "value")}


def test_another_future_does_change_what_it_may(house, raw):
    """The proof would be empty if the fits did not follow their rows, or the regimes theirs."""
    (fold,) = house.project.folds
    changed = rebuild(house.project, mutate(raw, datetime(2004, 6, 1, tzinfo=UTC), 3), ["models.fits"], fold, fold)[
        "models.fits"
    ]
    before = rebuild(house.project, raw, ["models.regimes"], fold, fold)
    kinds = before["models.fits"].join(changed, on=["kind", "key", "value"], how="anti")["kind"]
    assert set(kinds) >= {"hmm", "signal_quantile", "scaler", "fractional_p_value"}
    after = rebuild(house.project, mutate(raw, CUTS[1], 3), ["models.regimes"], fold, fold)["models.regimes"]
    late = pl.col("known_at") > CUTS[1]
    assert not after.filter(late).equals(before["models.regimes"].filter(late))


def test_a_fold_reads_from_the_start_of_training_to_the_end_of_its_test(house):
    project = house.project
    (fold,) = project.folds.values()
    asset = project.assets["models.regimes"]
    assert asset.by == "adapter_folds"  # although its rows have a time
    points, price, _ = asset.reads
    assert project.window(points, asset, fold.id) == (fold.train_start, fold.test_end)
    assert project.window(price, asset, fold.id) == (project.settings.universe.start, fold.test_end)  # cut at the span
    needed = needed_months(project, ["models.regimes"], fold.id, fold.id)
    assert needed["models.fits"] == (fold.id, fold.id)
    assert needed["labels.signal"] == ("2003-09-01", "2004-11-01")
    assert needed["features.decision_points"] == ("2003-09-01", "2005-06-01")


def test_what_is_made_by_different_cadences_is_not_compared_at_once(house):
    with pytest.raises(TapehouseError, match="made by"):
        around(house.project, ["models.fits", "features.price"], CUTS[0])
    with pytest.raises(TapehouseError, match="no fold's training ends before"):
        around(house.project, ["models.fits"], datetime(2004, 1, 1, tzinfo=UTC))


def test_a_table_must_say_by_when_its_rows_were_known(house, raw):
    doc = house.project.tables["models.hindsight"].doc
    house.project.tables["models.hindsight"].doc = doc.model_copy(update={"cutoff": None})
    try:
        with pytest.raises(TapehouseError, match=r"checks/models/hindsight\.yaml: by when a row was known is not said"):
            find_leaks(house.project, raw, ["models.hindsight"], CUTS[1], 3)
    finally:
        house.project.tables["models.hindsight"].doc = doc
