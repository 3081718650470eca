"""What the report says of generated models: the newest files, their findings, their operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

from conformance.generated.defects import Defect
from conformance.generated.findings import Finding, find
from conformance.generated.outcomes import AT_ONCE, MODEL, RIGHT, SINGLE
from conformance.generated.reduced import Reduced
from conformance.results.cases import Results, config_of
from conformance.results.generated import Outcomes, outcomes_in
from conformance.tables import release

from .operations import NOT_OPENCVS, Table, tables_of

Place = tuple[str, str, str, str]  # importer, engine, way to run and the model's key


@dataclass(frozen=True)
class Generated:
    """All that the report says of generated models."""

    files: list[Results]
    tables: list[Table]
    findings: list[Finding]
    defects: Mapping[str, Defect]  # the known ones, by name
    commands: Mapping[Place, str]  # that run a model again
    right: int  # outcomes of all models, versions, importers, engines and ways to run
    judged: int
    unjudged: int  # the file's own runtime strays, or refuses it
    notes: list[str] = field(default_factory=list)

    @property
    def headline(self) -> str:
        """Everything in one line."""
        new = [finding for finding in self.findings if finding.known is None]
        silent = sum(finding.silent for finding in new)
        return (
            f"{self.right:,} of {self.judged:,} runs right; findings: "
            f"{len(self.findings) - len(new):,} of known defects, {len(new):,} new"
            + (f" ({silent:,} of them silent)" if silent else "")
        )

    def again(self, finding: Finding) -> str:
        """Return the command that runs a finding's plainest model again, "" if none is known."""
        place = finding.importer, finding.engine, finding.run, finding.cases[0]
        return self.commands.get(place, "")


def build_generated(
    files: Sequence[Results],
    defects: Sequence[Defect],
    expected: Sequence[str] = (),
    reproducers: Sequence[Reduced] = (),
    folder: Path = Path(),
) -> Optional[Generated]:
    """Return what files say of generated models, None without any.

    expected: versions that get an empty column where no file is of them. reproducers: what
    `findings --reduce` wrote, into `folder` as it is seen from the page.
    """
    if not files:
        return None
    kept, notes = _comparable(files)
    outcomes = outcomes_in(kept)
    found = find(outcomes.observed, outcomes.recipes, defects)
    folders = {name: str(folder / one.folder) for one in reproducers for name in one.ids}
    found = _told_apart(
        replace(one, reproducer=folders.get(one.id, one.reproducer)) for one in found
    )
    opencvs = [finding for finding in found if finding.symptom != NOT_OPENCVS]
    known = {defect.name: defect for defect in defects}
    symptoms = _symptoms(outcomes)
    unjudged = symptoms[NOT_OPENCVS]
    return Generated(
        files=kept,
        tables=list(tables_of(kept, outcomes, opencvs, known, expected)),
        findings=opencvs,
        defects=known,
        commands=_commands(kept),
        right=symptoms[RIGHT],
        judged=sum(symptoms.values()) - unjudged,
        unjudged=unjudged,
        notes=[*notes, *_unmet(kept)],
    )


def _told_apart(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, the id of one that another has, too, with a number: they are anchors."""
    seen: Counter[str] = Counter()
    found = []
    for finding in findings:
        seen[finding.id] += 1
        again = f"-{seen[finding.id]}" if seen[finding.id] > 1 else ""
        found.append(replace(finding, id=f"{finding.id}{again}"))
    return found


def _symptoms(outcomes: Outcomes) -> Counter[str]:
    return Counter(
        line["symptom"]
        for versions in outcomes.observed.values()
        for lines in versions.values()
        for line in lines.values()
    )


def _comparable(files: Sequence[Results]) -> tuple[list[Results], list[str]]:
    """Return the newest file of each OpenCV, importer and engine, and notes on those left out.

    All are of the same models: those that most of the files are of, the newest where it is a tie.
    """
    ordered = sorted(files, key=lambda one: (one.header["created"], str(one.path)))
    packs = Counter(_pack(one) for one in reversed(ordered))
    pack = packs.most_common(1)[0][0]
    kept: dict[str, Results] = {}
    notes = []
    for one in ordered:
        if _pack(one) != pack:
            notes.append(f"{one.path} left out: it is of other generated models")
            continue
        older = kept.get(one.name)
        if older is not None:
            notes.append(
                f"{older.path} left out: {one.path} is newer, of the same OpenCV {one.name}"
            )
        kept[one.name] = one
    by_release = sorted(
        kept.values(), key=lambda one: (release(one.header["opencv"]["version"]), one.name)
    )
    return by_release, notes


def _pack(one: Results) -> str:
    return str(sorted(one.header[MODEL].items()))


def _commands(files: Iterable[Results]) -> dict[Place, str]:
    """Return the command of each model that is not right, of the newest OpenCV."""
    found = {}
    for one in sorted(files, key=lambda file: release(file.header["opencv"]["version"])):
        config = config_of(one.header)
        for case in one.cases:
            if "command" in case:
                run = AT_ONCE if "::test_batch" in case["id"] else SINGLE
                key = case["id"].partition("[")[2].rstrip("]").partition("-")[0]
                found[config.importer, config.place, run, key] = case["command"]
    return found


def _unmet(files: Iterable[Results]) -> Iterator[str]:
    """Yield a note for each file whose run missed known defects, or judged nothing."""
    for one in files:
        for case in one.cases:
            if "::test_known_defects" in case["id"] and case["outcome"] in ("failed", "errored"):
                yield f"OpenCV {one.name}: {case.get('reason', 'known defects are not met')[:300]}"
        if not one.generated:
            yield f"OpenCV {one.name}: no generated model was judged"
