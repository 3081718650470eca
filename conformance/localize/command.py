"""localize: one model node by node: where does OpenCV leave the noise?"""

from __future__ import annotations

import argparse
import posixpath
import sys
from collections.abc import Sequence
from pathlib import Path

from conformance.candidate import CandidateRun, RunConfig
from conformance.cli import BAD, OK
from conformance.cli.options import ENGINE, OWN, add_option, add_options, chosen
from conformance.cli.printing import print_table
from conformance.errors import ConformanceError
from conformance.pack.format import Pack
from conformance.pack.formats import IMPORTERS
from conformance.pack.sampling import SAMPLED
from conformance.session import Session, choices_of
from conformance.verdict.checks import judge_run
from conformance.verdict.judgement import Judgement
from conformance.verdict.nodes import NodeDeviation, first_bad

from .diagnosis import diagnose, where_bad


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `localize` takes."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="a name, or the path of your own model")
    add_options(
        add, "--packs", "--weights", "--graph", "--target", "--cpu-disable", "--threads", *OWN
    )
    add_option(add, "--importer", help=f"OpenCV's importer: {', '.join(IMPORTERS)}")
    add_option(add, "--engine", **ENGINE)
    for switch in ("--winograd", "--fusion"):
        add_option(add, switch, metavar="on|off", help="default: as the user gets it")
    add("--plot", type=Path, metavar="FILE.png", help="draw the profile")
    add("--reduce", type=Path, metavar="DIR", help="write a minimal reproducer")


def main(arguments: argparse.Namespace) -> int:
    """Print the profile; return BAD where a node, or an answer, leaves the noise."""
    models = chosen(vars(arguments), [arguments.model])
    (model,) = models.names
    session = Session(choices_of(vars(arguments), models, engines=[arguments.engine]))
    if len(session.variants()) > 1:
        raise ConformanceError(
            "localize looks at one run: give one importer, one --cpu-disable, and --winograd and "
            "--fusion on or off"
        )
    config = session.variants()[0]
    session.build_missing([model], lambda event: print(event, file=sys.stderr))
    pack = session.pack(model)
    session.check_conversion(pack, config.importer)
    run = session.run(pack, config)
    shown, shown_run = _shown(session, pack, run)
    nodes = session.limits.profile(shown, shown_run) if shown_run.layer_samples else []
    if nodes:
        inputs = " and ".join(shown.manifest.inputs[SAMPLED])
        print_profile(nodes, f"{pack.model} on OpenCV {run.version}, {config.title}", inputs)
    clean = _tell(session, pack, run)
    if arguments.plot:
        _plot(arguments.plot, nodes, shown, run)
    if arguments.reduce:
        _reduce(arguments.reduce, session, shown, config)
    return OK if clean else BAD


def _shown(session: Session, pack: Pack, run: CandidateRun) -> tuple[Pack, CandidateRun]:
    """Return what the profile is of: the pack's inputs, or the one that a node goes wrong on."""
    try:
        return where_bad(session, pack, run)
    except ConformanceError:
        return pack, run  # _tell says what is missing


def print_profile(nodes: Sequence[NodeDeviation], title: str, inputs: str) -> None:
    """Print a row for each node; a folded or dropped one says so instead of a deviation.

    inputs: the names of those that the values are of.
    """
    # Most nodes begin with the network's name; without it they fit into 80 columns.
    folder = posixpath.commonpath([node.node for node in nodes])
    common = f"{folder}/" if folder else ""
    first = first_bad(nodes)
    rows = []
    for node in nodes:
        mark = "<- first out of the noise" if node is first else "bad" if node.bad else ""
        lines = "\n  ".join(filter(None, (node.node, mark or node.absent)))
        rows.append((lines.replace(common, ""), node.op, *_figures(node)))
    title = f"{title}: root mean square over sampled values, against float64\ninputs: {inputs}"
    if common:
        title += f"\nnames of nodes without {common}"
    heads = ("node", "op", ">deviation", ">noise", ">allowed", ">used")
    print_table(title, heads, rows, width=None if sys.stdout.isatty() else 160)


def _figures(node: NodeDeviation) -> tuple[str, str, str, str]:
    noise, allowed = f"{node.noise:.1e}", f"{node.allowed:.1e}"
    if node.observed is None:
        return "-", noise, allowed, "-"
    return f"{node.observed:.1e}", noise, allowed, f"{node.used:.0%}"


def _tell(session: Session, pack: Pack, run: CandidateRun) -> bool:
    """Print what is wrong, or that nothing is, and return whether nothing is."""
    wrong = [
        judgement for judgement in judge_run(session.limits, pack, run) if not judgement.passed
    ]
    if not run.failures and not wrong:
        print(f"{pack.model}: nothing strays farther than it may")
        return True
    failed = [*map(str, run.failures), *map(_in_short, wrong)]
    for line in [*failed, *diagnose(session, pack, run.config)[:-1]]:
        print(line)
    return False


def _in_short(judgement: Judgement) -> str:
    where = "".join(
        f" {word} {name!r}"
        for word, name in (("of", judgement.output), ("on", judgement.input))
        if name
    )
    return f"{judgement.metric}{where}: {judgement.observed:.3g}, allowed {judgement.allowed:.3g}"


def _plot(path: Path, nodes: Sequence[NodeDeviation], pack: Pack, run: CandidateRun) -> None:
    if not nodes:
        raise ConformanceError(f"--plot {path}: {pack.model} gave no layers to draw (see above)")
    from .chart import draw_profile

    names = pack.manifest.inputs[SAMPLED]
    where = f"OpenCV {run.version}, {run.config.title}, {' and '.join(names)}"
    draw_profile(path, nodes, f"{pack.model}: deviation from float64, node by node ({where})")
    print(f"{path}: written")


def _reduce(folder: Path, session: Session, pack: Pack, config: RunConfig) -> None:
    from .reduce import write_reproducer

    print(write_reproducer(folder, session, pack, config))
