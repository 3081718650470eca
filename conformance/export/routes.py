"""Routes from a Keras model to OpenCV, and what came of trying one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional

from conformance.candidate import CandidateRun, RunConfig
from conformance.errors import ConformanceError
from conformance.generated.defects import Defect
from conformance.generated.outcomes import SINGLE
from conformance.pack.conversion import Conversion
from conformance.pack.format import Pack
from conformance.pack.formats import FORMATS
from conformance.pack.request import GRAPHS
from conformance.processes.progress import Event
from conformance.results.routes import Route
from conformance.session import Session
from conformance.verdict.checks import judge_file, judge_run
from conformance.verdict.expectations import Case, known_reasons
from conformance.verdict.judgement import Judgement
from conformance.verdict.nodes import METRIC, describe, first_bad

PLAIN, REWRITTEN = GRAPHS[:2]
BATCH = "batch"


@dataclass(frozen=True)
class Trial:
    """What came of a route.

    strays: the softmax's (or output's) sum of |differences| to float64 on the worst input, None
    without an answer. allowed: what it may be. wrong: why it does not conform, in lines; none where
    it does. batches: why several images at once do not work; empty where they do. known: the
    entries of fixtures/ that tell of it. pack, file: what OpenCV was judged by, and read.
    """

    route: Route
    wrong: Sequence[str] = ()
    batches: str = ""
    known: Sequence[str] = ()
    strays: Optional[float] = None
    allowed: Optional[float] = None
    pack: Optional[Pack] = None
    file: Optional[Path] = None

    @property
    def conforms(self) -> bool:
        """Whether OpenCV answers rightly, image by image."""
        return not self.wrong

    def as_dict(self) -> dict[str, Any]:
        """Return what route.json says of it."""
        passes = self.pack.manifest.passes if self.pack else []
        return {
            **vars(self.route),
            "conforms": self.conforms,
            "wrong": list(self.wrong),
            "batches": self.batches or "right",
            "known": list(self.known),
            "l1": self.strays,
            "allowed": self.allowed,
            "passes": [{"name": one["name"], "found": one["found"]} for one in passes],
        }


def routes(graph: str, importers: Sequence[str], engines: Sequence[str]) -> list[Route]:
    """Return the routes of a graph, in the order in which they are tried.

    engines: OpenCV's own choice last, as the capability has them, which is tried first.
    """
    return [Route(one, engine, graph) for one in importers for engine in reversed(engines)]


def try_route(
    session: Session,
    model: str,
    route: Route,
    defects: Sequence[Defect],
    report: Callable[[Event], None],
) -> Trial:
    """Return what comes of a route; its pack and file are made first, where they are missing.

    session: of the route's graph. Raises ConformanceError where the model has no pack, and none can
    be built here.
    """
    config = RunConfig(route.importer, route.engine, layers=True, threads=session.choices.threads)
    session.build_missing([model], report, [route.importer])
    if route.graph == PLAIN:
        session.pack(model)  # without it nothing can be converted or put in other words
    try:
        pack, converted = session.pack(model), route.importer in FORMATS
        conversion = session.conversion(pack, route.importer) if converted else None
    except ConformanceError as error:
        return Trial(route, [_first_line(session.build_failures.get(model) or str(error))])
    file = conversion.model_path if conversion else pack.graph_path
    trial = Trial(route, pack=pack, file=file)
    untrue = _untrue(session, pack, conversion)
    if untrue is not None:
        return replace(trial, wrong=[untrue])
    return _judged(session, trial, pack, session.run(pack, config), defects)


def _untrue(session: Session, pack: Pack, conversion: Optional[Conversion]) -> Optional[str]:
    """Return how the file strays by its own runtime, so that OpenCV can't be judged by it, or None.

    conversion: None where the file is the frozen graph.
    """
    if conversion is None:
        who, answers = "the frozen graph", partial(Pack.load, name="frozen_f32")
    else:
        who = f"the {FORMATS[conversion.manifest.importer].title} file in {conversion.runtime}"
        answers = partial(_answers, conversion)
    found = judge_file(session.limits, pack, answers, who)
    if found.passed:
        return None
    strays = f"strays by {found.observed:.3g}, allowed {found.allowed:.3g}"
    return f"{who} {strays}: freezing or the converter is wrong, not OpenCV"


def _answers(conversion: Conversion, output: Pack) -> Any:
    return conversion.outputs(output.head)


def _judged(
    session: Session, trial: Trial, pack: Pack, run: CandidateRun, defects: Sequence[Defect]
) -> Trial:
    nodes = session.limits.profile(pack, run) if run.layer_samples else []
    judgements = judge_run(session.limits, pack, run, nodes or None)
    failed = [one for one in judgements if not one.passed and not one.metric.startswith(BATCH)]
    failures = [failure for failure in run.failures if failure.stage != BATCH]
    wrong = [_first_line(failure.message) for failure in failures]
    wrong += [_in_words(one) for one in failed if one.metric != METRIC]
    first = first_bad(nodes)
    if failed and first is not None:
        wrong.append(describe(first, nodes))
    stages = [failure.stage for failure in failures] or ["agreement"] * bool(failed)
    measured = next((one for one in judgements if one.metric.endswith("_l1_sum")), None)
    return replace(
        trial,
        wrong=wrong,
        batches=_batches(run, judgements),
        known=[
            *_known_failures(session, pack, trial.route, stages),
            *(str(one) for one in _known_defects(session, trial.route, wrong, defects)),
        ],
        strays=measured.observed if measured else None,
        allowed=measured.allowed if measured else None,
    )


def _batches(run: CandidateRun, judgements: Sequence[Judgement]) -> str:
    """Return why several images at once do not work, empty where they do."""
    refused = [_first_line(f.message) for f in run.failures if f.stage == BATCH]
    wrong = [_in_words(j) for j in judgements if j.metric.startswith(BATCH) and not j.passed]
    untold = "" if run.batch is not None else "the file takes one image"
    return next(iter([*refused, *wrong]), untold)


def _known_failures(
    session: Session, pack: Pack, route: Route, stages: Sequence[str]
) -> Iterator[str]:
    """Yield the reasons of the known failures that are about the stages at which a run failed."""
    for stage in dict.fromkeys(stages):
        case = Case(
            pack.model,
            stage,
            test="",
            opencv=session.capability["version"],
            backend="default",
            target=session.choices.target,
            keras=session.choices.keras,
            python=session.capability["python"],
            numpy=session.capability["numpy"],
            **vars(route),
        )
        yield from known_reasons(session.choices.known_failures, case)


def _known_defects(
    session: Session, route: Route, wrong: Sequence[str], defects: Sequence[Defect]
) -> Iterator[Defect]:
    """Yield the known defects that OpenCV's own words, or the first bad node, tell of."""
    version, message = session.capability["version"], "\n".join(wrong)
    for defect in defects if wrong else ():
        about = defect.concerns(RunConfig(route.importer, route.engine), version, SINGLE)
        if about and defect.explains((), message):
            yield defect


def _first_line(text: str) -> str:
    return text.splitlines()[0]


def _in_words(judgement: Judgement) -> str:
    on = f" on {judgement.input!r}" if judgement.input else ""
    reason = f" ({judgement.reason})" if judgement.reason else ""
    allowed = f"allowed {judgement.allowed:.3g}{reason}"
    return f"{judgement.metric} is {judgement.observed:.3g}{on}, {allowed}"


def nearest(trials: Sequence[Trial]) -> Optional[Trial]:
    """Return the route that came nearest: that answered, and strays least of what it may."""
    answered = [t for t in trials if t.strays is not None and t.allowed]
    return min(answered, key=lambda t: (t.strays or 0.0) / (t.allowed or 1.0), default=None)
