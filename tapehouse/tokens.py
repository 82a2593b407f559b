"""The tokenizer of the warehouse: trained on its own text, stored as files, and the only way from text to token ids.

Digits are tokens of their own, so that a price is read and written figure by figure. Every byte has a token: there is
no unknown text. A new line, a digit and a blank before a digit never merge with a neighbour, so the tokens of prompt +
answer are the tokens of the prompt followed by those of the answer, and the three ways to a model (dataset, evaluation,
serving) meet in :func:`encode_prompts` and :func:`encode_answers`.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tapehouse.errors import TapehouseError

if TYPE_CHECKING:
    import polars as pl
    from tokenizers import Tokenizer

FILE: Final = "tokenizer.json"
PAD: Final = "<pad>"  # apart from the stop token: a trainer that masks padding must not mask the stop
STOP: Final = "<stop>"
SPECIAL: Final = (PAD, STOP)
VOCABULARY: Final = 2048  # a bound; templated text saturates at about 560
# A digit; a word with the blank before it; signs with the blank before them; any other white space alone.
_PIECES: Final = r"[0-9]| ?[A-Za-z_]+| ?[^\sA-Za-z_0-9]+|\s"


def train_tokenizer(texts: Iterable[str], folder: Path, vocabulary: int = VOCABULARY) -> str:
    """Train byte-level BPE on the distinct `texts`, write `tokenizer.json` to `folder` and return its digest.

    The caller chooses the texts: those known before the first fold's training end. Their order does not matter.
    Raises TapehouseError where there are none.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    corpus = sorted(set(texts))
    if not corpus:
        raise TapehouseError("tokenizer: no text was known before the first fold's training end; materialise the pairs first")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(corpus, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(tokenizer.to_str(pretty=False), encoding="utf-8")
    return tokenizer_digest(folder)


def store_tokenizer(texts: Iterable[str], folder: Path) -> tuple[Path, str]:
    """Train a tokenizer and keep it in a folder below `folder` that its digest names; the folder and the digest."""
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        digest = train_tokenizer(texts, Path(aside))
        stored = folder / digest
        stored.mkdir(exist_ok=True)
        (Path(aside) / FILE).replace(stored / FILE)
    return stored, digest


def stored_tokenizer_path(rows: pl.DataFrame, root: Path) -> Path:
    """Folder of the one row of `models.tokenizer`, below the warehouse's folder. Raises TapehouseError with the remedy."""
    if rows.height != 1:
        raise TapehouseError(f"models.tokenizer: expected one row, found {rows.height}; materialise models/tokenizer")
    return root / rows["path"][0]


def stored_tokenizer(rows: pl.DataFrame, root: Path) -> tuple[Tokenizer, str]:
    """The tokenizer of the one row of `models.tokenizer`, and its digest.

    Raises:
        TapehouseError: no such row, or the file is not the one that the row was written for.
    """
    folder = stored_tokenizer_path(rows, root)
    digest = tokenizer_digest(folder)
    if digest != rows["tokenizer"][0]:
        raise TapehouseError(f"{folder}: digest {digest} is not that of models.tokenizer; materialise models/tokenizer again")
    return load_tokenizer(folder), digest


def tokenizer_digest(folder: Path) -> str:
    """First 16 hex digits of the SHA-256 of the tokenizer's file. Raises TapehouseError with the remedy."""
    return hashlib.sha256(_file(folder).read_bytes()).hexdigest()[:16]


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in `folder`. Raises TapehouseError with the remedy."""
    file = _file(folder)
    return _load(str(file), file.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _load(file: str, _modified_ns: int) -> Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(file)


def encode_prompts(tokenizer: Tokenizer, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of prompts, one list each, uncut and without padding."""
    return _ids(tokenizer, prompts)


def encode_answers(tokenizer: Tokenizer, answers: Sequence[str]) -> list[list[int]]:
    """Token ids of answers, one list each, uncut, each ending in the one stop token."""
    stop = tokenizer.token_to_id(STOP)
    return [[*ids, stop] for ids in _ids(tokenizer, answers)]


def decode_answer(tokenizer: Tokenizer, ids: Sequence[int]) -> str | None:
    """Text of generated ids before their stop token; None where none came, or where the bytes are no UTF-8 text."""
    stop = tokenizer.token_to_id(STOP)
    if stop not in ids:
        return None
    text = tokenizer.decode(list(ids)[: list(ids).index(stop)], skip_special_tokens=False)
    return None if "\ufffd" in text else text


def pad_id(tokenizer: Tokenizer) -> int:
    """Id of the padding token."""
    return tokenizer.token_to_id(PAD)


def stop_id(tokenizer: Tokenizer) -> int:
    """Id of the stop token."""
    return tokenizer.token_to_id(STOP)


def as_transformers(folder: Path):
    """The same tokenizer as a `PreTrainedTokenizerFast`, which trainers and other tools expect."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=load_tokenizer(folder), pad_token=PAD, eos_token=STOP)


def _ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    for text in texts:
        # A prompt that spells a special token would otherwise end its own answer.
        if any(token in text for token in SPECIAL):
            raise ValueError(f"tokens: the text holds a special token {SPECIAL}: {text[:80]!r}")
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def _file(folder: Path) -> Path:
    file = folder / FILE
    if not file.is_file():
        raise TapehouseError(f"{file} does not exist; materialise models/tokenizer first")
    return file
