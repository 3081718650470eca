"""The command line: ``python -m conformance …``. A new command is one entry in COMMANDS."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from . import __version__
from .errors import ConformanceError


class Later:
    """A module of this package that is imported when one of its functions is called.

    All commands together import pytest, rich and more: a third of a second before the first line.
    """

    def __init__(self, name: str) -> None:
        self._name = f"{__package__}.{name}"

    def __getattr__(self, function: str) -> Callable[..., Any]:
        return lambda *arguments: getattr(importlib.import_module(self._name), function)(*arguments)


calibrating = Later("calibrating")
commands = Later("commands")
localizing = Later("localizing")
benchmarking = Later("benchmarking.commands")
imagenet = Later("imagenet.command")
throughput = Later("imagenet.throughput")
predicting = Later("predicting.command")
results = Later("reporting.commands")
report_command = Later("reporting.report_command")

# Exit statuses of main itself; conformance.commands has them all.
OK, ERROR = 0, 2


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


COMMANDS = (
    Command(
        "list",
        "the models, with input, preprocessing and accuracy",
        commands.no_options,
        commands.run_list,
    ),
    Command(
        "pack build",
        "build reference packs (needs TensorFlow)",
        commands.build_options,
        commands.run_pack_build,
    ),
    Command(
        "pack verify",
        "check every file of every pack",
        commands.packs_option,
        commands.run_pack_verify,
    ),
    Command("pack list", "the packs in a folder", commands.packs_option, commands.run_pack_list),
    Command(
        "diversity",
        "how many classes each model tells apart (needs TensorFlow)",
        commands.diversity_options,
        commands.run_diversity,
    ),
    Command(
        "freeze-benchmark",
        "time and memory of freezing, beside TensorFlow's own (needs TensorFlow)",
        commands.benchmark_options,
        commands.run_freeze_benchmark,
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
        "localize",
        "one model node by node: where does OpenCV leave the noise?",
        localizing.localize_options,
        localizing.run_localize,
    ),
    Command(
        "faults",
        "inject faults: which does the suite catch, and where? (needs TensorFlow)",
        commands.faults_options,
        commands.run_faults,
    ),
    Command(
        "tolerances",
        "measure the tolerances file again (needs TensorFlow)",
        calibrating.tolerances_options,
        calibrating.run_tolerances,
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
        report_command.report_options,
        report_command.run_report,
    ),
    Command(
        "predict",
        "pictures of yours through OpenCV and TensorFlow: the classes, times and differences",
        predicting.predict_options,
        predicting.run_predict,
    ),
    Command(
        "evaluate",
        "accuracy, time and L1 of OpenCV and TensorFlow on the ImageNet validation set",
        imagenet.evaluate_options,
        imagenet.run_evaluate,
    ),
    Command(
        "throughput",
        "images a second of evaluate, of a straightforward evaluator, and the machine's limit",
        throughput.throughput_options,
        throughput.run_throughput,
    ),
    Command(
        "bench",
        "inference times of two OpenCV wheels on this machine: is one slower, and where?",
        benchmarking.bench_options,
        benchmarking.run_bench,
    ),
    Command(
        "bench-overhead",
        "recorded inference times beside those of a bare loop",
        benchmarking.overhead_options,
        benchmarking.run_overhead,
    ),
)


def make_parser(
    table: Sequence[Command] = COMMANDS, arguments: Optional[Sequence[str]] = None
) -> argparse.ArgumentParser:
    """Return the parser of all commands; "pack build" becomes the subcommand build of pack.

    arguments: what is to be parsed, if known: other commands than theirs get no options, which
    spares importing what these need.
    """
    description = "Does OpenCV's DNN module answer as TensorFlow does?"
    parser = argparse.ArgumentParser(prog="python -m conformance", description=description)
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


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run one command and return its exit status: 0 fine, 1 a check failed, 2 an error."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        parsed = make_parser(arguments=given).parse_args(given)
        return int(parsed.run(parsed))
    except ConformanceError as error:
        print(f"error: {error}", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader, such as head, has enough; keep the interpreter from flushing into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return OK
