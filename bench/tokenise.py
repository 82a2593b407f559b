"""Texts per second, 1 M prompts and as many answers: into the warehouse (ours), and by `tokenizers.encode_batch` alone (peer).

Ours makes a token table as the engine makes any: months of prompts and answers are read from the warehouse, encoded into ids
with loss masks, judged by the contract, hashed, written and booked, slice by slice. The peer encodes the same texts in chunks,
by the same tokenizer on as many threads, and stores nothing; it is not charged for reading them. It runs half before ours and
half after. ratio = ours / peer. The ids that come out of the warehouse are compared with the peer's for a month.

Beside the result: the peak memory of a process that makes a quarter of the rows, and of the one that makes all; it must not
grow by more than a fifth. With --quick 60,000 prompts, against 20,000, which is less than a slice: memory is not compared.

Measured on 2 cores shared with much other work: 195,007,285 tokens of 1,000,000 prompts with answers in 387 s, the peer 567 s;
peak memory 1,123 MiB at 248,000 rows, 1,262 MiB at 1,000,000, of which 329 MiB before the first.
"""

import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import textwrap
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.harness import report  # noqa: E402
from bench.lake import Lake  # noqa: E402
from tapehouse.declarations import load_project  # noqa: E402
from tapehouse.settings import load_settings  # noqa: E402
from tapehouse.tokens import stored_tokenizer  # noqa: E402
from tapehouse.warehouse import LAKE, Warehouse  # noqa: E402

AIM = 0.6
ROWS_A_MONTH = 4_000
MONTHS, QUICK_MONTHS = (250, 62), (15, 5)  # all, and the part whose peak memory is compared
GROWTH = 1.2  # for four times the rows; what grew with them would be at thrice
CHUNK = 2_048
COLUMN = "{type: varchar, doc: x}"
FILES = {
    "assets/features/texts.py": '''
        """One row per (symbol, decision_at): a prompt of a trading agent with its answer, of drawn numbers."""

        from tapehouse.tables import table


        @table()
        def build(b):
            import numpy as np
            import polars as pl

            rows = 4000
            frames = []
            for month in b.partitions:
                draw = np.random.default_rng(int(month.replace("-", "")))
                n = iter(draw.normal(0.0, 9.0, (rows, 16)).tolist())
                price = np.exp(draw.uniform(1.0, 8.0, rows)).tolist()
                prompts, answers = [], []
                for p, x in zip(price, n):
                    prompts.append(
                        f"IBM 1d trading agent answers action | confidence | reason\\n"
                        f"time {month} {abs(x[0]):05.2f} utc\\n"
                        f"regime {('bullish', 'bearish', 'sideways')[int(abs(x[1])) % 3]}\\n"
                        f"trend adx {abs(x[2]):.0f} plus {abs(x[3]):.0f} minus {abs(x[4]):.0f} "
                        f"rsi {50 + x[5]:.0f} vwap {x[6]:+.1f}%\\n"
                        f"return day {x[7]:+.1f}% month {x[8]:+.1f}% volatility {abs(x[9]):.1f}%\\nposition long\\n"
                        f"entry {p * 0.99:07.2f} stop {p * 0.95:07.2f} trail off bars {abs(x[10]):.0f}\\n"
                        f"unrealised {x[11]:+.1f}% pnl {x[12] * 100:+.2f} atr {x[13]:+.1f}\\nwin rate {50 + x[14]:.0f}%\\n"
                        f"trades {abs(x[15]):.0f} losses in a row 1\\n"
                        f"balance {10000 + 99 * x[0]:.2f} drawdown {abs(x[1]):.1f}%\\n"
                        f"atr {p / 50:07.2f}\\nprice {p:07.2f}\\n"
                    )
                    action = ("HOLD", "BUY", "SELL", "MOVE_TO_BE", "ENABLE_TRAIL")[int(abs(x[3])) % 5]
                    answers.append(f"{action} | {min(abs(x[4]) / 30, 1):.2f} | in profit and trend up")
                at = pl.lit(month + " 20:00:00").str.to_datetime(time_unit="us", time_zone="UTC")
                frames.append(
                    pl.DataFrame({"prompt": prompts, "answer": answers}).with_columns(
                        symbol=pl.format("S{}", pl.int_range(rows)), decision_at=at, template=pl.lit("agent_v1@0")
                    )
                )
            return pl.concat(frames)
        ''',
    "assets/models/tokenizer.py": '''
        """One row per (tokenizer): trained on the texts of the first month."""

        from tapehouse.tables import reads, table


        @table(reads("features.texts"))
        def build(b):
            import polars as pl

            from tapehouse.tokens import FILES
            from tapehouse.vocabularies import train_tokenizer

            first = b.read("features.texts").head(4000)
            folder = b.workdir / "one"
            digest = train_tokenizer((first["prompt"] + first["answer"]).to_list(), folder)
            return pl.DataFrame({"tokenizer": [digest], "base": ["nano"], "path": [str(folder.relative_to(b.settings.root))]})
        ''',
    "assets/datasets/text_tokens.py": '''
        """One row per (symbol, decision_at, tokenizer): token ids of a prompt and its answer."""

        from tapehouse.tables import reads, table


        @table(reads("features.texts"), reads("models.tokenizer"), most_rows=100_000)
        def build(b):
            from tapehouse.token_rows import supervised_tokens
            from tapehouse.tokens import stored_tokenizers

            known = stored_tokenizers(b.read("models.tokenizer"), b.settings.root)
            made = supervised_tokens(b.read("features.texts"), known, "datasets.text_tokens", "features.texts")
            assert not made.refused.height
            return made.rows
        ''',
    "checks/features/texts.yaml": f"""
        time: decision_at
        grain: [symbol, decision_at]
        columns:
          symbol: {COLUMN}
          decision_at: {{type: timestamptz, doc: x}}
          prompt: {COLUMN}
          answer: {COLUMN}
          template: {COLUMN}
        """,
    "checks/models/tokenizer.yaml": f"""
        grain: [tokenizer]
        columns:
          tokenizer: {COLUMN}
          base: {COLUMN}
          path: {COLUMN}
        """,
    "checks/datasets/text_tokens.yaml": f"""
        time: decision_at
        grain: [symbol, decision_at, tokenizer]
        columns:
          symbol: {COLUMN}
          decision_at: {{type: timestamptz, doc: x}}
          input_ids: {{type: "integer[]", doc: x}}
          loss_mask: {{type: "boolean[]", doc: x}}
          prompt_length: {{type: integer, doc: x}}
          lines_dropped: {{type: integer, doc: x}}
          template: {COLUMN}
          tokenizer: {COLUMN}
        contract:
          - expect_column_values_to_not_be_null: {{column: input_ids}}
          - expect_column_values_to_not_be_null: {{column: loss_mask}}
          - expect_column_values_to_be_between: {{column: prompt_length, min_value: 1}}
        """,
}


@dataclass(frozen=True)
class Tokenised:
    """Seconds of ours and of the peer, prompts, tokens stored, and the peak memory of the process before and after, in MiB."""

    ours: float
    peer: float
    rows: int
    tokens: int
    before: float
    peak: float


class House(Lake):
    """A project of texts, a tokenizer and a token table over so many months."""

    def __init__(self, folder: Path, months: int):
        for name, text in FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(textwrap.dedent(text).lstrip("\n"))
        shutil.copy(ROOT / "workspace.yaml", folder)
        end = date(2000 + months // 12, months % 12 + 1, 1)
        declared = yaml.safe_load((ROOT / "sources.yaml").read_text()) | {"span": {"start": date(2000, 1, 1), "end": end}}
        (folder / "sources.yaml").write_text(yaml.safe_dump(declared))
        (folder / "models_registry").mkdir(exist_ok=True)
        folds = {"min_train_sessions": 20, "test_sessions": 20, "min_test_sessions": 10, "purge_sessions": 1, "count": 1}
        (folder / "models_registry" / "folds.yaml").write_text(yaml.safe_dump(folds))
        self.settings = load_settings(folder, warehouse=folder / "warehouse", threads=1)
        self.project, self.lake = load_project(self.settings), Warehouse(self.settings)
        self.lake.initialise()


def prepare(folder: Path, months: int) -> None:
    """Texts and tokenizer, which neither side is charged for; some months at a time."""
    house = House(folder, months)
    known = house.project.months
    for start in range(0, len(known), 25):
        house.make("features.texts", known[start : start + 25])
    house.make("models.tokenizer")


def tokenise(folder: Path, months: int) -> Tokenised:
    """All months into the warehouse by one call, the peer before and after it."""
    house = House(folder, months)
    with house.lake.reading() as (cursor, _):
        row = cursor.execute(f"select * from {LAKE}.models.tokenizer").pl()
    vocabulary, _ = stored_tokenizer(row, house.settings.root)
    vocabulary.tokenizer.encode_batch(["once, before the clock"] * CHUNK)
    known, before = house.project.months, _peak()
    half = len(known) // 2
    peer = _peer(house, vocabulary, known[:half])
    started = time.perf_counter()
    house.make("datasets.text_tokens")
    ours = time.perf_counter() - started
    peak = _peak()
    peer += _peer(house, vocabulary, known[half:])
    with house.lake.reading() as (cursor, _):
        rows, tokens = cursor.execute(f"select count(*), sum(len(input_ids)) from {LAKE}.datasets.text_tokens").fetchone()
        month = f"decision_at < timestamptz '{known[1]}'"
        columns = "prompt, answer, input_ids, prompt_length"
        source = f"{LAKE}.features.texts join {LAKE}.datasets.text_tokens using (symbol, decision_at)"
        for prompt, answer, ids, length in cursor.execute(f"select {columns} from {source} where {month}").fetchall():
            said = [encoding.ids for encoding in vocabulary.tokenizer.encode_batch([prompt, answer])]
            assert (ids[:length], ids[length:]) == (said[0], [*said[1], vocabulary.stop]), prompt
    return Tokenised(ours, peer, rows, tokens, before, peak)


def _peer(house: House, vocabulary, months: list[str]) -> float:
    seconds = 0.0
    for month in months:
        with house.lake.reading() as (cursor, _):
            one = f"select prompt, answer from {LAKE}.features.texts where decision_at = timestamptz '{month} 20:00:00+00'"
            texts = [text for pair in cursor.execute(one).fetchall() for text in pair]
        assert len(texts) == 2 * ROWS_A_MONTH
        started = time.perf_counter()
        for start in range(0, len(texts), CHUNK):
            vocabulary.tokenizer.encode_batch(texts[start : start + CHUNK], add_special_tokens=False)
        seconds += time.perf_counter() - started
    return seconds


def compare(quick: bool) -> tuple[float, float, float]:
    """Texts per second of ours and of the peer, and ours over the peer's."""
    found = {}
    for months in (QUICK_MONTHS if quick else MONTHS)[::-1]:
        with tempfile.TemporaryDirectory(prefix="tapehouse-bench-") as home:
            _apart(prepare, Path(home), months)
            found[months] = _apart(tokenise, Path(home), months)
    part, whole = found.values()
    print(
        f"{whole.rows:,} prompts with answers, {whole.tokens:,} tokens in {whole.ours:.1f} s "
        f"({whole.tokens / whole.ours:,.0f} a second), peer {whole.peer:.1f} s; "
        f"peak memory {part.peak:,.0f} MiB at {part.rows:,} rows, {whole.peak:,.0f} MiB at {whole.rows:,} "
        f"({whole.before:,.0f} before the first)",
        file=sys.stderr,
    )
    assert quick or whole.peak <= GROWTH * part.peak, f"memory grows: {part.peak:.0f} MiB to {whole.peak:.0f} MiB"
    ours, peer = 2 * whole.rows / whole.ours, 2 * whole.rows / whole.peer
    return ours, peer, ours / peer


def _apart(function, *arguments):
    """The function's result, from a fresh process."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    report("tokenise", AIM, compare, __doc__)
