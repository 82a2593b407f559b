"""Compiled functions whose stored code goes stale with every file that it was compiled from.

Numba stores what it compiled beside the source and takes it again while that one file is as it was. A function that it calls in
another file, and a constant from there, are part of the stored code, too: without more, a change of theirs would not be seen
until something else changed, and an account would go on trading by rules that its source no longer has.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from numba import config, njit

from tapehouse.hashing import text_hash


def kernel(*modules: str, **options: Any) -> Callable[[Callable], Callable]:
    """`njit(cache=True)` for a function that is compiled with functions or constants of other modules, by name.

    Numba has no public way to say so: its stamp of the source is made to hold the contents of the others as well.

    Args:
        modules: all of them, those that a called function is compiled with included.
        options: of `njit`.
    """

    def compiled(function: Callable) -> Callable:
        if config.DISABLE_JIT:  # NUMBA_DISABLE_JIT=1, to debug a kernel line by line: there is nothing to store
            return function
        dispatcher = njit(cache=True, **options)(function)
        stored = dispatcher._cache._cache_file
        others = text_hash(*(Path(str(import_module(module).__file__)).read_text() for module in modules))
        stored._source_stamp = (stored._source_stamp, others)
        return dispatcher

    return compiled
