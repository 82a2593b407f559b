"""What answering took: seconds, tokens and batches, kept beside the warehouse's tables and never in them.

Times differ from run to run, so that no table whose content is hashed may hold them. Each making of a fold's predictions
appends one line to `answers/<adapter>.jsonl` in the warehouse folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from tapehouse.json_lines import append_line, read_lines

FOLDER: Final = "answers"
EFFORTS: Final = {
    "adapter": pl.String,
    "fold": pl.String,
    "made_at": pl.Datetime("us", "UTC"),
    "run_id": pl.String,
    "mode": pl.String,
    "device": pl.String,
    "threads": pl.Int64,
    "answers": pl.Int64,
    "prompt_tokens": pl.Int64,
    "answer_tokens": pl.Int64,
    "wall_s": pl.Float64,
    "answers_per_s": pl.Float64,
    "answer_tokens_per_s": pl.Float64,
    "batch": pl.Int64,
    "wait_s_median": pl.Float64,
    "wait_s_p95": pl.Float64,
    "alone_s_median": pl.Float64,
}


@dataclass
class Effort:
    """Batches as they are answered: prompts, their tokens, tokens of the answers (stop tokens counted), seconds."""

    batches: list[tuple[int, int, int, float]] = field(default_factory=list)

    def add(self, prompts: int, prompt_tokens: int, answer_tokens: int, seconds: float) -> None:
        """One batch."""
        self.batches.append((prompts, prompt_tokens, answer_tokens, seconds))

    def figures(self, alone: Effort | None = None) -> dict[str, Any]:
        """Totals; rates a second; and how long an answer was waited for: its batch's time, as median and 95th percentile.

        `alone_s_median` is that of `alone`: prompts that were asked one by one. Rates and waits are None without batches.
        """
        if not self.batches:
            return {"answers": 0, "prompt_tokens": 0, "answer_tokens": 0, "wall_s": 0.0}
        prompts, prompt_tokens, answer_tokens, seconds = (np.array(column) for column in zip(*self.batches, strict=True))
        wall, waits = float(seconds.sum()), np.repeat(seconds, prompts)
        found = {
            "answers": int(prompts.sum()),
            "prompt_tokens": int(prompt_tokens.sum()),
            "answer_tokens": int(answer_tokens.sum()),
            "wall_s": wall,
            "answers_per_s": float(prompts.sum()) / wall,
            "answer_tokens_per_s": float(answer_tokens.sum()) / wall,
            "batch": int(prompts.max()),
            "wait_s_median": float(np.median(waits)),
            "wait_s_p95": float(np.quantile(waits, 0.95)),
        }
        if alone is not None and alone.batches:
            found["alone_s_median"] = float(np.median([batch[3] for batch in alone.batches]))
        return found


def record_effort(root: Path, adapter: str, fold: str, figures: dict[str, Any], **said: Any) -> None:
    """Append one line to `answers/<adapter>.jsonl` in the warehouse folder `root`, in one write.

    Args:
        figures: of :meth:`Effort.figures`. said: other columns of `EFFORTS`: run_id, mode, device, threads.
    """
    line = {"adapter": adapter, "fold": fold, "made_at": datetime.now(UTC).isoformat(), **figures, **said}
    append_line(root / FOLDER / f"{adapter}.jsonl", line)


def efforts(root: Path, adapter: str | None = None) -> pl.DataFrame:
    """The latest line of each adapter and fold, as rows of `EFFORTS` by adapter and fold; empty where none was written.

    Args:
        root: the warehouse folder. adapter: that alone; None for all there are.
    """
    rows = []
    for file in sorted((root / FOLDER).glob(f"{adapter or '*'}.jsonl")):
        rows += read_lines(file)
    for row in rows:
        row["made_at"] = datetime.fromisoformat(row["made_at"])
    found = pl.DataFrame([{name: row.get(name) for name in EFFORTS} for row in rows], EFFORTS)
    return found.sort("adapter", "fold", "made_at").unique(("adapter", "fold"), keep="last", maintain_order=True)
