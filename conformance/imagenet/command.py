"""evaluate: accuracy, time and L1 of OpenCV and TensorFlow on the ImageNet validation set"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from conformance.cli import BAD, OK
from conformance.cli.options import ENGINE, add_option, add_options, chosen_models
from conformance.cli.printing import print_table
from conformance.errors import ConformanceError
from conformance.models import get_model
from conformance.opencv.capability import probe_in_child
from conformance.pack.format import Pack
from conformance.pack.request import PackRequest, keras_flavour
from conformance.pack.store import require_pack
from conformance.processes.server import OPENCV, FrameworkError

from .asked import Asked, results_folder
from .chart import draw_evaluation
from .checks import CHECKS
from .dataset import Dataset
from .evaluation import Evaluation, Plan, Tally, evaluate
from .files import results_name, write_results
from .folder import RunFolder
from .options import OPTIONS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `evaluate` takes."""
    parser.add_argument("models", nargs="+", metavar="MODEL")
    add = parser.add_argument
    add_options(add, "--packs", "--weights")
    for name, settings in OPTIONS.items():
        add_option(add, name, **settings)
    add_option(add, "--engine", **ENGINE)
    add_option(add, "--results", default=Path("results"), help="default: results")
    longest = "longest time one framework may take for a shard (default: 600)"
    add_option(add, "--timeout", help=longest)


def main(arguments: argparse.Namespace) -> int:
    """Evaluate the models; 0 where the frameworks agree, 1 where not or OpenCV failed."""
    asked = Asked(vars(arguments))
    packs = [find_model_pack(name, arguments) for name in chosen_models(arguments.models)]
    dataset = asked.dataset()
    opencv = probe_in_child()
    engine = _engine(arguments.engine, opencv)
    plans = [
        asked.plan(pack, dataset, opencv, engine, arguments.weights, arguments.timeout)
        for pack in packs
    ]
    folder = results_folder(arguments.results)
    outcomes = [_one(asked, plan, pack, folder) for plan, pack in zip(plans, packs)]
    found = [one for one in outcomes if isinstance(one, Evaluation)]
    _print(dataset, plans[0], found)
    for one in found:
        _print_files(folder, one)
    bad = [one for one in outcomes if not isinstance(one, Evaluation)]
    bad += [text for one, pack in zip(outcomes, packs) for text in _findings(one, pack)]
    for text in bad:
        print(f"failed: {text}", file=sys.stderr)
    return BAD if bad else OK


def find_model_pack(model: str, arguments: argparse.Namespace) -> Pack:
    """Return the pack of the model by --packs and --weights; raise ConformanceError for none."""
    request = PackRequest(get_model(model).name, arguments.weights, "opencv", keras_flavour())
    return require_pack(arguments.packs, request)


def _engine(name: str, found: dict[str, Any]) -> str:
    if name == "default":
        return str(found["engines"][-1])
    if name not in found["engines"]:
        raise ConformanceError(
            f"--engine {name!r}: OpenCV {found['version']} has {', '.join(found['engines'])}"
        )
    return name


def _one(asked: Asked, plan: Plan, pack: Pack, folder: Path) -> Any:
    """Return the evaluation, or why OpenCV gave none."""
    try:
        with progress(plan.job.model) as report:
            return evaluated(asked, plan, folder, report)
    except FrameworkError as error:
        if error.module != OPENCV:
            raise ConformanceError(f"{plan.job.model}: {error.message}") from error
        return f"{plan.job.model}: {error.message}"
    except KeyboardInterrupt:
        print("interrupted: --resume goes on from the last finished shard", file=sys.stderr)
        raise


def evaluated(
    asked: Asked, plan: Plan, folder: Path, report: Callable[[Tally], None] = lambda tally: None
) -> Evaluation:
    """Evaluate, write results, log and chart into `folder`, and return what was found."""
    run = folder / f"{results_name(plan)}.shards"
    found = evaluate(plan, run, asked.runner(), asked.options["resume"], report)
    path = write_results(folder, found)
    try:
        draw_evaluation(path.with_suffix(".png"), found)
    except ConformanceError as error:  # the numbers are worth more than their picture
        print(f"no chart: {error}", file=sys.stderr)
    RunFolder(run, {}).remove()
    return found


def _findings(found: Any, pack: Pack) -> Iterator[str]:
    for check in CHECKS.values() if isinstance(found, Evaluation) else ():
        finding = check(found, pack)
        if finding.passed is False:
            yield f"{pack.model}: {finding.text}"


@contextmanager
def progress(model: str) -> Iterator[Callable[[Tally], None]]:
    """Give what shows a tally: images, images a second, time left, accuracies so far."""
    # Of 80 columns the bar takes what is left, and no figure is cut.
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(table_column=_whole(11)),
        TextColumn("{task.fields[rate]}", table_column=_whole(6)),
        TimeRemainingColumn(table_column=_whole(7)),
        TextColumn("{task.fields[running]}", markup=False, table_column=_whole(30)),
    )
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, speed_estimate_period=60) as bar:
        task = bar.add_task(model, total=None, rate="", running="")

        def report(tally: Tally) -> None:
            speed = bar.tasks[task].speed
            bar.update(
                task,
                total=tally.total,
                completed=tally.done,
                rate=f"{speed:.1f}/s" if speed else "",
                running=_running(tally),
            )

        yield report


def _whole(width: int) -> Column:
    return Column(min_width=width, no_wrap=True)


def _running(tally: Tally) -> str:
    if not tally.good:
        return ""
    first, second = (100 * hits / tally.good for hits in (tally.opencv, tally.tensorflow))
    return f"top-1 OpenCV {first:.2f}, TF {second:.2f} %"


def _print(dataset: Dataset, plan: Plan, found: list[Evaluation]) -> None:
    columns = ("model", "framework", ">top-1 %", ">top-5 %", ">95 % interval", ">ms", ">mean L1")
    rows = [row for one in found for row in _rows(one)]
    title = (
        f"{len(dataset.entries)} images of {dataset.folder}, --preprocess {plan.job.recipe}; "
        f"top-1 with its interval; ms an image on one thread, without decoding"
    )
    if rows:
        print_table(title, columns, rows)


def _print_files(folder: Path, found: Evaluation) -> None:
    bad, apart = len(found.bad), len(found.disagreements)
    print(
        f"{folder / results_name(found.plan)}.jsonl: {bad} bad image{'s' if bad != 1 else ''}, "
        f"{apart} answered differently"
    )


def _rows(found: Evaluation) -> Iterator[tuple[str, ...]]:
    job, summary = found.plan.job, found.summary
    for name, framework in (
        ("tensorflow", "TensorFlow"),
        ("opencv", f"OpenCV {found.plan.opencv} {job.config.variant}"),
    ):
        of = summary[name]
        one = of["top1"]
        yield (
            job.model if name == "tensorflow" else "",
            framework,
            f"{100 * one['value']:.3f}",
            f"{100 * of['top5']['value']:.3f}",
            f"{100 * one['low']:.2f} to {100 * one['high']:.2f}",
            f"{of['ms_an_image']:.2f}",
            f"{summary['l1_mean']:.2e}" if name == "opencv" else "",
        )
