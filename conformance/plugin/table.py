"""The verdict table at the end of a pytest run."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Optional

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from conformance.generated.outcomes import MODEL
from conformance.models import model_order
from conformance.results.outcomes import worst, worst_first

# The metric of the table's last columns: the tutorial's L1, whose worst input is shown.
_HEADLINES = ("softmax_l1_sum", "output_l1_sum")


@dataclass
class Row:
    """What the cases of one model came to."""

    model: str
    engine: str  # with importer, target and CPU level unless they are the usual ones; switches
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # by outcome
    judgements: dict[str, dict[str, Any]] = field(default_factory=dict)  # by metric
    # What is judged otherwise than usual, in order, each once.
    notes: dict[str, None] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """The worst outcome of the row's cases; "xfailed" is a failure that was expected.

        What does not apply to a model, such as the sum of a softmax it has not, is skipped, and
        makes no verdict where other cases were judged.
        """
        found = worst_first(self.counts)
        return worst(outcome for outcome in found if outcome != "skipped" or "passed" not in found)


def outcome_of(report: Any) -> Optional[str]:
    """Return the outcome that a pytest report gives its case, or None if it gives none."""
    if hasattr(report, "wasxfail") and report.outcome != "passed":
        return "xfailed"  # what a defect of many models spares has just passed
    if report.when == "call":
        return str(report.outcome)
    return {"failed": "errored", "skipped": "skipped"}.get(report.outcome)


def worst_outcome(reports: Iterable[Any]) -> str:
    """Return the outcome of one case from the reports of its phases; without any it is errored."""
    return worst(filter(None, map(outcome_of, reports)), none="errored")


def collect_rows(reports: Iterable[Any]) -> list[Row]:
    """Return a row for each model, importer and engine, in the registry's order.

    Cases without an engine (is the frozen graph right?) count in every row of their model.
    """
    rows: dict[tuple[str, str], Row] = {}
    common: list[tuple[str, str, str]] = []
    for report in reports:
        properties = dict(getattr(report, "user_properties", ()))
        outcome = outcome_of(report)
        findings = getattr(report, "findings", {})
        if outcome is None or "case" not in findings:
            continue
        if "engine" not in properties:
            common.append((properties["model"], properties.get("importer", ""), outcome))
            continue
        variant = findings["case"].get("variant", "")
        axes = (properties.get(name, "") for name in ("importer", "engine", "target", "cpu"))
        # A level's name may be as long as its list of features.
        place = " ".join(filter(None, axes)).replace("_", " ")
        key = (properties["model"], " ".join(filter(None, (place, variant))))
        row = rows.setdefault(key, Row(*key))
        row.counts[outcome] += 1
        row.notes.update(dict.fromkeys(findings.get("notes", ())))
        if "judgement" in findings:
            row.judgements[findings["judgement"]["metric"]] = findings["judgement"]
    for model, importer, outcome in common:
        of_model = [r for r in rows.values() if r.model == model and r.engine.startswith(importer)]
        for row in of_model or [rows.setdefault((model, ""), Row(model, ""))]:
            row.counts[outcome] += 1
    return sorted(rows.values(), key=lambda row: (model_order(row.model), row.engine))


def verdict_table(reports: Iterable[Any], width: int) -> str:
    """Return the table as text of at most `width` columns; empty where no model was judged."""
    rows = collect_rows(reports)
    if not rows:
        return ""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for title in ("model", "engine", "verdict", "cases"):
        # The others give way where a name is long.
        table.add_column(title, no_wrap=title in ("model", "verdict"))
    for title in ("L1", "allowed", "used"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row.model, row.engine, row.verdict, _counts(row), *_headline(row))
    out = io.StringIO()
    console = Console(file=out, width=max(width, 80), color_system=None, highlight=False)
    console.print(table)
    console.print("L1: sum of |difference| to the float64 truth over the softmax, worst input")
    for note in dict.fromkeys(f"{row.model}: {note}" for row in rows for note in row.notes):
        console.print(note)
    return out.getvalue()


# What outcomes are called of generated models.
_OF_GENERATED = {
    "failed": "new",
    "xfailed": "known defects",
    "passed": "right",
    "skipped": "not judged",
}


def _counts(row: Row) -> str:
    words = _OF_GENERATED if row.model == MODEL else {}
    counts = worst_first(row.counts).items()
    return ", ".join(f"{count} {words.get(outcome, outcome)}" for outcome, count in counts)


def _headline(row: Row) -> tuple[str, str, str]:
    judgement = next((row.judgements[m] for m in _HEADLINES if m in row.judgements), None)
    if judgement is None or not judgement.get("allowed"):
        return "-", "-", "-"
    # A recorded number that is not finite is a string: "nan".
    observed, allowed = float(judgement["observed"]), float(judgement["allowed"])
    return f"{observed:.1e}", f"{allowed:.1e}", f"{observed / allowed:.0%}"
