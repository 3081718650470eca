"""Routes: which importer and engine conform on a model, and which of them is the best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.results.cases import read_results
from conformance.results.routes import (
    CONFORMS,
    NOT_JUDGED,
    SINGLY,
    STRAYS,
    Judged,
    Route,
    judged,
    ranked,
    right_models,
)

from .sample_generated import RECIPES, failing, operations_in, write_generated
from .sample_results import case, run

ROUTE = Route("onnx", "new")
GOOD = case("resnet50")
BATCH = case("resnet50", "test_batch_equals_singles", stage="batch")


def outcome(line: dict[str, Any], outcome: str, **more: Any) -> dict[str, Any]:
    """Return the line with another outcome."""
    return {**line, "outcome": outcome, **more}


@pytest.mark.parametrize(
    ("cases", "state"),
    [
        ([], NOT_JUDGED),
        ([outcome(GOOD, "skipped")], NOT_JUDGED),
        ([GOOD, BATCH], CONFORMS),
        ([GOOD, outcome(GOOD, "skipped"), BATCH], CONFORMS),
        ([GOOD], SINGLY),
        ([GOOD, outcome(BATCH, "skipped")], SINGLY),
        ([GOOD, outcome(BATCH, "xfailed")], SINGLY),
        ([GOOD, outcome(BATCH, "failed")], SINGLY),
        ([GOOD, outcome(GOOD, "xfailed"), BATCH], STRAYS),
        ([GOOD, outcome(GOOD, "failed"), BATCH], STRAYS),
        ([outcome(GOOD, "errored"), BATCH], STRAYS),
        ([GOOD, outcome(GOOD, "failed", variant="winograd_off"), BATCH], CONFORMS),
        ([GOOD, outcome(GOOD, "failed", stage="preprocessing"), BATCH], CONFORMS),
    ],
)
def test_a_route_conforms_where_single_images_pass(cases: list[Any], state: str) -> None:
    """An expected failure conforms no more than a new one; a batch that fails leaves one image."""
    assert judged(ROUTE, cases).state == state


def test_what_a_route_tells() -> None:
    """A route tells its distance, its time and what did not pass, a batch's failure last."""
    bad = outcome(case("resnet50", "test_softmax"), "xfailed", reason="a defect")
    found = judged(ROUTE, [outcome(BATCH, "failed", reason="other"), bad, GOOD], [run("resnet50")])
    assert (found.deviation, found.noise, found.ms) == (1e-4, 1e-4, 10.0)
    assert found.bad == (bad["id"], BATCH["id"])
    assert found.reason == "a defect"
    assert ROUTE.title == "ONNX, new engine"
    assert Route("tensorflow", "classic", "raw").title == "TensorFlow raw, classic engine"


def test_a_distance_that_is_not_finite_is_none() -> None:
    """A deviation recorded as "inf" is no number, and such a route is not the best."""
    strayed = {**run("resnet50"), "deviation": {"softmax_l1_sum_median": "inf"}}
    worse = judged(ROUTE, [GOOD], [strayed])
    assert worse.deviation is None
    better = judged(replace(ROUTE, engine="classic"), [GOOD], [run("resnet50", 1.0)])
    assert ranked([worse, better]) == [better, worse]


def test_the_best_route_is_the_nearest_then_the_fastest() -> None:
    """Time decides between distances that are shown alike only, and strays are left out."""
    near = Judged(Route("onnx", "new"), CONFORMS, 9.96e-6, ms=90.0)
    alike = Judged(Route("tflite", "new"), SINGLY, 1.04e-5, ms=10.0)
    far = Judged(Route("tensorflow", "classic"), CONFORMS, 1.2e-5, ms=1.0)
    wrong = Judged(Route("tflite", "classic"), STRAYS, 1e-9, ms=1.0)
    silent = Judged(Route("onnx", "classic"))
    assert ranked([far, wrong, near, silent, alike]) == [alike, near, far]


def test_generated_models_are_right_by_some_route(tmp_path: Path) -> None:
    """Of generated models those count that are right on single images, route by route."""
    first = write_generated(tmp_path / "a.jsonl", "5.0.0", failing("relu", "wrong"))
    second = write_generated(tmp_path / "b.jsonl", "5.0.0", runs=("batch",), importer="onnx")
    found = right_models(map(read_results, (first, second)))["5.0.0"]
    without = {key for key, recipe in RECIPES.items() if "relu" not in operations_in(recipe)}
    assert 0 < len(without) < len(RECIPES)
    assert found == {Route("tensorflow", "classic"): without, Route("onnx", "classic"): set()}
