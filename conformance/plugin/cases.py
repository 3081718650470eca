"""What a pytest item is about: its case in results and JUnit XML, its known failure."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Optional

import numpy as np
import pytest

from conformance.candidate import RunConfig
from conformance.generated.outcomes import MODEL
from conformance.opencv.levels import AS_IT_IS, Level
from conformance.pack.conversion import takes_batches
from conformance.pack.formats import FORMATS
from conformance.session import Session
from conformance.verdict.expectations import Case, KnownFailure, match_known_failure

from . import imagenet_runs as selecting
from . import timing_runs as recording
from .options import rerun_command

_FINDINGS = pytest.StashKey[dict[str, Any]]()


def parameters_of(item: pytest.Item) -> tuple[Optional[str], Optional[RunConfig]]:
    """Return model and configuration of a test that judges a stage, None where it has none."""
    if item.get_closest_marker("stage") is None:
        return None, None
    params = getattr(getattr(item, "callspec", None), "params", {})
    model = MODEL if "generated_key" in params else params.get("pack")
    return model, params.get("variant")


def model_of(item: pytest.Item) -> Optional[str]:
    """Return the model whose pack a test of the suite wants, or None."""
    if not any(item.get_closest_marker(name) for name in ("stage", recording.MARK, selecting.MARK)):
        return None
    model: Optional[str] = getattr(getattr(item, "callspec", None), "params", {}).get("pack")
    return model


def model_of_test(models: Sequence[str], test: str) -> str:
    """Return the model that a test's id names, or the id itself where it names none."""
    parameters = test.partition("[")[2]
    if "test_generated.py::" in test:
        # All models of an importer and engine are run in one process.
        return f"generated {parameters.partition('-')[2]}"
    named = [m for m in models if re.search(rf"(?:^|-){re.escape(m)}(?:-|]$)", parameters)]
    return max(named, key=len, default=test)


def is_of_no_file(session: Session, item: pytest.Item) -> bool:
    """Return whether a test is about a file that its model has not.

    A user's ONNX or TFLite file is judged by the importer that reads it, and converted to nothing;
    models that have a frozen graph are judged by the importers that were asked for.
    """
    model, variant = parameters_of(item)
    if model is None or model == MODEL:
        return False
    if "conversion" in getattr(item, "fixturenames", ()):
        return session.own_importer(model) in FORMATS
    return variant is not None and variant.importer not in session.importers_of(model)


def is_batch_of_one(session: Session, item: pytest.Item) -> bool:
    """Return whether a test runs a batch through a file that is made for one image."""
    model, variant = parameters_of(item)
    if variant is None or takes_batches(variant.importer):
        return False
    if model not in (None, MODEL) and session.own_importer(model) in FORMATS:
        return False  # that file says itself what it takes
    return item.name.startswith("test_batch") or stage_of(item) == "batch"


def findings(item: pytest.Item) -> dict[str, Any]:
    """Return what is found out about a case: "case", "judgement", "run", "layers": dicts."""
    return item.stash.setdefault(_FINDINGS, {})


def stage_of(item: pytest.Item) -> str:
    """Return the stage that a test of the suite judges."""
    stage = item.get_closest_marker("stage")
    assert stage is not None
    return str(stage.args[0])


def name_case(
    item: pytest.Item, session: Session, model: str, variant: Optional[RunConfig]
) -> None:
    """Put the case into the item's findings, and what JUnit XML shows of it into its properties."""
    stage = stage_of(item)
    # The same case has the same id whatever the engine, so that engines can be compared.
    name, bracket, parameters = item.name.rstrip("]").partition("[")
    level = _level(item)
    place = variant.place if variant else level.name
    parameters = f"[{_without(parameters, place, model)}]" if bracket else ""
    case = {
        "id": f"{item.path.name}::{name}{parameters}",
        "model": model,
        "stage": stage,
    }
    importer = _importer(item, variant)
    # These are what JUnit XML shows: plain values, the details are in the findings.
    properties = {"model": model, "stage": stage, "opencv": session.capability["version"]}
    properties["cpu"] = variant.cpu if variant else level.name
    if variant is not None:
        case["variant"] = variant.switches
        properties |= {"engine": variant.engine, "variant": case["variant"]}
        if variant.target != RunConfig().target:
            properties["target"] = variant.target
    if importer != RunConfig().importer:
        properties["importer"] = importer
    properties["command"] = rerun_command(item, item.config, session.choices.own.get(model))
    item.user_properties += [(name, value) for name, value in properties.items() if value]
    findings(item)["case"] = case


def _importer(item: pytest.Item, variant: Optional[RunConfig]) -> str:
    """Return the importer that a case is about, the usual one where it is about none."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    return str(variant.importer if variant else params.get("conversion", RunConfig().importer))


def _level(item: pytest.Item) -> Level:
    """Return the CPU level of a case that runs no network."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    level: Level = params.get("level", AS_IT_IS)
    return level


def _without(parameters: str, place: str, model: str) -> str:
    """Return a test's parameters less `place`: the engine, the target and the CPU level.

    A model's own name may hold such a word.
    """
    if not place:
        return parameters
    before, name, after = parameters.partition(model)
    kept = (f"-{side}-".replace(f"-{place}-", "-")[1:-1] for side in (before, after))
    return name.join(kept)


def mark_known_failure(
    session: Session, item: pytest.Item, model: str, variant: Optional[RunConfig]
) -> None:
    """Mark the item as strictly expected to fail where an entry of the file describes it."""
    level, importer = _level(item), _importer(item, variant)
    config = variant or replace(
        session.variants()[0], importer=importer, cpu=level.name, cpu_off=level.off
    )
    name = getattr(item, "originalname", item.name)
    parameters = _without(item.name[len(name) :].strip("[]"), level.name, model)
    entry = known_failure(session, model, config, stage_of(item), name, parameters)
    if entry is not None:
        reason = f"{entry.reason} {entry.link}".strip()
        item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def known_failure(
    session: Session, model: str, config: RunConfig, stage: str, test: str, parameters: str = ""
) -> Optional[KnownFailure]:
    """Return the entry that says why a case fails, or None; parameters: in brackets in its id."""
    case = Case(
        model=model,
        stage=stage,
        test=test,
        opencv=session.capability["version"],
        importer=config.importer,
        engine=config.engine,
        backend=config.backend,
        target=config.target,
        cpu_disabled=config.cpu_off,
        graph=session.choices.graph,
        keras=session.choices.keras,
        python=platform.python_version(),
        numpy=np.__version__,
        switches=config.switches,
        parameters=parameters,
    )
    return match_known_failure(session.choices.known_failures, case)
