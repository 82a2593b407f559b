"""Which subjects have pages, what a page reads, and that a declaration alone makes one."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from tapehouse.declarations import load_project
from tapehouse.errors import TapehouseError
from tapehouse.lineage import Made, in_hash
from tapehouse.page_assets import page_assets
from tapehouse.project import ONCE, Asset, Output
from tapehouse.settings import load_settings
from tapehouse.tables import Read
from tests.house import ROOT


@pytest.fixture(scope="module")
def project():
    """The real project as it is declared."""
    return load_project(load_settings(ROOT))


def of_subject(name: str, table: str, source, optional: bool = False) -> Asset:
    output = Output(f"{table}.{name}", table, (("subject", name),))
    reads = (Read("models.predictions", writer="models.predictions.asked"),) if table == "reports.backtests" else ()
    return Asset(f"{table}.{name}", "One row.", "folds", reads, (output,), build=len, source=source, optional=optional)


def test_a_page_is_made_like_its_subject_and_owns_one_row(project):
    pages = {n.removeprefix("reports.pages."): a for n, a in project.assets.items() if n.startswith("reports.pages.")}
    declared = [p.stem for folder in ("adapters", "strategies") for p in (ROOT / "models_registry" / folder).glob("*.yaml")]
    assert set(pages) == set(declared)
    for name, page in pages.items():
        (output,) = page.outputs
        main = project.assets.get(f"reports.backtests.{name}") or project.assets[f"reports.evaluations.{name}"]
        assert (output.table, output.key) == ("reports.pages", (("page", name),)) and page.optional == main.optional
    assert project.assets["reports.pages"].outputs[0].key == (("page", "index"),)


def test_a_page_reads_its_own_rows_the_baselines_and_what_is_of_all(project):
    reads = {(r.table, r.writer) for r in project.assets["reports.pages.gbm"].reads}
    own = ("reports.backtests", "reports.backtest_trades", "reports.sensitivity")
    assert {(table, "reports.backtests.gbm") for table in own} | {("models.adapters", "models.gbm")} <= reads
    assert {("reports.verdicts", None), ("staging.bars", None)} <= reads
    assert ("reports.backtest_equity", "reports.backtests.momentum") in reads
    guarded = {(r.table, r.writer) for r in project.assets["reports.pages.momentum_guarded"].reads}
    assert ("reports.veto_log", "reports.backtests.momentum_guarded") in guarded
    assert "models.adapters" not in {table for table, _ in guarded}


def test_the_page_of_a_strategy_reads_what_it_shows_of_its_predictors(project):
    def told(name: str) -> set[tuple[str, str | None]]:
        reads = project.assets[f"reports.pages.{name}"].reads
        return {(r.table, r.writer) for r in reads if r.table in ("reports.evaluations", "reports.importance")}

    both = {(f"reports.{table}", f"reports.{table}.gbm") for table in ("evaluations", "importance")}
    assert told("gbm") == told("tail_target") == both
    assert told("audited") == both | {("reports.evaluations", "reports.evaluations.auditor")}
    assert told("momentum_guarded") == {("reports.evaluations", "reports.evaluations.momentum")}  # a rule is not fitted
    assert told("dpo_orders_guarded") == {("reports.evaluations", "reports.evaluations.dpo_orders")}
    # The auditor reads the answers of the trees, and its own page is of its own.
    assert told("auditor") == {("reports.evaluations", "reports.evaluations.auditor")}


@pytest.mark.parametrize("table", ["evaluations", "importance"])
def test_other_rows_of_a_predictor_make_the_pages_of_its_strategies_stale_and_no_others(project, table):
    rows = {(f"reports.{table}.gbm", project.adapter_folds[-1]): Made(1, "other rows", "", "", 1)}
    pages = {n.removeprefix("reports.pages."): a for n, a in project.assets.items() if n.startswith("reports.pages.")}
    found = {n for n, a in pages.items() if in_hash(project, a, ONCE, rows) != in_hash(project, a, ONCE, {})}
    assert found == {"gbm", "gbm_scaled", "audited", "reckless", "sniper", "tail_target"}


def test_a_declaration_is_enough_and_without_verdicts_there_is_no_page(tmp_path):
    source = tmp_path / "ours.yaml"
    source.write_text("description: Ours.\n")
    told = [of_subject("ours", "reports.backtests", source, optional=True), of_subject("ours", "reports.notes", source)]
    assert page_assets(told, []) == []
    verdicts = Asset("reports.verdicts", "One row.", "once", (), (Output("reports.verdicts", "reports.verdicts"),), build=len)
    (page,) = page_assets([*told, verdicts], ["absent"])
    assert page.name == "reports.pages.ours" and page.optional
    assert [(r.table, r.writer) for r in page.reads] == [
        ("reports.backtests", "reports.backtests.ours"), ("reports.notes", "reports.notes.ours"), ("reports.verdicts", None),
    ]  # fmt: skip
    # What is only noted, and neither traded nor evaluated, has no page; another text is another version.
    assert page_assets([told[1], verdicts], []) == []
    source.write_text("description: Others.\n")
    assert page_assets([*told, verdicts], [])[0].code_version != page.code_version


def test_a_page_follows_what_it_shows_of_the_rules_of_judging_and_no_more(tmp_path):
    """The role of its own subject and the curves beside it; neither who else is a control nor the order of baselines."""
    assets = []
    for name in ("ours", "one", "two"):
        source = tmp_path / f"{name}.yaml"
        source.write_text("description: It.\n")
        table = of_subject(name, "reports.backtests", source)
        curve = Output(f"reports.backtest_equity.{name}", "reports.backtest_equity", (("subject", name),))
        assets.append(replace(table, outputs=(*table.outputs, curve)))
    verdicts = Asset("reports.verdicts", "One row.", "once", (), (Output("reports.verdicts", "reports.verdicts"),), build=len)

    def versions(baselines, controls=()):
        pages = page_assets([*assets, verdicts], baselines, controls)
        return {page.name.removeprefix("reports.pages."): (page.code_version, page.reads) for page in pages}

    def changed(*rules) -> set[str]:
        return {name for name, version in versions(*rules).items() if version != versions(["one", "two"])[name]}

    assert changed(["two", "one"]) == set()
    assert changed(["one", "two"], ["ours"]) == {"ours"}
    assert changed(["one"]) == {"ours", "one", "two"}  # "two" itself is no baseline any more
    assert changed(["one", "two", "ours"]) == {"ours", "one", "two"}


def test_a_page_is_given_the_roles_that_are_in_its_version(tmp_path, monkeypatch):
    source = tmp_path / "ours.yaml"
    source.write_text("description: Ours.\n")
    verdicts = Asset("reports.verdicts", "One row.", "once", (), (Output("reports.verdicts", "reports.verdicts"),), build=len)
    given = []
    monkeypatch.setattr("tapehouse.page_assets.import_module", lambda _: SimpleNamespace(run=lambda b, *a: given.append(a)))
    (page,) = page_assets([of_subject("ours", "reports.backtests", source), verdicts], ["absent"], ["ours", "other"])
    page.build(None)
    assert given == [("ours", source, ("asked",), (), ("ours",))]


def test_a_subject_cannot_take_the_page_of_the_run(tmp_path):
    verdicts = Asset("reports.verdicts", "One row.", "once", (), (Output("reports.verdicts", "reports.verdicts"),), build=len)
    source = tmp_path / "index.yaml"
    source.write_text("description: Ours.\n")
    with pytest.raises(TapehouseError, match=r"index\.yaml: its page would replace reports/index\.html; give it another name"):
        page_assets([of_subject("index", "reports.backtests", source), verdicts], [])
