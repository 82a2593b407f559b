"""A base model that others have trained: a folder, or a repository of a model hub; its recipes lie in models_registry/base/."""

from typing import ClassVar, Literal

from pydantic import Field

from tapehouse.recipe_sections import Named


class Recipe(Named):
    """Weights of somebody else. Nothing is fetched unless `make` is asked to, and no code of theirs runs unless it says so."""

    kind: ClassVar[str] = "base"

    method: Literal["external"]
    source: str = Field(description="A folder, absolute or below the models' folder, or the id of a repository of the hub.")
    revision: str | None = Field(None, description="Commit of the repository; null for a folder.")
    digest: str | None = Field(None, description="Digest that the weights must have; null takes what is there, and records it.")
    trust_remote_code: bool = False
    trained_until: str | None = Field(None, description="Date up to which its texts reach, where it is known.")
