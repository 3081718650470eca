"""routes: of how many generated models OpenCV is right by some route, rewritten graphs included"""

from __future__ import annotations

import argparse
from pathlib import Path

from conformance.cli import OK
from conformance.cli.printing import print_table
from conformance.results.cases import read_results
from conformance.results.routes import right_models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the results files."""
    text = "results of pytest -m generated, with --graph opencv and with --graph rewritten"
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help=text)


def main(arguments: argparse.Namespace) -> int:
    """Print for each OpenCV version and route how many models are right on single images."""
    files = [read_results(path) for path in arguments.results]
    models = {line["key"] for one in files for line in one.generated}
    rows = []
    for version, found in right_models(files).items():
        for route, right in sorted(found.items(), key=lambda item: item[0].order):
            rows.append((version, route.title, str(len(right))))
        some = len(set().union(*found.values()))
        rows.append((version, "some route", f"{some}, {some / len(models):.1%}"))
    print_table(f"{len(models)} generated models", ("OpenCV", "route", ">right"), rows)
    return OK
