"""The campaign's command: makes the attempts, one after the other, and counts what came of them.

``--seed N`` draws others; ``--only KIND[/NUMBER]`` makes those of a kind, or one of them, again.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Optional

from rich.console import Console
from rich.markup import escape
from rich.table import Table

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
OUTCOMES = ("held", "failed", "skipped")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m conformance.selftest.campaign")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="draws other attempts")
    parser.add_argument("--short", action="store_true", help="a few of each kind: two minutes")
    parser.add_argument(
        "--only",
        action="append",
        metavar="KIND[/NUMBER]",
        help=f"those of a kind, or one of them: {', '.join(kind.name for kind in KINDS)}",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows")
    return parser


def chosen(only: Optional[Sequence[str]], short: bool) -> Iterator[tuple[Kind, int]]:
    """Yield each attempt's kind and number; ValueError for a kind that there is not."""
    kinds = {kind.name: kind for kind in KINDS}
    for asked in only or kinds:
        name, _, number = asked.partition("/")
        if name not in kinds or (not number.isdecimal() * bool(number) and number):
            raise ValueError(f"--only {asked}: give one of {', '.join(kinds)}, /NUMBER perhaps")
        count = kinds[name].short if short else kinds[name].full
        for one in [int(number)] if number else range(count):
            yield kinds[name], one


def table(rows: Sequence[Row]) -> Table:
    """Return the counts, a line for each kind and what was attacked."""
    found = Table(title=f"campaign, seed {rows[0].seed}: {len(rows)} attempts")
    for head in ("kind", "of what"):
        found.add_column(head)
    for head in ("attempts", *OUTCOMES):
        found.add_column(head, justify="right")
    groups: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        groups.setdefault((row.kind, row.target), Counter())[row.outcome] += 1
    for (kind, target), counts in [*groups.items(), (("all", ""), _all(rows))]:
        cells = [str(counts[outcome]) for outcome in OUTCOMES]
        found.add_row(kind, target, str(sum(counts.values())), *cells)
    return found


def _all(rows: Sequence[Row]) -> Counter[str]:
    return Counter(row.outcome for row in rows)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the campaign; return 1 where an attempt failed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # for what is started, too
    parser = make_parser()
    given = parser.parse_args(arguments)
    try:
        attempts = list(chosen(given.only, given.short))
    except ValueError as error:
        parser.error(str(error))
    console = Console(width=110, highlight=False)
    rows: list[Row] = []
    with root_folder() as root:
        for kind, number in attempts:
            row = made(kind, given.seed, number, root)
            rows.append(row)
            if given.json is not None:  # what there is so far, should this be ended
                given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), "utf-8")
            _tell(console, row, root)
    console.print(table(rows))
    for row in rows:
        if row.outcome == "failed":
            again = f"--seed {row.seed} --only {row.kind}/{row.number}"
            console.print(
                f"failed: {row.target}, {escape(row.what)}; again: {again}", soft_wrap=True
            )
    return int(any(row.outcome == "failed" for row in rows))


def _tell(console: Console, row: Row, root: Path) -> None:
    """Print a line of an attempt, and all there is to say of one that failed."""
    line = f"{row.kind}/{row.number} {row.target}, {row.what}: {row.outcome} ({row.seconds:.1f} s)"
    console.print(escape(line), soft_wrap=True)
    if row.outcome != "held":
        console.print(escape(row.words), soft_wrap=True)
    if row.outcome == "failed":
        console.print(f"kept in {root / row.kind}-{row.number}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
