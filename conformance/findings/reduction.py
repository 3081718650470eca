"""``findings --reduce``: each finding that the installed OpenCV shows made small, and written.

Models are built by processes of their own, where TensorFlow runs, and judged in OpenCV's child.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from conformance.candidate import RunConfig
from conformance.errors import ConformanceError
from conformance.generated.findings import Finding
from conformance.generated.outcomes import RIGHT, Judge, Outcome
from conformance.generated.patterns import Pattern, parse_pattern
from conformance.generated.recipes import Recipe, input_of
from conformance.generated.reduced import (
    FILE,
    Reduced,
    attached,
    combined,
    read_reduced,
    sequence,
    write_reduced,
)
from conformance.generated.reduction import Answers, Asked, Shrunk, shrink, shrink_all, target_of
from conformance.generated.run import outcomes_of
from conformance.generated.store import (
    ARRAYS,
    FILES,
    GeneratedPack,
    Request,
    find_generated,
    passing_pack,
)
from conformance.opencv.capability import probe_in_child
from conformance.opencv.scripts import make_folder
from conformance.pack.builder import require_tensorflow
from conformance.pack.conversion import require_converter
from conformance.pack.formats import FORMATS
from conformance.verdict.tolerance import load_tolerances

from .reproducers import Bench, Shown, folder_name, write_folder

if TYPE_CHECKING:
    from conformance.reference.generated_pack import Part  # a type

# So many models a task of a building process, and so many of a finding's models are tried at most.
CHUNK, MOST = 4, 12


@dataclass(frozen=True)
class Wanted:
    """What is to be reduced, and where to.

    only: ids; None is all. packs: where a pack of the models may be, which spares building them;
    count and seed: which models these are.
    """

    root: Path
    only: Optional[Sequence[str]]
    packs: Path
    count: int
    seed: int


def reduce_findings(
    findings: Sequence[Finding], recipes: Mapping[str, Recipe], wanted: Wanted
) -> list[Finding]:
    """Shrink what the installed OpenCV shows, write a folder each, and return all findings then.

    What was shrunk before, with another version perhaps, stays there. Raises ConformanceError where
    TensorFlow is missing, an id is unknown, OpenCV shows none of the findings, or there is a file
    where the folder would be.
    """
    root = wanted.root
    before = read_reduced(root) if (root / FILE).exists() else []
    chosen = _chosen(findings, wanted.only)
    require_tensorflow("keras3", "--reduce")
    capability = probe_in_child()
    here = list(_shown_here(chosen, capability))
    importers = sorted({finding.importer for finding in here})
    for importer in importers:
        if importer in FORMATS:
            require_converter(importer, "keras3")
    from conformance.reference.generated_pack import build_part, building_pool

    pack = find_generated(wanted.packs, Request(wanted.count, wanted.seed, tuple(importers)))
    make_folder(root)
    bench = Bench(root, capability, load_tolerances())
    with building_pool() as pool:
        laboratory = Laboratory(pool, build_part, bench, pack)
        shrunk = list(_shrunk(here, recipes, laboratory))
        written = list(_written(shrunk, laboratory, findings))
    reduced = combined(before, written)
    merged = attached(findings, reduced, root)
    write_reduced(root, reduced, merged)
    _say(f"{len(shrunk)} findings shrunk to {len(written)}: {root}")
    return merged


def _say(text: str) -> None:
    print(f"reduce: {text}", file=sys.stderr, flush=True)


def _chosen(findings: Sequence[Finding], only: Optional[Sequence[str]]) -> list[Finding]:
    if only is None:
        return list(findings)
    unknown = [name for name in only if name not in {finding.id for finding in findings}]
    if unknown:
        raise ConformanceError(
            f"--only {unknown[0]}: no finding of these results has this id; findings without "
            "--reduce prints them"
        )
    return [finding for finding in findings if finding.id in only]


def _shown_here(findings: Sequence[Finding], capability: Mapping[str, Any]) -> list[Finding]:
    """Return what the installed OpenCV shows; say of the others which version does."""
    here: list[Finding] = []
    elsewhere: dict[tuple[str, str], list[str]] = {}
    for one in findings:
        runs = one.importer in capability["importers"] and one.engine in capability["engines"]
        if "-" in one.engine:
            _say(f"{one.id}: shows at {one.engine}; models are reduced on the usual target and CPU")
        elif one.symptom == "converter":
            _say(f"{one.id}: the converter's fault and not OpenCV's, left as it is")
        elif one.bad and capability["version"] in one.bad and runs:
            here.append(one)
        else:
            elsewhere.setdefault((one.bad[-1], one.engine), []).append(one.id)
    for (version, engine), ids in elsewhere.items():
        _say(
            f"OpenCV {capability['version']} does not show {', '.join(ids)} ({engine} engine): to "
            f"reduce them, python -m pip install 'opencv-python-headless=={version}.*'"
        )
    if not here:
        raise ConformanceError(
            f"--reduce: OpenCV {capability['version']}, which is installed, shows none of these "
            "findings: install a version that does (see above)"
        )
    return here


@dataclass
class Laboratory:
    """Builds and judges recipes, each once."""

    pool: Executor
    build: Any  # build_part, which runs in the pool
    bench: Bench
    pack: Optional[GeneratedPack] = None  # has some of them, built before
    known: dict[tuple[str, str, str], tuple[Outcome, ...]] = field(default_factory=dict)

    def ask(self, asked: Asked) -> Answers:
        """Return the outcomes of recipes; none of what can't be built or is not to be judged."""
        fresh: dict[str, dict[str, Recipe]] = {}
        wanted: dict[tuple[str, str], list[str]] = {}
        for axes, recipes in asked.items():
            for recipe in recipes:
                if (*axes, recipe.key()) not in self.known:
                    fresh.setdefault(axes[0], {})[recipe.key()] = recipe
                    wanted.setdefault(axes, []).append(recipe.key())
        built = self.built(fresh)
        jobs = [(axes, keys, built[axes[0]]) for axes, keys in wanted.items()]
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            judged = threads.map(self.judged_part, *zip(*jobs)) if jobs else iter(())
            for (axes, keys, _), found in zip(jobs, judged):
                for key in keys:
                    self.known[(*axes, key)] = tuple(one for one in found if one.key == key)
        return self.known

    def built(self, recipes: Mapping[str, Mapping[str, Recipe]]) -> dict[str, Part]:
        """Return manifest entries, files and arrays of recipes, by importer."""
        found = {importer: self._packed(importer, of) for importer, of in recipes.items()}
        tasks = []
        for importer, of in recipes.items():
            there = {model["key"] for model in found[importer][0]}
            missing = [recipe for key, recipe in of.items() if key not in there]
            for some in _chunks(missing):
                tasks.append((importer, self.pool.submit(self.build, some, [importer])))
        for importer, task in tasks:
            models, files, arrays = task.result()
            found[importer][0].extend(models)
            found[importer][1].update(files)
            found[importer][2].update(arrays)
        return found

    def _packed(self, importer: str, keys: Iterable[str]) -> Part:
        """Return those of the models that the pack has."""
        if self.pack is None:
            return [], {}, {}
        there = set(self.pack.judged(importer)).intersection(keys)
        path = self.pack.path
        with np.load(path / FILES) as files, np.load(path / ARRAYS) as arrays:
            names = [name for name in arrays.files if name.partition("/")[0] in there]
            return (
                [self.pack.models[key] for key in sorted(there)],
                {f"{key}/{importer}": files[f"{key}/{importer}"] for key in sorted(there)},
                {name: arrays[name] for name in names},
            )

    def judged_part(self, axes: tuple[str, str], keys: Sequence[str], part: Part) -> list[Outcome]:
        """Return the outcomes of some of the models that were built."""
        (importer, engine), (models, files, arrays) = axes, part
        some = [model for model in models if model["key"] in keys]
        config = RunConfig(importer, engine)
        judge = Judge(self.bench.tolerances, self.bench.capability["version"], config)
        with passing_pack(importer, some, files, arrays) as pack:
            found = list(outcomes_of(pack, config, judge.judge))
        return [one for one in found if _is_opencvs(one, importer, judge, arrays)]


def _chunks(recipes: Sequence[Recipe]) -> Iterator[list[Recipe]]:
    for start in range(0, len(recipes), CHUNK):
        yield list(recipes[start : start + CHUNK])


def arrays_of(key: str, importer: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's arrays, "runtime" what the file's own runtime answers."""
    own = {name: arrays[f"{key}/{name}"] for name in ("inputs", "f32", "f64")}
    runtime = own["f32"] if importer == "tensorflow" else arrays[f"{key}/{importer}"]
    return {**own, "runtime": runtime}


def _is_opencvs(outcome: Outcome, importer: str, judge: Judge, arrays: Mapping[str, Any]) -> bool:
    """Return whether the file's own runtime answers rightly: else nobody is to blame OpenCV."""
    own = arrays_of(outcome.key, importer, arrays)
    answers = {"outputs": own["runtime"], "again": own["runtime"]}
    return judge.judge(outcome.key, own, answers, batches=False)[0].symptom == RIGHT


Pair = tuple[Finding, Shrunk]


def _shrunk(
    findings: Sequence[Finding], recipes: Mapping[str, Recipe], laboratory: Laboratory
) -> Iterator[Pair]:
    """Yield each finding with its shrinking, which is done; say which one is not shown."""
    started: list[Pair] = []
    left = list(findings)
    for start, stop in ((0, 1), (1, 4), (4, MOST)):
        some = [one for one in left if len(one.cases) > start]
        asked: dict[tuple[str, str], dict[str, Recipe]] = {}
        for one in some:
            known = {key: recipes[key] for key in one.cases[start:stop]}
            asked.setdefault((one.importer, one.engine), {}).update(known)
        answers = laboratory.ask({axes: list(of.values()) for axes, of in asked.items()})
        for one in some:
            found = _first_shown(one, one.cases[start:stop], answers)
            if found is not None:
                target = target_of(one.importer, one.engine, found)
                steps = shrink(recipes[found.key], _pattern(one))
                started.append((one, Shrunk(target, steps)))
                left.remove(one)
    for one in left:
        _say(
            f"{one.id}: not shown by OpenCV here, or only by what its file's own runtime strays in"
        )
    shrink_all(
        [shrunk for _, shrunk in started],
        laboratory.ask,
        lambda busy: _say(f"{busy} of {len(started)} left, {len(laboratory.known)} models judged"),
    )
    order = {one.id: place for place, one in enumerate(findings)}
    yield from sorted(started, key=lambda pair: order[pair[0].id])


def _pattern(finding: Finding) -> Pattern:
    return parse_pattern(f"finding {finding.id}", finding.pattern)


def _first_shown(finding: Finding, keys: Sequence[str], answers: Answers) -> Optional[Outcome]:
    for key in keys:
        for one in answers.get((finding.importer, finding.engine, key), ()):
            if (one.run, one.symptom) == (finding.run, finding.symptom):
                return one
    return None


def _written(
    pairs: Sequence[Pair], laboratory: Laboratory, findings: Sequence[Finding]
) -> Iterator[Reduced]:
    """Yield what was written for each sequence that findings have shrunk to."""
    groups: dict[str, list[Pair]] = {}
    for finding, shrunk in pairs:
        same = f"{finding.importer} {finding.symptom} {finding.run}: {sequence(_last(shrunk))}"
        groups.setdefault(same, []).append((finding, shrunk))
    for same, some in groups.items():
        found = _write(some, laboratory)
        if found is None:
            ids = ", ".join(finding.id for finding, _ in some)
            _say(f"{ids}: no model shows it by itself, in a process of its own")
            continue
        yield Reduced(
            ids=[finding.id for finding, _ in some],
            same=same,
            folder=folder_name(found),
            opencv=[laboratory.bench.capability["version"]],
            layers=found.recipe.words(),
            operations=found.own,
            input=input_of(found.recipe),
            recipe=found.recipe.as_dict(),
        )


def _last(shrunk: Shrunk) -> Recipe:
    assert shrunk.way is not None  # it is done
    return shrunk.way[-1]


def _write(pairs: Sequence[Pair], laboratory: Laboratory) -> Optional[Shown]:
    """Write the smallest model whose script shows it; None where none does."""
    findings = [finding for finding, _ in pairs]
    for _, shrunk in pairs:
        for recipe in reversed(shrunk.way or []):
            found = _shown(findings, recipe, shrunk, laboratory)
            if write_folder(laboratory.bench, found) is not None:
                return found
    return None


def _shown(
    findings: Sequence[Finding], recipe: Recipe, shrunk: Shrunk, laboratory: Laboratory
) -> Shown:
    importer, engine = shrunk.target.axes
    key = recipe.key()
    models, files, arrays = laboratory.built({importer: {key: recipe}})[importer]
    outcomes = laboratory.known[(importer, engine, key)]
    return Shown(
        findings=findings,
        recipe=recipe,
        outcome=next(one for one in outcomes if shrunk.target.shown([one])),
        config=RunConfig(importer=importer, engine=engine),
        file=files[f"{key}/{importer}"].tobytes(),
        arrays=arrays_of(key, importer, arrays),
        operations=models[0]["operations"][importer],
    )
