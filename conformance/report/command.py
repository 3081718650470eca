"""report: one HTML page, Markdown or pictures of results and benchmark files"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Optional

from conformance.cli import OK
from conformance.cli.options import add_option, folder
from conformance.errors import ConformanceError, os_errors
from conformance.generated.defects import load_defects
from conformance.generated.outcomes import MODEL
from conformance.generated.reduced import Reduced, read_reduced
from conformance.models import model_order
from conformance.pack.sealed import now, parse_json
from conformance.results.cases import read_results, results_files
from conformance.results.evaluations import Accuracies, read_all
from conformance.results.generated import divided
from conformance.results.times import read_benchmarks
from conformance.tables import release

from .content import Report
from .generated import build_generated
from .html import render
from .markdown import markdown
from .matrix import build_matrix
from .pictures import write_pictures

PAGE = Path("report.html")
TITLE = "Conformance of OpenCV DNN with TensorFlow"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `report` takes."""
    parser.add_argument(
        "results", type=Path, nargs="*", metavar="RESULTS", help="results files or folders of them"
    )
    parser.add_argument(
        "--bench",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="inference times: files of pytest --benchmark-json and of bench --json",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: report.html, or the terminal"
    )
    parser.add_argument("--format", choices=("html", "md"), default="html", help="default: html")
    parser.add_argument("--png", type=Path, metavar="DIR", help="write the charts as pictures, too")
    add_option(parser.add_argument, "--expect")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="refuse benchmark files of several CPUs, thread counts or batch sizes",
    )
    parser.add_argument(
        "--known-defects", type=Path, metavar="FILE", help="of generated models; see findings"
    )
    add_option(
        parser.add_argument,
        "--reproducers",
        type=folder,
        metavar="DIR",
        help="what findings --reduce wrote: findings of generated models lead to it",
    )
    parser.add_argument("--title", default=TITLE, help="default: %(default)s")


def main(arguments: argparse.Namespace) -> int:
    """Write the report; raise ConformanceError for files that can't be read or written."""
    report = make_report(arguments)
    if arguments.format == "html":
        _write(arguments.output or PAGE, render(report))
    elif arguments.output:
        _write(arguments.output, markdown(report))
    else:
        print(markdown(report), end="")
    if arguments.png:
        written = write_pictures(report, arguments.png)
        print(f"{arguments.png}: {len(written)} pictures")
    return OK


def make_report(arguments: argparse.Namespace) -> Report:
    """Return what the command's arguments ask to be reported."""
    if not arguments.results and not arguments.bench:
        raise ConformanceError("report: give results files (results/*.jsonl) or --bench FILE")
    verdicts, evaluations = _divided(arguments.results)
    parts = [divided(read_results(path)) for path in verdicts]
    matrix = build_matrix((whole for whole, _ in parts if whole), arguments.expect)
    small = [generated for _, generated in parts if generated]
    defects = load_defects(arguments.known_defects)
    reproducers = _reproducers(arguments.reproducers, arguments.output or PAGE)
    generated = build_generated(small, defects, arguments.expect, *reproducers)
    times = read_benchmarks(arguments.bench, arguments.strict)
    found = sorted(read_all(evaluations), key=_order)
    notes = [*matrix.notes, *times.notes, *(generated.notes if generated else ())]
    made = (arguments.title, now())
    compared = times.comparisons, times.costs
    return Report(matrix, times.timings, notes, *made, found, *compared, generated)


def _reproducers(folder: Optional[Path], page: Path) -> tuple[list[Reduced], Path]:
    """Return what `findings --reduce` wrote to a folder, and the folder's path from the page."""
    if folder is None:
        return [], Path()
    return read_reduced(folder), Path(os.path.relpath(folder, page.parent))


def _write(path: Path, text: str) -> None:
    with os_errors(f"{path}: can't be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"{path}: {len(text.encode()) / 1e6:.1f} MB")


def _order(found: Accuracies) -> tuple[object, ...]:
    return model_order(found.header["model"]), release(found.header["opencv"])


def _divided(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Return the files of verdicts and those of evaluations among files and folders of results.

    Evaluations lie in imagenet/ beside the verdicts, generated models' results in generated/, and
    both are found there for files, too, as a shell makes them of results/*.jsonl. Raises
    ConformanceError for a folder without any.
    """
    found: dict[str, Path] = {}
    for path in paths:
        where = path if path.is_dir() else path.parent
        beside = [*where.glob("imagenet/*.jsonl"), *where.glob(f"{MODEL}/*.jsonl")]
        own = sorted(path.glob("*.jsonl")) if path.is_dir() and beside else results_files([path])
        found |= {os.path.realpath(file): file for file in [*own, *sorted(beside)]}
    evaluations = [file for file in found.values() if _is_evaluation(file)]
    return [file for file in found.values() if file not in evaluations], evaluations


def _is_evaluation(path: Path) -> bool:
    """Return whether a file begins as one of an evaluation; one that can't be read does not."""
    try:
        with path.open("rb") as file:
            header = parse_json(file.readline())
    except (OSError, ValueError):
        return False
    return isinstance(header, dict) and "preprocess" in header
