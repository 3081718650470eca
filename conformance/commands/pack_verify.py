"""pack verify: check every file of every pack"""

from __future__ import annotations

import argparse

from conformance.cli import BAD, OK
from conformance.cli.options import Arguments, add_option
from conformance.errors import ConformanceError
from conformance.pack.conversion import open_conversion
from conformance.pack.format import open_pack
from conformance.pack.formats import FORMATS
from conformance.pack.store import require_packs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --packs."""
    add_option(parser.add_argument, "--packs")


def main(arguments: Arguments) -> int:
    """Check every pack; return BAD when one is damaged."""
    status = OK
    for folder in require_packs(arguments.packs):
        label = f"{folder.parent.name}/{folder.name}"
        try:
            open_pack(folder)
            converted = [name for name in FORMATS if (folder / name).is_dir()]
            for name in converted:
                open_conversion(folder / name)
            print(f"ok       {label}{''.join(f', {name}' for name in converted)}")
        except ConformanceError as error:
            status = BAD
            print(f"damaged  {label}\n         {error}")
    return status
