"""history: a matrix of results files: at which version did something change?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from conformance.cli import BAD, OK
from conformance.cli.options import add_option
from conformance.cli.printing import FORMATS, print_table
from conformance.errors import ConformanceError
from conformance.results.cases import Results, read_results, results_files
from conformance.results.history import FACTOR, cost_history, history, not_run, unmatched
from conformance.results.times import read_benchmarks, recorded_costs
from conformance.tables import release
from conformance.verdict.expectations import load_known_failures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `history` takes."""
    parser.add_argument(
        "results",
        type=Path,
        nargs="+",
        metavar="RESULTS",
        help="results files, benchmark files (*.json), or folders of them (bench-*.json)",
    )
    parser.add_argument(
        "--factor",
        type=float,
        default=FACTOR,
        help="tell a change of the deviation by more than this factor (default: %(default)s)",
    )
    parser.add_argument("--strict", action="store_true", help="fail on known failures never seen")
    parser.add_argument("--known-failures", type=Path, metavar="FILE")
    add_option(parser.add_argument, "--expect")
    parser.add_argument("--format", choices=FORMATS, default="table", help="default: table")


def main(arguments: argparse.Namespace) -> int:
    """Print the matrix and its changes; return 1 for what --strict or --expect finds wanting."""
    if arguments.known_failures is not None and not arguments.strict:
        raise ConformanceError("history: --known-failures says what --strict reads; give it, too")
    results, benchmarks = _divided(arguments.results)
    matrix = [read_results(path) for path in results_files(results)]
    times = read_benchmarks(benchmarks)
    steps = history(matrix, arguments.factor)
    steps += cost_history(recorded_costs(times.timings), times.comparisons)
    if arguments.format == "json":
        print(json.dumps([asdict(step) for step in steps], indent=1))
    else:
        if matrix:
            print_table("runs", ("OpenCV", *_OUTCOMES), _run_rows(matrix), arguments.format)
        for note in times.notes:
            print(note)
        rows = [(s.model, s.engine, s.kind, s.version, s.detail) for s in steps]
        heads = ("model", "engine", "change", "at", "detail")
        print_table("first version at which something changed", heads, rows, arguments.format)
    problems = _problems(matrix, arguments)
    for problem in problems:
        print(problem)
    return BAD if problems else OK


def _divided(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return files and folders of results, and the benchmark files among and in them."""
    files = [path for path in paths if path.suffix == ".json"]
    rest = [path for path in paths if path not in files]
    beside = {path: sorted(path.glob("bench-*.json")) for path in rest if path.is_dir()}
    # A folder of benchmarks alone is no empty one.
    results = [path for path in rest if not beside.get(path) or any(path.glob("*.jsonl"))]
    return results, [*files, *(file for found in beside.values() for file in found)]


_OUTCOMES = ("passed", "failed", "errored", "xfailed", "skipped")


def _run_rows(matrix: Sequence[Results]) -> list[tuple[str, ...]]:
    ordered = sorted(matrix, key=lambda r: (release(r.header["opencv"]["version"]), r.name))
    return [(r.name, *(str(r.counts.get(outcome, 0)) for outcome in _OUTCOMES)) for r in ordered]


def _problems(matrix: Sequence[Results], arguments: argparse.Namespace) -> list[str]:
    problems = [f"not run: OpenCV {version}" for version in not_run(arguments.expect, matrix)]
    if arguments.strict:
        entries = load_known_failures(arguments.known_failures)
        problems += [
            f"known failure never seen: {entry.where} ({', '.join(entry.models)}: {entry.reason})"
            for entry in unmatched(entries, matrix)
        ]
    return problems
