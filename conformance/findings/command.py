"""findings: what generated models have found: distinct defects, with the versions they are in"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from conformance.cli import BAD, OK
from conformance.cli.options import add_option, folder, names
from conformance.cli.printing import print_table
from conformance.errors import ConformanceError
from conformance.generated.defects import load_defects
from conformance.generated.entries import ready_entries
from conformance.generated.findings import Finding, find, in_words
from conformance.generated.reduced import attached, read_reduced
from conformance.pack.store import default_packs
from conformance.results.cases import read_results, results_files
from conformance.results.generated import Outcomes, outcomes_in

HEADS = (
    *(">id", "symptom", "importer, engine", "layers", "operations of the file"),
    *("bad on", "right on", ">cases", "known as"),
)
# What 80 columns have no room for; Markdown and JSON say it.
WIDE = ("operations of the file", "right on")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `findings` takes."""
    add = parser.add_argument
    add("results", type=Path, nargs="+", metavar="RESULTS", help="results files or folders of them")
    add("--known-defects", type=Path, metavar="FILE", help="instead of the suite's own")
    add(
        "--format",
        choices=("table", "md", "json", "toml"),
        default="table",
        help="toml: entries of what is new, for known_defects.toml (default: table)",
    )
    reduced = parser.add_mutually_exclusive_group()
    add_option(
        reduced.add_argument,
        "--reduce",
        type=folder,
        metavar="DIR",
        help="shrink what the installed OpenCV shows, a folder each in DIR (needs TensorFlow)",
    )
    add_option(
        reduced.add_argument,
        "--reproducers",
        type=folder,
        metavar="DIR",
        help="tell what --reduce wrote to DIR before",
    )
    add("--only", type=names, metavar="IDS", help="reduce these alone, comma-separated ids")
    text = "--reduce takes its models from there, if they are there (default: the folder of packs)"
    add_option(add, "--packs", default=None, help=text)


def main(arguments: argparse.Namespace) -> int:
    """Print each finding once; return BAD where one is not known."""
    results = [read_results(path) for path in results_files(arguments.results)]
    some = [one for one in results if one.generated]
    if not some:
        raise ConformanceError(
            "findings: none of the results has generated models: run pytest -m generated --results "
            "DIR on each OpenCV version first"
        )
    outcomes = outcomes_in(some)
    defects = load_defects(arguments.known_defects)
    found = _reduced(find(outcomes.observed, outcomes.recipes, defects), outcomes, arguments)
    if arguments.format == "json":
        print(json.dumps([asdict(finding) for finding in found], indent=1))
    elif arguments.format == "toml":
        judged = [one.header["opencv"]["version"] for one in some]
        print("\n".join(ready_entries(found, judged)))
    else:
        new = sum(finding.known is None for finding in found)
        silent = sum(finding.silent for finding in found)
        title = f"{len(found)} findings, {silent} silent, {new} not known"
        heads = [head for head in HEADS if arguments.format == "md" or head not in WIDE]
        rows = [dict(zip(HEADS, in_words(one))) for one in found]
        print_table(title, heads, [[row[head] for head in heads] for row in rows], arguments.format)
    return BAD if any(finding.known is None for finding in found) else OK


_OF_REDUCING = {"only": "what --reduce DIR reduces", "packs": "where --reduce DIR finds models"}


def _reduced(
    found: list[Finding], outcomes: Outcomes, arguments: argparse.Namespace
) -> list[Finding]:
    """Return the findings with their reproducers, where these were asked for."""
    if not arguments.reduce:
        for name, says in _OF_REDUCING.items():
            if getattr(arguments, name) is not None:
                raise ConformanceError(f"findings: --{name} says {says}; give --reduce DIR, too")
    if arguments.reduce:
        from .reduction import Wanted, reduce_findings  # what it imports takes seconds

        packs = arguments.packs or default_packs()
        drawn = (outcomes.count, outcomes.seed)
        wanted = Wanted(arguments.reduce, arguments.only, packs, *drawn)
        return reduce_findings(found, outcomes.recipes, wanted)
    if arguments.reproducers:
        return attached(found, read_reduced(arguments.reproducers), arguments.reproducers)
    return found
