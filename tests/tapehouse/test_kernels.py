"""Stored machine code follows the files that it was made from: with `kernel` a change in another file is seen."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tapehouse.hashing import text_hash

RULE = (
    "from numba import njit\nSHARE = {share}\n@njit(cache=True, inline='always')\ndef of(x):\n    return x * SHARE + {added}\n"
)
ACCOUNT = """
from numba import njit
from tapehouse.kernels import kernel
from audit_rule import SHARE, of

@{how}
def worth(x):
    return of(x) + 100.0 * SHARE
"""


@pytest.mark.parametrize(("how", "seen"), [("kernel('audit_rule')", True), ("njit(cache=True)", False)])
def test_a_change_in_another_file_is_compiled_anew(tmp_path, monkeypatch, how, seen):
    """What numba alone does stands beside it: were that not so, `kernel` would not be needed."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "audit_account.py").write_text(ACCOUNT.format(how=how))

    def worth(share: float, added: float) -> float:
        file = tmp_path / "audit_rule.py"
        file.write_text(RULE.format(share=share, added=added))
        os.utime(file, ns=(0, int((share + 10 * added) * 1e9)))  # two versions within one tick of the clock
        for name in ("audit_rule", "audit_account"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return load("audit_account").worth(2.0)

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    try:
        assert worth(1.0, 5.0) == 107.0
        assert worth(1.0, 5.0) == 107.0
        assert worth(3.0, 6.0) == (312.0 if seen else 107.0)
    finally:
        for name in ("audit_rule", "audit_account"):
            sys.modules.pop(name, None)


def test_the_account_is_compiled_with_its_rules():
    from tapehouse.backtest import fills, guards, layout, positions
    from tapehouse.backtest.account import simulate

    _, others = simulate._cache._cache_file._source_stamp
    assert others == text_hash(*(Path(module.__file__).read_text() for module in (fills, guards, layout, positions)))
