"""What is made next: selections and waves."""

import pytest

from tapehouse.declarations import load_project
from tapehouse.errors import TapehouseError
from tapehouse.lineage import Made, Stale, stale
from tapehouse.planning import Wave, next_wave, plan, select, shared_out, trains_next
from tapehouse.project import ONCE
from tapehouse.settings import load_settings
from tests.house import ROOT, TOY_MONTHS, TRAINED, TRAINED_CHECKS

JAN, FEB, MAR, APR = TOY_MONTHS[:4]


@pytest.fixture(scope="module")
def project():
    """The real project as it is declared."""
    return load_project(load_settings(ROOT))


FED = {f"{p.parent.name}.{p.stem}" for p in (ROOT / "assets").glob("*/*.py") if "rejects=True" in p.read_text()}
DECLARED = [path.stem for folder in ("adapters", "strategies") for path in (ROOT / "models_registry" / folder).glob("*.yaml")]
PAGES = {f"reports.pages.{name}" for name in DECLARED}  # each shows the baselines beside its subject
SELECTIONS = {
    "features/price": {"features.price"},
    "features.price": {"features.price"},
    "raw/quarantine/*, raw/bars": {"raw.bars", *FED},  # an asset is named by each table that it writes
    "+staging/bars": {"staging.bars", "raw.bars"},
    "+features/price": {"features.price", "raw.bars", "raw.corporate_actions", "staging.bars"},
    "reports/leaderboard+": {"reports.leaderboard", "reports.pages"},
    "models/predictions/gbm": {"models.predictions.gbm"},
    "reports/backtest_equity/gbm": {"reports.backtests.gbm"},  # one asset writes three tables
    "models/gbm, models/momentum": {"models.gbm", "models.momentum"},
    " models/always_hold+ , raw/instruments ": {
        "raw.instruments",
        "models.always_hold",
        "models.predictions.always_hold",
        "reports.evaluations.always_hold",
        "reports.backtests.always_hold",
        "reports.trials",
        "reports.verdicts",
        "reports.leaderboard",
        "reports.statistics",
        "reports.differences",
        "reports.pages",
        *PAGES,
        "models.champions",
    },
}


@pytest.mark.parametrize("selection", SELECTIONS)
def test_selections(project, selection):
    assert select(project, selection) == SELECTIONS[selection]


@pytest.mark.parametrize("selection", [None, "*", "+*", "*/*", "raw/*+, models/*"])
def test_selections_of_nearly_everything(project, selection):
    found = select(project, selection)
    assert found >= {"raw.bars", "reports.leaderboard", "models.gbm"}
    if selection in (None, "*"):
        assert found == set(project.assets)


@pytest.mark.parametrize("selection", ["features/prices", "raw/bars, nothing", "+", ""])
def test_a_selection_of_nothing_is_an_error(project, selection):
    with pytest.raises(TapehouseError, match=r"--select .*no such asset; `tapehouse assets` lists them"):
        select(project, selection)


def test_ancestors_and_descendants_both(project):
    around = select(project, "+features/price+")
    assert around >= {"raw.bars", "features.price", "labels.triple_barrier", "reports.leaderboard"}
    assert "raw.quarantine" not in around


# ---------------------------------------------------------------------- waves


def test_the_first_wave_takes_all_tables_of_one_cadence_that_can_go_together(toy):
    project = toy.project
    wave = next_wave(project, plan(project, {}))
    by_month = {a.name for a in toy.monthly()}
    assert wave == Wave("months", tuple(n for n in project.assets if n in by_month), JAN, TOY_MONTHS[-1])
    assert wave.partitions(project) == list(TOY_MONTHS)
    assert next_wave(project, []) is None


def test_waves_of_everything_are_few(toy):
    """Six tables by month in one run, the report in another."""
    waves = []
    while (wave := next_wave(toy.project, plan(toy.project, toy.state()))) is not None:
        waves.append(wave)
        for name in wave.assets:
            toy.make(name, wave.partitions(toy.project))
    assert [(w.by, len(w.assets)) for w in waves] == [("months", 6), ("once", 1)]


def test_behind_a_stale_table_what_exists_waits_until_it_is_known_to_be_stale(toy):
    project = toy.project
    todo = [Stale("raw.ticks", FEB, "inputs"), Stale("staging.ticks", FEB, "code"), Stale("features.change", MAR, "inputs")]
    assert next_wave(project, todo) == Wave("months", ("raw.ticks",), FEB, FEB)
    todo = [Stale("raw.ticks", FEB, "inputs"), Stale("staging.ticks", FEB, "missing")]
    assert next_wave(project, todo) == Wave("months", ("raw.ticks", "staging.ticks"), FEB, FEB)


def test_a_gap_makes_two_waves(toy):
    todo = [Stale("raw.ticks", month, "missing") for month in (JAN, FEB, APR)]
    assert next_wave(toy.project, todo) == Wave("months", ("raw.ticks",), JAN, FEB)


def test_what_is_made_once_waits_for_all_months(toy):
    todo = [Stale("features.change", APR, "inputs"), Stale("reports.totals", ONCE, "inputs")]
    assert next_wave(toy.project, todo) == Wave("months", ("features.change",), APR, APR)
    assert next_wave(toy.project, todo[1:]) == Wave("once", ("reports.totals",), ONCE, ONCE)


def test_training_goes_first_and_beside_the_others(toy):
    toy.write("assets/models/dearest.py", TRAINED)
    toy.write("checks/models/dearest.yaml", TRAINED_CHECKS)
    toy.reload()
    toy.refresh({"raw.ticks", "staging.ticks"})
    folds = list(toy.project.folds)
    todo = stale(toy.project, toy.state())
    assert next_wave(toy.project, todo) == Wave("folds", ("models.dearest",), folds[0], folds[-1])
    # Where there is no room for training, the others go on; what is in the making is not begun again.
    others = next_wave(toy.project, todo, room=False)
    assert others is not None and "models.dearest" not in others.assets
    busy = {("models.dearest", folds[0])}
    assert next_wave(toy.project, todo, busy) == Wave("folds", ("models.dearest",), folds[1], folds[-1])
    own = [s for s in todo if s.asset == "models.dearest"]
    assert next_wave(toy.project, own, {("models.dearest", fold) for fold in folds}) is None
    # What lies behind it waits, whatever its own partitions are.
    ticks = [Stale("raw.ticks", JAN, "missing"), Stale("staging.ticks", JAN, "missing")]
    assert next_wave(toy.project, ticks[1:], {("raw.ticks", FEB)}) is None


FOLLOWING = """
'One row per (fold, symbol): the dearest tick, looked up.'
from tapehouse.tables import reads, table


@table(reads("models.dearest"))
def build(b):
    return b.read("models.dearest")
"""


def test_a_fold_waits_for_its_own_fold_alone(toy):
    """While other folds are still in training, what follows one that is done goes on; what reads all of them waits."""
    for name, text in {"dearest": TRAINED, "following": FOLLOWING}.items():
        toy.write(f"assets/models/{name}.py", text)
        toy.write(f"checks/models/{name}.yaml", TRAINED_CHECKS)
    whole = "-- One row per (symbol): of all folds.\nselect distinct symbol from models.following"
    toy.write("sql/reports/all_folds.sql", whole)
    toy.reload()
    toy.refresh({"raw.ticks", "staging.ticks"})
    folds = list(toy.project.folds)
    names = ("models.dearest", "models.following", "reports.all_folds")
    todo = [s for s in stale(toy.project, toy.state()) if s.asset in names]
    first_done = [s for s in todo if (s.asset, s.partition) != ("models.dearest", folds[0])]
    busy = {("models.dearest", folds[1])}
    assert next_wave(toy.project, first_done, busy, room=False) == Wave("folds", ("models.following",), folds[0], folds[0])
    # Nothing of it is free while all folds are missing, or the first is in training again.
    assert next_wave(toy.project, todo, busy, room=False) is None
    assert next_wave(toy.project, first_done, {("models.dearest", folds[0])}, room=False) is None
    # Training is a run of its own; all that is free of one table by fold is one run.
    assert next_wave(toy.project, todo) == Wave("folds", ("models.dearest",), folds[0], folds[-1])
    trained = [s for s in todo if s.asset != "models.dearest"]
    assert next_wave(toy.project, trained) == Wave("folds", ("models.following",), folds[0], folds[-1])
    assert next_wave(toy.project, [s for s in todo if s.asset == "reports.all_folds"], busy) is None


def test_what_training_waits_for_goes_first(toy):
    for name, text in {"dearest": TRAINED, "following": FOLLOWING}.items():
        toy.write(f"assets/models/{name}.py", text)
        toy.write(f"checks/models/{name}.yaml", TRAINED_CHECKS)
    toy.reload()
    todo = plan(toy.project, {})
    assert next_wave(toy.project, todo) == Wave("months", ("raw.ticks", "staging.ticks"), JAN, TOY_MONTHS[-1])
    rest = [s for s in todo if s.asset not in ("raw.ticks", "staging.ticks")]
    training = next_wave(toy.project, rest)
    assert training is not None and training.assets == ("models.dearest",)
    beside = next_wave(toy.project, rest, {("models.dearest", fold) for fold in toy.project.folds})
    assert beside is not None and "features.change" in beside.assets
    # A process for it is begun while the last that it waits for is made.
    assert trains_next(toy.project, todo, next_wave(toy.project, todo))
    assert trains_next(toy.project, rest, training)
    assert not trains_next(toy.project, todo, Wave("months", ("raw.ticks",), JAN, TOY_MONTHS[-1]))
    assert not trains_next(toy.project, [s for s in rest if s.asset != "models.dearest"], beside)


def test_what_waits_for_nothing_of_its_run_is_shared_out(project):
    pages = [name for name in project.assets if name.startswith("reports.pages.")]
    assert len(pages) > 8
    whole = Wave("once", ("reports.statistics", "reports.verdicts", *pages), ONCE, ONCE)
    waited_for = Wave("once", ("reports.statistics", "reports.verdicts"), ONCE, ONCE)
    assert shared_out(project, whole) == (waited_for, None)
    assert shared_out(project, waited_for) == (waited_for, None)
    one, other = shared_out(project, Wave("once", tuple(pages), ONCE, ONCE))
    assert other is not None and sorted(one.assets + other.assets) == sorted(pages)
    assert abs(len(one.assets) - len(other.assets)) <= 1
    few = Wave("once", tuple(pages[:5]), ONCE, ONCE)
    assert shared_out(project, few) == (few, None)
    months = Wave("months", tuple(pages), JAN, JAN)  # not that there are any
    assert shared_out(project, months) == (months, None)


def test_within_and_names_restrict_a_plan(toy):
    todo = plan(toy.project, {}, {"staging.ticks"}, {FEB})
    assert todo == [Stale("staging.ticks", FEB, "missing")]
    assert stale(toy.project, {}, ["raw.ticks"]) == [Stale("raw.ticks", month, "missing") for month in TOY_MONTHS]


def test_what_is_optional_is_made_when_asked_for_and_kept_when_it_has_been_made(project):
    """Its books may go: a table of many writers that gets another column drops those of all of them."""
    name = "models.kto_orders"
    fold = project.adapter_folds[0]
    assert project.assets[name].optional
    own = {name, "models.predictions.kto_orders"}
    assert plan(project, {}, own) == []
    assert {s.asset for s in plan(project, {}, own, optional=True)} == own
    made = Made(1, "hash", "hash", "old code", 1)
    kept = {("models.predictions.kto_orders", fold): made}  # and models.calibrations.kto_orders was dropped
    assert {(s.asset, s.partition) for s in plan(project, kept, own)} == {(n, fold) for n in own}
