"""Recipes around recipes: a method that fits another recipe's model takes over what that recipe says, when recipes are loaded.

So the hash of the outer one changes with the inner one, and a job folder needs one recipe alone.
"""

from pathlib import Path
from typing import Any, ClassVar

from tapehouse.errors import TapehouseError
from tapehouse.recipe_sections import NOT_CONTENT, ClassicalRecipe
from tapehouse.recipes import Recipe, method_module, parse_recipe


class OuterRecipe(ClassicalRecipe):
    """A recipe that names another one.

    Class attributes:
        naming: the key that names it.
    """

    naming: ClassVar[str]

    inner: dict[str, Any] | None = None  # what the named recipe says; filled in by `taken_over`

    @property
    def runs(self) -> tuple[str, ...]:
        """Other methods whose code its own runs."""
        return (self.inner["method"],) if self.inner else ()

    @property
    def inner_recipe(self) -> ClassicalRecipe:
        """The recipe that it names."""
        assert self.inner is not None, f"{self.name}: not loaded with the other recipes"
        named = {"name": getattr(self, self.naming), "description": f"Inside {self.name}."}
        return parse_recipe({**self.inner, **named}, f"{self.name}.{self.naming}")


def taken_over(path: Path, recipe: OuterRecipe, recipes: dict[str, Recipe]) -> OuterRecipe:
    """`recipe` with what the recipe that it names says.

    Raises:
        TapehouseError: file, key and remedy: no such recipe, one that nothing is fitted for here, or one around another.
    """
    if recipe.inner is not None:
        raise TapehouseError(f"{path}: inner: follows from {recipe.naming}; remove the key")
    fits = [
        name
        for name, known in recipes.items()
        if isinstance(known, ClassicalRecipe)
        and not isinstance(known, OuterRecipe)
        and not known.apart
        and hasattr(method_module(known.method), "fit")
    ]
    named = getattr(recipe, recipe.naming)
    if named not in fits:
        raise TapehouseError(f"{path}: {recipe.naming}: {named!r} is no classical recipe that is fitted; those are {fits}")
    return recipe.model_copy(update={"inner": recipes[named].model_dump(mode="json", exclude=NOT_CONTENT)})
