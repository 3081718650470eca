"""What came of one generated model in one importer, engine and OpenCV version."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Optional

import numpy as np

from conformance.candidate import BATCH
from conformance.verdict.metrics import METRICS
from conformance.verdict.tolerance import Tolerances, allow

Array = np.ndarray[Any, Any]

RIGHT = "right"
# The worst first. "converter": the file's own runtime is wrong, so that nobody can judge by it.
SYMPTOMS = ("hang", "crash", "wrong", "shape", "unstable", "refused", "converter", RIGHT)
SILENT = ("wrong", "shape", "unstable")
METRIC = "output_linf"
MODEL = "generated"


@dataclass(frozen=True)
class Outcome:
    """One model's outcome."""

    key: str  # of the recipe
    symptom: str  # one of SYMPTOMS
    stage: str = ""  # parse, forward, batch or again, where it is not right
    deviation: Optional[float] = None  # the greatest |difference| to float64, on the worst input
    allowed: Optional[float] = None
    detail: str = ""  # OpenCV's reason, or how a shape or answer differs
    position: Optional[tuple[int, int]] = None  # worst input and value

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Judge:
    """What judging takes besides a model's arrays."""

    tolerances: Tolerances
    opencv: str
    engine: str

    def judge(self, key: str, arrays: dict[str, Array], answers: dict[str, Array]) -> Outcome:
        """Return the outcome of a model whose process answered.

        arrays: "f32", "f64" [N, V] and "runtime" [N, V], what the file's own runtime gives.
        answers: see conformance.opencv.generated.run_model.
        """
        runtime = arrays.get("runtime")
        if runtime is not None:
            strayed = self._strays(arrays, runtime)
            if strayed is not None:
                detail = "the file's own runtime strays from float64 itself: not judged"
                return Outcome(key, "converter", "convert", *strayed[:2], detail, strayed[2])
        error = answers.get("error")
        if error is not None and "outputs" not in answers:
            return Outcome(key, "refused", str(error[0]), detail=_reason(error))
        outputs = answers["outputs"]
        outcome = self._answers(key, "forward", arrays, outputs, len(arrays["f64"]))
        if outcome.symptom != RIGHT:
            return outcome
        again = answers.get("again")
        if again is None or again.shape != outputs.shape or (again != outputs).any():
            how = "refused" if again is None else f"moved by {_gap(again, outputs):.2g}"
            return Outcome(key, "unstable", "again", detail=f"a second forward of the net {how}")
        if error is not None:
            return Outcome(key, "refused", str(error[0]), detail=_reason(error))
        if "batch" in answers:
            return self._answers(key, "batch", arrays, answers["batch"], BATCH)
        return outcome

    def _answers(
        self, key: str, stage: str, arrays: dict[str, Array], given: Array, rows: int
    ) -> Outcome:
        expected = (rows, arrays["f64"].shape[1])
        if given.shape != expected:
            detail = f"shape {list(given.shape)} instead of {list(expected)}"
            return Outcome(key, "shape", stage, detail=detail)
        strayed = self._strays(arrays, given)
        if strayed is None:
            return Outcome(key, RIGHT)
        return Outcome(key, "wrong", stage, *strayed[:2], position=strayed[2])

    def _strays(
        self, arrays: dict[str, Array], given: Array
    ) -> Optional[tuple[float, float, tuple[int, int]]]:
        """Return (observed, allowed, worst place) where values stray farther than they may."""
        truth, single = arrays["f64"][: len(given)], arrays["f32"][: len(given)]
        allowance = allow(
            self.tolerances,
            METRIC,
            single,
            truth,
            model=MODEL,
            opencv=self.opencv,
            engine=self.engine,
        )
        observed = METRICS[METRIC].measure(given, truth)
        bad = ~(observed <= allowance.values)
        if not bad.any():
            return None
        worst = int(np.argmax(np.where(np.isnan(observed), np.inf, observed / allowance.values)))
        place = int(np.argmax(np.nan_to_num(np.abs(given - truth)[worst], nan=np.inf)))
        return float(observed[worst]), float(allowance.values[worst]), (worst, place)


def _reason(error: Array) -> str:
    _, reason, node = map(str, error)
    return f"{reason} (node {node!r})" if node else reason


def _gap(first: Array, second: Array) -> float:
    same = first.shape == second.shape
    return float(np.abs(first.astype(np.float64) - second).max()) if same else float("inf")
