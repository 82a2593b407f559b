"""The tokenizers that `models_registry/tokenizers/` declares, one YAML for a base model of the same name.

`train` makes one from the warehouse's own text (digits are tokens of their own, so that a price is read and written figure by
figure, and every byte has a token, so that there is no unknown text); `own` takes a base model's own from its folder below
the warehouse's `models/`, as `tokenizer.json` or out of a GGUF file. To either the declared markers are added.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tapehouse.errors import TapehouseError
from tapehouse.hashing import text_hash
from tapehouse.tokens import FILE, FILES, write_tokenizer
from tapehouse.yaml_files import parse_yaml

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tapehouse.settings import Settings

FOLDER: Final = Path("models_registry/tokenizers")
PAD: Final = "<pad>"  # apart from the stop token: a trainer that masks padding must not mask the stop
STOP: Final = "<stop>"
# A digit; a word with the blank before it; signs with the blank before them; any other white space alone.
_PIECES: Final = r"[0-9]| ?[A-Za-z_]+| ?[^\sA-Za-z_0-9]+|\s"
_MARKER: Final = r"<[A-Za-z_/<>]*>"
# Rows of models.tokenizer.
TOKENIZERS: Final = {
    "tokenizer": pl.String,
    "base": pl.String,
    "path": pl.String,
    **dict.fromkeys(("vocabulary", "stop_id", "pad_id", "markers", "max_length"), pl.Int32),
    "texts": pl.Int64,
    "trained_until": pl.Datetime("us", "UTC"),
}


class Trained(BaseModel):
    """Byte-level BPE on the distinct texts that are given."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    vocabulary: int = Field(2048, ge=300, description="A bound; templated text stays below it.")


class TokenizerRecipe(BaseModel):
    """What a file in `models_registry/tokenizers/` says.

    Attributes:
        train, own: exactly one of them: how to train it, or the folder of the base whose own it is.
        stop, pad: the tokens that end an answer and that pad a batch; never the same one.
        markers: texts that are one token each in answers that are to have them: XML tags, whole `<action>` elements.
        max_length: the most tokens of one example.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    description: str = Field(min_length=1)
    train: Trained | None = None
    own: str | None = None
    stop: str = Field(min_length=1)
    pad: str = Field(min_length=1)
    markers: tuple[str, ...] = ()
    max_length: int = Field(ge=32)

    @model_validator(mode="after")
    def _one_origin(self) -> TokenizerRecipe:
        if (self.train is None) == (self.own is None):
            raise ValueError("give exactly one of train (from the warehouse's text) and own (a base's folder)")
        if self.stop == self.pad:
            raise ValueError(f"{self.stop!r} both stops and pads; what masks padding would mask the stop: name another pad")
        return self

    @field_validator("markers")
    @classmethod
    def _tags(cls, markers: tuple[str, ...]) -> tuple[str, ...]:
        odd = [text for text in markers if not re.fullmatch(_MARKER, text)]
        if odd or len(set(markers)) != len(markers):
            raise ValueError(f"markers are distinct tags or elements without blanks; mend {odd or 'the repeated one'}")
        return markers


def load_tokenizer_recipes(home: Path) -> dict[str, TokenizerRecipe]:
    """The declared tokenizers by the name of their base. Raises TapehouseError that names file, key and remedy."""
    found = {}
    for path in sorted((home / FOLDER).glob("*.yaml")):
        try:
            found[path.stem] = TokenizerRecipe.model_validate(parse_yaml(path.read_text(encoding="utf-8")) or {})
        except yaml.YAMLError as error:
            raise TapehouseError(f"{path}: not YAML: {error}; mend the line it names") from error
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, f['loc'])) or 'file'}: {f['msg']}" for f in error.errors())
            raise TapehouseError(f"{path}: {faults}") from None
    return found


def tokenizers_fingerprint(settings: Settings, start: datetime, end: datetime) -> str:
    """Changes when a declaration does, or the file of a base's own tokenizer comes, goes or changes."""
    parts = []
    for base, recipe in load_tokenizer_recipes(settings.home).items():
        source = own_source(recipe, settings.models_dir)
        parts.append(f"{base}={recipe.model_dump_json(exclude={'description'})}@{_content(source) if source else ''}")
    return text_hash(*parts)


def own_source(recipe: TokenizerRecipe, models_dir: Path) -> Path | None:
    """The file that a base's own tokenizer is read from; None where the folder has not been fetched.

    Raises TapehouseError where the folder holds neither `tokenizer.json` nor exactly one GGUF file.
    """
    if recipe.own is None or not (models_dir / recipe.own).is_dir():
        return None
    folder = models_dir / recipe.own
    files = [folder / FILE] if (folder / FILE).is_file() else sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        raise TapehouseError(f"{folder}: holds neither {FILE} nor one *.gguf but {len(files)}; fetch the base model again")
    return files[0]


def make_tokenizer(recipe: TokenizerRecipe, texts: Iterable[str], source: Path | None, folder: Path) -> tuple[Path, str]:
    """Make a declared tokenizer and keep it in a folder below `folder` that its digest names; the folder and the digest.

    Args:
        texts: what it is trained on, known before the first fold's training end; not read where it is a base's own.
        source: `own_source`, for a base's own.
    """
    if recipe.train is not None:
        tokenizer = _trained(texts, recipe.stop, recipe.pad, recipe.train.vocabulary)
    else:
        assert source is not None
        tokenizer = read_tokenizer(source)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        digest = write_tokenizer(tokenizer, Path(aside), recipe.stop, recipe.pad, recipe.markers, recipe.max_length)
        stored = folder / digest
        stored.mkdir(exist_ok=True)
        for name in FILES:
            (Path(aside) / name).replace(stored / name)
    return stored, digest


def train_tokenizer(texts: Iterable[str], folder: Path, markers: Sequence[str] = (), max_length: int = 1024) -> str:
    """Train a tokenizer on the distinct `texts`, whose order does not matter, write it to `folder` and return its digest."""
    return write_tokenizer(_trained(texts, STOP, PAD), folder, STOP, PAD, markers, max_length)


def read_tokenizer(source: Path) -> Tokenizer:
    """A base model's own tokenizer, out of its `tokenizer.json` or GGUF file. Raises TapehouseError with the remedy."""
    from tokenizers import Tokenizer

    if source.suffix != ".gguf":
        return Tokenizer.from_file(str(source))
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True).backend_tokenizer
    except ImportError as error:
        raise TapehouseError(f"{source}: reading GGUF needs the package gguf (`pip install gguf`): {error}") from error


def _trained(texts: Iterable[str], stop: str, pad: str, vocabulary: int = 2048) -> Tokenizer:
    """Byte-level BPE with digits apart. Raises TapehouseError where there is no text."""
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
        special_tokens=[pad, stop],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def _content(file: Path) -> str:
    stat = file.stat()
    return _digest(file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _digest(file: Path, *_state: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
