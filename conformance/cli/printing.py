"""Tables on the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

# How a command prints what it found.
FORMATS = ("table", "md", "json")


def print_table(
    title: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    format: str = "table",
    width: Optional[int] = None,
) -> None:
    """Print a table for people, or in Markdown where `format` is "md".

    heads: of numbers, which are aligned on the right and never cut, begin with ">". width: of the
    page in columns, where it is not the terminal's.
    """
    names = [head.lstrip(">") for head in heads]
    if format == "md":
        print(f"### {title}\n")
        print("| " + " | ".join(names) + " |\n" + "| --- " * len(names) + "|")
        for row in rows:
            print("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
        print()
        return
    console = Console(highlight=False, markup=False, width=width)
    console.print(title)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for head, name in zip(heads, names):
        if head == name:
            table.add_column(name, overflow="fold")  # a name cut short names nothing
        else:
            table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    if rows:
        console.print(table)
