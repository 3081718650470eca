"""What results files say of generated models, in the form that findings are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Optional

from conformance.errors import ConformanceError
from conformance.generated.drawing import draw
from conformance.generated.findings import Axes, Observed
from conformance.generated.outcomes import MODEL
from conformance.generated.recipes import Recipe

from .cases import Results, config_of


@dataclass(frozen=True)
class Outcomes:
    """The generated models of some results files, all judged by the same ones."""

    count: int  # how many were drawn
    seed: int
    recipes: dict[str, Recipe]  # by key, all of them
    observed: dict[Axes, Observed]  # by way to run; see findings

    def of(self, importer: str, place: str, run: str) -> Observed:
        """Return what was observed by an importer at a place (RunConfig.place)."""
        asked = (importer, place, run)
        found = (
            observed
            for (config, run), observed in self.observed.items()
            if (config.importer, config.place, run) == asked
        )
        return next(found, {})


def outcomes_in(results: Sequence[Results]) -> Outcomes:
    """Return the outcomes in results files, of which each has generated models.

    Raises ConformanceError where two are of other models, or of the same OpenCV, run alike.
    """
    observed: dict[Axes, Observed] = {}
    for one in results:
        version = one.header["opencv"]["version"]
        for line in one.generated:
            axes = config_of(one.header), line["run"]
            lines = observed.setdefault(axes, {}).setdefault(version, {})
            if line["key"] in lines:
                raise ConformanceError(f"{one.path}: a second run of OpenCV {version}; give one")
            lines[line["key"]] = line
    count, seed = _drawn(results) if results else (0, 0)
    recipes = {recipe.key(): recipe for recipe in draw(count, seed)}
    return Outcomes(count, seed, recipes, observed)


def _drawn(results: Sequence[Results]) -> tuple[int, int]:
    """Return number and seed of the models; raise ConformanceError where runs differ in them."""
    drawn = results[0].header[MODEL]
    for one in results[1:]:
        if one.header[MODEL] != drawn:
            raise ConformanceError(
                f"{one.path} is of other generated models than {results[0].path}: judge all "
                "versions by one pack, with the same --generated and --generated-seed"
            )
    return int(drawn["count"]), int(drawn["seed"])


def divided(results: Results) -> tuple[Optional[Results], Optional[Results]]:
    """Return a file's part about whole models and its part about generated ones, None: has none."""
    if MODEL not in results.header:
        return results, None
    cases = [case for case in results.cases if case["stage"] != MODEL]
    small = [case for case in results.cases if case["stage"] == MODEL]
    whole = replace(results, cases=cases, generated=[]) if cases or results.runs else None
    return whole, replace(results, cases=small, runs=[], layers=[])
