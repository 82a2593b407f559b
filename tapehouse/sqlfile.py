"""SQL assets: a header, one SELECT, and what follows from it: inputs, types, column lineage, and what is refused."""

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, build_scope, traverse_scope

from tapehouse.errors import TapehouseError
from tapehouse.hashing import text_hash
from tapehouse.warehouse import short_type

HEADER_MONTHS = re.compile(r"^(lookback|lookahead):\s*(\d+)\s+months?$")
AS_KNOWN = "_as_known"  # the table macro `schema.table_as_known(at)` reads `schema.table`
# Sums of doubles depend on the order of their rows, and DuckDB's order on the range and the threads.
ORDER_DEPENDENT = re.compile(r"^(sum|avg|mean|stddev|var|corr|covar|regr|kurtosis|skewness|fsum|favg|kahan|sumkahan)")
EXACT_TYPES = {exp.DataType.Type.DECIMAL, *exp.DataType.INTEGER_TYPES, exp.DataType.Type.BOOLEAN}
Source = tuple[str, str]  # (schema.table, column)


@dataclass(frozen=True)
class SqlFile:
    """A parsed file of `sql/<schema>/<table>.sql`.

    Attributes:
        text: the SELECT without its header; `$start` and `$end` are bound to the partition range.
        doc: the header's prose; its first line says the grain and what a row means.
        reads: the tables that the query reads, in order of appearance.
    """

    path: Path
    text: str
    doc: str
    lookback_months: int
    lookahead_months: int
    reads: tuple[str, ...]
    tree: exp.Query = field(repr=False, compare=False)

    @cached_property
    def parameters(self) -> frozenset[str]:
        """Names of the bound parameters that the query uses."""
        return frozenset(p.name for p in self.tree.find_all(exp.Placeholder, exp.Parameter))

    @property
    def version(self) -> str:
        """Hash of the query and its look-back; comments and layout do not count."""
        return text_hash(self.tree.sql("duckdb", comments=False), f"{self.lookback_months},{self.lookahead_months}")


def parse_sql_file(path: Path, text: str | None = None) -> SqlFile:
    """Parse one SQL asset.

    Raises:
        TapehouseError: file and line of what does not parse, a missing description, more than one statement, not a SELECT.
    """
    text = path.read_text() if text is None else text
    header, months = [], {"lookback": 0, "lookahead": 0}
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        comment = line.removeprefix("--").strip()
        match = HEADER_MONTHS.match(comment)
        if match:
            months[match.group(1)] = int(match.group(2))
        elif comment.split(":")[0] in months:
            raise TapehouseError(f"{path}: header {comment!r}: write it as 'lookback: 2 months'")
        else:
            header.append(comment)
    if not header:
        raise TapehouseError(f"{path}:1: the first line must be a comment, '-- One row per (…): what a row means'")
    try:
        statements = [s for s in sqlglot.parse(text, dialect="duckdb") if s is not None]
    except SqlglotError as error:
        detail = error.errors[0] if getattr(error, "errors", None) else {}
        line = f":{detail['line']}" if detail.get("line") else ""
        what = detail.get("description") or str(error)
        raise TapehouseError(f"{path}{line}: does not parse: {what} near {detail.get('highlight')!r}") from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise TapehouseError(f"{path}: a SQL asset is exactly one SELECT, found {len(statements)} statements")
    tree = statements[0]
    return SqlFile(path, text, "\n".join(header), months["lookback"], months["lookahead"], _tables(path, tree), tree)


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
    return {row[0]: short_type(row[1]) for row in rows}


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
    _refuse_float_aggregates(file, tree)
    root = build_scope(tree)
    assert root is not None
    columns = {p.alias_or_name: tuple(sorted(_sources(root, p))) for p in root.expression.selects}
    deciding: set[Source] = set()
    for scope in traverse_scope(tree):
        for clause in _row_clauses(scope.expression):
            deciding |= _sources(scope, clause)
    return Lineage(columns, tuple(sorted(deciding)))


def _tables(path: Path, tree: exp.Query) -> tuple[str, ...]:
    ctes = {cte.alias for cte in tree.find_all(exp.CTE)}
    found: dict[str, None] = {}
    for node in tree.find_all(exp.Table):
        name = node.this.name if isinstance(node.this, exp.Anonymous) else node.name
        if not node.db and name in ctes:
            continue
        if not node.db:
            raise TapehouseError(f"{path}: table {name!r} has no schema; write it as schema.{name}")
        found[f"{node.db}.{name.removesuffix(AS_KNOWN)}"] = None
    return tuple(found)


def _row_clauses(select: exp.Expression) -> list[exp.Expression]:
    clauses = [select.args.get(key) for key in ("where", "group", "having", "qualify", "order")]
    clauses += [join.args.get("on") for join in select.args.get("joins") or []]
    clauses += list(select.find_all(exp.Window))
    return [c for c in clauses if c is not None]


def _sources(scope: Scope, node: exp.Expression) -> set[Source]:
    found: set[Source] = set()
    for column in node.find_all(exp.Column):
        origin = scope.sources.get(column.table)
        if isinstance(origin, exp.Table):
            found.add((f"{origin.db}.{origin.name}", column.name))
        elif isinstance(origin, Scope):
            for part in _branches(origin):
                for projection in part.expression.selects:
                    if projection.alias_or_name == column.name:
                        found |= _sources(part, projection)
    return found


def _refuse_float_aggregates(file: SqlFile, tree: exp.Expression) -> None:
    for call in tree.find_all(exp.Func):
        name = (call.name if isinstance(call, exp.Anonymous | exp.AnonymousAggFunc) else call.sql_name()).lower()
        if not ORDER_DEPENDENT.match(name) or name.startswith("list_"):
            continue
        argument = call.this if isinstance(call.this, exp.Expression) else next(iter(call.expressions), None)
        kind = argument.type.this if argument is not None and argument.type is not None else None
        if kind not in EXACT_TYPES:
            raise TapehouseError(
                f"{file.path}: {name}({argument.sql('duckdb') if argument is not None else ''}) adds floating-point values in "
                "an order that varies with the range and the threads (promise 3); cast to a decimal, use "
                "list_sum(list(x) over w), or move it to a kernel in assets/"
            )


def _branches(scope: Scope) -> list[Scope]:
    """The SELECTs behind a scope: itself, or the sides of a UNION."""
    sides = scope.set_operation_scopes
    return [branch for side in sides for branch in _branches(side)] if sides else [scope]
