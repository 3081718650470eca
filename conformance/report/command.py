"""The command that makes the report of results and benchmark files."""

from __future__ import annotations

import argparse
from pathlib import Path

from conformance.cli import OK
from conformance.errors import ConformanceError
from conformance.results.cases import read_results
from conformance.results.lines import now
from conformance.results.times import read_benchmarks

from .accuracy import divided, read_accuracies
from .html import render
from .markdown import markdown
from .matrix import build_matrix
from .pictures import write_pictures
from .sections import Report

TITLE = "Conformance of OpenCV DNN with TensorFlow"


def report_options(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument(
        "--expect",
        metavar="VERSIONS",
        help="comma-separated versions; missing ones show as not run",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="refuse benchmark files of several CPUs, thread counts or batch sizes",
    )
    parser.add_argument("--title", default=TITLE, help="default: %(default)s")


def run_report(arguments: argparse.Namespace) -> int:
    """Write the report; raise ConformanceError for files that can't be read or written."""
    report = make_report(arguments)
    if arguments.format == "html":
        _write(arguments.output or Path("report.html"), render(report))
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
    expected = [version.strip() for version in (arguments.expect or "").split(",") if version]
    verdicts, evaluations = divided(arguments.results)
    matrix = build_matrix(map(read_results, verdicts), expected)
    times = read_benchmarks(arguments.bench, arguments.strict)
    found = read_accuracies(evaluations)
    notes = [*matrix.notes, *times.notes]
    made = (arguments.title, now())
    return Report(matrix, times.timings, notes, *made, found, times.comparisons)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConformanceError(f"{path}: can't be written ({error.strerror})") from error
    print(f"{path}: {len(text.encode()) / 1e6:.1f} MB")
