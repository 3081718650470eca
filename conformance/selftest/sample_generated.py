"""Results files of generated models made on the spot, for the self-tests of the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable

from conformance.generated.drawing import draw
from conformance.generated.outcomes import MODEL, RIGHT
from conformance.generated.recipes import Recipe

from .sample_results import write

COUNT = 150
PACKED = 12  # models of the pack that self-tests share
RECIPES = {recipe.key(): recipe for recipe in draw(COUNT, 0)}
# By a model and a way to run, what came of it; None where it was not run in that way.
Symptom = Callable[[Recipe, str], "str | None"]


def operations_in(recipe: Recipe) -> set[str]:
    """Return the operations of a model."""
    return {layer.operation for layer in recipe.layers}


def all_right(recipe: Recipe, run: str) -> str:
    """Say that a model is right."""
    return RIGHT


def failing(operation: str, symptom: str) -> Symptom:
    """Return what says that every model with an operation fails, and no other."""
    return lambda recipe, _: symptom if operation in operations_in(recipe) else RIGHT


def write_generated(
    path: Path,
    version: str,
    symptom: Symptom = all_right,
    runs: tuple[str, ...] = ("single",),
    seed: int = 0,
    kinds: Mapping[str, str] = MappingProxyType({}),
    detail: str = "",
    **head: Any,
) -> Path:
    """Write a results file of the generated models on one OpenCV and return its path.

    kinds: the operation of the file that an operation becomes. detail: OpenCV's reason.
    """
    recipes = RECIPES if seed == 0 else {r.key(): r for r in draw(COUNT, seed)}
    lines = [
        one
        for key, recipe in recipes.items()
        for run in runs
        for one in _lines(key, recipe, run, symptom(recipe, run))
    ]
    for one in lines:
        if one["kind"] == MODEL and one["symptom"] != RIGHT:
            layers = enumerate(recipes[one["key"]].layers, 1)
            own = [[kinds[x.operation], n] for n, x in layers if x.operation in kinds]
            one |= {"detail": detail, "operations": [*one["operations"], *own]}
    generated = {"count": COUNT, "seed": seed, "digest": f"pack {seed}"}
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(path, lines, version=version, generated=generated, packs={}, **head)


def _lines(key: str, recipe: Recipe, run: str, symptom: str | None) -> list[dict[str, Any]]:
    if symptom is None:
        return []
    case = {"kind": "case", "id": f"test_generated.py::test_{run}[{key}]", "model": MODEL}
    case |= {"stage": MODEL, "variant": "", "outcome": "passed"}
    if symptom != RIGHT:
        case |= {"outcome": "failed", "reason": "r", "command": f"pytest again {run} {key}"}
    return [case, line(key, symptom, recipe, run)]


def line(key: str, symptom: str, recipe: Recipe, run: str = "single") -> dict[str, Any]:
    """Return a line of a results file: what came of a model."""
    wrong = symptom == "wrong"
    values: dict[str, Any] = {
        "kind": "generated",
        "key": key,
        "run": run,
        "symptom": symptom,
        "stage": "",
    }
    values |= {"deviation": 0.5 if wrong else None, "allowed": 1e-5 if wrong else None}
    values |= {"detail": "", "layers": recipe.words(), "operations": [["Op", 1]], "known": None}
    return values
