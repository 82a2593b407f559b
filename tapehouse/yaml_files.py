"""YAML as declarations are written in, by libyaml's parser: a project reads a hundred of them whenever it loads."""

from typing import Any

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # some builds of PyYAML come without libyaml


def parse_yaml(text: str) -> Any:
    """What a document says, of plain types alone. Raises yaml.YAMLError, which names line and column."""
    return yaml.load(text, Loader=_LOADER)
