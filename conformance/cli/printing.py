"""Tables on the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def print_rows(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], format: str
) -> None:
    """Print a table for people or for Markdown."""
    if format == "md":
        print(f"### {title}\n")
        print("| " + " | ".join(heads) + " |\n" + "| --- " * len(heads) + "|")
        for row in rows:
            print("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
        print()
        return
    console = Console(highlight=False, markup=False)
    console.print(title)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for head in heads:
        table.add_column(head, overflow="fold")  # a name cut short names nothing
    for row in rows:
        table.add_row(*row)
    if rows:
        console.print(table)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output; a column whose name starts with ">" is right-aligned."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1))
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column[0] == ">" else "left")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)
