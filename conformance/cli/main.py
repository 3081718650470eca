"""The command line: ``python -m conformance …``. A new command is a file that FILES finds."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Optional

from conformance import __version__
from conformance.errors import ConformanceError

from . import ERROR, INTERRUPTED, OK

PROGRAM = "python -m conformance"


# Where commands are, below the package: the small ones in commands/, the others with their feature.
FILES = ("commands/*.py", "*/command.py")
PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Command:
    """One command: a module with add_arguments(parser) and main(arguments), an exit status.

    Its main raises ConformanceError for what the user can put right.
    """

    words: str  # what the user types, such as "pack build"
    help: str
    module: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Let the module add its arguments."""
        importlib.import_module(self.module).add_arguments(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit status."""
        return int(importlib.import_module(self.module).main(arguments))


def find_commands(files: Sequence[str] = FILES) -> list[Command]:
    """Return the commands in the package's files, by name.

    The file of a command begins with its words and its help: ``pack list: the packs in a folder``.
    It is read and not imported: all commands together import pytest, rich and more, which takes a
    third of a second.
    """
    found = []
    for path in chain(*map(PACKAGE.glob, files)):
        with path.open(encoding="utf-8") as file:
            head = re.match(r'"""([a-z][a-z -]*): ([^"]+)', file.readline())
        if head:
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            found.append(Command(head[1], head[2].rstrip(), ".".join(parts)))
    return sorted(found, key=lambda command: command.words)


def make_parser(
    arguments: Optional[Sequence[str]] = None,
    files: Sequence[str] = FILES,
    program: str = PROGRAM,
) -> argparse.ArgumentParser:
    """Return the parser of all commands; "pack build" becomes the subcommand build of pack.

    arguments: what is to be parsed, if known: other commands than theirs get no options, which
    spares importing what these need.
    """
    table = find_commands(files)
    description = "Does OpenCV's DNN module answer as TensorFlow does?"
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--version", action="version", version=__version__)
    groups = {"": parser.add_subparsers(metavar="COMMAND", required=True)}
    for command in table:
        group, _, name = command.words.rpartition(" ")
        if group not in groups:
            members = [c.words.split()[1] for c in table if c.words.startswith(group + " ")]
            inner = groups[""].add_parser(group, help=", ".join(members))
            groups[group] = inner.add_subparsers(metavar="COMMAND", required=True)
        leaf = groups[group].add_parser(name, help=command.help, description=command.help)
        words = command.words.split()
        if arguments is None or list(arguments[: len(words)]) == words:
            command.add_arguments(leaf)
        leaf.set_defaults(run=command.run)
    return parser


def main(
    arguments: Optional[Sequence[str]] = None,
    files: Sequence[str] = FILES,
    program: str = PROGRAM,
) -> int:
    """Run one command and return its exit status: 0 fine, 1 a check failed, 2 an error."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        parsed = make_parser(given, files, program).parse_args(given)
        return int(parsed.run(parsed))
    except ConformanceError as error:
        print(f"error: {error}", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, such as head, has enough; keep the interpreter from flushing into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return OK
    except OSError as error:
        if error.filename is None:
            raise
        # Whatever a path may be that was given: too long a name, no folder, a disk that fails.
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return ERROR
