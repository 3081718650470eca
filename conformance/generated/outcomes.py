"""What came of one generated model in one importer, engine and OpenCV version."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from conformance.candidate import BATCH, RunConfig
from conformance.verdict.metrics import METRICS
from conformance.verdict.tolerance import Tolerances, allow

Array = np.ndarray[Any, Any]

RIGHT = "right"
# The worst first. "converter": the file's own runtime is wrong, so that nobody can judge by it.
SYMPTOMS = ("hang", "crash", "wrong", "shape", "unstable", "refused", "converter", RIGHT)
SILENT = ("wrong", "shape", "unstable")
METRIC = "output_linf"
MODEL = "generated"


# How a model is run: its images one by one, or the first ones at once.
SINGLE, AT_ONCE = "single", "batch"


@dataclass(frozen=True)
class Outcome:
    """One model's outcome, run in one way."""

    key: str  # of the recipe
    run: str  # SINGLE or AT_ONCE
    symptom: str  # one of SYMPTOMS
    stage: str = ""  # where it is not right: convert, parse, forward, again or batch
    deviation: Optional[float] = None  # the greatest |difference| to float64, on the worst input
    allowed: Optional[float] = None
    detail: str = ""  # OpenCV's reason, or how a shape or answer differs
    position: Optional[tuple[int, int]] = None  # worst input and value
    values: Optional[tuple[float, float]] = None  # OpenCV's there, and float64's


@dataclass(frozen=True)
class Judge:
    """What judging takes besides a model's arrays."""

    tolerances: Tolerances
    opencv: str
    config: RunConfig

    def judge(
        self, key: str, arrays: dict[str, Array], answers: dict[str, Array], batches: bool
    ) -> list[Outcome]:
        """Return the outcomes of a model whose process answered: single images, then a batch.

        arrays: "f32", "f64" [N, V] and "runtime" [N, V], what the file's own runtime gives, if it
        has one. answers: see conformance.opencv.generated. A batch says nothing of its own where
        single images are not right.
        """
        single = self._single(key, arrays, answers)
        if not batches or single.symptom != RIGHT:
            return [single]
        return [single, self._batch(key, arrays, answers)]

    def _single(self, key: str, arrays: dict[str, Array], answers: dict[str, Array]) -> Outcome:
        runtime = arrays.get("runtime")
        strayed = None if runtime is None else self._strays(arrays, runtime)
        if strayed is not None:
            detail = "the file's own runtime strays from float64 itself: not judged"
            return Outcome(key, SINGLE, "converter", "convert", *strayed[:2], detail, *strayed[2:])
        error, outputs = answers.get("error"), answers.get("outputs")
        if outputs is None:
            return _refused(key, SINGLE, error)
        found = self._answers(key, SINGLE, "forward", arrays, outputs)
        if found.symptom != RIGHT:
            return found
        again = answers.get("again")
        if again is None:
            return _refused(key, SINGLE, error)
        if again.shape != outputs.shape or (again != outputs).any():
            how = (
                f"a second forward of the same image moves the answer by {_gap(again, outputs):.2g}"
            )
            return Outcome(key, SINGLE, "unstable", "again", detail=how)
        return found

    def _batch(self, key: str, arrays: dict[str, Array], answers: dict[str, Array]) -> Outcome:
        if "batch" not in answers:
            return _refused(key, AT_ONCE, answers.get("batch_error"))
        return self._answers(key, AT_ONCE, "batch", arrays, answers["batch"])

    def _answers(
        self, key: str, run: str, stage: str, arrays: dict[str, Array], given: Array
    ) -> Outcome:
        rows = BATCH if run == AT_ONCE else len(arrays["f64"])
        expected = (rows, arrays["f64"].shape[1])
        if given.shape != expected:
            detail = f"shape {list(given.shape)} instead of {list(expected)}"
            return Outcome(key, run, "shape", stage, detail=detail)
        strayed = self._strays(arrays, given)
        if strayed is None:
            return Outcome(key, run, RIGHT)
        observed, allowed, position, values = strayed
        return Outcome(key, run, "wrong", stage, observed, allowed, "", position, values)

    def _strays(
        self, arrays: dict[str, Array], given: Array
    ) -> Optional[tuple[float, float, tuple[int, int], tuple[float, float]]]:
        """Return observed, allowed, worst place and the values there, where they stray too far."""
        truth, single = arrays["f64"][: len(given)], arrays["f32"][: len(given)]
        allowance = allow(
            self.tolerances,
            METRIC,
            single,
            truth,
            model=MODEL,
            opencv=self.opencv,
            engine=self.config.engine,
            winograd=None if self.tolerances.winograd_on(self.config.target) else False,
            estimated=True,  # from as few as five values
        )
        observed = METRICS[METRIC].measure(given, truth)
        bad = ~(observed <= allowance.values)
        if not bad.any():
            return None
        worst = int(np.argmax(np.where(np.isnan(observed), np.inf, observed / allowance.values)))
        place = int(np.argmax(np.nan_to_num(np.abs(given - truth)[worst], nan=np.inf)))
        values = float(given[worst, place]), float(truth[worst, place])
        return float(observed[worst]), float(allowance.values[worst]), (worst, place), values


def _refused(key: str, run: str, error: Optional[Array]) -> Outcome:
    stage, reason, node = map(str, error if error is not None else ("start", "no answer", ""))
    detail = f"{reason} (node {node!r})" if node else reason
    return Outcome(key, run, "refused", stage, detail=detail)


def _gap(first: Array, second: Array) -> float:
    same = first.shape == second.shape
    return float(np.abs(first.astype(np.float64) - second).max()) if same else float("inf")


def reason_kind(detail: str) -> str:
    """Return OpenCV's reason without what is of one model or one build alone.

    That is node names, numbers, and the place in OpenCV's source.
    """
    for pattern, text in _OF_ONE_MODEL:
        detail = re.sub(pattern, text, detail, flags=re.DOTALL)
    return detail.strip()


_OF_ONE_MODEL = (
    (r" \(node '[^']*'\)$", ""),
    (r" ?\(-\d+:[^()]*\)", ""),
    (r"OpenCV\([^)]*\) \S+", ""),
    (r"in function '.*?' > |cv::dnn::dnn\w+::|const ", ""),
    (r"[\"']?[\w.]+[/!][^\s\"',]*?([A-Za-z]\w*)?(/\d+)?(:\d+)?[\"']?(?=[\s,)]|$)", r"…/\1"),
    (r"\d+", "#"),
)
