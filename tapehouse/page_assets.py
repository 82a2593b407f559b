"""Pages become assets: `reports.pages.<name>` for each recipe that is judged and each strategy, made like what it tells of."""

from collections.abc import Collection
from importlib import import_module

from tapehouse.codeversion import modules_version
from tapehouse.errors import TapehouseError
from tapehouse.hashing import text_hash
from tapehouse.project import Asset, Output
from tapehouse.tables import Read

PAGES = "reports.pages"
STEP = "tapehouse.steps.page"
VERDICTS = "reports.verdicts"
TAKEN = ("index", "preference_pairs", "book_pairs")  # pages that are of no subject
JUDGED = ("reports.backtests", "reports.evaluations")
ANSWERS, MODELS = "models.predictions", "models.adapters"
ANSWERED = ("reports.evaluations", "reports.importance")  # what a strategy's page shows of the answers that it trades on
EQUITY = "reports.backtest_equity"  # its own and the baselines’: what everybody earned is thousands of edges
# Read whole beside a subject's own rows: what is made of all subjects together, and the market. A project that lacks one has
# pages without it.
WHOLE = (
    *(VERDICTS, "reports.statistics", "reports.differences", "reports.adversarial"),
    *("features.regime", "staging.bars", "raw.corporate_actions"),
)


def page_assets(assets: list[Asset], baselines: Collection[str], controls: Collection[str] = ()) -> list[Asset]:
    """The pages of all subjects among `assets`: each reads every table that holds rows of its subject.

    That of a strategy reads what is told of its predictors' answers, too.

    Args:
        baselines: names of the subjects whose curves stand beside every other; those that are made by name alone are left out.
        controls: names of the subjects that are told to be no yardstick.

    What a page shows of these two is part of its version: its reads name the curves, and its subject's own role is in its code
    version. Who else is a control, or in which order baselines are declared, is on no page of a subject.

    Raises:
        TapehouseError: a subject has the name of another page.
    """
    made = {output.table for asset in assets for output in asset.outputs}
    if VERDICTS not in made:
        return []
    named = {asset.name: asset for asset in assets}
    own: dict[str, dict[str, str]] = {}  # subject to table to the asset that writes its rows
    for asset in assets:
        for output in asset.outputs:
            if [column for column, _ in output.key] == ["subject"]:
                own.setdefault(output.key[0][1], {})[output.table] = asset.name
    code = modules_version((STEP,))  # one walk over its modules for all of them
    shared = tuple(Read(table, window="all") for table in WHOLE if table in made)
    curves = {n: own[n][EQUITY] for n in baselines if EQUITY in own.get(n, {}) and not named[own[n][EQUITY]].optional}
    found = []
    for name, tables in sorted(own.items()):
        main = next((named[tables[table]] for table in JUDGED if table in tables), None)
        if main is not None:
            if name in TAKEN:
                raise TapehouseError(f"{main.source}: its page would replace reports/{name}.html; give it another name")
            models = {MODELS: f"models.{name}"} if f"models.{name}" in named else {}
            predictors = () if models else _predictors(main)  # what a recipe's account follows are its own answers
            beside = [(EQUITY, writer) for other, writer in sorted(curves.items()) if other != name]
            beside += [(t, own[p][t]) for p in predictors for t in ANSWERED if t in own.get(p, {})]
            written = (Read(table, window="all", writer=writer) for table, writer in [*(tables | models).items(), *beside])
            shown = tuple(sorted({*curves, *({name} & set(baselines))}))
            roles = (shown, tuple({name} & set(controls)))
            found.append(_asset(name, main, (*written, *shared), code, predictors, *roles))
    return found


def _asset(
    name: str,
    main: Asset,
    reads: tuple[Read, ...],
    code: str,
    predictors: tuple[str, ...],
    baselines: tuple[str, ...],
    controls: tuple[str, ...],
) -> Asset:
    source = main.source
    assert source is not None
    role = f"baseline={name in baselines} control={name in controls}"
    return Asset(
        name=f"{PAGES}.{name}",
        doc=f"One row per (page): the page of {name}: what it earned and how, and what speaks against it.",
        by="once",
        reads=reads,
        outputs=(Output(f"{PAGES}.{name}", PAGES, (("page", name),)),),
        build=lambda b: import_module(STEP).run(b, name, source, predictors, baselines, controls),
        code_version=text_hash(code, source.read_text(encoding="utf-8"), role),
        source=source,
        optional=main.optional,
    )


def _predictors(strategy: Asset) -> tuple[str, ...]:
    """Names of the recipes whose answers it reads."""
    return tuple(r.writer.removeprefix(f"{ANSWERS}.") for r in strategy.reads if r.table == ANSWERS and r.writer)
