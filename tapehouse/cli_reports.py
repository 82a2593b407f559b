"""Commands of reports: opening a page, and two subjects beside each other."""

import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table as RichTable

from tapehouse.errors import TapehouseError

if TYPE_CHECKING:
    import duckdb
    import polars as pl

app = typer.Typer()
RUN = "index"  # the page of the whole run
COMPARISONS = "compare"  # folder below the reports
# A table, and which of its columns; read at one snapshot.
ACCOUNTS = {
    "reports.backtest_equity": "subject, fold, session, ret, gross_exposure, net_exposure, turnover",
    "reports.backtest_trades": "*",
    "reports.differences": "*",
    "reports.verdicts": "subject, verdict",
}
ANSWERS = "adapter, fold, symbol, interval, decision_at, action"


@app.command()
def report(
    name: Annotated[str, typer.Argument(help="A recipe, a strategy, or any other page; default: the page of the run.")] = RUN,
) -> None:
    """Open a report in the browser, and print where it lies."""
    from tapehouse.cli import open_settings, out
    from tapehouse.comparison import unknown
    from tapehouse.recipes import FOLDER as RECIPES
    from tapehouse.strategies.schema import FOLDER as STRATEGIES
    from tapehouse.warehouse import Warehouse

    settings = open_settings()
    with Warehouse(settings).reading() as (cursor, _):
        pages = {row[0]: settings.root / row[1] for row in _rows(cursor, "reports.pages", "page, path").iter_rows()}
    # Other pages, such as those of preference pairs, have no row there: they lie beside the others.
    pages = {page.stem: page for page in settings.reports_dir.glob("*.html")} | pages
    if name not in pages:
        said = f"{name}: {unknown(name, sorted(pages), 'page')}"
        if any((settings.home / folder / f"{name}.yaml").exists() for folder in (RECIPES, STRATEGIES)):
            said = f"{name}: its page was not made yet; `tapehouse run --select reports/pages/{name}` makes it"
        raise TapehouseError(said)
    page = pages[name]
    if not page.exists():
        raise TapehouseError(f"{page} is gone; `tapehouse run --select reports/pages` makes it again")
    out.print(escape(str(page)), soft_wrap=True, highlight=False)
    if not webbrowser.open(page.resolve().as_uri()):
        out.print("No browser was found to open it with.")


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A recipe or strategy.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
) -> None:
    """Print two subjects beside each other over the blocks that both were traded on, and write a page about them."""
    from tapehouse.cli import open_settings, out
    from tapehouse.comparison import compared
    from tapehouse.files import replace_file
    from tapehouse.report.caveats import hindsight
    from tapehouse.report.comparison import comparison_html, statistics_cells
    from tapehouse.report.provenance import provenance
    from tapehouse.report.verdict import number
    from tapehouse.training.manifest import git_state
    from tapehouse.warehouse import Warehouse

    settings = open_settings()
    with Warehouse(settings).reading() as (cursor, snapshot):
        found = {table: _rows(cursor, table, columns) for table, columns in ACCOUNTS.items()}
        folds, answers = _rows(cursor, "models.folds", "*"), _rows(cursor, "models.predictions", ANSWERS, "split = 'test'")
    equity, trades, differences, verdicts = found.values()
    both = compared(a, b, equity, trades, differences, answers)
    words = dict(verdicts.iter_rows())
    made = provenance(snapshot, git_state(settings.home), folds.filter(folds["fold"].is_in(both.folds)))
    page = settings.reports_dir / COMPARISONS / f"{a}--{b}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    caveats = (hindsight(settings.universe.tradable),)
    replace_file(page, comparison_html(both, words, made, caveats).encode())

    table = RichTable(
        title=f"{len(both.folds)} test block{'s' if len(both.folds) > 1 else ''} of both",
        title_justify="left",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", no_wrap=True)
    for name in (a, b):
        table.add_column(escape(name), justify="right", no_wrap=True)
        table.add_column("95 % interval", justify="right", style="dim", no_wrap=True)
    for cells in statistics_cells(both):
        table.add_row(*cells)
    table.add_row("verdict", words.get(a, ""), "", words.get(b, ""), "")
    out.print(table)
    out.print(escape(f"{both.claim}. {both.evidence}"), soft_wrap=True, highlight=False)
    told = [] if both.alike is None else [f"where either held something, both held the same at {both.alike:.0%} of closes"]
    correlation = both.difference["correlation"]
    told += [] if correlation is None else [f"the correlation of their returns is {number(correlation)}"]
    if told:
        out.print(f"{'; '.join(told).capitalize()}.", highlight=False)
    out.print(f"[bold]Page[/]      {escape(str(page))}", soft_wrap=True, highlight=False)
    out.print(f"[bold]Snapshot[/]  {snapshot}")


def _rows(cursor: "duckdb.DuckDBPyConnection", table: str, columns: str, where: str = "true") -> "pl.DataFrame":
    import duckdb

    try:
        return cursor.execute(f"select {columns} from {table} where {where}").pl()
    except (duckdb.CatalogException, duckdb.BinderException) as error:  # never made, or by an older version
        first = str(error).splitlines()[0]
        raise TapehouseError(f"{table} cannot be read ({first}); `tapehouse run` makes what is missing or stale") from None
