"""Operations: what small generated models tell of each, by importer, OpenCV version and engine."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from conformance.generated.defects import Defect
from conformance.generated.findings import Finding
from conformance.generated.outcomes import RIGHT, SINGLE, SYMPTOMS
from conformance.generated.patterns import parse_pattern
from conformance.generated.vocabulary import OPERATIONS, REGISTRY
from conformance.models import EXTENDED, MODELS
from conformance.pack.formats import IMPORTERS
from conformance.results.cases import Results, config_of
from conformance.results.generated import Outcomes
from conformance.results.lines import Line
from conformance.tables import release

# What a cell may say, the worst first: its sign, which tells it without colour, and what it means.
VERDICTS = {
    "hang": ("h", "no model with it is right, and a finding blames it alone: OpenCV did not end"),
    "crash": ("c", "the same: OpenCV's process died"),
    "wrong": ("✗", "the same: another answer, without a word"),
    "refused": ("r", "the same: OpenCV says that it can't"),
    "partly": (
        "~",
        "some model with it is right, and findings name it: with some values of its attributes, "
        "beside another operation, or in a batch; the second sign is that of the worst",
    ),
    "masked": (
        "?",
        "no model with it is right, and no finding blames it alone: something else fails first",
    ),
    "right": ("✓", "some model with it is right, and no finding names it"),
    "not run": ("-", "no model with it was judged"),
}
SIGNS = {verdict: sign for verdict, (sign, _) in VERDICTS.items()}
# The models whose uses of operations are counted.
REGISTERED = len(MODELS) + len(EXTENDED)
# A finding's symptom as a cell says it; one of the file's own converter is not OpenCV's.
_AS = {"hang": "hang", "crash": "crash", "refused": "refused"}
NOT_OPENCVS = "converter"
# See _met_often.
OFTEN = 3
# Of what a masked cell's models fail for, the most common ones are told.
_MOST_BEFORE = 3

Column = tuple[str, str]  # version and engine


def verdict_of_symptom(symptom: str) -> str:
    """Return how a cell says a symptom: an answer of another shape, or unstable, is wrong."""
    return _AS.get(symptom, "wrong")


@dataclass(frozen=True)
class Cell:
    """What is known of one operation in one importer, OpenCV version and engine."""

    verdict: str = "not run"
    findings: tuple[Finding, ...] = ()  # that it leads to, the worst first
    right: int = 0  # models that have the operation and are right on single images
    judged: int = 0  # models that have it

    @property
    def worst(self) -> str:
        """The verdict, for a cell that is right in part that of its worst finding."""
        partly = self.verdict == "partly"
        return verdict_of_symptom(self.findings[0].symptom) if partly else self.verdict

    @property
    def sign(self) -> str:
        """What stands in the cell."""
        return SIGNS[self.verdict] + (SIGNS[self.worst] if self.verdict == "partly" else "")

    @property
    def words(self) -> str:
        """What the sign means here."""
        if not self.judged:
            return self.verdict
        text = f"{self.right} of {self.judged} models right"
        if self.verdict == "partly":
            symptoms = Counter(finding.symptom for finding in self.findings)
            counts = (f"{count} of symptom {symptom}" for symptom, count in symptoms.items())
            return f"right in part: {text}; findings: {', '.join(counts)}"
        return f"{self.verdict}; {text}"


@dataclass(frozen=True)
class Row:
    """One operation on one importer. uses: how many of the registry's models have it."""

    operation: str
    uses: int
    cells: list[Cell]  # one for each of the table's columns

    @property
    def trouble(self) -> bool:
        """Whether some cell is bad."""
        return any(cell.verdict not in ("right", "masked", "not run") for cell in self.cells)


@dataclass(frozen=True)
class Table:
    """All operations on one importer, those that most of the registry's models use first."""

    importer: str
    columns: list[Column]
    rows: list[Row]
    findings: list[Finding]
    general: list[Finding]  # of these, those of any model whatever its operations

    def counts(self, place: int) -> dict[str, int]:
        """Return how many operations each verdict has in a column, the worst first."""
        found = Counter(row.cells[place].verdict for row in self.rows)
        return {verdict: found[verdict] for verdict in VERDICTS if found[verdict]}


def cell_of(right: int, judged: int, named: Sequence[Finding], blamed: Sequence[Finding]) -> Cell:
    """Return the cell of an operation, by this rule.

    right, judged: how many models with the operation are right on single images, of how many that
    OpenCV was given. named: the findings on this version that name it, in whatever pattern, of
    single images or of a batch (which is judged where single images are right). blamed: of these,
    those whose pattern has no other operation, be it with a value of an attribute, or is an
    operation of the file that belongs to it. A finding that names no operation, as OpenCV's reason
    tells it, is in both where it is met OFTEN times as often with the operation as it is at all.

    - no model judged: "not run"
    - some model right: "right" where no finding names it, else "partly"
    - no model right: the worst symptom of the findings that blame it, else "masked"
    """
    if not judged:
        return Cell()
    if right:
        return Cell("partly" if named else "right", _worst_first(named), right, judged)
    if blamed:
        ordered = _worst_first(blamed)
        return Cell(verdict_of_symptom(ordered[0].symptom), ordered, right, judged)
    return Cell("masked", _worst_first(named), right, judged)


def _worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: SYMPTOMS.index(finding.symptom)))


@dataclass(frozen=True)
class _Blame:
    """The operations that a finding names, and whether it is of one of them alone."""

    finding: Finding
    operations: frozenset[str]
    alone: frozenset[str]

    @property
    def general(self) -> bool:
        return not self.operations


def _blame(finding: Finding, defects: Mapping[str, Defect], outcomes: Outcomes) -> _Blame:
    defect = defects.get(finding.known or "")
    patterns = defect.patterns if defect else (parse_pattern(finding.id, finding.pattern),)
    of_file = _layers_with({p.file for p in patterns if p.file}, finding, outcomes)
    alone = {p.tokens[0][0] for p in patterns if len(p.tokens) == 1} | of_file
    named = {operation for pattern in patterns for operation, _ in pattern.tokens} | of_file
    return _Blame(finding, frozenset(named), frozenset(alone))


def _layers_with(kinds: set[str], finding: Finding, outcomes: Outcomes) -> set[str]:
    """Return the operations that operations of the file belong to, in a finding's models."""
    versions = outcomes.of(finding.importer, finding.engine, finding.run)
    return {
        outcomes.recipes[key].layers[layer - 1].operation
        for version in finding.bad
        for key in finding.cases
        if kinds and key in versions[version]
        for kind, layer in versions[version][key]["operations"]
        if kind in kinds and layer  # 0: of the stem and the head
    }


def tables_of(
    files: Sequence[Results],
    outcomes: Outcomes,
    findings: Sequence[Finding],
    defects: Mapping[str, Defect],
    expected: Sequence[str],
) -> Iterator[Table]:
    """Yield the table of each importer; see `cell_of` for what a cell says.

    findings: of OpenCV. defects: the known ones, by name. expected: versions that get an empty
    column where no file is of them.
    """
    operations = {
        key: {layer.operation for layer in recipe.layers}
        for key, recipe in outcomes.recipes.items()
    }
    drawn = set().union(*operations.values())
    rows = sorted(drawn, key=lambda name: (-REGISTRY.get(name, 0), list(OPERATIONS).index(name)))
    seen = {release(one.header["opencv"]["version"]) for one in files}
    missing = [(version, "") for version in expected if release(version) not in seen]
    for importer in IMPORTERS:
        of = [one.header for one in files if one.header["importer"] == importer]
        columns = {(head["opencv"]["version"], config_of(head).place) for head in of}
        if columns:
            ordered = sorted({*columns, *missing}, key=lambda c: (release(c[0]), c[1]))
            blames = [_blame(f, defects, outcomes) for f in findings if f.importer == importer]
            cells = [_column(importer, column, outcomes, operations, blames) for column in ordered]
            yield Table(
                importer,
                ordered,
                [
                    Row(name, REGISTRY.get(name, 0), [c.get(name, Cell()) for c in cells])
                    for name in rows
                ],
                [blame.finding for blame in blames],
                [blame.finding for blame in blames if blame.general],
            )


def _column(
    importer: str,
    column: Column,
    outcomes: Outcomes,
    operations: Mapping[str, set[str]],
    blames: Sequence[_Blame],
) -> dict[str, Cell]:
    """Return the cells of a column, by operation."""
    version, engine = column
    lines = outcomes.of(importer, engine, SINGLE).get(version, {})
    models: dict[str, list[str]] = defaultdict(list)
    right: Counter[str] = Counter()
    for key, line in lines.items():
        if line["symptom"] != NOT_OPENCVS:
            for name in operations[key]:
                models[name].append(key)
                right[name] += line["symptom"] == RIGHT
    here = [b for b in blames if b.finding.engine == engine and version in b.finding.bad]
    often = {name: _met_often(keys, lines, here) for name, keys in models.items()}
    cells = {}
    for name, keys in models.items():
        named = [blame.finding for blame in here if name in blame.operations] + often[name]
        blamed = [blame.finding for blame in here if name in blame.alone] + often[name]
        cell = cell_of(right[name], len(keys), named, blamed)
        cells[name] = _before(cell, keys, here) if cell.verdict == "masked" else cell
    return cells


def _met_often(
    keys: Sequence[str], lines: Mapping[str, Line], here: Iterable[_Blame]
) -> list[Finding]:
    """Return the findings that name no operation, but are met by these models again and again.

    A known defect may be told by OpenCV's reason alone. It is told of an operation with whose
    models it is met OFTEN times as often as with all models, and at least OFTEN times.
    """
    models, found = set(keys), []
    for finding in (blame.finding for blame in here if blame.general):
        met = {key for key in finding.cases if key in lines and lines[key]["symptom"] != RIGHT}
        own = len(met & models)
        if own >= OFTEN and own / len(models) >= OFTEN * len(met) / len(lines):
            found.append(finding)
    return found


def _before(cell: Cell, keys: Sequence[str], here: Sequence[_Blame]) -> Cell:
    """Return a masked cell that leads to what most of its models fail for."""
    models = set(keys)
    single = [blame.finding for blame in here if blame.finding.run == SINGLE]
    shares = [(len(models.intersection(finding.cases)), finding) for finding in single]
    shares.sort(key=lambda share: -share[0])
    found = tuple(finding for share, finding in shares[:_MOST_BEFORE] if share)
    return Cell(cell.verdict, found, cell.right, cell.judged)
