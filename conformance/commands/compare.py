"""compare: two results files: may we upgrade?"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from conformance.cli import BAD, OK
from conformance.cli.printing import FORMATS, print_table
from conformance.errors import ConformanceError, os_errors
from conformance.pack.sealed import whole_file
from conformance.results.cases import Results, read_results
from conformance.results.gate import compare, is_regression
from conformance.results.lines import CASES, writing_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `compare` takes."""
    parser.add_argument("old", type=Path, nargs="?", metavar="OLD.jsonl")
    parser.add_argument("new", type=Path, metavar="NEW.jsonl")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="a results file, as OLD")
    parser.add_argument(
        "--update", action="store_true", help="write NEW to the --baseline file; compare nothing"
    )
    parser.add_argument("--format", choices=FORMATS, default="table", help="default: table")


def main(arguments: argparse.Namespace) -> int:
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
    with os_errors(f"{path}: can't be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary, writing_lines(temporary, CASES, results.header) as out:
            for line in (*results.cases, *results.runs):
                out.write(line)


def _old_path(arguments: argparse.Namespace) -> Path:
    if (arguments.old is None) == (arguments.baseline is None):
        raise ConformanceError("compare: give either OLD.jsonl NEW.jsonl or --baseline FILE NEW")
    if arguments.update and arguments.baseline is None:
        raise ConformanceError("compare --update: say with --baseline FILE where to write it")
    path: Path = arguments.old or arguments.baseline
    return path
