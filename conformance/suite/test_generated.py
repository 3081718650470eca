"""Small generated models: OpenCV answers as float64 does, or a known defect says why not."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from conformance.candidate import RunConfig
from conformance.errors import ConformanceError
from conformance.generated.outcomes import AT_ONCE, MODEL, RIGHT, SINGLE
from conformance.plugin.generated_runs import Generated, judged, unmet

pytestmark = [getattr(pytest.mark, MODEL), pytest.mark.stage(MODEL)]


@pytest.fixture
def check(
    generated: Generated,
    generated_key: str,
    variant: RunConfig,
    record_line: Callable[[dict[str, Any]], None],
    rerun: str,
) -> Callable[[str], None]:
    """Fail where the model, run so, is not right, unless a known defect says why."""

    def check(run: str) -> None:
        __tracebackhide__ = True
        try:
            outcome = judged(generated, variant, generated_key, run)
        except ConformanceError as error:
            pytest.skip(str(error))
        if outcome is None:
            pytest.skip("single images are not right, so that a batch says nothing more")
        record_line(generated.line(variant, outcome))
        if outcome.symptom == RIGHT:
            return
        if outcome.symptom == "converter":
            pytest.skip(outcome.detail)
        defect = generated.defect(variant, outcome)
        if defect is not None:
            pytest.xfail(f"{defect.name}: {defect.reason} {defect.link}".strip())
        pytest.fail(generated.message(variant, outcome, rerun), pytrace=False)

    return check


def test_single(check: Callable[[str], None]) -> None:
    """Each image by itself gets float64's answer, and the same again."""
    check(SINGLE)


def test_batch(check: Callable[[str], None]) -> None:
    """Two images at once get the answers of each."""
    check(AT_ONCE)


def test_known_defects_are_met(generated: Generated, variant: RunConfig) -> None:
    """Each known defect that is about this run is met by some model: else it is mended."""
    left = [f"{defect.where} {defect.name!r}" for defect in unmet(generated, variant)]
    assert not left, f"no model meets {', '.join(left)}: mended here? change its versions"
