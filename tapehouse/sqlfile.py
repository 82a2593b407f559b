"""SQL assets: a header, one SELECT, and what follows from it: inputs, types, column lineage, and what is refused."""

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, build_scope, traverse_scope

from tapehouse.errors import TapehouseError
from tapehouse.hashing import text_hash
from tapehouse.tables import Read
from tapehouse.warehouse import short_type

HEADER_WINDOW = re.compile(r"^(lookback|lookahead):\s*(\d+)\s+(month|day)s?$")
HEADER_CADENCE = re.compile(r"^cadence:\s*(days|months)$")
AS_KNOWN = "_as_known"  # the table macro `schema.table_as_known(at)` reads `schema.table`
# Sums of doubles depend on the order of their rows, and DuckDB's order on the range and the threads. Of whole numbers and
# decimals sums and means are exact; the second group computes in doubles whatever it is given.
SUMS = re.compile(r"^(sum|avg|mean|fsum|favg|kahan|sumkahan)")
IN_DOUBLES = re.compile(
    r"^(stddev|var|corr|covar|regr|kurtosis|skewness|sem$|entropy|product$|geomean|geometric_mean|weighted_avg|wavg"
    r"|approx_quantile|reservoir_quantile)"
)
# The clock, chance, and whichever row comes first.
UNREPEATABLE = {
    *("rand", "random", "uuid", "gen_random_uuid", "setseed"),
    *("now", "today", "get_current_timestamp", "localtime", "localtimestamp"),
    *("current_date", "current_time", "current_timestamp", "current_datetime"),
    *("any_value", "arbitrary", "first", "last"),
}
EXACT_TYPES = {exp.DataType.Type.DECIMAL, *exp.DataType.INTEGER_TYPES, exp.DataType.Type.BOOLEAN}
INEXACT_IN_THE_LAKE = re.compile(r"hugeint")  # what sum() makes of integers; DuckLake stores it as a double
Source = tuple[str, str]  # (schema.table, column)


@dataclass(frozen=True)
class SqlFile:
    """A parsed file of `sql/<schema>/<table>.sql`.

    Attributes:
        text: the whole file; `$start` and `$end` are bound to the partition range.
        doc: the header's prose; its first line says the grain and what a row means.
        cadence: by what a ranged query is made: months, unless the header says `cadence: days`.
        window: the header's look-back and look-ahead, as a `Read` of no table.
        reads: the tables that the query reads, in order of appearance.
    """

    path: Path
    text: str
    doc: str
    cadence: Literal["days", "months"]
    window: Read
    reads: tuple[str, ...]
    tree: exp.Query = field(repr=False, compare=False)

    @cached_property
    def parameters(self) -> frozenset[str]:
        """Names of the bound parameters that the query uses."""
        return frozenset(p.name for p in self.tree.find_all(exp.Placeholder, exp.Parameter))

    @property
    def version(self) -> str:
        """Hash of the query and its look-back; comments and layout do not count."""
        window = self.window
        months, days = (window.lookback_months, window.lookahead_months), (window.lookback_days, window.lookahead_days)
        return text_hash(self.tree.sql("duckdb", comments=False), f"{self.cadence} {months} {days}")


def parse_sql_file(path: Path, text: str | None = None) -> SqlFile:
    """Parse one SQL asset.

    Raises:
        TapehouseError: file and line of what does not parse, a missing description, more than one statement, not a SELECT.
    """
    text = path.read_text() if text is None else text
    header, window, cadence = [], {}, "months"
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        comment = line.removeprefix("--").strip()
        if match := HEADER_WINDOW.match(comment):
            window[f"{match.group(1)}_{match.group(3)}s"] = int(match.group(2))
        elif match := HEADER_CADENCE.match(comment):
            cadence = match.group(1)
        elif comment.split(":")[0] in ("lookback", "lookahead"):
            raise TapehouseError(f"{path}: header {comment!r}: write it as 'lookback: 2 months' or 'lookback: 1 days'")
        elif comment.split(":")[0] == "cadence":
            raise TapehouseError(f"{path}: header {comment!r}: write it as 'cadence: days' or 'cadence: months'")
        else:
            header.append(comment)
    if not header:
        raise TapehouseError(f"{path}:1: the first line must be a comment, '-- One row per (…): what a row means'")
    try:
        statements = [s for s in sqlglot.parse(text, dialect="duckdb") if s is not None]
    except SqlglotError as error:
        raise TapehouseError(f"{path}{_where(text, error)}") from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise TapehouseError(f"{path}: a SQL asset is exactly one SELECT, found {len(statements)} statements")
    tree = statements[0]
    return SqlFile(path, text, "\n".join(header), cadence, Read("", **window), _tables(path, tree), tree)


def described(file: SqlFile, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Column to DuckDB type, by DESCRIBE against the (empty) tables of `con`.

    Raises:
        TapehouseError: file and DuckDB's own words for what does not bind.
    """
    bound = re.sub(r"\$(start|end)\b", "timestamptz '2000-01-01'", file.text)
    try:
        rows = con.execute(f"describe {bound}").fetchall()
    except duckdb.Error as error:
        raise TapehouseError(f"{file.path}: {error}") from None
    types = {row[0]: short_type(row[1]) for row in rows}
    for column, kind in types.items():
        if INEXACT_IN_THE_LAKE.search(kind):
            raise TapehouseError(f"{file.path}: {column} is {kind}, which the lake does not keep exactly; cast it to bigint")
    return types


@dataclass(frozen=True)
class Lineage:
    """Where each column comes from, and which columns decided which rows there are (filters, joins, order)."""

    columns: dict[str, tuple[Source, ...]]
    row_sources: tuple[Source, ...]


def analyse(file: SqlFile, schemas: dict[str, dict[str, str]]) -> Lineage:
    """Column lineage of the query over `schemas` (`schema.table` to columns and types).

    Raises:
        TapehouseError: an order-dependent aggregate over floating-point values (promise 3), named with its remedy.
    """
    nested: dict[str, dict[str, dict[str, str]]] = {}
    for name, columns in schemas.items():
        schema, table = name.split(".")
        nested.setdefault(schema, {})[table] = columns
    tree = file.tree.copy()
    for macro in [t for t in tree.find_all(exp.Table) if isinstance(t.this, exp.Anonymous)]:
        macro.set("this", exp.to_identifier(macro.this.name.removesuffix(AS_KNOWN)))
    try:
        tree = qualify(tree, schema=nested, dialect="duckdb", validate_qualify_columns=False, quote_identifiers=False)
        tree = annotate_types(tree, schema=nested, dialect="duckdb")
    except SqlglotError as error:
        raise TapehouseError(f"{file.path}: {error}") from None
    _refuse_unrepeatable(file, tree)
    root = build_scope(tree)
    assert root is not None
    columns = {p.alias_or_name: tuple(sorted(_sources(root, p))) for p in root.expression.selects}
    deciding: set[Source] = set()
    for scope in traverse_scope(tree):
        for clause in _row_clauses(scope):
            deciding |= _sources(scope, clause)
    return Lineage(columns, tuple(sorted(deciding)))


def _where(text: str, error: SqlglotError) -> str:
    """Line and words of a parse error; of one inside a quoted text or a comment only DuckDB knows the line."""
    details = getattr(error, "errors", None)
    if details:
        found = details[0]
        return f":{found['line']}: does not parse: {found['description']} near {found['highlight']!r}"
    try:
        duckdb.extract_statements(text)
    except duckdb.Error as said:
        line = re.search(r"^LINE (\d+):", str(said), re.MULTILINE)
        return f":{line.group(1) if line else 1}: does not parse: {said}"
    return f":1: does not parse: {error}"


def _tables(path: Path, tree: exp.Query) -> tuple[str, ...]:
    ctes = {cte.alias for cte in tree.find_all(exp.CTE)}
    found: dict[str, None] = {}
    for node in tree.find_all(exp.Table):
        name = node.this.name if isinstance(node.this, exp.Anonymous) else node.name
        if not node.db and (name in ctes or isinstance(node.this, exp.GenerateSeries)):
            continue
        if not node.db:
            line = min((part.meta["line"] for part in node.find_all(exp.Expression) if "line" in part.meta), default=1)
            remedy = f"write it as schema.{name}" if name else "a SQL asset reads the tables of assets alone"
            raise TapehouseError(f"{path}:{line}: table {name or node.sql('duckdb')!r} has no schema; {remedy}")
        found[f"{node.db}.{name.removesuffix(AS_KNOWN)}"] = None
    return tuple(found)


def _row_clauses(scope: Scope) -> list[exp.Expression]:
    select = scope.expression
    clauses = [select.args.get(key) for key in ("where", "group", "having", "qualify", "distinct", "order")]
    clauses += [join.args.get("on") for join in select.args.get("joins") or []]
    for window in scope.find_all(exp.Window):  # its order, not what it computes
        clauses += [*(window.args.get("partition_by") or []), window.args.get("order")]
    return [c for c in clauses if isinstance(c, exp.Expression)]  # the `distinct` of a UNION is a flag


def _sources(scope: Scope, node: exp.Expression) -> set[Source]:
    found: set[Source] = set()
    for column in node.find_all(exp.Column):
        origin = scope.sources.get(column.table)
        if isinstance(origin, exp.Table) and origin.db:
            found.add((f"{origin.db}.{origin.name}", column.name))
        elif isinstance(origin, Scope):
            for part in _branches(origin):
                found |= _projected(part, column.name)
        elif not column.table and node.key in ("order", "distinct"):  # these may name what is selected
            found |= _projected(scope, column.name)
    return found


def _projected(scope: Scope, name: str) -> set[Source]:
    return {s for p in scope.expression.selects if p.alias_or_name == name for s in _sources(scope, p)}


def _refuse_unrepeatable(file: SqlFile, tree: exp.Expression) -> None:
    for call in tree.find_all(exp.Func):
        name = (call.name if isinstance(call, exp.Anonymous | exp.AnonymousAggFunc) else call.sql_name()).lower()
        if name in UNREPEATABLE:
            raise TapehouseError(
                f"{file.path}: {name}() gives other values when the query runs again (promise 3); take the time from the rows, "
                "a draw from a hash of the row's key, and one of many rows by min, max or an ordered window"
            )
        if name.startswith("list_") or not (SUMS.match(name) or IN_DOUBLES.match(name)):
            continue
        argument = call.this if isinstance(call.this, exp.Expression) else next(iter(call.expressions), None)
        kind = argument.type.this if argument is not None and argument.type is not None else None
        if kind not in EXACT_TYPES or IN_DOUBLES.match(name):
            raise TapehouseError(
                f"{file.path}: {name}({argument.sql('duckdb') if argument is not None else ''}) adds floating-point values in "
                "an order that varies with the range and the threads (promise 3); cast to a decimal, use "
                "list_sum(list(x order by …) over w), or move it to a kernel in assets/"
            )


def _branches(scope: Scope) -> list[Scope]:
    """The SELECTs behind a scope: itself, or the sides of a UNION."""
    sides = scope.set_operation_scopes
    return [branch for side in sides for branch in _branches(side)] if sides else [scope]
