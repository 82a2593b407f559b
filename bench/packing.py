"""Seconds to pack 200,000 examples into rows of 2,048 tokens: ours, and TRL's best fit decreasing (peer); ratio = peer / ours.

Both start from the examples as lists of token ids with a loss mask and end with the packed lists; ours makes the position ids
too. Ours is `tapehouse.packing.pack_examples`, the peer `trl.data_utils._pack_bfd` over the whole table at once, which is where
it needs the fewest rows (TRL's trainer packs each thousand by itself; how many rows that takes is said beside the result).
Ours may need no more rows than the peer, and must hold every example once and whole.

The lengths are drawn from those of the warehouse's own token tables: of the warehouse at hand, or where there is none from
bench/packing_lengths.json, which was counted in the warehouse of the packaged data. Least of five runs, taken in turn. With
--quick 20,000 examples.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.harness import report  # noqa: E402
from tapehouse.packing import BLOCKS, pack_examples  # noqa: E402
from tapehouse.ragged import Ragged  # noqa: E402
from tapehouse.settings import load_settings  # noqa: E402
from tapehouse.warehouse import Warehouse  # noqa: E402

AIM = 3.0
EXAMPLES, QUICK_EXAMPLES = 200_000, 20_000
CAPACITY = 2_048  # max_length of models_registry/tokenizers/nano.yaml
REPEATS = 5
COUNTED = ROOT / "bench" / "packing_lengths.json"
TABLES = ("datasets.sft_tokens", "datasets.thesis_tokens")
VOCABULARY = 800


def counted() -> dict[int, int]:
    """How many examples of each length, in tokens, the supervised token tables hold."""
    warehouse = Warehouse(load_settings(ROOT))
    if warehouse.exists() and set(TABLES) <= set(warehouse.tables()):
        lengths = " union all ".join(f"select len(input_ids) as tokens from lake.{table}" for table in TABLES)
        with warehouse.reading() as (cursor, _):
            found = dict(cursor.execute(f"select tokens, count(*) from ({lengths}) group by tokens order by tokens").fetchall())
        if found:
            print(f"lengths of {sum(found.values()):,} examples in {warehouse.settings.root}", file=sys.stderr)
            return found
    print(f"lengths of {COUNTED.name}", file=sys.stderr)
    return {int(tokens): rows for tokens, rows in json.loads(COUNTED.read_text()).items()}


def examples(count: int) -> pl.DataFrame:
    """`input_ids` and `loss_mask` of examples whose lengths are drawn from the counted ones."""
    draw, known = np.random.default_rng(7), counted()
    shares = np.array(list(known.values()), np.float64)
    lengths = draw.choice(np.array(list(known)), count, p=shares / shares.sum())
    ids = Ragged.of_lengths(draw.integers(0, VOCABULARY, lengths.sum(), dtype=np.int32), lengths)
    mask = Ragged((ids.values % 2).astype(np.int8), ids.offsets)
    return pl.DataFrame([ids.series("input_ids", pl.List(pl.Int32)), mask.series("loss_mask", pl.List(pl.Int8))])


def compare(quick: bool) -> tuple[float, float, float]:
    """Least seconds of ours and of the peer, and their ratio."""
    from trl.data_utils import _pack_bfd

    frame = examples(QUICK_EXAMPLES if quick else EXAMPLES)
    table = frame.to_arrow()
    pack_examples(frame.head(100), CAPACITY)  # compiles where the cache has nothing yet
    taken: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(REPEATS):
        started = time.perf_counter()
        packed = pack_examples(frame, CAPACITY)
        taken["ours"].append(time.perf_counter() - started)
        started = time.perf_counter()
        theirs = _pack_bfd(table, CAPACITY)
        taken["peer"].append(time.perf_counter() - started)
    assert packed.height <= len(theirs), f"{packed.height} rows, the peer needs {len(theirs)}"
    whole = sorted(zip(frame["input_ids"].list.len(), frame["input_ids"].list.first(), strict=True))
    firsts = pl.DataFrame({"n": packed[BLOCKS].explode()}).with_columns(at=pl.col("n").cum_sum() - pl.col("n"))
    laid = packed["input_ids"].explode()
    assert sorted(zip(firsts["n"], laid.gather(firsts["at"].cast(pl.UInt32)), strict=True)) == whole, "an example is not whole"
    batches = sum(len(_pack_bfd(table.slice(start, 1000), CAPACITY)) for start in range(0, table.num_rows, 1000))
    tokens = frame["input_ids"].list.len().sum()
    fill = tokens / (packed.height * CAPACITY)
    print(
        f"{packed.height:,} rows, {fill:.2%} full; peer {len(theirs):,}, by the thousand {batches:,}; {tokens:,} tokens",
        file=sys.stderr,
    )
    ours, peer = min(taken["ours"]), min(taken["peer"])
    return ours, peer, peer / ours


if __name__ == "__main__":
    report("packing", AIM, compare, __doc__)
