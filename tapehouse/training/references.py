"""Log-probabilities of answers under the reference, computed once and kept by (reference digest, fold, row).

The reference never changes while a policy is trained, nor where its recipe is trained again with another loss or learning
rate: the file lies beside the recipe's job, and other recipes have their own. A row is known by the token ids of its prompt and
answers, so that a dataset which grew costs only its new rows. On a CPU rows of the same lengths are computed together: without
padding, and a row's value depends on no other, so that it is the same bits whether it was found or computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl

from tapehouse.codeversion import modules_version
from tapehouse.files import replace_file
from tapehouse.hashing import text_hash
from tapehouse.training.job import Job
from tapehouse.training.manifest import host_facts

FOLDER = "references"
# What decides the weights of a reference; the tokenizer begins the rows of added tokens.
WEIGHTS = ("base_digest", "init_digest", "tokenizer_digest")

# What computes the values, with all that these modules reach.
CODE = tuple(f"tapehouse.training.{name}" for name in ("preference", "lora", "shared_prompt", "lean"))

Pair = tuple[Sequence[int], Sequence[int], Sequence[int]]


def reference_file(job: Job) -> Path:
    """Where a job's reference log-probabilities are kept: beside the job's folder, by reference and fold.

    The reference's digest covers its weights, how they are held and run, the code that does, and the machine: values are
    found again as they would be computed here.
    """
    said = json.loads((job.folder / "job.json").read_text())
    recipe = job.recipe
    host = host_facts(said["threads"])
    digest = text_hash(
        *(str(said[name]) for name in WEIGHTS),
        recipe.quantisation.model_dump_json(),
        recipe.adapter.model_dump_json() if recipe.model.init_from else "",
        recipe.budget.precision,
        recipe.model.device,
        json.dumps(host, sort_keys=True),
        modules_version(CODE),
    )
    return job.folder.parent / FOLDER / digest[:16] / f"{said['provenance']['fold']}.parquet"


def row_digests(pairs: Sequence[Pair]) -> list[str]:
    """Identity of each row: the ids of its prompt and of its two answers, and where one ends and the next begins."""
    found = []
    for pair in pairs:
        digest = hashlib.sha256(np.array([len(part) for part in pair], np.int64).tobytes())
        for part in pair:
            digest.update(np.asarray(part, np.int64).tobytes())
        found.append(digest.hexdigest()[:32])
    return found


def read(file: Path | None) -> dict[str, tuple[float, float]]:
    """Log-probabilities of the chosen and of the rejected answer by row digest; empty where nothing is kept."""
    if file is None or not file.is_file():
        return {}
    kept = pl.read_parquet(file)
    return dict(zip(kept["row"], zip(kept["chosen"], kept["rejected"], strict=True), strict=True))


def write(file: Path, rows: dict[str, tuple[float, float]]) -> None:
    """Keep rows, in one rename; two processes that write at once lose rows of the one, never a whole file."""
    chosen, rejected = zip(*rows.values(), strict=True)
    frame = pl.DataFrame(
        {"row": list(rows), "chosen": chosen, "rejected": rejected},
        schema={"row": pl.String, "chosen": pl.Float32, "rejected": pl.Float32},
    )
    written = BytesIO()
    frame.write_parquet(written)
    replace_file(file, written.getvalue())
