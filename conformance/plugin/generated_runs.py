"""The generated models of a pytest run: asked for by marker, judged many in a process."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

import pytest

from conformance.candidate import RunConfig
from conformance.errors import ConformanceError
from conformance.generated.defects import Defect, described, load_defects
from conformance.generated.drawing import draw
from conformance.generated.outcomes import AT_ONCE, MODEL, SINGLE, Judge, Outcome
from conformance.generated.patterns import Shown, own_operations
from conformance.generated.recipes import Recipe
from conformance.generated.run import outcomes_of
from conformance.generated.store import (
    COUNT,
    SMALL,
    GeneratedPack,
    Request,
    find_generated,
    producer_of,
    require_generated,
)
from conformance.pack.format import read_manifest
from conformance.pack.pool import Job
from conformance.pack.request import GRAPHS
from conformance.pack.store import locate_pack
from conformance.results.lines import Line
from conformance.session import Session
from conformance.verdict.judgement import json_number

from .cases import parameters_of, stage_of
from .options import count_generated, names_generated, rerun_command, session_of

WHAT = f"judges small generated models: {SMALL} in a plain run, {COUNT} where asked for with -m"
# To build one, for one importer, on one core (AMD EPYC, TensorFlow 2.21).
_SECONDS_EACH = 0.1
# TensorFlow alone takes 0.7 GiB, with both converters 2.1.
_BYTES_AN_IMPORTER = 750 << 20
_GENERATED = pytest.StashKey["Generated"]()


@dataclass
class Generated:
    """The generated models of a session: their recipes, pack, outcomes and known defects."""

    session: Session
    count: int  # of models
    defects: Sequence[Defect]  # the known ones
    _outcomes: dict[RunConfig, dict[tuple[str, str], Outcome]] = field(default_factory=dict)
    _models: dict[str, dict[str, Shown]] = field(default_factory=dict)  # by importer and key

    @cached_property
    def request(self) -> Request:
        """What is judged."""
        asked = self.session.choices
        # Nothing is frozen by the tutorial's recipe here.
        graph = asked.graph if asked.graph != "raw" else GRAPHS[0]
        return Request(self.count, asked.generated_seed, tuple(self.session.importers), graph)

    @cached_property
    def recipes(self) -> dict[str, Recipe]:
        """The recipes, by key; drawn, as the pack may not be there yet."""
        drawn = draw(self.request.count, self.request.seed)
        return {recipe.key(): recipe for recipe in drawn}

    @cached_property
    def pack(self) -> GeneratedPack:
        """The pack; raises ConformanceError saying how to get one."""
        self.session.wait_for(MODEL)
        why = self.session.build_failures.get(MODEL, "")
        return require_generated(self.session.choices.packs, self.request, why)

    def header(self) -> dict[str, Any]:
        """Return what a results file says of the models."""
        asked, drawn = self.request, {"count": self.request.count, "seed": self.request.seed}
        found = find_generated(self.session.choices.packs, asked)
        return {**drawn, "digest": "" if found is None else found.digest()}

    @property
    def is_there(self) -> bool:
        """Whether there is a pack that has what is asked for."""
        return find_generated(self.session.choices.packs, self.request) is not None

    def missing_jobs(self) -> list[Job]:
        """Return the job of building the pack, where it is missing and TensorFlow is installed."""
        packs = self.session.choices.packs
        if producer_of(self.request.importers) is None or find_generated(packs, self.request):
            return []
        command = [sys.executable, "-m", "conformance", "pack", "build", "--packs", str(packs)]
        command += ["--generated", str(self.request.count), "--as-told"]
        command += ["--generated-seed", str(self.request.seed)]
        command += ["--importer", ",".join(self.request.importers), "--graph", self.request.graph]
        importers = len(self.request.importers)
        seconds = _SECONDS_EACH * self.request.count * importers
        memory = _BYTES_AN_IMPORTER * importers
        return [Job(MODEL, tuple(command), seconds=seconds, memory=memory)]

    def outcomes(self, config: RunConfig) -> dict[tuple[str, str], Outcome]:
        """Return what came of each model and way to run, computed once a session."""
        if config not in self._outcomes:
            tolerances = self.session.limits.tolerances
            judge = Judge(tolerances, self.session.capability["version"], config)
            found = outcomes_of(self.pack, config, judge.judge)
            self._outcomes[config] = {(one.key, one.run): one for one in found}
        return self._outcomes[config]

    def defect(self, config: RunConfig, outcome: Outcome) -> Optional[Defect]:
        """Return the known defect that an outcome is, or None."""
        return next(iter(self.described(config, outcome)), None)

    def described(self, config: RunConfig, outcome: Outcome) -> list[Defect]:
        """Return all known defects that an outcome may be of."""
        version = self.session.capability["version"]
        shown = self._shown(config.importer)[outcome.key]
        return described(self.defects, shown, config, version, outcome)

    def operations(self, importer: str, key: str) -> list[tuple[str, int]]:
        """Return the operations of a model's file, each with the number of its layer."""
        found: list[tuple[str, int]] = self.pack.models[key]["operations"].get(importer, [])
        return found

    def _shown(self, importer: str) -> dict[str, Shown]:
        """Return the models as patterns see them, by key; each works its layers out once."""
        if importer not in self._models:
            self._models[importer] = {
                key: Shown(self.recipes[key], own_operations(self.operations(importer, key)))
                for key in self.pack.models
            }
        return self._models[importer]

    def line(self, config: RunConfig, outcome: Outcome) -> Line:
        """Return the line of the results file."""
        defect = self.defect(config, outcome)
        return {
            "kind": "generated",
            "key": outcome.key,
            "run": outcome.run,
            "symptom": outcome.symptom,
            "stage": outcome.stage,
            "deviation": json_number(outcome.deviation),  # infinite where a value is not finite
            "allowed": outcome.allowed,
            "detail": outcome.detail,
            "layers": self.recipes[outcome.key].words(),
            "operations": self.operations(config.importer, outcome.key),
            "known": defect.name if defect else None,
        }

    def message(self, config: RunConfig, outcome: Outcome, command: str) -> str:
        """Return what is wrong with a model, so that one can see it again."""
        recipe = self.recipes[outcome.key]
        own = own_operations(self.operations(config.importer, outcome.key))
        version = self.session.capability["version"]
        many = "a batch of 2" if outcome.run != SINGLE else "single images"
        lines = [
            f"generated model {outcome.key} on OpenCV {version}, {config.title}, {many}: "
            f"{outcome.symptom} at {outcome.stage}",
            f"layers: input {list(recipe.input)}, stem, {', '.join(recipe.words())}, {recipe.head}",
            f"operations of the file: {', '.join(own) or 'none but those of stem and head'}",
            *_figures(outcome),
            f"again: {command}",
        ]
        return "\n  ".join(lines)


def _figures(outcome: Outcome) -> Iterable[str]:
    if outcome.values is not None and outcome.position is not None:
        image, place = outcome.position
        got, expected = outcome.values
        yield (
            f"strays by {outcome.deviation:.3g}, allowed {outcome.allowed:.3g}; worst at image "
            f"{image}, value {place}: {got:.9g}, should be {expected:.9g}"
        )
    if outcome.detail:
        yield outcome.detail


def unmet(generated: Generated, config: RunConfig) -> list[Defect]:
    """Return the known defects that no model met, though they are about this run.

    Only a whole run can say so: one of the default number of models, or more, as they are.
    """
    version, asked = generated.session.capability["version"], generated.request
    if asked.count < COUNT or asked.seed != 0 or asked.graph != GRAPHS[0]:
        return []
    outcomes = list(generated.outcomes(config).values())
    met = {defect.name for one in outcomes for defect in generated.described(config, one)}
    return [
        defect
        for defect in generated.defects
        if defect.name not in met
        and any(defect.concerns(config, version, run) for run in (SINGLE, AT_ONCE))
    ]


def judged(generated: Generated, config: RunConfig, key: str, run: str) -> Optional[Outcome]:
    """Return a model's outcome, None for a batch where single images are not right.

    Raises ConformanceError where the pack has no such model or no file of it.
    """
    entry: Any = generated.pack.models.get(key)
    if entry is None:
        raise ConformanceError("left out: no rounding can be judged by it")
    reason = entry["refused"].get(config.importer)
    if reason is not None:
        raise ConformanceError(f"the converter refuses it: {reason}")
    return generated.outcomes(config).get((key, run))


def generated_of(config: pytest.Config) -> Generated:
    """Return the session's generated models, found on first use.

    Raises pytest.UsageError for a bad file of known defects.
    """
    if _GENERATED not in config.stash:
        known = config.getoption("--known-defects")
        try:
            defects = load_defects(Path(known) if known else None)
        except ConformanceError as error:
            raise pytest.UsageError(str(error)) from None
        session, count = session_of(config), count_generated(config)
        config.stash[_GENERATED] = Generated(session, count, defects)
    return config.stash[_GENERATED]


@pytest.fixture(scope="session")
def generated(request: pytest.FixtureRequest) -> Generated:
    """The generated models, their pack, and what came of them."""
    found = generated_of(request.config)
    try:
        found.pack  # noqa: B018  # one error for all that want it
    except ConformanceError as error:
        message = str(error)
    else:
        return found
    if not names_generated(request.config) and not found.is_there:
        pytest.skip(message)  # packs made for a run of the big models are no mistake
    pytest.fail(message, pytrace=False)


@pytest.fixture
def rerun(request: pytest.FixtureRequest) -> str:
    """The command that runs just this case again."""
    return rerun_command(request.node, request.config, None)


def explanations(item: pytest.Item, message: str) -> list[Defect]:
    """Return the known defects that may be why a case of a whole model fails."""
    name, variant = parameters_of(item)
    if variant is None or name is None or name == MODEL:
        return []
    session = session_of(item.config)
    operations: set[str] = set()
    if variant.importer == RunConfig().importer:
        with suppress(ConformanceError):  # no such weights, or a damaged pack, as the failure says
            path = locate_pack(session.choices.packs, session.request(name))
            operations = {layer["op"] for layer in read_manifest(path).layers} if path else set()
    about = _defects_about(item, variant)
    return [defect for defect in about if defect.explains(operations, message)]


def expected_of_any(item: pytest.Item) -> Optional[Defect]:
    """Return the known defect by which a batch of any model fails, if it is one of the registry."""
    name, variant = parameters_of(item)
    own = session_of(item.config).choices.own
    if variant is None or name == MODEL or name in own or stage_of(item) != "batch":
        return None
    about = _defects_about(item, variant)
    return next((one for one in about if one.run and one.of_any_model and not one.says), None)


def _defects_about(item: pytest.Item, variant: RunConfig) -> list[Defect]:
    """Return the known defects of the importer, engine and version that a case is run on."""
    run = AT_ONCE if stage_of(item) == "batch" else SINGLE
    version = session_of(item.config).capability["version"]
    return [
        defect
        for defect in generated_of(item.config).defects
        if defect.concerns(variant, version, run)
    ]
