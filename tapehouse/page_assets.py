"""Pages become assets: `reports.pages.<name>` for each recipe that is judged and each strategy, made like what it tells of."""

from importlib import import_module

from tapehouse.codeversion import modules_version
from tapehouse.hashing import text_hash
from tapehouse.project import Asset, Output
from tapehouse.tables import Read

PAGES = "reports.pages"
STEP = "tapehouse.steps.page"
VERDICTS = "reports.verdicts"
JUDGED = ("reports.backtests.", "reports.evaluations.")
ANSWERS, MODELS = "models.predictions", "models.adapters"
# Made of all subjects together, and the market; a project that lacks one has pages without it.
WHOLE = (
    *(VERDICTS, "reports.backtest_equity", "reports.statistics", "reports.differences"),
    *("reports.importance", "reports.adversarial", "reports.paths"),
    *("staging.bars", "raw.corporate_actions"),
)


def page_assets(assets: list[Asset]) -> list[Asset]:
    """The pages of all subjects among `assets`: each reads every table that holds rows of its subject."""
    made = {output.table for asset in assets for output in asset.outputs}
    if VERDICTS not in made:
        return []
    named = {asset.name: asset for asset in assets}
    judged = {prefix: {n.removeprefix(prefix): a for n, a in named.items() if n.startswith(prefix)} for prefix in JUDGED}
    code = modules_version((STEP,))  # one walk over its modules for all of them
    told = {name: [found[name] for found in judged.values() if name in found] for name in sorted(set().union(*judged.values()))}
    return [_asset(name, parts, named.get(f"models.{name}"), made, code) for name, parts in told.items()]


def _asset(name: str, told: list[Asset], model: Asset | None, made: set[str], code: str) -> Asset:
    main, source = told[0], told[0].source
    assert source is not None
    own = {o.table: a.name for a in told for o in a.outputs if o.table not in WHOLE}
    own |= {MODELS: model.name} if model is not None else {}
    asked = [read.writer for read in main.reads if read.table == ANSWERS and read.writer]
    # What a recipe's account follows are its own answers.
    predictors = tuple(writer.removeprefix(f"{ANSWERS}.") for writer in asked) if model is None else ()
    reads = (
        *(Read(table, window="all", writer=writer) for table, writer in own.items()),
        *(Read(table, window="all") for table in WHOLE if table in made),
    )
    return Asset(
        name=f"{PAGES}.{name}",
        doc=f"One row per (page): the page of {name}: what it earned and how, and what speaks against it.",
        by="once",
        reads=reads,
        outputs=(Output(f"{PAGES}.{name}", PAGES, (("page", name),)),),
        build=lambda b: import_module(STEP).run(b, name, source, predictors),
        code_version=text_hash(code, source.read_text(encoding="utf-8")),
        source=source,
        optional=main.optional,
    )
