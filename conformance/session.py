"""What one pytest session knows: the OpenCV build, the packs, and each candidate's run."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Callable, Optional

import numpy as np

from . import __version__
from .candidate import CandidateRun, RunConfig
from .errors import ConformanceError
from .models import EXTENDED, MODELS
from .opencv.capability import probe_in_child
from .opencv.run import run_candidate
from .own_models import OwnModel
from .pack.builder import missing_packs, run_builder
from .pack.conversion import question, require_conversion, require_converter, takes_batches
from .pack.focus import focus_pack
from .pack.format import Pack
from .pack.formats import FORMATS
from .pack.request import PackRequest, keras_flavour
from .pack.store import find_pack, locate_pack
from .processes.machine import cpu_name
from .processes.progress import Event
from .verdict.expectations import Case, KnownFailure, match_known_failure
from .verdict.limits import Limits


@dataclass
class Session:
    """Options of the run and what has been found out so far.

    weights, graph, keras: as in PackRequest. importers: those that this OpenCV lacks are left out,
    see `capability`. engines: None for all that this OpenCV has,
    ["default"] for the one it takes by itself. winograd, fusion: the settings to judge, None being
    what the user gets without asking. timeout: seconds that one candidate process may take.
    verbose: let TensorFlow's log through while packs are built. own: the user's models, by name.
    chosen: the models to judge, all where none is named. extended: of the extended registry too.
    """

    packs_root: Path
    weights: str = "synthetic"
    graph: str = "opencv"
    keras: str = field(default_factory=keras_flavour)
    importers: Sequence[str] = ("tensorflow",)
    engines: Optional[Sequence[str]] = None
    target: str = "cpu"
    winograd: Sequence[Optional[bool]] = (None,)
    fusion: Sequence[Optional[bool]] = (None,)
    threads: Optional[int] = None
    timeout: float = 600.0
    verbose: bool = False
    known_failures: Sequence[KnownFailure] = ()
    own: Mapping[str, OwnModel] = field(default_factory=dict)
    chosen: Sequence[str] = ()
    extended: bool = False
    build_failures: dict[str, str] = field(default_factory=dict)
    lacking: list[str] = field(default_factory=list)
    _packs: dict[str, Pack] = field(default_factory=dict)
    _runs: dict[tuple[Path, RunConfig], CandidateRun] = field(default_factory=dict)
    _focused: dict[tuple[Path, int], Pack] = field(default_factory=dict)

    @cached_property
    def capability(self) -> dict[str, Any]:
        """What the installed OpenCV offers, asked of a child process.

        Raises ConformanceError without cv2, or when it lacks what is asked for: engine, target or
        every one of the importers. Where it has some of them, the others are left out, and `header`
        says so: one command serves a matrix of OpenCV versions.
        """
        found: dict[str, Any] = probe_in_child()
        self.lacking = [name for name in self.importers if name not in found["importers"]]
        if len(self.lacking) == len(self.importers):
            _require("importer", self.lacking[0], found["importers"], found["version"])
        self.importers = [name for name in self.importers if name not in self.lacking]
        if self.engines == ["default"]:
            # OpenCV 5 takes its new engine by itself; 4.x has the classic one only.
            self.engines = found["engines"][-1:]
        for engine in self.engines or ():
            _require("engine", engine, found["engines"], found["version"])
        # OpenCV would take any target and run it on the CPU where it has no other.
        targets = [target for backend, target in found["available"] if backend == "default"]
        _require("target", self.target, targets, found["version"])
        return found

    @cached_property
    def limits(self) -> Limits:
        """What the installed OpenCV may stray."""
        return Limits(self.capability["version"])

    def variants(self) -> list[RunConfig]:
        """Return one configuration for each importer, engine and switch setting to be judged."""
        found = self.capability  # which replaces "default" by the engine's name
        engines = found["engines"] if self.engines is None else self.engines
        return [
            RunConfig(
                importer=importer,
                engine=engine,
                target=self.target,
                threads=self.threads,
                winograd=winograd,
                fusion=fusion,
                layers=True,
            )
            for importer in self.importers
            for engine in engines
            for winograd in self.winograd
            for fusion in self.fusion
        ]

    @property
    def models(self) -> list[str]:
        """The models to judge: those that were chosen, else the registry's and the user's own."""
        return list(self.chosen) or [*MODELS, *(EXTENDED if self.extended else ()), *self.own]

    def request(self, model: str) -> PackRequest:
        """Return the request for the pack of `model` that this session judges by."""
        own = self.own.get(model)
        if own is not None:
            return PackRequest(model, own.path or model, self.graph, self.keras, own)
        return PackRequest(model, self.weights, self.graph, self.keras)

    def build_missing(self, models: Iterable[str], report: Callable[[Event], None]) -> None:
        """Build the packs that are missing, in a process of its own, where TensorFlow is installed.

        So are the files of the other importers, where their converters are installed. A failure is
        kept in build_failures and raised to the tests that want that pack.
        """
        importers = [name for name in self.importers if self._converter_problem(name) == ""]
        requests = [self.request(model) for model in models if self._can_build(model)]
        missing = missing_packs(requests, self.packs_root, importers)
        if not missing:
            return
        try:
            for event in run_builder(
                missing, self.packs_root, verbose=self.verbose, importers=importers
            ):
                report(event)
                if event.state == "failed":
                    self.build_failures[event.model] = event.step
        except ConformanceError as error:
            self.build_failures.update({request.model: str(error) for request in missing})

    def _can_build(self, model: str) -> bool:
        return model not in self.own or self.own[model].path is not None

    def pack(self, model: str) -> Pack:
        """Return the checked pack of `model`; raise ConformanceError saying how to get one."""
        if model not in self._packs:
            found = find_pack(self.packs_root, self.request(model))
            if found is None:
                raise ConformanceError(self._no_pack(model))
            self._packs[model] = found
        return self._packs[model]

    def _no_pack(self, model: str) -> str:
        why = self.build_failures.get(model, "it has not been built")
        settings = shlex.join(self.model_arguments(model, positional=True))
        return (
            f"no pack of {model} in {self.packs_root}: {why}\nBuild it where TensorFlow is "
            f"installed: python -m conformance pack build {settings} --packs {self.packs_root}"
        )

    def _converter_problem(self, importer: str) -> Optional[str]:
        """Return why `importer` has no converter here, "" if it has one, None if it needs none."""
        if importer not in FORMATS:
            return None
        try:
            require_converter(importer, self.keras)
        except ConformanceError as error:
            return str(error)
        return ""

    def check_conversion(self, pack: Pack, importer: str) -> None:
        """Raise ConformanceError saying what to do where `importer` has no file of the pack."""
        if importer in FORMATS:
            why = self._converter_problem(importer) or self.build_failures.get(pack.model, "")
            require_conversion(pack, importer, why)

    def model_arguments(self, model: str, positional: bool = False) -> list[str]:
        """Return the words of a command line that name `model`, its weights and its graph.

        positional: for a command that takes the model as such; otherwise --model, if it is the
        user's own.
        """
        own = self.own.get(model)
        words = [] if positional or own is None else ["--model"]
        if own is not None:
            words += own.words or [own.name]
        elif positional:
            words += [model]
        if own is None and self.weights != "synthetic":
            words += ["--weights", self.weights]
        return words + (["--graph", self.graph] if self.graph != "opencv" else [])

    def run(self, pack: Pack, config: RunConfig) -> CandidateRun:
        """Return OpenCV's answers to the pack's inputs, computed once a session in a child."""
        key = (pack.path, config)
        if key not in self._runs:
            self._runs[key] = run_candidate(pack, config, self.timeout)
        return self._runs[key]

    def focus(self, pack: Pack, index: int) -> Pack:
        """Return the pack of input number `index` alone, made by TensorFlow once a session.

        Raises ConformanceError where TensorFlow is not installed, or fails.
        """
        key = (pack.path, index)
        if key not in self._focused:
            folder = Path(self._scratch.name) / f"{pack.model}-{len(self._focused)}"
            self._focused[key] = focus_pack(pack, index, folder, self.timeout)
        return self._focused[key]

    @cached_property
    def _scratch(self) -> TemporaryDirectory[str]:
        return TemporaryDirectory(prefix="conformance-focus-")

    def case(
        self, model: str, config: RunConfig, stage: str, test: str, parameters: str = ""
    ) -> Case:
        """Return what known failures are matched against; parameters: in brackets in the id."""
        return Case(
            model=model,
            stage=stage,
            test=test,
            opencv=self.capability["version"],
            importer=config.importer,
            engine=config.engine,
            backend=config.backend,
            target=config.target,
            graph=self.graph,
            keras=self.keras,
            python=platform.python_version(),
            numpy=np.__version__,
            switches=switches(config),
            parameters=parameters,
        )

    def known_failure(
        self, model: str, config: RunConfig, stage: str, test: str, parameters: str = ""
    ) -> Optional[KnownFailure]:
        """Return the entry that says why this case fails, or None."""
        case = self.case(model, config, stage, test, parameters)
        return match_known_failure(self.known_failures, case)

    def results_header(self, config: RunConfig) -> dict[str, Any]:
        """Return the header of a results file of this session's cases on `config`'s engine."""
        found = self.capability
        return {
            "kind": "header",
            "conformance": __version__,
            "opencv": {"version": found["version"], "distribution": found["distribution"]},
            "engine": config.engine,
            "importer": config.importer,
            "backend": config.backend,
            "target": config.target,
            "keras": self.keras,
            "graph": self.graph,
            "weights": self.weights,
            "environment": {
                "python": platform.python_version(),
                "numpy": np.__version__,
                "cpu": found["cpu_features"],
                "processor": cpu_name(),
                "threads": self.threads or found["threads"],
            },
            "packs": self._pack_digests(config.importer),
        }

    def _pack_digests(self, importer: str) -> dict[str, str]:
        located = {m: locate_pack(self.packs_root, self.request(m)) for m in self.models}
        return {m: question(path, importer) for m, path in located.items() if path}

    def _left_out(self) -> Iterator[str]:
        """Yield what is not judged though it was asked for, and why."""
        for name in self.lacking:
            yield f"OpenCV {self.capability['version']} has no importer {name}: left out"
        for name in self.importers:
            if not takes_batches(name):
                yield f"files for the importer {name} take one image: no batch is judged"

    def header(self) -> list[str]:
        """Return the lines at the top of the run: versions, CPU, threads, packs."""
        found = self.capability
        return [
            *(f"conformance: {note}" for note in self._left_out()),
            f"conformance: OpenCV {found['version']} ({found['distribution']}), engines "
            f"{', '.join(self.engines or found['engines'])}, "
            f"importer {', '.join(self.importers)}, target {self.target}, "
            f"{self.threads or found['threads']} threads",
            f"conformance: TensorFlow {_version('tensorflow')}, Keras {_version('keras')}, "
            f"NumPy {np.__version__}, Python {platform.python_version()}",
            f"conformance: CPU {found['cpu_features']}",
            f"conformance: packs {self.packs_root} (weights {self.weights}, graph {self.graph})",
        ]


def switches(config: RunConfig) -> str:
    """Return the switches that are set, such as "winograd_off", joined by "-"; else empty."""
    states = (("winograd", config.winograd), ("fusion", config.fusion))
    return "-".join(f"{name}_{'on' if on else 'off'}" for name, on in states if on is not None)


def _require(what: str, wanted: str, offered: Sequence[str], version: str) -> None:
    if wanted in offered:
        return
    has = ", ".join(offered) or "none"
    raise ConformanceError(
        f"OpenCV {version} has no {what} {wanted!r}; it offers: {has}. Choose one of them with "
        f"--{what}, or install an OpenCV that has it"
    )


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
