"""The campaign's command: makes the attempts, some side by side, and counts what came of them.

``--seed N`` draws others; ``--only KIND[/NUMBER]`` makes those of a kind, or one of them, again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Optional

from rich.console import Console

from conformance.cli.printing import print_table
from conformance.processes.machine import cores

from . import candidates, company, damage, kills, lines, resources
from .attempt import Kind, Row, made, root_folder

KINDS = (
    damage.KIND,
    kills.KIND,
    lines.KIND,
    candidates.KIND,
    resources.KIND,
    company.KIND,
)
BY_NAME = {kind.name: kind for kind in KINDS}
WIDTH = 110
OUTCOMES = ("held", "failed", "skipped")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m conformance.selftest.campaign")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="draws other attempts")
    parser.add_argument("--short", action="store_true", help="a few of each kind: a minute")
    parser.add_argument(
        "--only",
        action="append",
        metavar="KIND[/NUMBER]",
        help=f"those of a kind, or one of them: {', '.join(BY_NAME)}",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows")
    parser.add_argument("--jobs", type=int, default=cores(), metavar="N", help="attempts at once")
    text = "make no attempt: count the rows of these files"
    parser.add_argument("--read", type=Path, nargs="+", metavar="FILE", help=text)
    parser.add_argument("--format", choices=("table", "md"), default="table")
    return parser


def chosen(only: Optional[Sequence[str]], short: bool) -> Iterator[tuple[Kind, int]]:
    """Yield each attempt's kind and number; ValueError for a kind that there is not."""
    for asked in only or BY_NAME:
        name, _, number = asked.partition("/")
        if name not in BY_NAME or (not number.isdecimal() * bool(number) and number):
            raise ValueError(f"--only {asked}: give one of {', '.join(BY_NAME)}, /NUMBER perhaps")
        kind = BY_NAME[name]
        numbers = kind.short if short else range(kind.full)
        for one in [int(number)] if number else numbers:
            yield kind, one


def print_counts(rows: Sequence[Row], format: str = "table") -> None:
    """Print how many attempts there were, by kind and seed, and by what was attacked."""
    seeds = sorted({row.seed for row in rows})
    title = f"{len(rows)} attempts, seed {' and '.join(map(str, seeds))}"
    for heads, key in (
        (("kind", "seed"), lambda row: (row.kind, str(row.seed))),
        (("kind", "of what"), lambda row: (row.kind, row.target)),
    ):
        groups: dict[tuple[str, str], Counter[str]] = {}
        for row in rows:
            groups.setdefault(key(row), Counter())[row.outcome] += 1
        groups["all", ""] = Counter(row.outcome for row in rows)
        cells = [
            (*group, str(sum(counts.values())), *(str(counts[outcome]) for outcome in OUTCOMES))
            for group, counts in groups.items()
        ]
        columns = (*heads, ">attempts", *(f">{outcome}" for outcome in OUTCOMES))
        print_table(title, columns, cells, format, WIDTH)


def read(paths: Sequence[Path]) -> list[Row]:
    """Return the rows of some files; one that was made again replaces the one before."""
    rows = [Row(**row) for path in paths for row in json.loads(path.read_text("utf-8"))]
    return list({(row.seed, row.kind, row.number): row for row in rows}.values())


def attempted(given: argparse.Namespace, attempts: Sequence[tuple[Kind, int]]) -> list[Row]:
    """Make the attempts, tell each, and write the rows as they come."""
    console = Console(width=WIDTH, highlight=False, markup=False)
    rows: list[Row] = []
    # Forked: an attempt forks from a process that has imported what it needs, and has no threads.
    forking = multiprocessing.get_context("fork")
    with root_folder() as root, ProcessPoolExecutor(given.jobs, forking) as pool:
        waiting = [
            pool.submit(_made, kind.name, given.seed, number, root) for kind, number in attempts
        ]
        for done in as_completed(waiting):
            row = done.result()
            rows.append(row)
            if given.json is not None:  # what there is so far, should this be ended
                given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), "utf-8")
            _tell(console, row, root)
    return [one.result() for one in waiting]


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the campaign; return 1 where an attempt failed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # for what is started, too
    parser = make_parser()
    given = parser.parse_args(arguments)
    try:
        attempts = list(chosen(given.only, given.short))
    except ValueError as error:
        parser.error(str(error))
    begin = time.monotonic()
    rows = read(given.read) if given.read else attempted(given, attempts)
    print_counts(rows, given.format)
    if not given.read:
        print(f"{(time.monotonic() - begin) / 60:.1f} minutes, {given.jobs} at once")
    failed = [row for row in rows if row.outcome == "failed"]
    for row in failed:
        again = f"--seed {row.seed} --only {row.kind}/{row.number}"
        print(f"failed: {row.target}, {row.what}; again: {again}")
    return int(bool(failed))


def _made(name: str, seed: int, number: int, root: Path) -> Row:
    """Make an attempt in a process of the pool, which is sent nothing but names and numbers."""
    return made(BY_NAME[name], seed, number, root)


def _tell(console: Console, row: Row, root: Path) -> None:
    """Print a line of an attempt, and all there is to say of one that failed."""
    line = f"{row.kind}/{row.number} {row.target}, {row.what}: {row.outcome} ({row.seconds:.1f} s)"
    console.print(line, soft_wrap=True)
    if row.outcome != "held":
        console.print(row.words, soft_wrap=True)
    if row.outcome == "failed":
        console.print(f"kept in {root / row.kind}-{row.number}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
