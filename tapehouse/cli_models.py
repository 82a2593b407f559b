"""Commands of models: what is declared, and making one again."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table as RichTable

from tapehouse.errors import TapehouseError

app = typer.Typer()


@app.command()
def recipes() -> None:
    """List the recipes: method, base, whether the default run makes them, and which folds are made and up to date."""
    from tapehouse.cli import open_settings, out
    from tapehouse.declarations import load_project
    from tapehouse.lineage import read_state, stale
    from tapehouse.recipes import FOLDER, load_recipes
    from tapehouse.warehouse import Warehouse

    settings = open_settings()
    project, lake = load_project(settings), Warehouse(settings)
    state = {}
    if lake.exists():
        with lake.reading() as (cursor, _):
            state = read_state(cursor)
    found = load_recipes(settings.home / FOLDER)
    old = {(s.asset, s.partition): s.why for s in stale(project, state, {f"models.{name}" for name in found})}
    table = RichTable("recipe", "method", "from", "default run", "folds made", "stale", "what it is")
    for name, recipe in found.items():
        asset = project.assets[f"models.{name}"]
        partitions = project.partitions(asset)
        whys = [old.get((asset.name, p)) for p in partitions]
        made = sum(why != "missing" for why in whys)
        model = getattr(recipe, "model", None)
        origin = "" if model is None else model.init_from or model.base
        changed = ", ".join(sorted({why for why in whys if why not in (None, "missing")}))
        chosen = "yes" if recipe.selected else ""
        table.add_row(name, recipe.method, origin, chosen, f"{made} of {len(whys)}", changed, escape(recipe.description))
    out.print(table)


@app.command()
def reproduce(
    adapter: Annotated[str, typer.Argument(help="Name of a recipe.")],
    fold: Annotated[str | None, typer.Option("--fold", help="First session of a test block; default: the last.")] = None,
) -> None:
    """Train a model again at its pinned snapshot, and compare its weights with the stored ones."""
    from tapehouse.cli import open_settings, out
    from tapehouse.declarations import load_project
    from tapehouse.reproduce import TOLERANCE
    from tapehouse.reproduce import reproduce as again
    from tapehouse.warehouse import Warehouse

    settings = open_settings()
    project = load_project(settings)
    found = again(project, Warehouse(settings), adapter, fold or list(project.folds)[-1], lambda words: out.print(f"  {words}"))
    for name, then, now in found.host:
        out.print(f"{name}: {escape(str(then))} then, {escape(str(now))} now")
    if found.commits[0] != found.commits[1]:
        out.print(f"commit: {found.commits[0]} then, {found.commits[1]} now")
    told = f"{adapter} {found.fold} at snapshot {found.snapshot}: stored {found.digest}, made again {found.found}"
    if found.identical:
        out.print(f"[green]Identical[/] to the bit. {told}")
        return
    far = "" if found.distance is None else f"; they differ by {found.distance:.2e} of the weights' length"
    if not found.holds:
        why = "on the same processor, threads and packages they should be identical" if not found.host else "that is too much"
        raise TapehouseError(f"{told}{far}; {why}. Its files are in {found.folder}")
    out.print(f"[green]Within {TOLERANCE}[/] of the weights' length. {told}{far}")


@app.command()
def tune(
    name: Annotated[str, typer.Argument(help="A classical recipe with a `search` section.")],
    fold: Annotated[str, typer.Option("--fold", help="A test block, by its first session: its training window is searched.")],
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="In all; default: as the recipe says.")] = None,
    processes: Annotated[int, typer.Option("--processes", min=1)] = 1,
) -> None:
    """Search a recipe's declared ranges by purged cross-validation; what was finished before is kept."""
    from tapehouse.cli import open_settings, out
    from tapehouse.declarations import load_project
    from tapehouse.tuning_runs import tune as run
    from tapehouse.warehouse import Warehouse

    settings = open_settings()
    folder, found = run(load_project(settings), Warehouse(settings), name, fold, trials, processes)
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items())
    out.print(f"[bold]{name} {fold}[/]  trials: {counts}", highlight=False)
    own = "outside of the search" if found.own is None else f"{found.own:.6f}"
    out.print(f"best {found.objective:.6f}, what the recipe says now {own}", highlight=False)
    for key, value in found.best.items():
        out.print(f"  {key}: {value:g}", highlight=False)
    out.print(f"[bold]Study[/]  {escape(str(folder))}", soft_wrap=True)
    out.print("They know the answers of blocks before this one. `tapehouse run --select reports/trials` files every trial.")


@app.command()
def sweep(
    name: Annotated[str, typer.Argument(help="A strategy.")],
    settings: Annotated[list[str], typer.Argument(help="Keys with values, as in gates.confidence.least=0.5,0.75,0.9.")],
    fold: Annotated[str, typer.Option("--fold", help="A test block, by its first session: its validation tail is traded.")],
) -> None:
    """Trade every combination of some settings of a strategy over a validation tail; each is a trial from then on."""
    from tapehouse.cli import open_settings, out
    from tapehouse.declarations import load_project
    from tapehouse.strategies.sweeps import grid_of
    from tapehouse.sweep_runs import run_sweep
    from tapehouse.warehouse import Warehouse

    opened, grid = open_settings(), grid_of(settings)
    found = run_sweep(load_project(opened), Warehouse(opened), name, fold, grid)
    failed = ["why not"] if any(one.reason for one in found) else []
    table = RichTable(*grid, "Sharpe", "return", *failed)
    for one in found:
        grown = "" if one.reason else f"{(1.0 + one.returns).prod() - 1.0:+.2%}"
        ratio = "" if one.sharpe is None else f"{one.sharpe:.2f}"
        why = [escape(one.reason or "") for _ in failed]
        table.add_row(*(escape(str(value)) for value in one.setting.values()), ratio, grown, *why)
    out.print(table)
    out.print(f"{len(found)} trials of {len(found[0].returns)} sessions; `tapehouse run --select reports/trials` files them.")
