"""The command line: run, backfill, refresh, stale, sql, snapshots, assets, report, compare, export, dev."""

import logging
import os
import sys
import time
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table as RichTable

from tapehouse import cli_models, cli_reports
from tapehouse.errors import TapehouseError
from tapehouse.settings import Settings, find_home, load_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
PIPE_WIDTH = 160  # a log is not folded to a terminal's 80 columns
app.add_typer(cli_models.app)
app.add_typer(cli_reports.app)
out = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = Console(stderr=True, width=None if sys.stderr.isatty() else PIPE_WIDTH)

# No library phones home: set before any of them is imported.
QUIET = {
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "TOKENIZERS_PARALLELISM": "false",
}
# glibc gives freed blocks back to the kernel at once, which costs training on a CPU 2 to 20 times.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184"}
# Threads that spin while they wait take the processor from whatever else runs: up to 8 times slower on two busy cores.
THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}


class Format(StrEnum):
    """How `tapehouse sql` prints."""

    table = "table"
    csv = "csv"
    json = "json"


class Form(StrEnum):
    """What `tapehouse export` writes."""

    hf = "hf"
    jsonl = "jsonl"


class Part(StrEnum):
    """A side of a fold."""

    train = "train"
    test = "test"


Select = Annotated[str | None, typer.Option("--select", help="Assets, as features/price+ or features/*; default: all.")]
FromDate = Annotated[str, typer.Option("--from", help="First date, 2008-01-01.")]
ToDate = Annotated[str, typer.Option("--to", help="Last date, inclusive.")]


@app.command()
def run(select: Select = None) -> None:
    """Make whatever is missing or stale, in order, and print the leaderboard."""
    settings = open_settings()
    driver = _driver(settings)
    from tapehouse import planning

    started = time.monotonic()
    made = driver.refresh(planning.select(driver.project, select), on_wave=_say_wave(driver), optional=select is not None)
    took = time.monotonic() - started
    if made == 0:
        out.print(f"[green]Nothing to do:[/] every partition is up to date (looked for {took:.1f} s).")
    else:
        out.print(f"[green]Made {made} partitions[/] in {took:.0f} s.")
    _print_summary(settings)


@app.command()
def backfill(from_: FromDate, to: ToDate, select: Select = None) -> None:
    """Make every partition of a date range again, as a backfill in the UI does: one run a table set, one commit a table."""
    driver = _driver(open_settings())
    from tapehouse import planning
    from tapehouse.partitions import DATED, key_of
    from tapehouse.planning import Wave

    project = driver.project
    start, end = _date(from_, "--from"), _date(to, "--to")
    chosen = planning.select(project, select)
    dated = {by: tuple(n for n, a in project.assets.items() if n in chosen and a.by == by) for by in DATED}
    if not any(dated.values()):
        raise TapehouseError(f"--select {select}: nothing there is made by date; `tapehouse run --select …` makes it")
    keys = {
        by: [key for key in getattr(project, by) if key_of(by, start) <= key <= key_of(by, end)] for by in DATED if dated[by]
    }
    if not any(keys.values()):
        spans = "; ".join(f"{by} run from {getattr(project, by)[0]} to {getattr(project, by)[-1]}" for by in keys)
        raise TapehouseError(f"--from {from_} --to {to}: nothing of the span; {spans}")
    say = _say_wave(driver)
    for by, names in ((by, dated[by]) for by in keys if keys[by]):
        for group in _by_dependency(project, names):
            wave = Wave(by, group, keys[by][0], keys[by][-1])
            say(wave, len(names))
            driver.execute(wave)
        out.print(f"[green]Backfilled[/] {len(names)} tables by {by} from {keys[by][0]} to {keys[by][-1]}.")
    left = sorted(chosen - {n for by in keys if keys[by] for n in dated[by]})
    if left and select is not None:
        out.print(f"Not made by date, left to `tapehouse run`: {', '.join(left)}")


@app.command()
def refresh(select: Select = None) -> None:
    """Make just the partitions whose inputs, code or recipe have changed."""
    run(select)


@app.command()
def stale(select: Select = None) -> None:
    """List partitions whose inputs, code or recipe have changed since they were made."""
    settings = open_settings()
    from tapehouse import planning
    from tapehouse.declarations import load_project
    from tapehouse.lineage import read_state
    from tapehouse.partitions import DATED, contiguous
    from tapehouse.warehouse import Warehouse

    project, lake = load_project(settings), Warehouse(settings)
    with lake.reading() as (cursor, _):
        found = planning.plan(project, read_state(cursor), planning.select(project, select))
    if not found:
        out.print("Nothing is stale.")
        return
    table = RichTable("asset", "why", "partitions")
    for name in dict.fromkeys(s.asset for s in found):
        for why in dict.fromkeys(s.why for s in found if s.asset == name):
            parts = [s.partition for s in found if s.asset == name and s.why == why]
            by = project.assets[name].by
            ranges = contiguous(by, parts) if by in DATED else [(p, p) for p in parts]
            words = ", ".join(a if a == b else f"{a} … {b}" for a, b in ranges) or "all"
            table.add_row(name.replace(".", "/"), why, words)
    out.print(table)
    out.print("What lies behind these is looked at once they have been made. `tapehouse refresh` makes them.")


@app.command()
def sql(
    query: Annotated[str | None, typer.Argument(help='A query, such as "select * from staging.bars limit 5".')] = None,
    file: Annotated[Path | None, typer.Option("--file", help="A SQL file; $start and $end are bound.")] = None,
    from_: Annotated[str | None, typer.Option("--from")] = None,
    to: Annotated[str | None, typer.Option("--to")] = None,
    format: Annotated[Format, typer.Option("--format")] = Format.table,
    at: Annotated[int | None, typer.Option("--at", help="A snapshot id; default: the newest.")] = None,
) -> None:
    """Print the result of a query on the warehouse, read-only, also while a run is writing."""
    from tapehouse.show import run_query, write_rows

    write_rows(run_query(open_settings(), query, file, from_, to, at), format.value, out)


@app.command()
def shell() -> None:
    """Open the DuckDB client attached to the warehouse, read-only."""
    from tapehouse.show import client_command

    command = client_command(open_settings())
    os.execv(command[0], command)


@app.command()
def snapshots(limit: Annotated[int, typer.Option("--limit")] = 20) -> None:
    """List the newest snapshots: id, time, and what was committed."""
    from tapehouse.show import run_query, write_rows

    text = (
        "select snapshot_id, snapshot_time, commit_message, snapshot_id in (select snapshot from meta.pins) as pinned "
        f"from ducklake_snapshots('lake') order by snapshot_id desc limit {int(limit)}"
    )
    write_rows(run_query(open_settings(), text, None, None, None, None), "table", out)


@app.command()
def assets() -> None:
    """List every asset: how it is partitioned, what it reads, and its meaning."""
    from tapehouse.declarations import load_project

    project = load_project(open_settings())
    table = RichTable("asset", "by", "reads", "one row is")
    for asset in project.assets.values():
        inputs = ", ".join(r.table.replace(".", "/") for r in asset.reads)
        table.add_row(asset.name.replace(".", "/"), asset.by, inputs, asset.doc.splitlines()[0])
    out.print(table)


@app.command()
def export(
    table: Annotated[str, typer.Argument(help="A dataset, as datasets.preference_pairs.")],
    fold: Annotated[str, typer.Option("--fold", help="A fold, as `tapehouse sql 'select fold from models.folds'` lists them.")],
    to: Annotated[Path, typer.Option("--to", help="A new folder.")],
    split: Annotated[Part | None, typer.Option("--split", help="One side of the fold alone; default: both.")] = None,
    format: Annotated[Form, typer.Option("--format", help="A Hugging Face datasets folder, or JSON lines.")] = Form.hf,
    balance: Annotated[
        str | None, typer.Option("--balance", help="Equally many training rows of each: regime,objective,side,symbol.")
    ] = None,
    packed: Annotated[int | None, typer.Option("--packed", help="Pack a table of tokens into rows of at most so many.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Of a table of tokens the rows of this one, a digest of models.tokenizer.")
    ] = None,
) -> None:
    """Write a fold of a dataset, purged as for training, with its card: a Hugging Face datasets folder, or JSON lines."""
    settings = open_settings()
    from tapehouse.declarations import load_project
    from tapehouse.export import SPLITS
    from tapehouse.export import export as write
    from tapehouse.warehouse import Warehouse

    splits = (split.value,) if split else SPLITS
    by = tuple(part.strip() for part in balance.split(",")) if balance else ()
    done = write(load_project(settings), Warehouse(settings), table, fold, to, format.value, splits, by, packed, tokenizer)
    for name, rows in done.rows.items():
        out.print(f"[bold]{name}[/]  {rows:,} rows", highlight=False)
    for name, said in done.notes.items():
        out.print(f"{name}: {escape(said)}", highlight=False, soft_wrap=True)
    out.print(f"[bold]Folder[/]    {escape(str(done.folder))}", soft_wrap=True)
    out.print(f"[bold]Snapshot[/]  {done.snapshot}")


@app.command()
def compact() -> None:
    """Merge small files and drop what no snapshot needs; pinned snapshots are kept. Run it while nothing writes."""
    from tapehouse.warehouse import Warehouse

    lake = Warehouse(open_settings())
    lake.compact()
    expired = lake.expire()
    out.print(f"Compacted; {len(expired)} snapshots expired.")


@app.command()
def dev(port: Annotated[int, typer.Option("--port")] = 3000) -> None:
    """Serve the Dagster UI and its daemon on loopback."""
    settings = open_settings()
    _add_home(settings)
    from loaders.drive import serve

    serve(settings, port)


@app.command()
def mlflow(port: Annotated[int, typer.Option("--port")] = 5000) -> None:
    """Serve MLflow's tracking UI on loopback."""
    settings = open_settings()
    settings.root.mkdir(parents=True, exist_ok=True)
    program = Path(sys.executable).parent / "mlflow"
    arguments = ["server", "--backend-store-uri", settings.tracking_uri, "--host", "127.0.0.1", "--port", str(port)]
    os.execv(str(program), [str(program), *arguments, "--workers", "1"])


@app.command()
def fetch(name: Annotated[str, typer.Argument(help="A base of models_registry/base, as smollm2.")]) -> None:
    """Fetch a base model that others have trained into its folder, as its recipe says, and check its digest."""
    os.environ["HF_HUB_OFFLINE"] = "0"  # what is asked for in so many words may be downloaded
    from tapehouse.bases import declared_base
    from tapehouse.fetching import fetch as fetch_base
    from tapehouse.methods.external import Recipe as External

    settings = open_settings()
    recipe = declared_base(settings.home, name)
    if not isinstance(recipe, External):
        raise TapehouseError(f"base {name!r} is trained here, not fetched; `tapehouse run --select models/{name}` makes it")
    out.print(str(fetch_base(recipe, settings.models_dir, err.print)))


def main() -> None:
    """Entry point: bad input is one message and exit code 2, never a traceback."""
    os.environ.update({k: v for k, v in (QUIET | MALLOC | THREADS).items() if k not in os.environ})
    try:
        app()
    except TapehouseError as error:
        # Escaped: DuckDB quotes the query, and a query may hold what rich takes for markup.
        err.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)


def open_settings() -> Settings:
    """The settings of this project, with the project folder on the path."""
    return load_settings(find_home())


def _add_home(settings: Settings) -> None:
    if str(settings.home) not in sys.path:
        sys.path.insert(0, str(settings.home))


def _driver(settings: Settings):
    _add_home(settings)
    log_to(err)
    from loaders.drive import Driver

    return Driver(settings)


def log_to(console: Console) -> None:
    """Show what is being made on `console`."""
    log = logging.getLogger("tapehouse")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(RichHandler(console=console, show_path=False, show_level=False, markup=False, log_time_format="%H:%M:%S"))


def _say_wave(driver):
    def say(wave, left: int) -> None:
        parts = wave.partitions(driver.project)
        where = f"{parts[0]} … {parts[-1]}" if len(parts) > 1 else parts[0]
        names = ", ".join(n.replace(".", "/") for n in wave.assets)
        err.print(f"[bold]{names}[/] {where} [dim]({left} assets to go)[/]", highlight=False)

    return say


def _by_dependency(project, names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Assets of one cadence in groups that one run can hold: an asset made once between two of them parts the groups."""
    groups: list[list[str]] = []
    for name in names:
        between = [w for r in project.assets[name].reads for w in project.writers_of(r) if project.assets[w].by == "once"]
        behind = {u for w in between for r in project.assets[w].reads for u in project.writers_of(r)}
        if not groups or behind & set(groups[-1]):
            groups.append([])
        groups[-1].append(name)
    return [tuple(g) for g in groups]


def _date(text: str, option: str) -> datetime:
    try:
        return datetime.combine(date.fromisoformat(text), time_of_day.min, UTC)
    except ValueError:
        raise TapehouseError(f"{option} {text}: not a date; write it as 2008-01-31") from None


def _print_summary(settings: Settings) -> None:
    from tapehouse.show import print_summary

    print_summary(settings, out)


if __name__ == "__main__":
    main()
