"""Reading the declarations: `assets/**.py`, `sql/**.sql`, `checks/**.yaml` and `models_registry/`, here and nowhere else."""

import importlib.util
from dataclasses import replace
from pathlib import Path

from tapehouse.codeversion import code_version, environment_version, looked_at_once, modules_version
from tapehouse.errors import TapehouseError
from tapehouse.examination_assets import examination_assets
from tapehouse.folds import FOLDS_FILE, load_folds, read_spec
from tapehouse.hashing import text_hash
from tapehouse.judging_rules import declared_roles
from tapehouse.page_assets import page_assets
from tapehouse.project import Asset, Output, Project
from tapehouse.recipe_assets import recipe_assets
from tapehouse.settings import Settings
from tapehouse.shown_values import is_scanned
from tapehouse.sqlfile import parse_sql_file
from tapehouse.strategy_assets import strategy_assets
from tapehouse.tables import TIME_COLUMNS, Cadence, Declaration, Read, TableDoc, header_grain, load_doc

QUARANTINE = "raw.quarantine"


@looked_at_once()
def load_project(settings: Settings) -> Project:
    """Read the folders of the project at `settings.home`.

    Raises:
        TapehouseError: names the file (and line or key) that does not parse, reads a table that nothing makes, declares a
            table twice, or depends on itself.
    """
    home = settings.home
    docs = {
        ".".join(path.relative_to(home / "checks").with_suffix("").parts): load_doc(path)
        for path in sorted((home / "checks").glob("*/*.yaml"))
    }
    spec = read_spec(home / FOLDS_FILE)
    folds = load_folds(settings.universe.start, settings.universe.end, home / FOLDS_FILE)
    late = spec.adapter_count if settings.adapter_folds is None else settings.adapter_folds
    assets = [
        *(_python_asset(path, home, docs) for path in sorted((home / "assets").glob("*/*.py"))),
        *(_sql_asset(path, home) for path in sorted((home / "sql").glob("*/*.sql"))),
        *recipe_assets(home),
        *strategy_assets(home),
        *examination_assets(home),
    ]
    assets += page_assets(assets, *declared_roles(home))
    _check_names(assets)
    return Project(settings, [_versioned(a, docs, settings.threads) for a in assets], docs, folds, late)


def _versioned(asset: Asset, docs: dict[str, TableDoc], threads: int) -> Asset:
    """The asset with what its contract says made part of its code version: rows are judged anew when the contract changes."""
    contracts = [
        doc.model_dump_json(include={"grain", "time", "contract"}) + str(doc.types)
        for doc in (docs.get(o.table) for o in asset.outputs)
        if doc is not None
    ]
    if any(is_scanned(o.table, docs[o.table].columns) for o in asset.outputs if o.table in docs):
        contracts.append(modules_version(("tapehouse.prompt_scan",)))  # the words of the scan are part of the contract
    inputs = repr(asset.reads)
    fitted = asset.fitted or asset.name.startswith("models.")
    # The number of threads decides the order of sums, and so the last bits of weights.
    environment = environment_version(fitted) + (f" threads={threads}" if fitted else "")
    return Asset(**{**asset.__dict__, "code_version": text_hash(asset.code_version, inputs, environment, *contracts)[:16]})


def _python_asset(path: Path, home: Path, docs: dict[str, TableDoc]) -> Asset:
    name = f"{path.parent.name}.{path.stem}"
    spec = importlib.util.spec_from_file_location(f"assets.{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    marked = [f for f in vars(module).values() if isinstance(getattr(f, "declaration", None), Declaration)]
    if len(marked) != 1:
        raise TapehouseError(
            f"{path}: one file is one table: exactly one function must carry @table(…) of tapehouse.tables, found {len(marked)}"
        )
    declared: Declaration = marked[0].declaration
    text = (module.__doc__ or "").strip()
    if not text:
        raise TapehouseError(f"{path}:1: the first line must be a docstring, 'One row per (…): what a row means'")
    doc = docs.get(name, TableDoc())
    grain = doc.grain or header_grain(text)
    by: Cadence = "once"
    if doc.partition:  # whatever is fitted goes by fold, also where its rows have a time
        by = "folds" if doc.folds == "all" else "adapter_folds"
    elif declared.cadence or doc.time or any(c in TIME_COLUMNS for c in grain):
        by = declared.cadence or "months"
    return Asset(
        name=name,
        doc=text,
        by=by,
        reads=declared.reads,
        outputs=(Output(name, name, declared.key), *([_rejects_of(name)] if declared.rejects else [])),
        build=marked[0],
        code_version=code_version(path, *((home / name).read_text() for name in declared.files)),
        fingerprint=declared.fingerprint,
        source=path,
        most_rows=declared.most_rows,
        kind="torch" if declared.trains else "python",
    )


def _rejects_of(name: str) -> Output:
    """A table's share of the quarantine: rows of its own, swapped in the same commit as the rows that were accepted."""
    schema, table = name.split(".")
    doc = (
        f"One row per (table_name, origin, record, reason): a record meant for {name} that cannot be used, and why.\n\n"
        f"Beside them what no source gave. Committed together with the rows of {name}."
    )
    # Datasets are named after what they are made of: datasets.theses and raw.theses each have a share.
    share = f"{schema}_{table}" if schema == "datasets" else table
    return Output(f"{QUARANTINE}.{share}", QUARANTINE, (("table_name", name),), doc)


def _sql_asset(path: Path, home: Path) -> Asset:
    file = parse_sql_file(path)
    name = f"{path.parent.name}.{path.stem}"
    ranged = {"start", "end"} & file.parameters
    return Asset(
        name=name,
        doc=file.doc,
        by=file.cadence if ranged else "once",
        reads=tuple(replace(file.window, table=t, window="range" if ranged else "all") for t in file.reads),
        outputs=(Output(name, name),),
        build=lambda b: b.sql(file),
        code_version=file.version,
        source=path,
        sql=file,
        kind="sql",
    )


def _check_names(assets: list[Asset]) -> None:
    by_output: dict[str, Asset] = {}
    tables = {o.table for a in assets for o in a.outputs}
    for asset in assets:
        for output in asset.outputs:
            if output.asset in by_output:
                other = by_output[output.asset].source
                raise TapehouseError(f"{asset.source}: {output.asset} is declared in {other} too; one table is one file")
            by_output[output.asset] = asset
        for read in asset.reads:
            if read.table not in tables:
                raise TapehouseError(f"{_line_of(read, asset)}: reads {read.table}, which no file in assets/ or sql/ makes")


def _line_of(read: Read, asset: Asset) -> str:
    lines = asset.source.read_text().splitlines() if asset.source is not None else []
    found = next((f":{number}" for number, line in enumerate(lines, start=1) if read.table in line), "")
    return f"{asset.source or asset.name}{found}"
