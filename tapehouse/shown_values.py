"""What the decision point of a prompt shows: the numbers of its template's fields, read from the warehouse.

The column `template` says which template a row was rendered with; the template's fields are columns of the tables of
`features` behind the dataset. Their rows are read anew, by the row's own key and at the snapshot that the build saw, so that
a builder that joined the wrong decision, or something that is no feature, cannot vouch for itself.

Nothing is registered: a table of `datasets` with a column `prompt` is scanned, and this is how.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path
from string import Formatter
from typing import Any, Final

import duckdb
import polars as pl
import yaml

from tapehouse.errors import TapehouseError
from tapehouse.expectations import Result
from tapehouse.project import Asset, Project
from tapehouse.prompt_scan import NO_OUTCOME, ONLY_ITS_POINT, PROMPT, numbers, scan
from tapehouse.prompts.masking import DATES
from tapehouse.prompts.templates import Template, load, template_of
from tapehouse.warehouse import LAKE

TEMPLATE: Final = "template"
OBJECTIVE: Final = "objective"
SCANS: Final = (ONLY_ITS_POINT, NO_OUTCOME)
SLICE: Final = 100_000  # rows at a time: a dataset may be larger than the memory


def is_scanned(table: str, columns: Collection[str]) -> bool:
    """Whether a table's rows are prompts."""
    return table.startswith("datasets.") and PROMPT in columns


def scan_prompts(
    project: Project, asset: Asset, frames: dict[str, pl.DataFrame], cursor: duckdb.DuckDBPyConnection
) -> dict[str, list[Result]]:
    """For each of an asset's tables of prompts the scan's results, as of entries of its contract.

    Args:
        frames: table to its new rows.
        cursor: sees the snapshot that the rows were built at.
    """
    return {
        name: scan_rows(project, asset, rows, list(project.tables[name].doc.grain), cursor)
        for name, rows in frames.items()
        if is_scanned(name, rows.columns)
    }


def scan_rows(
    project: Project, asset: Asset, rows: pl.DataFrame, key: Sequence[str], cursor: duckdb.DuckDBPyConnection
) -> list[Result]:
    """The scan of one table's rows, in slices; without a column that names the template, its failure."""
    if TEMPLATE not in rows.columns:
        why = f"no column {TEMPLATE!r}: add the version of each prompt's template (tapehouse.prompts.templates.selected)"
        return [Result(ONLY_ITS_POINT, False, (), why)]
    words, texts = objective_words(project.settings.home), objective_texts(project.settings.home)
    parts = []
    for start in range(0, max(rows.height, 1), SLICE):
        some = rows.slice(start, SLICE)
        points = Points(project, asset, some, cursor)
        parts.append((start, scan(some, shown_numbers(some, points, words), key, points.naming, said_texts(some, texts))))
    return [_joined(results) for results in zip(*([(start, r) for r in found] for start, found in parts), strict=True)]


def _joined(results: Sequence[tuple[int, Result]]) -> Result:
    """The results of all slices of one expectation as one, with positions in the whole."""
    positions = tuple(start + row for start, result in results for row in result.rows)
    detail = "; ".join(result.detail for _, result in results if not result.success)
    return Result(results[0][1].expectation, not positions, positions, detail)


class Points:
    """The own decision points of rows: columns of the tables of `features` behind the asset, by the rows' keys."""

    def __init__(self, project: Project, asset: Asset, rows: pl.DataFrame, cursor: duckdb.DuckDBPyConnection):
        self._rows, self._cursor, self._project = rows, cursor, project
        behind = project.ancestors(asset.name)
        direct = [read.table for read in asset.reads]
        # The nearest first: what a table takes over from the one before it is the same value.
        order = [*direct, *(name for name in reversed(project.assets) if name in behind and name not in direct)]
        dated = [name for name in order if name in project.tables and "decision_at" in project.tables[name].types]
        self._tables = [
            name for name in dated if name.startswith("features.") and set(project.tables[name].doc.grain) <= set(rows.columns)
        ]
        self._later = [name for name in dated if name.startswith("labels.")]

    @property
    def key(self) -> list[str]:
        """Columns of the rows that name a decision point."""
        names = dict.fromkeys(c for name in self._tables for c in self._project.tables[name].doc.grain)
        return list(names)

    def of(self, rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        """One row a distinct key of `rows`: the key and those of `columns` that a table of features has, null where it has no
        such decision."""
        found = rows.select(self.key).unique(maintain_order=True) if self.key else pl.DataFrame()
        wanted = list(columns)
        for name in self._tables:
            grain = list(self._project.tables[name].doc.grain)
            own = [c for c in wanted if c in self._project.tables[name].types and c not in self.key]
            if own:
                stored = self._read(name, [*grain, *own], rows)
                found = found.join(stored, on=grain, how="left", maintain_order="left")
                wanted = [c for c in wanted if c not in own]
        return found

    def naming(self, row: int, foreign: list[str]) -> list[str]:
        """What the foreign numbers of a row are, in words: values of its own row, or labels and closes of its decision."""
        here = self._rows.slice(row, 1)
        values = [(name, here[name][0]) for name in here.columns if name not in (PROMPT, TEMPLATE)]
        for table in self._later:
            types = self._project.tables[table].types
            grain = [c for c in self.key if c in types]  # of a label by side, both sides
            columns = [c for c in types if c not in grain]
            for found in self._read(table, [*grain, *columns], here).join(here, on=grain, how="semi").iter_rows(named=True):
                values += [(f"{table}.{column}", found[column]) for column in columns]
        values += [(f"the close of {at:%Y-%m-%d}", close) for at, close in self._closes(here)]
        return [f"{number} ({_named(number, values)})" for number in foreign]

    def _closes(self, here: pl.DataFrame) -> list[tuple[datetime, float]]:
        """Closes of the same instrument from the decision on, in time."""
        table = next((name for name in self._tables if "close" in self._project.tables[name].types), None)
        if table is None:
            return []
        return self._cursor.execute(
            f"select decision_at, close from {LAKE}.{table} where symbol = $symbol and decision_at > $at order by 1 limit 20",
            {"symbol": here["symbol"][0], "at": here["decision_at"][0]},
        ).fetchall()

    def _read(self, table: str, columns: Sequence[str], rows: pl.DataFrame) -> pl.DataFrame:
        names = ", ".join(f'"{c}"' for c in dict.fromkeys(columns))
        if rows.is_empty():
            return self._cursor.execute(f"select {names} from {LAKE}.{table} limit 0").pl()
        span = {"first": rows["decision_at"].min(), "last": rows["decision_at"].max()}
        return self._cursor.execute(
            f"select {names} from {LAKE}.{table} where decision_at >= $first and decision_at <= $last", span
        ).pl()


def _named(number: str, values: Sequence[tuple[str, Any]]) -> str:
    """The first of the values that prints as the number does, or that none does."""
    digits = number.lstrip("+-").rstrip("%")
    decimals = len(digits.partition(".")[2])
    scale = 100.0 if number.endswith("%") else 1.0
    for name, value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if digits.replace(".", "", 1).isdigit() and f"{abs(value) * scale:.{decimals}f}" == f"{float(digits):.{decimals}f}":
            return f"{name} of its own row" if "." not in name and " " not in name else name
    return "no value of its decision point"


def shown_numbers(rows: pl.DataFrame, points: Points, words: dict[str, list[str]]) -> pl.Series:
    """For each row the numbers that its prompt may show, as texts: a list a row."""
    placed = rows.select(*dict.fromkeys([*points.key, TEMPLATE, *([OBJECTIVE] if OBJECTIVE in rows.columns else [])]))
    placed = placed.with_row_index("__row")
    parts = []
    for (version,), some in placed.group_by([TEMPLATE], maintain_order=True):
        template = _template(version)
        if template is None or not points.key:
            parts.append(some.select("__row", shown=pl.lit([], pl.List(pl.String))))
            continue
        own = points.of(some, template.columns)
        hidden = DATES in str(version).partition("@")[0].split("-")[1:]
        own = own.select(*points.key, shown=point_numbers(own, template, hidden))
        parts.append(some.join(own, on=points.key, how="left", maintain_order="left").select("__row", "shown"))
    if not parts:
        return pl.Series("shown", [], dtype=pl.List(pl.String))
    shown = pl.concat(parts).sort("__row")["shown"]
    if OBJECTIVE not in rows.columns or not any(words.values()):
        return shown
    said = rows[OBJECTIVE].replace_strict(
        pl.Series(list(words)), pl.Series(list(words.values()), dtype=pl.List(pl.String)), default=None
    )
    return pl.DataFrame({"shown": shown, "said": said}).select(pl.concat_list("shown", pl.col("said").fill_null([])))["shown"]


def point_numbers(points: pl.DataFrame, template: Template, hidden_dates: bool = False) -> pl.Series:
    """For each decision point the numbers that a template shows of it: a list of texts a row.

    The template is filled in as a prompt is. A null leaves its place empty, and a field that is no column
    of the points (an objective's words, for one) too.
    """
    columns: list[pl.Series] = []
    parts: list[pl.Expr] = []
    for literal, field, form, _ in Formatter().parse(template.text):
        parts.append(pl.lit(literal))
        if field is not None and field in points.columns and not (hidden_dates and points[field].dtype.is_temporal()):
            columns.append(pl.Series(str(len(columns)), _formatted(points[field], form or ""), dtype=pl.String))
            parts.append(pl.col(columns[-1].name))
    filled = pl.DataFrame([*columns, pl.Series("end", [""] * points.height, dtype=pl.String)])
    return filled.select(numbers(pl.concat_str(*parts, "end")).alias("shown"))["shown"]


def _formatted(values: pl.Series, form: str) -> list[str]:
    return ["" if value is None else format(value, form) for value in values.to_list()]


def _template(version: Any) -> Template | None:
    """The template that a version names; None where it names none, so that every number of the prompt is foreign."""
    try:
        return load(template_of(version)) if isinstance(version, str) else None
    except TapehouseError:
        return None


def said_texts(rows: pl.DataFrame, texts: dict[str, str]) -> pl.Series:
    """For each row what its prompt may say in any case: the text of its template, the symbol filled in, the words of its
    objective, and the side that an order is asked for, which is drawn and no outcome."""
    given = [column for column in (TEMPLATE, OBJECTIVE, "symbol", "side") if column in rows.columns]
    kinds = rows.select(given).unique(maintain_order=True)
    said = []
    for kind in kinds.iter_rows(named=True):
        template = _template(kind[TEMPLATE])
        text = template.text.replace("{symbol}", str(kind.get("symbol"))) if template else ""
        said.append(f"{text}\n{texts.get(str(kind.get(OBJECTIVE)), '')}\n{kind.get('side') or ''}")
    told = kinds.with_columns(pl.Series("__said", said, dtype=pl.String))
    return rows.select(given).join(told, on=given, how="left", nulls_equal=True, maintain_order="left")["__said"]


def objective_texts(home: Path) -> dict[str, str]:
    """The wording of each objective that a file `*objectives.yaml` of the project declares, a line for each file."""
    found: dict[str, list[str]] = {}
    for path in sorted(home.glob("*objectives.yaml")):
        declared = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("objectives", {})
        for name, objective in declared.items():
            found.setdefault(name, []).append(str(objective.get("words", "")))
    return {name: "\n".join(words) for name, words in found.items()}


def objective_words(home: Path) -> dict[str, list[str]]:
    """The numbers in the wording of each objective."""
    texts = objective_texts(home)
    said = pl.DataFrame({"words": list(texts.values())}, schema={"words": pl.String}).select(numbers(pl.col("words")))
    return dict(zip(texts, said["words"].to_list(), strict=True))
