"""The process that runs the candidate: ``python -m conformance.opencv.child REQUEST.json``.

It writes to the request's folder, so that whatever kills it leaves what was done before:
``journal`` (the stage begun last), ``<stage>.npz`` (arrays of a finished stage), ``report.json``
(version, times, memory, errors). run.py reads them.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable

import numpy as np

from conformance.candidate import BATCH, REPEATS, Array, Failure, RunConfig
from conformance.pack.sampling import SAMPLED
from conformance.processes.inference import clocked
from conformance.processes.machine import peak_mib
from conformance.processes.serve import printed_since

from . import kernels, layers, net
from .capability import load_cv2
from .importers import IMPORTERS


class Session:
    """One run: the request, where its results go, and what goes into report.json."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.folder = Path(request["folder"])
        self.graph = Path(request["graph"])
        self.config = RunConfig(**request["config"])
        self.model: str = request["model"]
        self.entries: list[dict[str, Any]] = request["layers"]
        # What each of the model's outputs is called: the nodes of "output" and "logits".
        self.heads: list[dict[str, str]] = request["heads"]
        # The tensors of the file, where it is not the frozen graph itself.
        self.converted: list[dict[str, str]] = request["converted"]
        self.batches: bool = request["batches"]
        self.layout: str = request["layout"]
        self.tap_bytes: int = request["tap_bytes"]
        self.images: Array = np.load(request["inputs"], allow_pickle=False)
        self.report: dict[str, Any] = {"failures": []}
        self.subject = net.Subject(self.model, self.config, "?")
        self.begun: list[str] = []
        self.kernels: Counter[str] = Counter()  # that an OpenCL device was given, by name
        self._log_offset = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note that a stage begins, and write the report when it ends, well or not."""
        self.begun.append(name)
        with (self.folder / "journal").open("a", encoding="utf-8") as journal:
            journal.write(name + "\n")
        self._log_offset = os.fstat(2).st_size
        try:
            with net.stage(name, self.subject, self.printed):
                yield
        finally:
            self.write_report()

    @contextmanager
    def optional(self) -> Iterator[None]:
        """Let the run go on after an error in a stage that later ones do not need."""
        try:
            yield
        except net.StageError as error:
            self.add_failure(error.failure)

    def add_failure(self, failure: Failure) -> None:
        """Put the failure in the report."""
        self.report["failures"].append(asdict(failure))
        self.write_report()

    def printed(self) -> str:
        """Return what was written to stderr since the stage began."""
        return printed_since(self._log_offset)

    def save(self, stage: str, **arrays: Any) -> None:
        """Write the arrays of a stage whole or not at all."""
        temporary = self.folder / "unfinished.npz"
        np.savez(temporary, **arrays)
        os.replace(temporary, self.folder / f"{stage}.npz")

    def layers_of(self, what: str, held: dict[str, str], required: bool = True) -> list[str]:
        """Return OpenCV's layer of each head's "output" or "logits", "" where that has none.

        required: raise ValueError where the head has one, but OpenCV no layer that holds it.
        """
        return [
            self._layer(head[what], held, required) if head[what] else "" for head in self.heads
        ]

    def _layer(self, node: str, held: dict[str, str], required: bool) -> str:
        try:
            return layers.layer_holding(held, self.entries, node)
        except ValueError:
            if required:
                raise
            return ""

    def write_report(self) -> None:
        """Write report.json whole or not at all."""
        self.report["peak_mib"] = peak_mib()
        temporary = self.folder / "unfinished.json"
        temporary.write_text(json.dumps(self.report), encoding="utf-8")
        os.replace(temporary, self.folder / "report.json")


def run(session: Session) -> None:
    """Run all stages; a StageError ends the run where later stages need the failed one."""
    with session.stage("start"):
        cv2 = load_cv2()
        session.subject = net.Subject(session.model, session.config, cv2.__version__)
        session.report["version"] = cv2.__version__
        if session.config.on_opencl:
            session.kernels = kernels.count_kernels()
    candidate, held = run_plain(session, cv2)
    if session.config.cut:
        del candidate
        run_cut(session, cv2)
        return
    wanted = any(head["logits"] for head in session.heads)
    if session.config.engine == "new":
        # It reads the graph again for each tap; two nets of vgg19 would take over 3 GiB. As what it
        # hands out is the same bits however much is asked for, the layers bring the logits along.
        candidate = None
    elif session.batches and session.converted:
        # After a batch ConvNeXt's ONNX file gives other logits to single images (4.14.0).
        candidate = None
    elif wanted:
        with session.optional():
            run_logits(session, cv2, held, candidate)
    del candidate
    if session.config.layers:
        with session.optional():
            run_layers(session, cv2, held)
    there = (session.folder / "logits.npz").exists() or "logits" in session.begun
    if wanted and not there:
        with session.optional():
            run_logits(session, cv2, held, None)


def run_plain(session: Session, cv2: Any) -> tuple[Any, dict[str, str]]:
    """Parse, set up, run each input alone, some twice, some at once.

    Return the net, and which of its layers holds which graph node.
    """
    tap = None
    with session.stage("parse"):
        candidate = net.read(cv2, session.graph, session.config)
        names = [str(name) for name in candidate.getLayerNames()]
        importer, entries = IMPORTERS[session.config.importer], session.entries
        held = importer.carriers(names, entries, session.converted, session.config.engine)
        if len(session.heads) > 1:
            outputs = session.layers_of("output", held)
            tap = layers.tap_outputs(cv2, session.graph, session.config, outputs, candidate)
            candidate = tap.net
    with session.stage("setup"):
        net.configure(cv2, candidate, session.config)
        session.report["threads"] = cv2.getNumThreads()
        refuse_fallback(session)

    def forward() -> list[Array]:
        answers = [candidate.forward()] if tap is None else layers.forward_tap(tap)
        return [np.array(answer) for answer in answers]

    with session.stage("forward"):
        run_singles(session, candidate, forward)
    if session.batches:
        with session.optional(), session.stage("batch"):
            # The same net: its re-allocation for another shape is what a user's batch meets too,
            # and a second parse of a 550 MB graph is saved.
            blob = net.to_blob(session.images[:BATCH], session.layout)
            session.save("batch", **of_heads("batch", [net.given(candidate, blob, forward)]))
    return candidate, held


def run_singles(session: Session, candidate: Any, forward: Callable[[], list[Array]]) -> None:
    """Run each input by itself, then the first ones again."""
    outputs: list[list[Array]] = []
    repeat, times = [], []
    for image in session.images[:, None]:  # [1, H, W, C], as the others below
        blob = net.to_blob(image, session.layout)
        output, milliseconds = net.given(candidate, blob, lambda: clocked(forward))
        outputs.append(output)
        times.append(milliseconds)
        if len(outputs) == 1:
            refuse_fallback(session)
            require_kernels(session, candidate)
    for image in session.images[:REPEATS, None]:
        repeat.append(net.given(candidate, net.to_blob(image, session.layout), forward))
    arrays = {**of_heads("outputs", outputs), **of_heads("repeat", repeat)}
    session.save("forward", times_ms=times, **arrays)


def of_heads(name: str, runs: list[list[Array]]) -> dict[str, Array]:
    """Return {name, name_1, …: one head's answers in all `runs`}; a run is an answer a head."""
    return {
        f"{name}_{number}" if number else name: np.concatenate(answers)
        for number, answers in enumerate(zip(*runs))
    }


def refuse_fallback(session: Session) -> None:
    """Raise StageError if OpenCV said that it runs something else than was asked for."""
    line = net.find_fallback(session.printed())
    if line:
        reason = f"OpenCV does not run what was asked for, and only warns: {line}"
        raise net.StageError(session.subject.failed("setup", reason))


def require_kernels(session: Session, candidate: Any) -> None:
    """Raise StageError if OpenCL was asked for and its device was not given the first input."""
    if not session.config.on_opencl:
        return
    session.report["kernels"] = sum(session.kernels.values())
    reason = net.missing_kernels(candidate, session.config, session.kernels, session.printed())
    if reason:
        raise net.StageError(session.subject.failed("setup", reason))
    session.report["notes"] = net.not_compiled(session.printed())


def run_logits(session: Session, cv2: Any, held: dict[str, str], candidate: Any) -> None:
    """Read logits, from `candidate` where possible: its untapped outputs are already saved."""
    with session.stage("logits"):
        wanted = session.layers_of("logits", held)
        names = list(dict.fromkeys(filter(None, wanted)))
        tap = layers.open_tap(
            cv2, session.graph, session.config, names, parsed=candidate, layout=session.layout
        )
        read: dict[str, list[Array]] = {name: [] for name in names}
        for image in session.images[SAMPLED, None]:
            for name, value in zip(names, layers.read_tap(tap, image)):
                if value is not None:
                    read[name].append(value.reshape(1, -1))
        session.save("logits", **by_head("logits", wanted, read))


def by_head(name: str, wanted: list[str], read: dict[str, list[Array]]) -> dict[str, Array]:
    """Return {name, name_1, …: what was read of each head's layer}, heads without one left out."""
    return {
        f"{name}_{number}" if number else name: np.concatenate(read[layer])
        for number, layer in enumerate(wanted)
        if read.get(layer)
    }


def run_layers(session: Session, cv2: Any, held: dict[str, str]) -> None:
    """Read every layer on the inputs SAMPLED, and the outputs as they then are."""
    with session.stage("layers"):
        # Where there is no layer of one, the others are read all the same; run_logits tells of it.
        outputs, logits = (session.layers_of(n, held, required=False) for n in ("output", "logits"))
        samples = layers.LayerSamples(session.entries)
        read: dict[str, list[Array]] = {name: [] for name in (*outputs, *logits) if name}
        for names in layers.in_portions(held, session.entries, session.tap_bytes):
            tap = layers.open_tap(
                cv2, session.graph, session.config, names, plain=True, layout=session.layout
            )
            for index, image in enumerate(session.images[SAMPLED, None]):
                for name, value in zip(names, layers.read_tap(tap, image)):
                    if value is None:
                        held.pop(name, None)
                        continue
                    samples.add(index, held[name], value)
                    if name in read:
                        read[name].append(np.array(value))
        if session.config.engine == "new" and any(logits):
            rows = {name: [value.reshape(1, -1) for value in read[name]] for name in read}
            session.save("logits", **by_head("logits", logits, rows))
        importer = IMPORTERS[session.config.importer]
        missing = importer.absent(held, session.entries, session.converted)
        lost = {**missing, **samples.wrong}
        found = {node: at for node, at in samples.samples.items() if node not in lost}
        session.save("layers", **by_head("outputs", outputs, read), **end_to_end(found))
        session.report.update(
            carriers=held, layers_absent=missing, layers_wrong=samples.wrong, sampled=list(found)
        )


def run_cut(session: Session, cv2: Any) -> None:
    """Read some nodes on the inputs SAMPLED, each from the part of the network that ends in it."""
    with session.stage("layers"):
        value_of = {entry["node"]: entry["tensor"] for entry in session.converted}
        samples, nodes = layers.LayerSamples(session.entries), session.config.cut or ()
        for node in nodes:
            value = value_of.get(node, node)
            with layers.open_cut(cv2, session.graph, session.config, value) as part:
                for index, image in enumerate(session.images[SAMPLED, None]):
                    samples.add(index, node, net.forward(part, image, session.layout))
        found = {node: samples.samples[node] for node in nodes if node not in samples.wrong}
        session.save("layers", **end_to_end(found))
        session.report.update(
            carriers={value_of.get(node, node): node for node in nodes},
            layers_wrong=samples.wrong,
            sampled=list(found),
        )


def end_to_end(arrays: dict[str, Array]) -> dict[str, Array]:
    """Return the arrays as one, and where each ends in it: a file of many is slow to read."""
    lengths = [len(array) for array in arrays.values()]
    samples = np.concatenate([np.empty(0, np.float32), *arrays.values()])
    return {"samples": samples, "ends": np.cumsum(lengths, dtype=np.int64)}


def main(request: Path) -> None:
    """Run what the request asks for; errors of the candidate go into the report."""
    os.dup2(2, 1)  # one log
    with suppress(ImportError):
        import resource

        # A crash is expected now and then: its core file would be as large as the model.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    session = Session(json.loads(request.read_text(encoding="utf-8")))
    try:
        run(session)
    except net.StageError as error:
        session.add_failure(error.failure)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
