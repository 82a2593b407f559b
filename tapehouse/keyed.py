"""Randomness that is a hash of a row's key: independent of partitions, of their order, and of every other row."""

from hashlib import blake2b
from typing import Final

import numpy as np
import polars as pl

from tapehouse.versions import microseconds

HASH_KEY: Final = b"tapehouse.pairs.1"  # change it and every draw of every table changes


def keyed_uniform(points: pl.DataFrame, what: str) -> np.ndarray:
    """A number in [0, 1) for each (symbol, interval, decision_at), fixed by these and by `what` alone.

    BLAKE2b under `HASH_KEY` of "symbol|interval" and of `what`, joined with the decision's microseconds by the finaliser of
    SplitMix64 (Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, 2014); the upper 53 bits.
    """
    return mixed_uniform(row_keys(points), what)


def row_keys(points: pl.DataFrame) -> np.ndarray:
    """The part of `keyed_uniform` that (symbol, interval, decision_at) alone decide, for draws of many things of one row."""
    if not points.height:
        return np.empty(0, np.uint64)
    names = points.select(pl.concat_str("symbol", "interval", separator="|")).to_series()
    keys = {text: blake(text) for text in names.unique()}
    series = names.replace_strict(keys, return_dtype=pl.UInt64).to_numpy()
    moment = microseconds(points["decision_at"]).astype(np.uint64)
    return _splitmix(series ^ _splitmix(moment))


def mixed_uniform(keys: np.ndarray, what: str) -> np.ndarray:
    """A number in [0, 1) for each of `row_keys`, fixed by it and by `what` alone."""
    return (_splitmix(keys ^ np.uint64(blake(what))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def blake(text: str) -> int:
    """The 64-bit hash of a text that draws are mixed from."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8, key=HASH_KEY).digest(), "little")


def _splitmix(state: np.ndarray) -> np.ndarray:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
