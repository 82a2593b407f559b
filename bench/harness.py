"""The one shape of a benchmark: ours and a peer on the same input, a ratio that is better when larger, an aim."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Measured:
    """What a benchmark prints; with `--json` exactly these keys, as one object.

    Attributes:
        name: the program's own name.
        ours, peer: what was measured, in the unit that the program's first line states.
        ratio: ours against the peer, oriented so that larger is better.
        aim: the smallest ratio that is good enough.
        holds: whether the ratio reaches the aim.
    """

    name: str
    ours: float
    peer: float
    ratio: float
    aim: float
    holds: bool


def report(name: str, aim: float, compare: Callable[[bool], tuple[float, float, float]], doc: str | None) -> None:
    """Run `compare(quick)`, which returns ours, peer and ratio, and print the result in the form that was asked for."""
    parser = argparse.ArgumentParser(prog=f"bench/{name}.py", description=doc)
    parser.add_argument("--quick", action="store_true", help="a smaller input, an answer within 30 s")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a line of text")
    arguments = parser.parse_args()
    ours, peer, ratio = compare(arguments.quick)
    measured = Measured(name, round(ours, 6), round(peer, 6), round(ratio, 4), aim, bool(ratio >= aim))
    if arguments.json:
        print(json.dumps(asdict(measured)))
    else:
        print(" ".join(f"{key}={value}" for key, value in asdict(measured).items()))
