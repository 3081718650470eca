"""The commands that read results files: compare and history."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from conformance.cli import BAD, OK
from conformance.cli.options import add_option
from conformance.cli.printing import print_table
from conformance.errors import ConformanceError
from conformance.pack.sealed import whole_file
from conformance.results.cases import Results, read_results, results_files
from conformance.results.gate import compare, is_regression
from conformance.results.history import (
    FACTOR,
    case_of,
    cost_history,
    history,
    not_run,
    unmatched,
)
from conformance.results.lines import CASES, writing_lines
from conformance.results.times import read_benchmarks, recorded_costs
from conformance.tables import release
from conformance.verdict.expectations import load_known_failures, ready_entry

FORMATS = ("table", "md", "json")


def compare_options(parser: argparse.ArgumentParser) -> None:
    """Add what `compare` takes."""
    parser.add_argument("old", type=Path, nargs="?", metavar="OLD.jsonl")
    parser.add_argument("new", type=Path, metavar="NEW.jsonl")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="a results file, as OLD")
    parser.add_argument(
        "--update", action="store_true", help="write NEW to the --baseline file; compare nothing"
    )
    parser.add_argument("--format", choices=FORMATS, default="table", help="default: table")


def run_compare(arguments: argparse.Namespace) -> int:
    """Print what changed; return 0 without, 1 with a regression."""
    old_path = _old_path(arguments)
    new = read_results(arguments.new)
    if arguments.update:
        if arguments.format != "table":
            raise ConformanceError("compare --update compares nothing: leave --format out")
        _write_baseline(old_path, new)
        print(f"{old_path}: now the results of OpenCV {new.name}, {len(new.cases)} cases")
        return OK
    old = read_results(old_path)
    changes = compare(old, new, rebuilt=arguments.baseline is not None)
    regression = is_regression(changes)
    rows = [(c.kind, c.model, c.what, c.detail) for c in changes]
    verdict = "regression" if regression else "no regression"
    title = f"OpenCV {old.name} -> {new.name}: {verdict} in {len(new.cases)} cases"
    if arguments.format == "json":
        document = {"old": old.name, "new": new.name, "regression": regression}
        print(json.dumps({**document, "changes": [asdict(c) for c in changes]}, indent=1))
    else:
        print_table(title, ("change", "model", "case", "detail"), rows, arguments.format)
    return BAD if regression else OK


def _write_baseline(path: Path, results: Results) -> None:
    """Write the results without the nodes' profiles: nothing compares them, and they are large."""
    if path.exists():
        read_results(path)  # another file than a baseline is not written over
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary, writing_lines(temporary, CASES, results.header) as out:
            for line in (*results.cases, *results.runs):
                out.write(line)
    except OSError as error:
        raise ConformanceError(f"{path}: can't be written ({error.strerror})") from error


def _old_path(arguments: argparse.Namespace) -> Path:
    if (arguments.old is None) == (arguments.baseline is None):
        raise ConformanceError("compare: give either OLD.jsonl NEW.jsonl or --baseline FILE NEW")
    if arguments.update and arguments.baseline is None:
        raise ConformanceError("compare --update: say with --baseline FILE where to write it")
    path: Path = arguments.old or arguments.baseline
    return path


def history_options(parser: argparse.ArgumentParser) -> None:
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


def run_history(arguments: argparse.Namespace) -> int:
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


def known_failure_options(parser: argparse.ArgumentParser) -> None:
    """Add what `known-failure` takes."""
    parser.add_argument("results", type=Path, metavar="RESULTS.jsonl")
    parser.add_argument("--link", default="", help="of the upstream issue")


def run_known_failure(arguments: argparse.Namespace) -> int:
    """Print an entry for known_failures.toml for each failed case, ready to paste."""
    results = read_results(arguments.results)
    for line in results.cases:
        if line["outcome"] == "failed":
            reason = line["reason"].splitlines()[0]
            print(ready_entry(case_of(results.header, line), reason, arguments.link))
    return OK


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
