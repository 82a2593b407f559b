"""Recipes: one YAML declares one model. Typed, frozen, and strict: a bad key is an error with file, key and remedy.

The file's stem is the recipe's name. `method` names a module of `tapehouse/methods/`, whose class `Recipe` says which sections
there may be. Adapters and classical models lie in `models_registry/adapters/`, their bases in `models_registry/base/`.
"""

from __future__ import annotations

import difflib
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from tapehouse.errors import TapehouseError
from tapehouse.prompts import templates
from tapehouse.recipe_sections import ClassicalRecipe, LanguageRecipe, Named
from tapehouse.yaml_files import read_named

Recipe = Named
FOLDER = Path("models_registry/adapters")
BASES = Path("models_registry/base")


@lru_cache(maxsize=1)
def methods() -> tuple[str, ...]:
    """The methods that there are: the modules of `tapehouse/methods/`."""
    return tuple(sorted(path.stem for path in (Path(__file__).parent / "methods").glob("*.py") if path.stem != "__init__"))


def method_module(method: str) -> ModuleType:
    """The module of a method."""
    return import_module(f"tapehouse.methods.{method}")


def load_recipes(folder: Path) -> dict[str, Recipe]:
    """All recipes in `folder`, by name, in the order of their names. Raises TapehouseError: file, key and remedy."""
    recipes = {path.stem: load_recipe(path) for path in sorted(folder.glob("*.yaml"))}
    for name, recipe in recipes.items():
        if isinstance(recipe, LanguageRecipe) and recipe.model.init_from is not None:
            _check_parents(folder / f"{name}.yaml", recipe, recipes)
        check = getattr(method_module(recipe.method), "check", None)
        if check is not None:  # what a method asks of other recipes
            check(folder / f"{name}.yaml", recipe, recipes)
        complete = getattr(method_module(recipe.method), "complete", None)
        if complete is not None:  # what it takes over from them
            recipes[name] = complete(folder / f"{name}.yaml", recipe, recipes)
    return recipes


def load_recipe(path: Path) -> Recipe:
    """The recipe in `path`, named after the file. Raises TapehouseError: file, key and remedy."""
    fields = read_named(path, "recipe", "'method:' and 'description:'")
    recipe = parse_recipe(fields, str(path))
    # Of the file alone: a recipe that was written down whole, as in a manifest or a job, names every key.
    for key, reason in recipe.idle().items():
        if _gives(fields, key):
            raise TapehouseError(f"{path}: {key}: has no effect, for {reason}; remove it")
    if isinstance(recipe, LanguageRecipe) and recipe.prompt is not None and recipe.prompt.template is not None:
        try:
            family = templates.load(recipe.prompt.template).family
        except TapehouseError as error:
            raise TapehouseError(f"{path}: prompt.template: {error}") from error
        if family != recipe.family:
            raise TapehouseError(
                f"{path}: prompt.template: {recipe.prompt.template} is of the family {family!r}, and the recipe answers "
                f"{recipe.family!r}; take one of that"
            )
    return recipe


def _gives(fields: Any, key: str) -> bool:
    """Whether the mapping holds the dotted key."""
    for part in key.split("."):
        if not isinstance(fields, dict) or part not in fields:
            return False
        fields = fields[part]
    return True


def _check_parents(path: Path, recipe: LanguageRecipe, recipes: dict[str, Recipe]) -> None:
    """Each parent is an adapter that answers, of the same base, held alike, and shape; no recipe is its own ancestor."""
    line = [recipe.name]
    child = recipe
    while child.model.init_from is not None:
        parent = recipes.get(child.model.init_from)
        if not isinstance(parent, LanguageRecipe) or not parent.predicts:
            adapters = [name for name, known in recipes.items() if isinstance(known, LanguageRecipe) and known.predicts]
            raise TapehouseError(
                f"{path}: model.init_from: {child.model.init_from!r} is no adapter that answers; those are {adapters}"
            )
        if parent.name in line:
            raise TapehouseError(f"{path}: model.init_from: {' <- '.join([*line, parent.name])} is a circle; break it")
        shapes = [(of.model.base, of.adapter, of.quantisation) for of in (parent, child)]
        if shapes[0] != shapes[1]:
            raise TapehouseError(
                f"{path}: model.init_from: model.base, adapter and quantisation must be those of {parent.name}, which it "
                "goes on from"
            )
        line.append(parent.name)
        child = parent


def parse_recipe(fields: dict[str, Any], source: str) -> Recipe:
    """The recipe that `fields` describe; `source` names where they come from in an error."""
    method = fields.get("method")
    if method not in methods():
        near = difflib.get_close_matches(str(method), methods(), n=1)
        raise TapehouseError(
            f"{source}: not a recipe:\n  method: {method!r} is none of {list(methods())}"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    kind: type[Named] = method_module(method).Recipe
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        faults = "\n".join(f"  {fault_text(fault, kind)}" for fault in error.errors())
        raise TapehouseError(f"{source}: not a recipe:\n{faults}") from None


def fault_text(fault: dict[str, Any], recipe: type[BaseModel]) -> str:
    """What pydantic holds against a declaration, as key, fault and remedy."""
    path = [str(part) for part in fault["loc"]]
    key = ".".join(path)
    if fault["type"] == "missing":
        return f"{key}: missing; add it"
    if fault["type"] == "extra_forbidden":
        known = [name for name in _fields_at(recipe, path[:-1]) if name != "name"]
        near = difflib.get_close_matches(path[-1], known, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"remove it; the keys here are {known}"
        return f"{key}: unknown key; {remedy}"
    if fault["type"] == "value_error":
        said = str(fault["ctx"]["error"])
        return f"{key}: {said}" if key else said
    return f"{key}: {fault['msg']} (got {fault['input']!r}); correct the value"


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        if part not in model.model_fields:
            return []
        kind: Any = model.model_fields[part].annotation
        if get_origin(kind) in (Union, UnionType):
            kind = next(option for option in get_args(kind) if option is not type(None))
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return []
        model = kind
    return list(model.model_fields)


__all__ = ["BASES", "FOLDER", "ClassicalRecipe", "LanguageRecipe", "Recipe", "load_recipe", "load_recipes", "methods"]
