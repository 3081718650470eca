"""One session: what was asked for, its packs, and each candidate's run."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Optional

from .candidate import CandidateRun, RunConfig
from .errors import ConformanceError
from .models import EXTENDED, MODELS
from .opencv.capability import Probing, probe_in_child
from .opencv.levels import Level, check_off, levels
from .opencv.run import run_candidate, running_bytes
from .own_models import Chosen, OwnModel
from .pack.builder import jobs_of, missing_packs
from .pack.building import Building, Shown
from .pack.conversion import Conversion, check_importer, require_conversion, require_converter
from .pack.focus import focus_pack
from .pack.format import Pack, read_manifest
from .pack.formats import FORMATS, IMPORTERS
from .pack.pool import Job, Pool
from .pack.request import PackRequest, built_with, keras_flavour
from .pack.store import find_pack, locate_pack
from .processes.child import HERE, Interpreter
from .processes.progress import Report
from .processes.scratch import Scratch
from .verdict.expectations import KnownFailure
from .verdict.limits import Limits


@dataclass(frozen=True)
class Choices:
    """What one run was asked for; the names are those of the options."""

    packs: Path  # the folder of them
    weights: str = "synthetic"  # as in PackRequest, so are the next two
    graph: str = "opencv"
    keras: str = field(default_factory=keras_flavour)
    importers: Optional[Sequence[str]] = None  # the first of IMPORTERS that this OpenCV has
    engines: Optional[Sequence[str]] = None  # all that this OpenCV has; ["default"]: its choice
    target: str = "cpu"
    cpu_disable: Sequence[str] = ()  # as opencv.levels.levels takes them
    winograd: Sequence[Optional[bool]] = (None,)  # None: what the user gets without asking
    fusion: Sequence[Optional[bool]] = (None,)
    threads: Optional[int] = None
    candidate_timeout: float = 600.0  # seconds that one process of OpenCV may take
    interpreter: Interpreter = HERE  # the Python whose OpenCV is judged
    verbose: bool = False  # let TensorFlow's log through while packs are built
    known_failures: Sequence[KnownFailure] = ()
    own: Mapping[str, OwnModel] = field(default_factory=dict)  # the user's models, by name
    chosen: Sequence[str] = ()  # the models to judge, all where none is named
    extended: bool = False  # judge those of the extended registry, too
    generated: Optional[int] = None  # how many generated models
    generated_seed: int = 0


def choices_of(options: Mapping[str, Any], models: Chosen = Chosen(), **more: Any) -> Choices:  # noqa: B008  (frozen)
    """Return the choices that parsed options make; the models and `more` come before them."""
    known = {f.name: options[f.name] for f in fields(Choices) if f.name in options}
    return Choices(**{**known, "own": models.own, "chosen": models.names, **more})


@dataclass
class Session:
    """What one run was asked for, its packs and its runs."""

    choices: Choices
    build_failures: dict[str, str] = field(default_factory=dict)
    probing: Optional[Probing] = None  # of this very interpreter, where it is begun already
    building: Optional[Building] = None  # of the packs that were missing
    _packs: dict[str, Pack] = field(default_factory=dict)
    _conversions: dict[tuple[Path, str], Conversion] = field(default_factory=dict)
    _runs: dict[tuple[Path, RunConfig], CandidateRun] = field(default_factory=dict)
    _focused: dict[tuple[Path, int], Pack] = field(default_factory=dict)

    @cached_property
    def capability(self) -> dict[str, Any]:
        """What the installed OpenCV offers, asked of a child process.

        Raises ConformanceError without cv2, or when it lacks what is asked for: engine, target or
        every one of the importers. Where it has some of them, the others are left out: one command
        serves a matrix of OpenCV versions.
        """
        asked = self.choices
        run = RunConfig(target=asked.target)
        found: dict[str, Any] = (
            self.probing.answer()
            if self.probing and not run.on_opencl
            else probe_in_child(interpreter=asked.interpreter, config=run)
        )
        importers = asked.importers or IMPORTERS
        if not set(importers) & set(found["importers"]):
            _require("importer", importers[0], found["importers"], found["version"])
        for engine in asked.engines or ():
            if engine != "default":
                _require("engine", engine, found["engines"], found["version"])
        # OpenCV would take any target and run it on the CPU where it has no other.
        targets = [target for backend, target in found["available"] if backend == "default"]
        _require("target", asked.target, targets, found["version"])
        return found

    @property
    def importers(self) -> list[str]:
        """The importers to judge: those asked for that this OpenCV has, or its usual one."""
        asked = self.choices.importers
        found = [name for name in asked or IMPORTERS if name in self.capability["importers"]]
        return found if asked else found[:1]

    def importers_of(self, model: str) -> list[str]:
        """Return the importers to judge a model by: of a file as it stands the one that reads it.

        Raises ConformanceError where that one was not asked for, or this OpenCV lacks it.
        """
        own = self.own_importer(model)
        if own not in FORMATS:
            return self.importers
        asked = self.choices.importers
        if asked and own not in asked:
            check_importer(model, own, asked[0])
        _require("importer", own, self.capability["importers"], self.capability["version"])
        return [own]

    def own_importer(self, model: str) -> str:
        """Return the importer of the pack's own file: most often tensorflow, of the frozen graph.

        A model that is known by its pack only is what that says.
        """
        request = self.request(model)
        if request.own is None or request.own.path is not None:
            return request.importer
        path = locate_pack(self.choices.packs, request)
        return read_manifest(path).importer if path else request.importer

    @property
    def engines(self) -> list[str]:
        """The engines to judge, by their names."""
        found: list[str] = self.capability["engines"]
        # OpenCV 5 takes its new engine by itself; 4.x has the classic one only.
        asked = (found[-1] if name == "default" else name for name in self.choices.engines or found)
        return list(dict.fromkeys(asked))

    @cached_property
    def levels(self) -> dict[Level, str]:
        """The CPU levels to judge, each with the CPU features as OpenCV then tells them.

        Raises ConformanceError for a feature that can't be switched off, and where OpenCV took no
        notice.
        """
        usual = self.capability["cpu_features"]
        asked = levels(self.choices.cpu_disable, usual)
        return {level: self._features(level) if level.off else usual for level in asked}

    def _features(self, level: Level) -> str:
        found = probe_in_child(interpreter=self.choices.interpreter, config=level.config)
        check_off(level, found["cpu_features"])
        return str(found["cpu_features"])

    @cached_property
    def limits(self) -> Limits:
        """What the installed OpenCV may stray."""
        return Limits(self.capability["version"])

    def variants(self) -> list[RunConfig]:
        """Return one configuration for each importer, engine, CPU level and setting of switches.

        The importers are those of any of the models; see importers_of.
        """
        return self._variants

    @cached_property
    def _variants(self) -> list[RunConfig]:
        asked = self.choices
        importers = dict.fromkeys(name for m in self.models for name in self.importers_of(m))
        axes = product(importers, self.engines, self.levels, asked.winograd, asked.fusion)
        return [
            RunConfig(
                importer=importer,
                engine=engine,
                target=asked.target,
                cpu=level.name,
                cpu_off=level.off,
                threads=asked.threads,
                winograd=winograd,
                fusion=fusion,
                layers=True,
            )
            for importer, engine, level, winograd, fusion in axes
        ]

    @property
    def models(self) -> list[str]:
        """The models to judge: those that were chosen, else the registry's and the user's own."""
        asked = self.choices
        return list(asked.chosen) or [*MODELS, *(EXTENDED if asked.extended else ()), *asked.own]

    def request(self, model: str) -> PackRequest:
        """Return the request for the pack of `model` that this session judges by."""
        asked = self.choices
        own = asked.own.get(model)
        weights = asked.weights if own is None else own.path or model
        return PackRequest(model, weights, asked.graph, asked.keras, own)

    def build_missing(
        self,
        models: Iterable[str],
        report: Report,
        importers: Optional[Sequence[str]] = None,
    ) -> None:
        """Build the packs that are missing, and wait for them; see start_building."""
        jobs = self.missing_jobs(models, importers)
        try:
            if self.start_building(jobs, lambda *_: nullcontext(report)):
                assert self.building is not None
                self.building.wait_for_all()
        finally:
            self.stop_building()

    def missing_jobs(
        self, models: Iterable[str], importers: Optional[Sequence[str]] = None
    ) -> list[Job]:
        """Return what is to be built: the packs that are missing, where TensorFlow is installed.

        So are the files of `importers`, all that are judged by default, where their converters are
        installed. What can't be built is noted in build_failures.
        """
        wanted = self.importers if importers is None else importers
        importers = [name for name in wanted if self._converter_problem(name) == ""]
        own = self.choices.own
        known = [m for m in models if m not in own or own[m].path is not None]
        requests = [self.request(model) for model in known]
        missing = missing_packs(requests, self.choices.packs, importers)
        try:
            return jobs_of(
                missing, self.choices.packs, verbose=self.choices.verbose, importers=importers
            )
        except ConformanceError as error:
            self.build_failures.update({request.model: str(error) for request in missing})
            return []

    def start_building(self, jobs: Sequence[Job], shown: Shown) -> bool:
        """Build in processes of their own, while what is there is judged; return whether any is.

        shown: gives what tells of events. A failure is kept in build_failures and raised to the
        tests that want that pack.
        """
        self.stop_building()
        if jobs:
            pool = Pool(list(jobs), self.choices.verbose)
            self.building = Building(pool, shown, self.build_failures)
        return bool(jobs)

    def wait_for(self, name: str) -> None:
        """Return when the job of that name, if there is one, is done."""
        if self.building is not None:
            self.building.wait(name)

    def stop_building(self) -> None:
        """End the processes that are still building."""
        if self.building is not None:
            self.building.close()
            self.building = None

    def pack(self, model: str) -> Pack:
        """Return the checked pack of `model`; raise ConformanceError saying how to get one."""
        if model not in self._packs:
            self.wait_for(model)
            found = find_pack(self.choices.packs, self.request(model))
            if found is None:
                raise ConformanceError(self._no_pack(model))
            self._packs[model] = found
        return self._packs[model]

    def _no_pack(self, model: str) -> str:
        why = self.build_failures.get(model, "it has not been built")
        settings = shlex.join(self.model_arguments(model))
        return (
            f"no pack of {model} in {self.choices.packs}: {why}\nBuild it where "
            f"{built_with(self.request(model))} is installed: "
            f"python -m conformance pack build {settings} --packs {self.choices.packs}"
        )

    def _converter_problem(self, importer: str) -> Optional[str]:
        """Return why `importer` has no converter here, "" if it has one, None if it needs none."""
        if importer not in FORMATS:
            return None
        try:
            require_converter(importer, self.choices.keras)
        except ConformanceError as error:
            return str(error)
        return ""

    def check_conversion(self, pack: Pack, importer: str) -> None:
        """Raise ConformanceError saying what to do where `importer` has no file of the pack."""
        if pack.manifest.importer in FORMATS:
            check_importer(pack.model, pack.manifest.importer, importer)
        elif importer in FORMATS:
            self.conversion(pack, importer)

    def conversion(self, pack: Pack, importer: str) -> Conversion:
        """Return the pack's file for `importer`, checked once a session; see check_conversion."""
        key = (pack.path, importer)
        if key not in self._conversions:
            why = self._converter_problem(importer) or self.build_failures.get(pack.model, "")
            self._conversions[key] = require_conversion(pack, importer, why)
        return self._conversions[key]

    def model_arguments(self, model: str) -> list[str]:
        """Return the words that name `model`, its weights and its graph, after a command."""
        asked = self.choices
        own = asked.own.get(model)
        words = [model] if own is None else list(own.words or [own.name])
        if own is None and asked.weights != "synthetic":
            words += ["--weights", asked.weights]
        return words + (["--graph", asked.graph] if asked.graph != "opencv" else [])

    def run(self, pack: Pack, config: RunConfig) -> CandidateRun:
        """Return OpenCV's answers to the pack's inputs, computed once a session in a child."""
        key = (pack.path, config)
        if key not in self._runs:
            converted = config.importer in FORMATS and pack.manifest.importer not in FORMATS
            given = self.conversion(pack, config.importer) if converted else None
            timeout, interpreter = self.choices.candidate_timeout, self.choices.interpreter
            room: AbstractContextManager[None] = nullcontext()
            if self.building is not None:
                room = self.building.room(running_bytes(pack, config, given))
            with room:
                self._runs[key] = run_candidate(pack, config, timeout, given, interpreter)
        return self._runs[key]

    def focus(self, pack: Pack, index: int) -> Pack:
        """Return the pack of input number `index` alone, made by TensorFlow once a session.

        Raises ConformanceError where TensorFlow is not installed, or fails.
        """
        key = (pack.path, index)
        if key not in self._focused:
            folder = Path(self._scratch.name) / f"{pack.model}-{len(self._focused)}"
            self._focused[key] = focus_pack(pack, index, folder, self.choices.candidate_timeout)
        return self._focused[key]

    @cached_property
    def _scratch(self) -> Scratch:
        return Scratch()


def _require(what: str, wanted: str, offered: Sequence[str], version: str) -> None:
    if wanted in offered:
        return
    has = ", ".join(offered) or "none"
    raise ConformanceError(
        f"OpenCV {version} has no {what} {wanted!r}; it offers: {has}. Choose one of them with "
        f"--{what}, or install an OpenCV that has it"
    )
