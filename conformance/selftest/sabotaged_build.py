"""What builds generated models, with another truth for each model that has a relu."""

from __future__ import annotations

from typing import Any

from conformance.generated.recipes import Recipe
from conformance.reference import generated_pack

build_part = generated_pack.build_part


def untrue_part(recipes: list[Recipe], importers: list[str]) -> Any:
    """Build the models; say that those with a relu should give a hundredth more."""
    models, files, arrays = build_part(recipes, importers)
    for recipe in recipes:
        if "relu" in {layer.operation for layer in recipe.layers}:
            for name in ("f32", "f64"):
                arrays[f"{recipe.key()}/{name}"] = arrays[f"{recipe.key()}/{name}"] * 1.01
    return models, files, arrays
