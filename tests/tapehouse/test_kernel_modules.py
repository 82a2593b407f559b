"""Every kernel says which other files it is compiled from: the ones whose functions and constants it reaches, by their text."""

import ast
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILERS = {"njit", "jit", "vectorize", "guvectorize", "kernel"}


@dataclass
class Module:
    """What a file binds at its top: names of other files (module; name, None for the module), and what its own look up."""

    imported: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    own: dict[str, set[tuple[str, str | None]]] = field(default_factory=dict)
    kernels: dict[str, set[str]] = field(default_factory=dict)  # with the modules that each names


def looked_up(parts: list[ast.AST], arguments: set[str]) -> set[tuple[str, str | None]]:
    """(name, None) or (name, attribute) of what is read and neither an argument nor bound on the way."""
    nodes = [node for part in parts for node in ast.walk(part)]
    bound = arguments | {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    found: set[tuple[str, str | None]] = {(node.id, None) for node in nodes if isinstance(node, ast.Name)}
    found |= {(n.value.id, n.attr) for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)}
    return {(name, attribute) for name, attribute in found if name not in bound}


def read(tree: ast.Module, known: set[str]) -> Module:
    """The bindings of a file; `known` are the modules that count."""
    module = Module()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                if whole in known:
                    module.imported[name.asname or name.name] = whole, None
                elif node.module in known:
                    module.imported[name.asname or name.name] = node.module, name.name
        elif isinstance(node, ast.Import):
            module.imported |= {n.asname: (n.name, None) for n in node.names if n.asname and n.name in known}
        elif isinstance(node, ast.FunctionDef):
            module.own[node.name] = looked_up(node.body, {n.arg for n in ast.walk(node.args) if isinstance(n, ast.arg)})
            for decorator in node.decorator_list:
                maker = decorator.func if isinstance(decorator, ast.Call) else decorator
                called = maker.attr if isinstance(maker, ast.Attribute) else getattr(maker, "id", "")
                if called in COMPILERS:
                    named = decorator.args if called == "kernel" and isinstance(decorator, ast.Call) else []
                    module.kernels[node.name] = {ast.literal_eval(argument) for argument in named}
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            bound = [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
            module.own |= dict.fromkeys(bound, looked_up([node.value], set()))
    return module


def compiled_from(modules: dict[str, Module], module: str, name: str, seen: set[tuple[str, str]]) -> set[str]:
    """Modules whose text is part of `name`, its own included: through functions, and constants made of constants."""
    if (module, name) in seen:
        return set()
    seen.add((module, name))
    here = modules[module]
    if name in here.imported:
        source, theirs = here.imported[name]
        return {source} if theirs is None else compiled_from(modules, source, theirs, seen)
    found = {module}
    for used, attribute in here.own.get(name, ()):
        source, theirs = here.imported.get(used, (module, used))
        if theirs is None:  # a module, of which an attribute is read
            theirs = attribute or ""
        if source != module or theirs in here.own:
            found |= compiled_from(modules, source, theirs, seen)
    return found


def misnamed(root: Path, package: str) -> set[str]:
    """`module.kernel: modules` for every kernel below `root` whose decorator does not name just what it is compiled from."""
    paths = {
        ".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): p
        for p in root.glob(f"{package}/**/*.py")
    }
    modules = {name: read(ast.parse(path.read_text()), set(paths)) for name, path in paths.items()}
    found = set()
    for name, module in modules.items():
        for kernel, named in module.kernels.items():
            others = compiled_from(modules, name, kernel, set()) - {name}
            if others != named:
                found.add(f"{name}.{kernel}: {', '.join(sorted(others))}")
    return found


def test_every_kernel_names_the_files_that_it_is_compiled_from():
    assert misnamed(ROOT, "tapehouse") == set()


PLANTED = {
    "calls": "from house.rules import of\n\n@njit(cache=True)\ndef worth(x):\n    return of(x)\n",
    "takes": "from house.rules import SHARE as S\n\n@njit(cache=True)\ndef worth(x):\n    return x * S\n",
    "reads": "from house import rules\n\n@njit(cache=True)\ndef worth(x):\n    return x * rules.SHARE\n",
    "makes": "from house.rules import SHARE\n\nTWICE = 2.0 * SHARE\n\n@nb.njit\ndef worth(x):\n    return x * TWICE\n",
    "names_too_many": "@kernel('house.rules')\ndef worth(x):\n    return x\n",
}


@pytest.mark.parametrize("how", list(PLANTED))
def test_one_that_does_not_is_found(tmp_path, how):
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "rules.py").write_text("SHARE = 2.0\n\n@njit(cache=True)\ndef of(x):\n    return x * SHARE\n")
    (tmp_path / "house" / "planted.py").write_text(PLANTED[how])
    others = "" if how == "names_too_many" else "house.rules"
    assert misnamed(tmp_path, "house") == {f"house.planted.worth: {others}"}


def test_what_is_reached_through_another_kernel_counts(tmp_path):
    """A caller holds the code of what it calls: it goes stale with the file of a constant two calls away."""
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "rules.py").write_text("SHARE = 2.0\n")
    middle = "from house.rules import SHARE\n\n@kernel('house.rules')\ndef of(x):\n    return x * SHARE\n"
    (tmp_path / "house" / "middle.py").write_text(middle)
    caller = "from house.middle import of\n\n@kernel({})\ndef worth(x, SHARE):\n    return of(x) * SHARE\n"
    (tmp_path / "house" / "caller.py").write_text(caller.format("'house.middle'"))
    assert misnamed(tmp_path, "house") == {"house.caller.worth: house.middle, house.rules"}
    (tmp_path / "house" / "caller.py").write_text(caller.format("'house.middle', 'house.rules'"))
    assert misnamed(tmp_path, "house") == set()
