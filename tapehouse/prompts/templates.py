"""Templates of prompts: one versioned file each, the only place that says what a model sees.

`tapehouse/templates/<family>_v<n>.txt` begins with front matter and goes on with the text::

    ---
    family: order
    optional: ["macro ", "news "]
    ---
    {symbol} daily order for {objective}
    macro vix {vix:.1f}
    news articles {news_7d:d}
    price {close:07.2f}

A field is a column of the points with a Python format specification, in raw units. A line that begins with one of `optional`
is left out where one of its values is null; and such lines go first, in the declared order, where a prompt is too long.
One that begins with one of `nullable` is left out where a value is null, and never for its length (an answer rests on it).
Every other value must be there, and be finite.

`prompts.yaml` selects a template for each family. What it selects is part of the *inputs* of the family's tables
(`fingerprint`) and not of anyone's code, so that a changed template makes its own family stale.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Final, Literal

import polars as pl
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tapehouse.errors import TapehouseError
from tapehouse.hashing import text_hash
from tapehouse.prompts.masking import DATES, HIDDEN, masked
from tapehouse.yaml_files import parse_yaml

if TYPE_CHECKING:
    from tapehouse.settings import Settings

FOLDER: Final = Path(__file__).resolve().parents[1] / "templates"
_FENCE: Final = "---\n"
_NAME: Final = re.compile(r"\w+", re.ASCII)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _FrontMatter(_Frozen):
    family: str = Field(min_length=1)
    optional: tuple[str, ...] = ()
    nullable: tuple[str, ...] = ()


class Selected(_Frozen):
    """What `prompts.yaml` says of one family."""

    template: str
    mask: tuple[Literal["names", "dates"], ...] = ()


@dataclass(frozen=True, slots=True)
class Template:
    """A template file. `text` is what follows the front matter; `columns` are those it shows, in order of appearance."""

    name: str
    family: str
    optional: tuple[str, ...]
    nullable: tuple[str, ...]
    text: str
    columns: tuple[str, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """Lines of the text, each with its line break."""
        return tuple(self.text.splitlines(keepends=True))


@dataclass(frozen=True, slots=True)
class Selection:
    """The template of a family and what is hidden in it; `version` is what rows of a dataset name it by."""

    template: str
    mask: tuple[str, ...]
    version: str


def load(name: str) -> Template:
    """The template in `tapehouse/templates/<name>.txt`. Raises TapehouseError that names the file and what is wrong."""
    if not _NAME.fullmatch(name):  # a version string is taken apart at - and @
        raise TapehouseError(f"template {name!r}: a name is of letters, digits and _, such as order_v3; rename it")
    path = FOLDER / f"{name}.txt"
    if not path.is_file():
        known = sorted(entry.stem for entry in FOLDER.glob("*.txt"))
        raise TapehouseError(f"{path}: no such template; the templates are {known}")
    return _parsed(name, path.read_text(encoding="utf-8"))


@lru_cache(maxsize=64)
def _parsed(name: str, content: str) -> Template:
    where = f"tapehouse/templates/{name}.txt"
    parts = content.split(_FENCE, 2)
    if len(parts) != 3 or parts[0]:
        raise TapehouseError(f"{where}: begin with front matter between two lines '---': family, optional")
    try:
        front = _FrontMatter.model_validate(parse_yaml(parts[1]) or {})
    except yaml.YAMLError as error:
        raise TapehouseError(f"{where}: not YAML: {error}") from error
    except ValidationError as error:
        raise TapehouseError(f"{where}: {_faults(error)}") from error
    text = parts[2]
    fields = _fields(text)
    if any(not field.isidentifier() for field in fields):
        raise TapehouseError(f"{where}: a field is a column's name and a format, such as {{close:07.2f}}; got {fields}")
    idle = [s for s in (*front.optional, *front.nullable) if not any(line.startswith(s) for line in text.splitlines())]
    if idle:
        raise TapehouseError(f"{where}: optional, nullable: no line begins with {idle}")
    return Template(name, front.family, front.optional, front.nullable, text, tuple(dict.fromkeys(fields)))


def render(points: pl.DataFrame, name: str, mask: Collection[str] = ()) -> pl.Series:
    """Prompts, one string a row, in the order of the points.

    Args:
        points: the template's columns, in raw units.
        name: the template.
        mask: of `names`, `dates`; see `tapehouse.prompts.masking`.

    Raises:
        ValueError: a column is missing, or a value outside the optional lines is null or not finite.
    """
    template = load(name)
    missing = [column for column in template.columns if column not in points.columns]
    if missing:
        raise ValueError(f"prompts: template {name!r} shows the columns {missing}, which the points lack")
    # Masks need the symbol to hide it in quoted texts, also where the template does not show it.
    needed = dict.fromkeys((*template.columns, *(["symbol"] if "symbol" in points.columns else [])))
    shown = masked(points.select(*needed), mask).select(template.columns)
    lines = [_without_dates(line, shown.schema) for line in template.lines] if DATES in mask else list(template.lines)
    usable = shown.select(_usable(column, kind).alias(column) for column, kind in shown.schema.items())
    droppable = [line.startswith((*template.optional, *template.nullable)) for line in lines]
    for line, free in zip(lines, droppable, strict=True):
        for column in () if free else _fields(line):
            if not usable[column].all():
                row = usable[column].not_().arg_true()[0]
                raise ValueError(f"prompts: {column} is null or not finite in row {row}; drop such points")
    # A row's pattern says which of the lines that may be left out it has; each pattern is one format.
    free = [place for place, is_free in enumerate(droppable) if is_free]
    has = (pl.all_horizontal(pl.lit(True), *_fields(lines[place])).cast(pl.Int64) * (1 << n) for n, place in enumerate(free))
    patterns = usable.with_columns(pl.sum_horizontal(pl.lit(0, pl.Int64), *has).alias("_pattern"))["_pattern"]
    formats = {}
    for pattern in patterns.unique():
        left_out = {place for n, place in enumerate(free) if not pattern >> n & 1}
        formats[pattern] = "".join(line for place, line in enumerate(lines) if place not in left_out).format_map
    rows = zip(patterns, shown.iter_rows(named=True), strict=True)
    return pl.Series("prompt", [formats[pattern](row) for pattern, row in rows], dtype=pl.String)


def shortened(prompt: str, name: str) -> list[str]:
    """Ever shorter versions of a stored prompt: its optional lines dropped one after the other, in the declared order.

    The prompt itself is not among them; the list is empty where nothing optional is in it. No points are needed.
    """
    versions = []
    lines = prompt.splitlines(keepends=True)
    for start in load(name).optional:
        kept = [line for line in lines if not line.startswith(start)]
        if len(kept) < len(lines):
            versions.append("".join(kept))
            lines = kept
    return versions


def selected(home: Path, family: str) -> Selection:
    """What `prompts.yaml` in the project folder selects for a family.

    Raises:
        TapehouseError: the file, the family or its template is missing, a key is unknown, or the template is another family's.
    """
    path = home / "prompts.yaml"
    if not path.is_file():
        raise TapehouseError(f"{path}: no such file; it selects the template of each family of prompts")
    declared = _families(path, path.read_text(encoding="utf-8"))
    if family not in declared:
        raise TapehouseError(f"{path}: no family {family!r}; it declares {sorted(declared)}")
    try:
        template = load(declared[family].template)
    except TapehouseError as error:
        raise TapehouseError(f"{path}: {family}: {error}") from error
    if template.family != family:
        raise TapehouseError(f"{path}: {family}: {template.name} is a template of the family {template.family!r}")
    return selection(template.name, declared[family].mask)


def selection(name: str, mask: Sequence[str] = ()) -> Selection:
    """A template with a mask, and its version: name, mask and the digest of the template's file."""
    template = load(name)
    digest = text_hash(template.family, *template.optional, *_marked(template.nullable), template.text)[:8]
    hidden = "".join(f"-{part}" for part in sorted(set(mask)))
    return Selection(name, tuple(sorted(set(mask))), f"{name}{hidden}@{digest}")


def _marked(nullable: tuple[str, ...]) -> tuple[str, ...]:
    return ("nullable", *nullable) if nullable else ()


def template_of(version: str) -> str:
    """The template's name in a version string such as `order_v2-names@1a2b3c4d`."""
    return version.partition("@")[0].partition("-")[0]


def fingerprint(*families: str) -> Callable[[Settings, datetime, datetime], str]:
    """For a table's declaration: what `prompts.yaml` selects for these families is one of its inputs."""

    def versions(settings: Settings, start: datetime, end: datetime) -> str:
        return " ".join(selected(settings.home, family).version for family in families)

    return versions


@lru_cache(maxsize=16)
def _families(path: Path, content: str) -> dict[str, Selected]:
    try:
        declared = parse_yaml(content) or {}
    except yaml.YAMLError as error:
        raise TapehouseError(f"{path}: not YAML: {error}") from error
    asked = "expected a family and what it selects, such as `order: {template: order_v2, mask: []}`"
    if not isinstance(declared, dict):
        raise TapehouseError(f"{path}: {asked}")
    found = {}
    for family, said in declared.items():
        if not isinstance(said, dict):
            raise TapehouseError(f"{path}: {family}: {asked}, got {said!r}")
        try:
            found[family] = Selected.model_validate(said)
        except ValidationError as error:
            raise TapehouseError(f"{path}: {family}: {_faults(error)}") from error
    if idle := sorted(map(str, set(found) - {load(file.stem).family for file in FOLDER.glob("*.txt")})):
        raise TapehouseError(f"{path}: {', '.join(idle)}: no template is of this family; mend the name or remove the line")
    return found


def _usable(column: str, kind: pl.DataType) -> pl.Expr:
    there = pl.col(column).is_not_null()
    return there & pl.col(column).is_finite().fill_null(False) if kind.is_float() else there


def _fields(text: str) -> list[str]:
    return [field for _, field, _, _ in Formatter().parse(text) if field is not None]


def _without_dates(line: str, schema: pl.Schema) -> str:
    """The line with the word `hidden` for each field of a date or a time, whatever its format."""
    parts = []
    for literal, field, form, _ in Formatter().parse(line):
        parts.append(literal.replace("{", "{{").replace("}", "}}"))
        if field is not None:
            parts.append(HIDDEN if schema[field].is_temporal() else f"{{{field}:{form}}}")
    return "".join(parts)


def _faults(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
