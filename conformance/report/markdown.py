"""The report as a CI summary in Markdown: verdicts, failures with their command, what changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from conformance.generated.findings import Finding, versions_text
from conformance.results.comparisons import Compared
from conformance.results.evaluations import Accuracies
from conformance.results.history import cost_history, history
from conformance.results.lines import Line, number
from conformance.results.outcomes import BAD
from conformance.results.routes import SINGLY, STRAYS
from conformance.results.times import recorded_costs

from .content import Report, case_name
from .generated import Generated
from .matrix import NAMES, SYMBOLS, Group, Matrix
from .operations import REGISTERED, VERDICTS, Table
from .routes import Cell, share_of
from .sections import failures

# A CI summary holds 1 MiB; past this many failures nobody reads on.
MOST_FAILURES = 50
_LONGEST_REASON = 300
# Of a route that serves single images only.
SINGLE_SIGN = "(1)"


def markdown(report: Report) -> str:
    """Return the summary."""
    parts = [f"## {report.title}"]
    if report.matrix.groups or not report.generated:
        parts.append(_headline(report.matrix))
    if report.generated:
        parts.append(f"Generated models: {report.generated.headline}")
    parts += [f"> Note: {note}" for note in report.notes]
    for group in report.matrix.groups:
        parts += list(_group(report.matrix, group))
    parts += list(_routes(report))
    parts += list(_failures(report))
    if report.generated:
        parts += list(_operations(report.generated))
    parts += list(_times(report))
    parts += list(_accuracy(report))
    return "\n\n".join(parts) + "\n"


def _headline(matrix: Matrix) -> str:
    verdicts = [
        column.cell(model).verdict for _, column in matrix.columns for model in matrix.models
    ]
    text = [f"{verdicts.count(v)} {SYMBOLS[v]} {NAMES[v]}" for v in SYMBOLS if v in verdicts]
    return f"Models by OpenCV and engine: {', '.join(text) or 'no results'}"


def _group(matrix: Matrix, group: Group) -> Iterator[str]:
    yield f"### Verdicts{': ' + group.name if group.name else ''}\n\nCPU {group.machine}"
    rows = [[m, *(_mark(c.cell(m).verdict) for c in group.columns)] for m in matrix.models]
    yield table(["model", *(column.label for column in group.columns)], rows)
    steps = [step for step in history(group.results) if step.kind != "bits"]
    if steps:
        yield "#### What changed from one version to the next"
        heads = ["model", "engine", "what", "after", "at", "detail"]
        yield table(
            heads, [[s.model, s.engine, s.kind, s.before, s.version, s.detail] for s in steps]
        )


def _mark(verdict: str) -> str:
    return f"**{SYMBOLS[verdict]} {verdict}**" if verdict in BAD else SYMBOLS[verdict]


def _routes(report: Report) -> Iterator[str]:
    """Yield the best route of each model and version, then how many generated models have one."""
    for found in report.routes:
        yield f"### Routes{': ' + found.name if found.name else ''}"
        yield (
            "The best importer (TF: the frozen graph itself) and engine by which every check of "
            "single images passes, nearest to float64, then fastest; behind + how many others "
            f"there are. {SINGLE_SIGN}: one image at a time. "
            f"{SYMBOLS['failed']}: no route conforms. {SYMBOLS['not run']}: not judged"
        )
        rows = [[model, *map(_route, cells)] for model, cells in found.rows.items()]
        yield table(["model", *found.versions], rows)
    if report.routes and report.generated:
        share = share_of(report.generated.files)
        yield "#### Generated models that are right on single images"
        rows = [
            [r.title, *(str(n.get(v, "-")) for v in share.judged)] for r, n in share.routes.items()
        ]
        some = [f"{share.some[v]} of {share.judged[v]}" for v in share.judged]
        yield table(["route", *share.judged], [["some route", *some], *rows])


def _route(cell: Cell) -> str:
    text = f"**{cell.sign}**" if cell.state == STRAYS else cell.text
    return f"{text} {SINGLE_SIGN}" if cell.state == SINGLY else text


def _failures(report: Report) -> Iterator[str]:
    found = failures(report) or {"entries": []}
    entries = [entry for entry in found["entries"] if entry["outcome"] in BAD]
    if entries:
        yield "### Failures"
    for entry in entries[:MOST_FAILURES]:
        case = entry["places"][-1]["case"]
        versions = ", ".join(dict.fromkeys(place["column"].version for place in entry["places"]))
        yield (
            f"- **{entry['outcome']}** {entry['model']} `{case_name(case)}`, {entry['where']}: "
            f"{versions}{_observed(case)}\n{_block(case)}"
        )
    if len(entries) > MOST_FAILURES:
        yield f"{len(entries) - MOST_FAILURES} more; the HTML report has them."


def _observed(case: Line) -> str:
    observed, allowed = number(case.get("observed")), number(case.get("allowed"))
    if observed is None or allowed is None:
        return ""
    return f"; observed {observed:.3g}, allowed {allowed:.3g}"


def _block(case: Line) -> str:
    reason = case.get("reason", "").strip()[:_LONGEST_REASON]
    lines = [*reason.splitlines(), f"$ {case['command']}" if "command" in case else ""]
    # Four backticks: a reason may hold three.
    text = "\n".join(f"  {line}" for line in lines if line)
    return f"  ````\n{text}\n  ````"


def _operations(generated: Generated) -> Iterator[str]:
    """Yield for each importer the operations that are not right everywhere, then the findings."""
    yield "### Operations"
    yield "\n".join(f"- `{sign}` {name}: {text}" for name, (sign, text) in VERDICTS.items())
    for found in generated.tables:
        yield from _importer(found)
    if generated.findings:
        yield "#### Findings of generated models"
        heads = ["symptom", "importer", "engine", "run", "layers", "bad on", "right on", "models"]
        yield table([*heads, "known as"], map(_finding_row, generated.findings[:MOST_FAILURES]))
    if len(generated.findings) > MOST_FAILURES:
        yield f"{len(generated.findings) - MOST_FAILURES} more; the HTML report has them."


def _importer(found: Table) -> Iterator[str]:
    """Yield the operations of an importer that are not right in each of its columns."""
    yield f"#### Importer {found.importer}"
    rows = [row for row in found.rows if any(cell.verdict != "right" for cell in row.cells)]
    if rows:
        heads = [
            "operation",
            f"of {REGISTERED} models",
            *(" ".join(column) for column in found.columns),
        ]
        yield table(
            heads,
            [[r.operation, str(r.uses), *(cell.sign for cell in r.cells)] for r in rows],
        )
    yield f"Right everywhere: {len(found.rows) - len(rows)} of {len(found.rows)} operations."


def _finding_row(finding: Finding) -> list[str]:
    versions = [versions_text(finding.bad), versions_text(finding.good)]
    row = [finding.symptom, finding.importer, finding.engine, finding.run, finding.pattern]
    return [*row, *versions, str(len(finding.cases)), finding.known or "**new**"]


def _times(report: Report) -> Iterator[str]:
    if report.timings:
        yield "### Inference time"
        rows = [[t.model, t.who, f"{t.median_ms:.2f}", t.group] for t in report.timings]
        yield table(["model", "who", "median, ms", "machine"], rows)
    steps = cost_history(recorded_costs(report.timings), report.comparisons)
    if steps:
        yield "### What a version costs more, or less, than the one before"
        heads = ["model", "engine", "what", "after", "at", "detail"]
        rows = [[s.model, s.engine, s.kind, s.before, s.version, s.detail] for s in steps]
        yield table(heads, rows)
    if report.comparisons:
        yield "### OpenCV wheels in turn"
        heads = ["model", "what", "first", "second", "second / first", "interval", "rounds"]
        yield table([*heads, "machine"], map(_compared_row, report.comparisons))


def _compared_row(one: Compared) -> list[str]:
    interval = (
        "too few rounds" if one.interval is None else "{:.3f} to {:.3f}".format(*one.interval)
    )
    rounds = f"{one.rounds}{'' if one.complete else ', interrupted'}"
    ratio = f"**{one.ratio:.3f}**" if one.changed else f"{one.ratio:.3f}"
    row = [one.model, one.quantity.title, one.first, one.second, ratio, interval, rounds]
    return [*row, one.group]


def _accuracy(report: Report) -> Iterator[str]:
    if report.accuracies:
        yield "### Accuracy on ImageNet"
        heads = ["model", "OpenCV", "preprocessing", "images", "top-1 OpenCV / TensorFlow, %"]
        heads += ["top-5, %", "p", "mean L1"]
        yield table(heads, map(_accuracy_row, report.accuracies))


def _accuracy_row(found: Accuracies) -> list[str]:
    head, summary = found.header, found.summary
    shares = [
        " / ".join(f"{100 * summary[who][top]['value']:.3f}" for who in ("opencv", "tensorflow"))
        for top in ("top1", "top5")
    ]
    p_value, mean = summary["paired_top1"]["p_value"], number(summary["l1_mean"])
    row = [head["model"], f"{head['opencv']} {head['engine']}", head["preprocess"]]
    row += [str(summary["images"]), *shares, f"{p_value:.3g}"]
    return [*row, "-" if mean is None else f"{mean:.2e}"]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    escaped = ([cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in escaped)
