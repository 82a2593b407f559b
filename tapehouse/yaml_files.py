"""YAML as declarations are written in, by libyaml's parser: a project reads a hundred of them whenever it loads."""

from pathlib import Path
from typing import Any

import yaml

from tapehouse.errors import TapehouseError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # some builds of PyYAML come without libyaml


def parse_yaml(text: str) -> Any:
    """What a document says, of plain types alone. Raises yaml.YAMLError, which names line and column."""
    return yaml.load(text, Loader=_LOADER)


def read_named(path: Path, what: str, first: str) -> dict[str, Any]:
    """The keys of a declaration that is named by its file's stem, as recipes and strategies are; `name` among them.

    Args:
        what: it is, in one word, for errors. first: the keys that it begins with, for errors.

    Raises:
        TapehouseError: no such file, not YAML, not a mapping, or one that gives a name; with the remedy.
    """
    try:
        fields = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise TapehouseError(f"{path}: no such {what}; there are {known}") from None
    except yaml.YAMLError as error:
        raise TapehouseError(f"{path}: not YAML: {error}; mend the line it names") from error
    if not isinstance(fields, dict):
        raise TapehouseError(f"{path}: a {what} is a mapping of keys; start with {first}")
    if "name" in fields:
        raise TapehouseError(f"{path}: name: follows from the file's stem; remove the key")
    return {**fields, "name": path.stem}
