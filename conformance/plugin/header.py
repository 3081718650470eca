"""What heads a run on the terminal, and a results file: versions, CPU, threads, packs."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import Any

import numpy as np

from conformance import __version__
from conformance.candidate import RunConfig
from conformance.pack.conversion import question, takes_batches
from conformance.pack.formats import IMPORTERS
from conformance.pack.request import installed
from conformance.pack.store import locate_pack
from conformance.processes.machine import cpu_name
from conformance.session import Session


def results_header(session: Session, config: RunConfig) -> dict[str, Any]:
    """Return the header of a results file of the session's cases on `config`'s engine."""
    found, asked = session.capability, session.choices
    return {
        "kind": "header",
        "conformance": __version__,
        "opencv": {"version": found["version"], "distribution": found["distribution"]},
        "engine": config.engine,
        "importer": config.importer,
        "backend": config.backend,
        "target": config.target,
        **({"cpu_level": config.cpu, "cpu_disabled": config.cpu_off} if config.cpu else {}),
        "keras": asked.keras,
        "graph": asked.graph,
        "weights": asked.weights,
        "environment": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "cpu": found["cpu_features"],
            "processor": cpu_name(),
            "threads": asked.threads or found["threads"],
        },
        "packs": _pack_digests(session, config.importer),
    }


def _pack_digests(session: Session, importer: str) -> dict[str, str]:
    packs = session.choices.packs
    judged = (m for m in session.models if importer in session.importers_of(m))
    located = {m: locate_pack(packs, session.request(m)) for m in judged}
    return {m: question(path, importer) for m, path in located.items() if path}


def header(session: Session) -> Iterator[str]:
    """Yield the lines at the top of the run."""
    found, asked = session.capability, session.choices
    for name in asked.importers or IMPORTERS[: IMPORTERS.index(session.importers[0])]:
        if name not in session.importers:
            done = "left out" if asked.importers else f"{session.importers[0]} is judged"
            yield f"conformance: OpenCV {found['version']} has no importer {name}: {done}"
    judged = list(dict.fromkeys(variant.importer for variant in session.variants()))
    for name in judged:
        converted = any(session.own_importer(model) != name for model in session.models)
        if converted and not takes_batches(name):
            yield f"conformance: files for the importer {name} take one image: no batch is judged"
    yield (
        f"conformance: OpenCV {found['version']} ({found['distribution']}), engines "
        f"{', '.join(session.engines)}, importer {', '.join(judged)}, "
        f"target {asked.target}, {asked.threads or found['threads']} threads"
    )
    tensorflow, keras = (installed((n,)) or "not installed" for n in ("tensorflow", "keras"))
    yield (
        f"conformance: TensorFlow {tensorflow}, Keras {keras}, "
        f"NumPy {np.__version__}, Python {platform.python_version()}"
    )
    if "device" in found:
        yield f"conformance: OpenCL device {found['device']}"
    for level, features in session.levels.items():
        off = f"without {', '.join(level.off)} (OpenCV took notice): " if level.off else ""
        yield f"conformance: CPU {off}{features}"
    yield f"conformance: packs {asked.packs} (weights {asked.weights}, graph {asked.graph})"
