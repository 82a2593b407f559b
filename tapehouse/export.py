"""A fold of a dataset as files: a Hugging Face `datasets` folder, or JSON lines, with its card, whole or not at all.

The training rows are those that trained models of the fold may know: decided in the training window, and with an outcome that
was known by its end. The test rows are those decided in the test block. Nothing is drawn at random: an export of the same
snapshot has the same rows, in the order of the table's grain.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import duckdb
import polars as pl

from tapehouse.dataset_cards import DECIDED, SCHEMA, card, outcome_known
from tapehouse.errors import TapehouseError
from tapehouse.folds import Fold
from tapehouse.hashing import frame_hash
from tapehouse.lineage import State, read_state, require_fresh, stale
from tapehouse.partitions import DATED, FOLDED, key_of
from tapehouse.project import Asset, Project, Table
from tapehouse.warehouse import LAKE, Warehouse

Split = Literal["train", "test"]
Form = Literal["hf", "jsonl"]
REWARDED, CLASSES = "datasets.rl_prompts", "models.signal_classes"
TOKENIZER: Final = "tokenizer"
SPLITS: Final[tuple[Split, ...]] = ("train", "test")
MICROSECOND: Final = timedelta(microseconds=1)
SMALLEST_CELL: Final = 20  # rows of a combination of classes below which a symbol is left out of what is balanced by symbol
FRONT: Final = "---\npretty_name: {name}, fold {fold}\nlicense: other\n---\n\n"
LOADED: Final[dict[str, str]] = {
    "hf": '```python\nfrom datasets import load_from_disk\n\nrows = load_from_disk("{folder}")["{split}"]\n```\n\n',
    "jsonl": "```python\nimport polars as pl\n\n"
    'rows = pl.read_ndjson("{folder}/{split}.jsonl", infer_schema_length=None)\n```\n\n',
}


@dataclass(frozen=True)
class Exported:
    """What was written: the folder, rows by split, and what stands at the head of the card beside them."""

    folder: Path
    rows: dict[str, int]
    snapshot: int
    notes: dict[str, str] = field(default_factory=dict)


def export(
    project: Project,
    warehouse: Warehouse,
    name: str,
    fold: str,
    to: Path,
    form: Form = "hf",
    splits: Sequence[Split] = SPLITS,
    balance: Sequence[str] = (),
    packed: int | None = None,
    tokenizer: str | None = None,
) -> Exported:
    """Write a fold of a dataset to the folder `to`, which must not exist yet (or be empty).

    Args:
        name: a table of `datasets`.
        fold: a key of `project.folds`.
        form: `hf` for a folder that `datasets.load_from_disk` reads, `jsonl` for one file of JSON lines a split.
        balance: columns of which the training rows shall have equally many of each combination of values.
        packed: most tokens of a row into which the examples of a table of tokens are packed, training and test rows alike.
        tokenizer: of a table of tokens the rows of this tokenizer alone, a digest of `models.tokenizer`.

    Raises:
        TapehouseError: no such dataset, fold or column; the folder holds something; the dataset or what is behind it is
            stale or was never made; or no row is left.
    """
    table, asset, window = _declared(project, name, fold)
    to = to.expanduser().resolve()
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise TapehouseError(f"--to {to}: it holds something already; name a new folder, or remove that one")
    with warehouse.reading() as (cursor, snapshot):
        _require_made(project, asset, window, read_state(cursor))
        frames: dict[str, pl.DataFrame] = {}
        notes = {"fold": fold}
        for split in splits:
            rows, notes[split] = _rows(cursor, table, window, split, tokenizer)
            rows = _with_classes(cursor, name, rows, fold)
            if rows.is_empty():
                other = f", or a tokenizer of {_tokenizers(cursor, name)}" if tokenizer else ""
                raise TapehouseError(
                    f"{name}: no {split} row in fold {fold} ({notes[split]}); choose another fold or --split{other}"
                )
            frames[split] = rows
        if balance:
            frames, notes["balanced"] = _balanced(frames, name, fold, balance)
        told = pl.concat(frames.values())
        if packed is not None:
            frames, notes["packed"] = _packed(frames, name, packed)
        cursor.register("exported_rows", told.to_arrow())
        text = card(project, name, cursor, snapshot, "exported_rows", list(notes.items()))
        cursor.unregister("exported_rows")
    head = FRONT.format(name=name, fold=fold) + LOADED[form].format(folder=to.name, split=splits[0])
    write = partial(_write_hf, name=name) if form == "hf" else _write_jsonl
    _whole(to, frames, write, head + text)
    return Exported(to, {split: rows.height for split, rows in frames.items()}, snapshot, notes)


def _declared(project: Project, name: str, fold: str) -> tuple[Table, Asset, Fold]:
    datasets = [table for table in project.tables if table.startswith(SCHEMA)]
    if name not in datasets:
        raise TapehouseError(f"{name}: no dataset; there are {', '.join(sorted(datasets))}")
    if fold not in project.folds:
        raise TapehouseError(f"--fold {fold}: no such fold; there are {', '.join(project.folds)}")
    return project.tables[name], project.assets[project.writers[name][0]], project.folds[fold]


def _require_made(project: Project, asset: Asset, fold: Fold, state: State) -> None:
    """Refuse to export what would come out differently today: as with training, the snapshot names one consistent state."""
    keys = project.partitions(asset)
    if asset.by in DATED:
        first, last = key_of(asset.by, fold.train_start), (fold.test_end - MICROSECOND).date().isoformat()
        keys = [key for key in keys if first <= key <= last]
    elif asset.by in FOLDED:
        keys = [fold.id]
    old = [s for s in stale(project, state, {asset.name}) if s.partition in set(keys)]
    if old:
        raise TapehouseError(
            f"{asset.name}: not exported, because {len(old)} of its partitions changed since or were never made "
            f"({old[0].why}); `tapehouse run --select +{asset.name.replace('.', '/')}` makes them first"
        )
    require_fresh(project, asset, keys, state)


def _rows(
    cursor: duckdb.DuckDBPyConnection, table: Table, fold: Fold, split: Split, tokenizer: str | None
) -> tuple[pl.DataFrame, str]:
    """The rows of one side of a fold in the order of the grain, and which they are in words."""
    start, end = (fold.train_start, fold.train_end) if split == "train" else (fold.test_start, fold.test_end)
    time, known = table.time or DECIDED, outcome_known(table)
    terms = [f'"{time}" >= $start', f'"{time}" < $end']
    bound: dict[str, Any] = {"start": start, "end": end}
    if table.doc.partition is not None:
        terms.append(f'"{table.doc.partition}" = $fold')
        bound["fold"] = fold.id
    if tokenizer is not None:
        if TOKENIZER not in table.types:
            raise TapehouseError(f"--tokenizer {tokenizer}: {table.name} holds no tokens; leave it out")
        terms.append(f"{TOKENIZER} = $tokenizer")
        bound["tokenizer"] = tokenizer
    inside = cursor.execute(f"select count(*) from {LAKE}.{table.name} where {' and '.join(terms)}", bound).fetchone()[0]
    said = f"decided from {start:%Y-%m-%d} until {end:%Y-%m-%d}"
    if split == "train" and known is not None:
        # As in training: what was not known by the end of the window cannot have taught the fold's model.
        terms.append(f'"{known}" < $end')
    columns = ", ".join(f'"{c}"' for c in table.types)
    order = ", ".join(f'"{c}"' for c in table.doc.grain)
    rows = cursor.execute(f"select {columns} from {LAKE}.{table.name} where {' and '.join(terms)} order by {order}", bound).pl()
    purged = f", {inside - rows.height:,} more purged because {known} was not before its end" if inside > rows.height else ""
    return rows, f"{rows.height:,} rows {said}{purged}"


def _tokenizers(cursor: duckdb.DuckDBPyConnection, name: str) -> list[str]:
    found = cursor.execute(f"select distinct {TOKENIZER} from {LAKE}.{name} order by 1").fetchall()
    return [digest for (digest,) in found]


def _with_classes(cursor: duckdb.DuckDBPyConnection, name: str, rows: pl.DataFrame, fold: str) -> pl.DataFrame:
    """Prompts that are rewarded, with the class that the fold's thresholds cut from their scores; other rows as they are."""
    if name != REWARDED or rows.is_empty():
        return rows
    from tapehouse.rl_prompts import of_fold

    classes = cursor.execute(f"select * from {LAKE}.{CLASSES} where fold = $fold", {"fold": fold}).pl()
    if classes.is_empty():
        make = f"tapehouse run --select +{CLASSES.replace('.', '/')}"
        raise TapehouseError(f"{name}: {CLASSES} has no rows of fold {fold}, which rewards are judged by; `{make}` makes them")
    return of_fold(rows, classes)


def _balanced(frames: dict[str, pl.DataFrame], name: str, fold: str, by: Sequence[str]) -> tuple[dict[str, pl.DataFrame], str]:
    """The training rows with equally many of each combination of classes; test rows stay as they came."""
    from tapehouse.balance import exact

    if "train" not in frames:
        raise TapehouseError("--balance: it is for training rows, and --split test has none; leave one of the two out")
    train, spare = frames["train"], "symbol"
    try:
        found = exact(train, tuple(by), salt=fold, least=SMALLEST_CELL if spare in by else 1, spare=spare)
    except TapehouseError as error:
        raise TapehouseError(f"{name} --balance {','.join(by)}: {error}") from error
    said = f"{found.rows.height:,} of {train.height:,} training rows: {found.per_cell:,} of each combination of {', '.join(by)}"
    if found.left_out:
        few = ", ".join(f"{value} ({count})" for value, count in sorted(found.left_out.items()))
        said += f"; left out, with fewer than {SMALLEST_CELL} of a combination: {few}"
    return {**frames, "train": found.rows}, said


def _packed(frames: dict[str, pl.DataFrame], name: str, capacity: int) -> tuple[dict[str, pl.DataFrame], str]:
    """The lists of tokens of each split, packed; other columns say something of one example and have no place in a row."""
    from tapehouse.packing import pack_examples

    first = next(iter(frames.values()))
    digests = sorted({d for rows in frames.values() for d in rows[TOKENIZER]}) if TOKENIZER in first.columns else []
    if len(digests) > 1:  # ids of two vocabularies have no place in one row
        raise TapehouseError(f"{name} --packed: it has tokens of {digests}; choose one with --tokenizer")
    lists = [column for column, kind in first.schema.items() if isinstance(kind, pl.List)]
    if "input_ids" not in lists:
        raise TapehouseError(
            f"{name} --packed: only a table of whole examples (a column input_ids) can be packed; leave it out"
        )
    try:
        packed = {split: pack_examples(rows.select(lists), capacity) for split, rows in frames.items()}
    except TapehouseError as error:
        raise TapehouseError(f"{name} --packed {capacity}: {error}") from error
    rows = "; ".join(f"{split}: {frames[split].height:,} examples in {packed[split].height:,} rows" for split in frames)
    return packed, f"rows of at most {capacity:,} tokens; {rows}"


def _whole(to: Path, frames: dict[str, pl.DataFrame], write, text: str) -> None:
    """Write everything aside and rename it into place: the folder is there whole or not at all."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".exporting-") as aside:
        folder = Path(aside) / to.name
        folder.mkdir()
        write(folder, frames)
        (folder / "README.md").write_text(text, encoding="utf-8")
        folder.replace(to)


def _write_hf(folder: Path, frames: dict[str, pl.DataFrame], name: str) -> None:
    import datasets
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    splits = {}
    for split, rows in frames.items():
        # Its own fingerprint is drawn at random; one of the content makes equal exports equal files.
        digest = frame_hash(rows)
        table = datasets.table.InMemoryTable(_plain(rows))
        info = datasets.DatasetInfo(dataset_name=name)
        splits[split] = datasets.Dataset(table, info=info, split=datasets.NamedSplit(split), fingerprint=digest)
    datasets.DatasetDict(splits).save_to_disk(str(folder))


def _plain(rows: pl.DataFrame):
    """An Arrow table of the types that every reader of `datasets` knows: strings and lists with 32-bit offsets."""
    import pyarrow as pa

    def plain(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            return pa.string()
        return pa.list_(plain(kind.value_type)) if pa.types.is_large_list(kind) else kind

    table = rows.to_arrow()
    return table.cast(pa.schema([pa.field(column.name, plain(column.type)) for column in table.schema]))


def _write_jsonl(folder: Path, frames: dict[str, pl.DataFrame]) -> None:
    for split, rows in frames.items():
        times = [column for column, kind in rows.schema.items() if isinstance(kind, pl.Datetime)]
        texts = rows.with_columns(pl.col(column).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ") for column in times)
        texts.write_ndjson(folder / f"{split}.jsonl")
