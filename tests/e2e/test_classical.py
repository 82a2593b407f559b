"""Classical recipes from the declared files to predictions, and a search, on twenty months of the real packaged data."""

import hashlib
import re
from datetime import date

import polars as pl
import pytest
import yaml
from filelock import FileLock

from tapehouse.declared_trials import declared_trials
from tapehouse.errors import TapehouseError
from tapehouse.feature_matrix import labelled
from tapehouse.lineage import stale as stale_of
from tapehouse.reproduce import reproduce
from tapehouse.trials import GRAIN, fit_trials, stored_trials
from tapehouse.tuning_runs import tune
from tests.house import House, copy_project

NAMES = ("linear", "regime", "gbm_shuffled", "auditor")
FOLDS = (
    "{min_train_sessions: 260, test_sessions: 40, min_test_sessions: 30, validation_sessions: 40, count: 2,\n"
    " cross_validation: {tuning: {groups: 3, embargo_sessions: 12},\n"
    "  paths: {inside: span, groups: 3, held_out: 2, embargo_sessions: 12}}}\n"
)


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> House:
    """Everything that the predictions of the classical recipes need, made once."""
    made = House(copy_project(tmp_path_factory.mktemp("classical"), date(2003, 9, 1), date(2005, 5, 1), FOLDS))
    wanted = {f"models.predictions.{name}" for name in (*NAMES, "gbm")}
    made.refresh(wanted | {a for name in wanted for a in made.project.ancestors(name)} | {"models.splits"})
    return made


def test_every_fold_has_predictions_of_each_and_nothing_is_stale(house):
    rows = house.frame("models.predictions")
    folds = list(house.project.folds)
    assert len(folds) == 2
    counts = rows.group_by("adapter", "fold", "split").len()
    assert counts.height == (len(NAMES) + 1) * 2 * 2 and counts["len"].min() > 50
    for fold in folds:  # every recipe answers the same decisions
        of_fold = rows.filter(fold=fold).group_by("adapter").agg(pl.struct("symbol", "decision_at", "split").sort())
        assert of_fold["symbol"].n_unique() == 1
    fitted = house.frame("models.adapters")
    assert fitted.height == (len(NAMES) + 1) * 2 and fitted["rows"].min() > 300
    assert all((house.settings.root / path).is_dir() for path in fitted["path"])
    # The auditor takes trades of gbm or leaves them.
    both = rows.filter(adapter="auditor").join(
        rows.filter(adapter="gbm"), on=["fold", "symbol", "interval", "decision_at"], suffix="_gbm"
    )
    taken = both.filter(pl.col("action") != "HOLD")
    assert taken["action"].equals(taken["action_gbm"])


def test_strategies_on_them_trade_every_fold_and_every_signal_has_a_fate(house):
    names = ("audited", "reckless_shuffled")
    wanted = {f"reports.backtests.{name}" for name in names}
    house.refresh(wanted | {a for name in wanted for a in house.project.ancestors(name)})
    found = (
        house.frame("reports.backtests")
        .filter(pl.col("subject").is_in(names))
        .pivot("metric", index=["subject", "fold"], values="value")
    )
    assert found.height == 2 * 2 and found["sessions"].is_between(30, 40).all() and found["trades"].sum() > 20
    decisions, log = house.frame("reports.strategy_decisions"), house.frame("reports.veto_log")
    fates = decisions.group_by("subject", "fold").agg(
        gated=pl.col("fate").str.starts_with("gate.").sum(),
        vetoed=pl.col("fate").str.contains(r"^(veto|guard)[.]").sum(),
        wanted=(pl.col("action") != "HOLD").sum(),
    )
    held = log.group_by("subject", "fold").agg(pl.col("held_back").sum())
    both = found.join(fates, on=["subject", "fold"], suffix="_of_fates").join(held, on=["subject", "fold"])
    for row in both.iter_rows(named=True):
        assert (row["gated"], row["vetoed"]) == (row["gated_of_fates"], row["vetoed_of_fates"])
        assert row["held_back"] == row["gated"] + row["vetoed"] and row["wanted"] == row["signals"] + row["gated"]
    states = dict(log.filter(subject="audited").select("veto", "state").unique().iter_rows())
    assert (states["vix"], states["hours"], states["resistance"]) == ("unavailable", "not_applicable", "active")
    # The auditor is one of its gates: what went to the market is what it wanted, too.
    audit = house.frame("models.predictions").filter(adapter="auditor").rename({"action": "audited"})
    keys = ["fold", "symbol", "interval", "decision_at"]
    ordered = decisions.filter(subject="audited", fate="ordered").join(audit, on=keys, how="left")
    assert ordered.height and ordered["action"].equals(ordered["audited"], check_names=False)
    equity = house.frame("reports.backtest_equity").filter(pl.col("subject").is_in(names)).sort("session")
    assert (equity.group_by("subject", "fold", maintain_order=True).last()["gross_exposure"] == 0.0).all()
    # Each account was filed as a trial when it was made: the very row that is made of its equity.
    settings = declared_trials(house.home).settings
    filed = stored_trials(house.settings.root).filter(pl.col("subject").is_in(names), kind="fit", state="complete")
    assert fit_trials(equity, settings, {}).sort(GRAIN)["trial"].to_list() == filed.sort(GRAIN)["trial"].to_list()


def test_what_is_quickly_fitted_is_examined_and_the_rest_is_not(house):
    assert {"reports.importance.linear", "reports.paths.regime", "reports.paths.momentum"} <= set(house.project.assets)
    for name in ("importance.auditor", "paths.auditor", "importance.regime", "paths.sft_orders", "importance.momentum"):
        assert f"reports.{name}" not in house.project.assets
    wanted = {"reports.importance.linear", "reports.paths.regime", "reports.paths.linear", "reports.adversarial"}
    house.refresh(wanted | {a for name in wanted for a in house.project.ancestors(name)})
    importance, paths, adversarial = (house.frame(f"reports.{name}") for name in ("importance", "paths", "adversarial"))
    assert importance.filter(kind="all")["fold"].sort().to_list() == list(house.project.folds)
    assert importance["n"].min() > 300 and importance["log_loss"].is_between(0.8, 1.3).all()
    whole = paths.filter(part="all")
    assert sorted(whole.select("subject", "path").rows()) == [(s, p) for s in ("linear", "regime") for p in (0, 1)]
    assert whole["sessions"].is_between(400, 420).all() and whole["trades"].min() > 20
    assert adversarial.filter(kind="all")["auc"].is_between(0, 1).all() and adversarial["fold"].n_unique() == 2
    for name in wanted:  # the same rows again
        assert not any(made.changed for outcome in house.make(name).outputs for made in outcome.made), name


def test_a_recipe_that_is_edited_makes_its_twin_and_its_auditor_stale(house):
    house.edit("models_registry/adapters/gbm.yaml", "n_estimators: 60", "n_estimators: 50")
    project = house.reload()
    stale = {s.asset for s in stale_of(project, house.state(), None)}
    assert {"models.gbm", "models.gbm_shuffled", "models.auditor"} <= stale
    assert not {"models.linear", "models.regime"} & stale


def test_a_search_in_the_training_window_of_a_fold(house):
    fold = max(house.project.folds)
    folder, found = tune(house.project, house.warehouse, "linear", fold, trials=3)
    assert found.counts == {"complete": 3} and found.own is not None and found.objective >= found.own
    assert -1.2 < found.objective < -0.8  # near the log of a third, as labels that are nearly noise
    filed = stored_trials(house.settings.root).filter(kind="tuning")
    assert filed.height == 3 and set(filed["fold"]) == {fold}
    # What is searched on ends with the fitted rows.
    points, labels = (
        pl.read_parquet(folder / "inputs" / f"{n}.parquet") for n in ("features.decision_points", "labels.triple_barrier")
    )
    known = labelled(points, labels, house.project.folds[fold])["label_known_at"].max()
    assert known < house.project.folds[fold].validation_start
    assert tune(house.project, house.warehouse, "linear", fold, trials=3)[1] == found  # nothing left to do
    for name in ("search.lock", "0.lock"):  # of a search, and of a process that has outlived one
        with FileLock(folder / name), pytest.raises(TapehouseError, match="another search of this study is running"):
            tune(house.project, house.warehouse, "linear", fold, trials=4)


def test_what_cannot_be_searched_is_refused(house):
    with pytest.raises(TapehouseError, match=r"momentum\.yaml: no classical recipe with a search section; those are \["):
        tune(house.project, house.warehouse, "momentum", max(house.project.folds))
    with pytest.raises(TapehouseError, match="--fold 2004: no such fold; there are"):
        tune(house.project, house.warehouse, "linear", "2004")


def test_a_model_is_made_again_at_its_snapshot_from_the_recipe_of_its_manifest(house):
    fold = list(house.project.folds)[-1]
    found = reproduce(house.project, house.warehouse, "gbm", fold)
    assert found.identical and found.holds and found.host == ()
    stored = house.frame("models.adapters").filter(adapter="gbm", fold=fold).row(0, named=True)
    assert (found.snapshot, found.digest) == (stored["snapshot"], stored["digest"])
    # What the file says today does not matter, nor what has come in since.
    file = house.home / "models_registry/adapters/gbm.yaml"
    text = file.read_text()
    try:
        file.write_text(text.replace("max_depth: 2", "max_depth: 4"))
        house.reload()
        assert reproduce(house.project, house.warehouse, "gbm", fold).identical
        # Another model under its name is seen: the manifest now says another depth.
        manifest = house.settings.root / stored["path"] / "manifest.json"
        said = manifest.read_text()
        manifest.write_text(said.replace('"max_depth": 2', '"max_depth": 4'))
        assert not reproduce(house.project, house.warehouse, "gbm", fold).holds
        manifest.write_text(said)
    finally:
        file.write_text(text)
        house.reload()
    with pytest.raises(TapehouseError, match=r"models.adapters: no gbm of fold 1999-01-01; there are .*gbm"):
        reproduce(house.project, house.warehouse, "gbm", "1999-01-01")


def test_a_fit_that_fails_is_a_row_of_trials(house):
    fold = max(house.project.folds)
    recipe = house.write(
        "models_registry/adapters/unknown.yaml",
        """
        method: linear
        description: On a feature that there is not.
        params: {features: [momentum_3d]}
        """,
    )
    try:
        house.reload()
        with pytest.raises(ValueError, match="no feature"):
            house.make("models.unknown", [fold])
        failed = stored_trials(house.settings.root).filter(subject="unknown")
        assert failed.select("fold", "kind", "state").rows() == [(fold, "fit", "failed")]
        assert "no feature ['momentum_3d']" in failed["reason"][0]
    finally:
        recipe.unlink()
        house.reload()


def test_a_recipe_and_a_strategy_have_pages_of_their_own(house):
    """Last, since all that is not needed for them is taken out of the project: verdicts wait for every backtest."""
    for folder, kept in (("adapters", {*NAMES, "gbm"}), ("strategies", {"audited"})):
        for file in (house.home / "models_registry" / folder).glob("*.yaml"):
            if file.stem not in kept:
                file.unlink()
    rules = house.home / "models_registry/judging.yaml"
    rules.write_text(yaml.safe_dump(yaml.safe_load(rules.read_text()) | {"baselines": ["gbm_shuffled", "linear"]}))
    project = house.reload()
    wanted = {"reports.pages.gbm", "reports.pages.audited"}
    house.refresh(wanted | {a for name in wanted for a in project.ancestors(name)})
    rows = {row["page"]: row for row in house.frame("reports.pages").iter_rows(named=True)}
    assert set(rows) == {"gbm", "audited"}
    pages = {name: (house.settings.root / row["path"]).read_bytes() for name, row in rows.items()}
    for name, page in pages.items():
        assert rows[name]["digest"] == hashlib.sha256(page).hexdigest() and rows[name]["bytes"] == len(page) < 3_000_000
        assert (house.settings.reports_dir / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    sections = {name: set(re.findall(r'<section id="([\w-]+)"', page.decode())) for name, page in pages.items()}
    account = {"equity", "statistics", "rolling", "months", "trades", "outcomes", "sensitivity", "provenance"}
    assert sections["gbm"] >= account | {"answers", "calibration", "reward", "slices", "importance", "adversarial", "paths"}
    assert sections["audited"] >= account | {"vetoes", "answers-gbm", "answers-auditor"}
    assert b'id="gbm-reliability"' in pages["audited"] and b'id="gbm-importance-chart"' in pages["audited"]
    assert b'href="gbm.html"' in pages["audited"]
