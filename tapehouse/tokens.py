"""From text to token ids and back: the only way there is, for datasets, evaluation and serving alike.

A stored tokenizer is a folder of two files, which transformers and any server read as they are: `tokenizer.json`, and
`tokenizer_config.json`, which says what stops an answer, what pads a batch, how long a row may be and which *markers* there
are: XML tags and whole `<action>` elements that are one token each. Its digest covers both files. Which tokenizers there are
is declared in `models_registry/tokenizers/` (`tapehouse.vocabularies`).

- Prompt and answer are encoded apart and put together by their ids, so that nothing merges across the seam.
- The stop token ends every answer and nothing else; padding is another token.
- A special token comes from here alone. A text that spells one, whether in a prompt or in an answer, is encoded as the plain
  characters that it is; only the markers of an answer that is to have them (`marked`) become their tokens.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from tapehouse.errors import TapehouseError
from tapehouse.ragged import Ragged, beside, stacked

if TYPE_CHECKING:
    import polars as pl
    from tokenizers import Tokenizer

FILE: Final = "tokenizer.json"
CONFIG: Final = "tokenizer_config.json"
FILES: Final = (FILE, CONFIG)
CHUNK: Final = 2048  # texts at a time; an encoding is many times as large as its ids


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as this project uses it.

    Attributes:
        tokenizer: encodes any text as plain characters; ids decode exactly.
        stop, pad: ids of the tokens that end an answer and that pad a batch.
        markers: text to id, of the tags and elements that are one token in a marked answer.
        max_length: the most tokens of one example, prompt and answer together.
    """

    tokenizer: Tokenizer
    stop: int
    pad: int
    markers: dict[str, int]
    max_length: int

    @cached_property
    def marker_pattern(self) -> re.Pattern[str]:
        """Matches one marker, the longest first, and splits a text at markers that it keeps."""
        longest_first = sorted(self.markers, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")

    def get_vocab_size(self) -> int:
        """Number of tokens, the special ones among them."""
        return self.tokenizer.get_vocab_size()

    def token_to_id(self, token: str) -> int | None:
        """Id of a token in the tokenizer's own spelling."""
        return self.tokenizer.token_to_id(token)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of ids."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)


def write_tokenizer(tokenizer: Tokenizer, folder: Path, stop: str, pad: str, markers: Sequence[str], max_length: int) -> str:
    """Write a tokenizer's two files to `folder`, its markers added where they are new, and return its digest.

    Raises:
        TapehouseError: stop or pad is no token, they are one token, or a marker is.
    """
    from tokenizers import AddedToken

    known = tokenizer.get_vocab()
    for what, token in (("stop", stop), ("pad", pad)):
        if token not in known:
            raise TapehouseError(f"tokenizer: {what} {token!r} is no token of it; name one that is")
    if stop == pad:
        raise TapehouseError(
            f"tokenizer: {stop!r} both stops and pads; what masks padding would mask the stop: name another pad"
        )
    taken = [text for text in markers if text in known and text not in _added(tokenizer)]
    if taken:
        raise TapehouseError(
            f"tokenizer: the markers {taken} are words of its vocabulary; a text could spell them: rename them"
        )
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in markers])
    tokenizer.no_padding()
    tokenizer.no_truncation()
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": stop,
        "pad_token": pad,
        "model_max_length": max_length,
        "split_special_tokens": True,  # what a prompt spells is text
        "clean_up_tokenization_spaces": False,
        "markers": list(markers),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(tokenizer.to_str(pretty=False), encoding="utf-8")
    (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True), encoding="utf-8")
    return tokenizer_digest(folder)


def tokenizer_digest(folder: Path) -> str:
    """First 16 hex digits of the SHA-256 of the tokenizer's files. Raises TapehouseError with the remedy."""
    digest = hashlib.sha256()
    for name in FILES:
        content = _file(folder, name).read_bytes()
        digest.update(f"{name}:{len(content)}:".encode() + content)
    return digest.hexdigest()[:16]


def load_tokenizer(folder: Path) -> Vocabulary:
    """The tokenizer in `folder`. Raises TapehouseError with the remedy."""
    files = [_file(folder, name) for name in FILES]
    return _load(folder, *(file.stat().st_mtime_ns for file in files))


@lru_cache(maxsize=8)
def _load(folder: Path, *_modified_ns: int) -> Vocabulary:
    from tokenizers import Tokenizer

    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(folder / FILE))
    tokenizer.encode_special_tokens = True  # a special token that a text spells is text; this is not kept in the file
    stop, pad = (tokenizer.token_to_id(config[name]) for name in ("eos_token", "pad_token"))
    markers = {text: tokenizer.token_to_id(text) for text in config["markers"]}
    return Vocabulary(tokenizer, stop, pad, markers, config["model_max_length"])


def stored_tokenizer_path(rows: pl.DataFrame, root: Path, base: str = "nano") -> Path:
    """Folder of a base's row of `models.tokenizer`, below the warehouse's folder. Raises TapehouseError with the remedy."""
    own = rows.filter(base=base)
    if own.height != 1:
        raise TapehouseError(
            f"models.tokenizer: {own.height} rows for the base {base!r}, not one; declare it in "
            f"models_registry/tokenizers/{base}.yaml, have its files in place and materialise models/tokenizer"
        )
    return root / own["path"][0]


def stored_tokenizer(rows: pl.DataFrame, root: Path, base: str = "nano") -> tuple[Vocabulary, str]:
    """The tokenizer of a base's row of `models.tokenizer`, and its digest.

    Raises:
        TapehouseError: no such row, or the files are not those that the row was written for.
    """
    folder = stored_tokenizer_path(rows, root, base)
    digest = tokenizer_digest(folder)
    if digest != rows.filter(base=base)["tokenizer"][0]:
        raise TapehouseError(f"{folder}: digest {digest} is not that of models.tokenizer; materialise models/tokenizer again")
    return load_tokenizer(folder), digest


def stored_tokenizers(rows: pl.DataFrame, root: Path) -> dict[str, Vocabulary]:
    """Every tokenizer of `models.tokenizer`, by its digest. Raises TapehouseError as `stored_tokenizer`, or without a row."""
    if rows.is_empty():
        raise TapehouseError("models.tokenizer has no row; materialise models/tokenizer")
    found = (stored_tokenizer(rows, root, base) for base in rows["base"].sort())
    return {digest: vocabulary for vocabulary, digest in found}


def prompt_ids(vocabulary: Vocabulary, prompts: Sequence[str]) -> Ragged:
    """Token ids (int32) of prompts, uncut and without padding."""
    return _encoded(vocabulary, prompts)


def answer_ids(vocabulary: Vocabulary, answers: Sequence[str], marked: bool = False) -> Ragged:
    """Token ids (int32) of answers, uncut, each ending in the one stop token; with `marked` its markers are tokens."""
    ids = _marked(vocabulary, answers) if marked else _encoded(vocabulary, answers)
    stops = Ragged(np.full(len(answers), vocabulary.stop, np.int32), np.arange(len(answers) + 1, dtype=np.int64))
    return beside(ids, stops)


def encode_prompts(vocabulary: Vocabulary, prompts: Sequence[str]) -> list[list[int]]:
    """`prompt_ids` as Python lists."""
    return prompt_ids(vocabulary, prompts).lists()


def encode_answers(vocabulary: Vocabulary, answers: Sequence[str], marked: bool = False) -> list[list[int]]:
    """`answer_ids` as Python lists."""
    return answer_ids(vocabulary, answers, marked).lists()


def decode_answer(vocabulary: Vocabulary, ids: Sequence[int]) -> str | None:
    """Text of generated ids before their stop token; None where none came, or where the bytes are no UTF-8 text."""
    ids = list(ids)
    if vocabulary.stop not in ids:
        return None
    text = vocabulary.decode(ids[: ids.index(vocabulary.stop)])
    return None if "\ufffd" in text else text


def pad_id(vocabulary: Vocabulary) -> int:
    """Id of the padding token."""
    return vocabulary.pad


def stop_id(vocabulary: Vocabulary) -> int:
    """Id of the stop token."""
    return vocabulary.stop


def as_transformers(folder: Path):
    """The tokenizer in `folder` as transformers and servers load it: a `PreTrainedTokenizerFast` with the same ids."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _encoded(vocabulary: Vocabulary, texts: Sequence[str]) -> Ragged:
    parts = []
    for start in range(0, max(len(texts), 1), CHUNK):
        encodings = vocabulary.tokenizer.encode_batch_fast(list(texts[start : start + CHUNK]), add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        parts.append(Ragged.of_lengths(np.fromiter(chain.from_iterable(ids), np.int32, int(lengths.sum())), lengths))
    return stacked(parts)


def _marked(vocabulary: Vocabulary, texts: Sequence[str]) -> Ragged:
    """Ids of texts whose markers are tokens: what lies between two markers is encoded by itself, and equal pieces once."""
    pieces: dict[str, int] = {}
    marks = {text: -1 - place for place, text in enumerate(vocabulary.markers)}
    sequence: list[int] = []
    ends = [0]
    for text in texts:
        between = vocabulary.marker_pattern.split(text)  # text, marker, text, …, text
        for place, piece in enumerate(between):
            if place % 2:
                sequence.append(marks[piece])
            elif piece:
                sequence.append(pieces.setdefault(piece, len(pieces)))
        ends.append(len(sequence))
    markers = np.fromiter(vocabulary.markers.values(), np.int32, len(marks))
    parts = stacked([_encoded(vocabulary, list(pieces)), Ragged(markers, np.arange(markers.size + 1, dtype=np.int64))])
    numbers = np.array(sequence, np.int64)
    laid = parts.take(np.where(numbers < 0, len(pieces) - 1 - numbers, numbers))
    return Ragged(laid.values, laid.offsets[ends])


def _added(tokenizer: Tokenizer) -> set[str]:
    return {token.content for token in tokenizer.get_added_tokens_decoder().values()}


def _file(folder: Path, name: str) -> Path:
    file = folder / name
    if not file.is_file():
        raise TapehouseError(f"{file} does not exist; materialise models/tokenizer first")
    return file
