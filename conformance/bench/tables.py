"""What `bench` prints: tables of two wheels or of a row of them, changes in sentences, layers."""

from __future__ import annotations

import math
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Optional

from rich.console import Console

from conformance.cli.printing import print_table
from conformance.processes.machine import threads_text
from conformance.results.quantities import QUANTITIES

from .comparison import (
    Comparison,
    Estimate,
    Finding,
    Limits,
    alarm,
    findings,
    relief,
    typical,
    verdict,
)
from .layers import Part, layer_types, layers, slowed

_LAYERS_SHOWN = 12
_SAME = "no difference"


def alarms(one: Comparison, limits: Limits) -> list[Finding]:
    """Return the findings above their limits."""
    return [finding for finding in findings(one) if alarm(finding, limits)]


def summary(one: Comparison, limits: Limits) -> str:
    """Return a comparison in a line: what differs, {verdict: quantities}."""
    if one.error:
        return "error"
    if not one.rounds:
        return "interrupted"
    told: dict[str, dict[str, None]] = {}
    for finding in findings(one):
        told.setdefault(verdict(finding, limits), {})[finding.quantity.title] = None
    if len(told) > 1:
        told.pop(_SAME, None)
    words = [v if v == _SAME else f"{', '.join(titles)} {v}" for v, titles in told.items()]
    return unfinished(one) + "; ".join(words)


def unfinished(one: Comparison) -> str:
    """Return the words before what an interrupted comparison has found, "" for a whole one."""
    done = f"{len(one.rounds)} of {one.planned} rounds"
    return "" if one.complete else f"interrupted, in {done}: "


def print_pair(specs: Sequence[str], comparisons: Sequence[Comparison], limits: Limits) -> None:
    """Print what was found of two wheels, in a table a model."""
    same = " (the same: an A/A comparison)" if specs[0] == specs[1] else ""
    print(f"A: OpenCV {specs[0]}   B: OpenCV {specs[1]}{same}")
    _print_legend(
        "The intervals' lower ends hold all together with 95 % confidence, so do the upper."
    )
    heads = ("", ">threads", ">A", ">B", ">B / A", ">interval", "")
    for one in comparisons:
        rows = [_row(finding, limits) for finding in findings(one)]
        print_table(f"{one.model}: {summary(one, limits)}", heads, rows)


def _print_legend(text: str) -> None:
    Console(highlight=False).print(
        "load: reading the file; first: the first inference; warm: the median of those after; p90: "
        "their 90th percentile; memory: at most until warm, beyond the interpreter's and cv2's. "
        f"{text}\n"
    )


def _row(finding: Finding, limits: Limits) -> tuple[str, ...]:
    return (
        finding.quantity.head,
        "all" if finding.threads is None else str(finding.threads),
        *(f"{side:.2f}" for side in finding.sides),
        f"{finding.ratio.value:.3f}",
        interval_text(finding.ratio, "{:.3f}"),
        verdict(finding, limits),
    )


def interval_text(found: Estimate, form: str) -> str:
    """Return an estimate's interval, each end as `form` formats it."""
    if found.low is None or found.high is None:
        return "-"
    return f"{form.format(found.low)} to {form.format(found.high)}"


def print_repeated(comparisons: Sequence[Comparison], limits: Limits) -> None:
    """Print how often each verdict was reached, by quantity and threads."""
    verdicts: dict[tuple[str, Optional[int]], Counter[str]] = {}
    for one in comparisons:
        for finding in findings(one):
            place = finding.quantity.title, finding.threads
            verdicts.setdefault(place, Counter())[verdict(finding, limits)] += 1
    rows = [
        (title, str(threads or "all"), ", ".join(f"{n} {v}" for v, n in counts.most_common()))
        for (title, threads), counts in verdicts.items()
    ]
    print_table(f"{len(comparisons)} comparisons", ("", "threads", "verdicts"), rows)
    alarmed = sum(bool(alarms(one, limits)) for one in comparisons)
    print(f"alarms: {alarmed} of {len(comparisons)} comparisons")


def print_row(specs: Sequence[str], comparisons: Sequence[Comparison], limits: Limits) -> None:
    """Print what each wheel of a row costs, in a table a model and number of threads; changes."""
    _print_legend("Medians of all rounds.")
    heads = ["OpenCV", *(f">{quantity.head}" for quantity in QUANTITIES)]
    for one in comparisons:
        for threads in one.threads if one.rounds else ():
            rows = [
                (spec, *(_cell(typical(one, place, q, threads)) for q in QUANTITIES))
                for place, spec in enumerate(specs)
            ]
            print_table(f"{one.model}, {threads_text(threads)}", heads, rows)
        print(f"{one.model}: {unfinished(one)}what changed by more than its limit")
        print("\n".join(f"  {text}" for text in changes(one, specs, limits)) or "  nothing")
        print()


def _cell(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def changes(one: Comparison, specs: Sequence[str], limits: Limits) -> Iterator[str]:
    """Yield each change from a wheel to the next beyond its quantity's limit, in a sentence."""
    for finding in findings(one):
        if alarm(finding, limits) or relief(finding, limits):
            old, new = specs[finding.place : finding.place + 2]
            word = "rose" if alarm(finding, limits) else "fell"
            first, second = finding.sides
            unit, threads = finding.quantity.unit, finding.threads
            on = "all numbers of threads" if threads is None else threads_text(threads)
            yield (
                f"{finding.quantity.title} {word} from {first:.2f} {unit} ({old}) to "
                f"{second:.2f} {unit} ({new}), {on}: "
                f"{finding.ratio.value:.3f} times as much "
                f"({interval_text(finding.ratio, '{:.3f}')})"
            )


def print_layers(one: Comparison) -> None:
    """Print the types of layer, and the layers, that became slower from one wheel to the other."""
    # With as many threads as most users have.
    threads = max(one.threads)
    a, b = one.rounds[0]
    name = f"{one.model}, {a.version} {a.engine} to {b.version} {b.engine}, {threads_text(threads)}"
    types, found = (slowed(f(one, threads)) for f in (layer_types, layers))
    if not found:
        Console(highlight=False).print(f"{name}: no layer is shown to have become slower\n")
        return
    heads = ("layer", ">A ms", ">B - A", "95 % interval", ">of all")
    rows = [_part_row(part, part.name) for part in types]
    print_table(f"{name}: types of layer that became slower", heads, rows)
    # Keras puts the model's own name before every layer's.
    common = posixpath.commonpath(posixpath.dirname(name) for name in a.types)
    shown = found[:_LAYERS_SHOWN]
    rows = [_part_row(p, p.name.removeprefix(common).lstrip("/")) for p in shown]
    more = f", {len(rows)} of {len(found)}" if len(rows) < len(found) else ""
    print_table(f"{one.model}: layers that became slower{more}", heads, rows)


def _part_row(part: Part, name: str) -> tuple[str, ...]:
    return (
        name,
        f"{part.first:.2f}",
        f"{part.difference.value:+.2f}",
        interval_text(part.difference, "{:+.2f}"),
        "-" if math.isnan(part.share) else f"{part.share:.0%}",
    )
