"""known-failure: entries for known_failures.toml, ready to paste, of a run's failed cases"""

from __future__ import annotations

import argparse
from pathlib import Path

from conformance.cli import OK
from conformance.results.cases import read_results
from conformance.results.history import case_of
from conformance.verdict.expectations import ready_entry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `known-failure` takes."""
    parser.add_argument("results", type=Path, metavar="RESULTS.jsonl")
    parser.add_argument("--link", default="", help="of the upstream issue")


def main(arguments: argparse.Namespace) -> int:
    """Print an entry for known_failures.toml for each failed case, ready to paste."""
    results = read_results(arguments.results)
    for line in results.cases:
        if line["outcome"] == "failed":
            reason = line["reason"].splitlines()[0]
            print(ready_entry(case_of(results.header, line), reason, arguments.link))
    return OK
