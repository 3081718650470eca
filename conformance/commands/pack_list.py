"""pack list: the packs in a folder"""

from __future__ import annotations

import argparse
from pathlib import Path

from conformance.cli import OK
from conformance.cli.options import Arguments, add_option
from conformance.cli.printing import print_table
from conformance.errors import ConformanceError
from conformance.pack.format import read_manifest
from conformance.pack.store import require_packs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --packs."""
    add_option(parser.add_argument, "--packs")


def main(arguments: Arguments) -> int:
    """Print a table of the packs."""
    rows = [_pack_row(folder) for folder in require_packs(arguments.packs)]
    columns = ("model", "key", "weights", "graph", "TF", "Keras", ">MiB")
    print_table(f"Packs in {arguments.packs}", columns, rows)
    return OK


def _pack_row(folder: Path) -> tuple[str, ...]:
    try:
        manifest = read_manifest(folder)
    except ConformanceError:
        return (folder.parent.name, folder.name, "unreadable", *[""] * 4)
    request, size = manifest.request, sum(f["bytes"] for f in manifest.files.values())
    return (
        manifest.model,
        manifest.key,
        request["weights"][:13],
        request["graph"],
        manifest.producer.get("tensorflow", "-"),
        manifest.producer.get("keras", "-"),
        f"{size / (1 << 20):.1f}",
    )
