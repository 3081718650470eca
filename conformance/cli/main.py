"""The command line: ``python -m conformance …``. A new command is one entry in COMMANDS."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from conformance import __version__
from conformance.errors import ConformanceError

from . import ERROR, INTERRUPTED, OK


class Later:
    """A module of this package that is imported when one of its functions is called.

    All commands together import pytest, rich and more: a third of a second before the first line.
    """

    def __init__(self, name: str) -> None:
        self._name = f"conformance.{name}"

    def __getattr__(self, function: str) -> Callable[..., Any]:
        return lambda *arguments: getattr(importlib.import_module(self._name), function)(*arguments)


tolerances = Later("commands.tolerances")
options = Later("cli.options")
findings = Later("findings.command")
models = Later("commands.models")
diversity = Later("commands.diversity")
packs = Later("commands.packs")
localize = Later("localize.command")
faults = Later("faults.command")
bench = Later("bench.command")
imagenet = Later("imagenet.command")
export = Later("export.command")
predict = Later("predict.command")
results = Later("commands.results")
report = Later("report.command")

PROGRAM = "python -m conformance"


@dataclass(frozen=True)
class Command:
    """One command.

    words: what the user types, such as "pack build". options: adds its arguments to the parser.
    run: does it and returns the exit status; raises ConformanceError for what the user can put
    right.
    """

    words: str
    help: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def no_options(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""


COMMANDS = (
    Command(
        "list",
        "the models, with input, preprocessing and accuracy",
        no_options,
        models.run_list,
    ),
    Command(
        "pack build",
        "build reference packs (needs TensorFlow)",
        packs.build_options,
        packs.run_pack_build,
    ),
    Command(
        "pack verify",
        "check every file of every pack",
        options.packs_option,
        packs.run_pack_verify,
    ),
    Command("pack list", "the packs in a folder", options.packs_option, packs.run_pack_list),
    Command(
        "diversity",
        "how many classes each model tells apart (needs TensorFlow)",
        diversity.diversity_options,
        diversity.run_diversity,
    ),
    Command(
        "compare",
        "two results files: may we upgrade?",
        results.compare_options,
        results.run_compare,
    ),
    Command(
        "history",
        "a matrix of results files: at which version did something change?",
        results.history_options,
        results.run_history,
    ),
    Command(
        "findings",
        "what generated models have found: distinct defects, with the versions they are in",
        findings.findings_options,
        findings.run_findings,
    ),
    Command(
        "localize",
        "one model node by node: where does OpenCV leave the noise?",
        localize.localize_options,
        localize.run_localize,
    ),
    Command(
        "faults",
        "inject faults: which does the suite catch, and where? (needs TensorFlow)",
        faults.faults_options,
        faults.run_faults,
    ),
    Command(
        "tolerances",
        "measure the tolerances file again (needs TensorFlow)",
        tolerances.tolerances_options,
        tolerances.run_tolerances,
    ),
    Command(
        "known-failure",
        "entries for known_failures.toml, ready to paste, of a run's failed cases",
        results.known_failure_options,
        results.run_known_failure,
    ),
    Command(
        "report",
        "one HTML page, Markdown or pictures of results and benchmark files",
        report.report_options,
        report.run_report,
    ),
    Command(
        "export",
        "your model as a file that OpenCV reads rightly, with a script that runs it",
        export.export_options,
        export.run_export,
    ),
    Command(
        "predict",
        "pictures of yours through OpenCV and TensorFlow: the classes, times and differences",
        predict.predict_options,
        predict.run_predict,
    ),
    Command(
        "evaluate",
        "accuracy, time and L1 of OpenCV and TensorFlow on the ImageNet validation set",
        imagenet.evaluate_options,
        imagenet.run_evaluate,
    ),
    Command(
        "bench",
        "what OpenCV wheels cost on this machine: is one slower, or does it need more memory?",
        bench.bench_options,
        bench.run_bench,
    ),
)


def make_parser(
    table: Sequence[Command] = COMMANDS,
    arguments: Optional[Sequence[str]] = None,
    program: str = PROGRAM,
) -> argparse.ArgumentParser:
    """Return the parser of all commands; "pack build" becomes the subcommand build of pack.

    arguments: what is to be parsed, if known: other commands than theirs get no options, which
    spares importing what these need.
    """
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
            command.options(leaf)
        leaf.set_defaults(run=command.run)
    return parser


def main(
    arguments: Optional[Sequence[str]] = None,
    table: Sequence[Command] = COMMANDS,
    program: str = PROGRAM,
) -> int:
    """Run one command and return its exit status: 0 fine, 1 a check failed, 2 an error."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        parsed = make_parser(table, given, program).parse_args(given)
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
