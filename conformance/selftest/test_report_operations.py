"""The report's section Operations: what a cell says of an operation, and where it leads."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.cli.main import main
from conformance.generated.defects import load_defects
from conformance.generated.findings import Finding, find
from conformance.generated.outcomes import RIGHT
from conformance.generated.recipes import Recipe
from conformance.generated.reduced import Reduced, write_reduced
from conformance.generated.vocabulary import REGISTRY
from conformance.report import generated as report_generated
from conformance.report.generated import Generated, build_generated
from conformance.report.operations import Cell, cell_of
from conformance.results.cases import read_results
from conformance.results.generated import divided

from .browser import chromium, find_chromium
from .sample_generated import RECIPES, failing, operations_in, write_generated
from .sample_report import write_matrix
from .test_report import data_of, page_of, without_scripts

DEFECT = """schema = 1
[[defect]]
name = "gelu-refused"
importer = "tensorflow"
symptom = "refused"
pattern = "gelu"
reason = "no kernel of <b>Erf</b>"
link = "https://example.org/1"
"""


def finding(symptom: str = "wrong", **changes: Any) -> Finding:
    """Return a finding."""
    values: dict[str, Any] = dict.fromkeys(Finding.__dataclass_fields__)
    values |= {"id": symptom, "symptom": symptom, "pattern": "relu", "run": "single"}
    return Finding(**{**values, **changes})


@pytest.mark.parametrize(
    ("right", "judged", "named", "blamed", "sign"),
    [
        (0, 0, [], [], "-"),
        (1, 3, [], [], "✓"),
        (3, 3, ["refused"], [], "~r"),
        (2, 3, ["refused", "unstable", "shape"], ["refused"], "~✗"),
        (1, 3, ["wrong", "crash"], [], "~c"),
        (0, 3, ["wrong", "refused"], ["refused"], "r"),
        (0, 3, ["wrong", "refused"], ["refused", "wrong"], "✗"),
        (0, 3, ["shape"], ["shape"], "✗"),
        (0, 3, ["crash"], ["crash"], "c"),
        (0, 3, ["wrong", "hang"], ["wrong", "hang"], "h"),
        (0, 3, ["wrong"], [], "?"),
        (0, 3, [], [], "?"),
    ],
)
def test_a_cell_follows_the_rule(
    right: int, judged: int, named: list[str], blamed: list[str], sign: str
) -> None:
    """A cell is right, partly, masked or not run, or the worst symptom that blames it alone."""
    cell = cell_of(right, judged, [*map(finding, named)], [*map(finding, blamed)])
    assert cell.sign == sign


def read(*paths: Path, expected: tuple[str, ...] = (), **given: Any) -> Generated:
    """Return what the report says of files."""
    parts = [divided(read_results(path))[1] for path in paths]
    found = build_generated([part for part in parts if part], given.get("defects", ()), expected)
    assert found is not None
    return found


def cells(generated: Generated, operation: str, table: int = 0) -> dict[str, Cell]:
    """Return an operation's cells by version."""
    shown = generated.tables[table]
    (row,) = [row for row in shown.rows if row.operation == operation]
    return {version: cell for (version, _), cell in zip(shown.columns, row.cells)}


def test_an_operation_is_bad_on_its_versions_only(tmp_path: Path) -> None:
    """An operation that is refused on one version is right on the others, and so are all others."""
    bad = write_generated(tmp_path / "a.jsonl", "4.10.0", failing("gelu", "refused"))
    good = write_generated(tmp_path / "b.jsonl", "4.9.0")
    found = read(bad, good, expected=("5.0.0", "4.9.0"))
    gelu = cells(found, "gelu")
    assert [(version, cell.verdict) for version, cell in gelu.items()] == [
        ("4.9.0", "right"),
        ("4.10.0", "refused"),
        ("5.0.0", "not run"),
    ]
    assert [one.pattern for one in gelu["4.10.0"].findings] == ["gelu"]
    (table,) = found.tables
    assert table.counts(0) == {"right": len(table.rows)}
    assert table.counts(1)["refused"] == 1


def test_one_value_of_an_attribute_is_a_part(tmp_path: Path) -> None:
    """An operation that is wrong with one value of an attribute is right in part, and says so."""

    def symptom(recipe: Recipe, _: str) -> str:
        axes = [x.attributes["axis"] for x in recipe.layers if x.operation == "Softmax"]
        return "wrong" if 1 in axes else RIGHT

    found = read(write_generated(tmp_path / "a.jsonl", "5.0.0", symptom))
    cell = cells(found, "Softmax")["5.0.0"]
    assert (cell.verdict, cell.sign) == ("partly", "~✗")
    assert [one.pattern for one in cell.findings] == ["Softmax axis=1"]
    assert f"{cell.right} of {cell.judged} models" in cell.words


def test_what_stands_behind_a_failing_operation_is_masked(tmp_path: Path) -> None:
    """An operation of which no model gets past another one is masked, and leads to that one."""
    beside = [operations_in(recipe) for recipe in RECIPES.values()]
    hidden = next(
        name
        for name in sorted(set().union(*beside) - {"softplus"})
        if all("softplus" in names for names in beside if name in names)
    )
    path = write_generated(tmp_path / "a.jsonl", "5.0.0", failing("softplus", "refused"))
    cell = cells(read(path), hidden)["5.0.0"]
    assert cell.verdict == "masked"
    assert "softplus" in [one.pattern for one in cell.findings]


def test_a_batch_alone_is_a_part(tmp_path: Path) -> None:
    """An operation that fails in batches only is right in part, and its finding names the batch."""

    def symptom(recipe: Recipe, run: str) -> str:
        return "crash" if run == "batch" and "relu" in operations_in(recipe) else RIGHT

    path = write_generated(tmp_path / "a.jsonl", "5.0.0", symptom, ("single", "batch"))
    cell = cells(read(path), "relu")["5.0.0"]
    assert (cell.sign, [one.run for one in cell.findings]) == ("~c", ["batch"])
    assert ">relu</b> crash in a batch" in page_of(tmp_path, str(path))


def test_an_operation_of_the_file_is_its_layers(tmp_path: Path) -> None:
    """A finding that names an operation of the file is told of the operation that it belongs to."""
    symptom, detail = failing("gelu", "refused"), 'unknown type "Erf"'
    path = write_generated(
        tmp_path / "a.jsonl", "5.0.0", symptom, kinds={"gelu": "Erf"}, detail=detail
    )
    found = read(path)
    assert [one.pattern for one in found.findings] == ["[Erf]"]
    assert cells(found, "gelu")["5.0.0"].verdict == "refused"
    assert found.tables[0].counts(0)["refused"] == 1
    assert found.tables[0].general == []


def test_findings_of_one_id_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two findings of the same id have anchors of their own."""
    monkeypatch.setattr(report_generated, "find", lambda *given: 2 * find(*given))
    path = write_generated(tmp_path / "a.jsonl", "5.0.0", failing("gelu", "wrong"))
    first, second = re.findall(r'id="f-([^"]+)"', page_of(tmp_path, str(path)))
    assert second == f"{first}-2"


def test_what_any_model_fails_for_is_told_above(tmp_path: Path) -> None:
    """A finding of every batch marks no operation, and stands above the table with a link."""
    runs = ("single", "batch")
    path = write_generated(
        tmp_path / "a.jsonl", "5.0.0", lambda _, run: "shape" if run == "batch" else RIGHT, runs
    )
    found = read(path)
    (general,) = found.tables[0].general
    assert set(found.tables[0].counts(0)) == {"right"}
    page = page_of(tmp_path, str(path))
    assert f'<a href="#f-{general.id}">any model</a>: shape in a batch on 5.0.0' in page


def test_what_is_told_by_a_reason_is_told_where_it_is_met_often(tmp_path: Path) -> None:
    """A known defect of any operation is told of the one whose models meet it, not of Conv2D."""
    defects = tmp_path / "defects.toml"
    defects.write_text(DEFECT.replace('pattern = "gelu"', 'pattern = "*"\nsays = "Erf"'))
    path = write_generated(
        tmp_path / "a.jsonl", "5.0.0", failing("sigmoid", "refused"), detail="no Erf"
    )
    found = read(path, defects=load_defects(defects))
    assert [(one.known, one.pattern) for one in found.findings] == [("gelu-refused", "*")]
    assert cells(found, "sigmoid")["5.0.0"].verdict == "refused"
    assert cells(found, "Conv2D")["5.0.0"].verdict == "right"


def test_a_converters_fault_is_not_opencvs(tmp_path: Path) -> None:
    """Models that the file's own runtime gets wrong make no finding and no verdict."""
    path = write_generated(tmp_path / "a.jsonl", "5.0.0", failing("gelu", "converter"))
    found = read(path)
    assert cells(found, "gelu")["5.0.0"].verdict == "not run"
    assert found.findings == []
    assert found.unjudged == sum("gelu" in operations_in(one) for one in RECIPES.values())


def test_the_most_used_operations_come_first(tmp_path: Path) -> None:
    """Rows are in order of how many models of the registry use them, and show that number."""
    (table,) = read(write_generated(tmp_path / "a.jsonl", "5.0.0")).tables
    uses = [row.uses for row in table.rows]
    assert uses == sorted(uses, reverse=True)
    assert {row.operation: row.uses for row in table.rows if row.uses} == REGISTRY
    page = page_of(tmp_path, str(tmp_path / "a.jsonl"))
    assert '<th scope="row">Dense</th><td class="uses">37</td>' in page


def test_every_cell_leads_to_its_findings(tmp_path: Path) -> None:
    """Each importer has its table, and each finding that a cell names is in the page once."""
    paths = [
        write_generated(tmp_path / f"{name}.jsonl", "5.0.0", failing("gelu", s), importer=name)
        for name, s in (("tensorflow", "refused"), ("onnx", "wrong"))
    ]
    page = without_scripts(page_of(tmp_path, *map(str, paths)))
    assert re.findall(r"<h3>Importer (\w+)</h3>", page) == ["tensorflow", "onnx"]
    named = {one for ids in re.findall(r'data-findings="([^"]+)"', page) for one in ids.split()}
    anchors = Counter(re.findall(r'id="f-([^"]+)"', page))
    assert len(named) == 2
    assert anchors == dict.fromkeys(named, 1)
    key = next(k for k, one in RECIPES.items() if "gelu" in operations_in(one))
    assert f"pytest again single {key}" in page


def test_signs_have_words(tmp_path: Path) -> None:
    """Each cell has its sign and, for those who do not see it, a title in words."""
    path = write_generated(tmp_path / "a.jsonl", "5.0.0", failing("gelu", "refused"))
    page = without_scripts(page_of(tmp_path, str(path)))
    section = page.partition('<section id="operations"')[2].partition("</section>")[0]
    marks = re.findall(r'<td data-version[^>]*><(?:a|span) [^>]*title="([^"]*)"', section)
    assert len(marks) == section.count("<td data-version") > 80
    assert Counter(title.split(";")[0] for title in marks)["refused"] == 1


def test_known_defects_are_explained(tmp_path: Path) -> None:
    """A known defect's finding shows its name, reason and link; the headline counts it as known."""
    defects = tmp_path / "defects.toml"
    defects.write_text(DEFECT)
    path = write_generated(tmp_path / "a.jsonl", "5.0.0", failing("gelu", "refused"))
    page = page_of(tmp_path, str(path), "--known-defects", str(defects))
    assert "gelu-refused: no kernel of &lt;b&gt;Erf&lt;/b&gt;" in page
    assert '<a href="https://example.org/1">' in page
    right = sum("gelu" not in operations_in(one) for one in RECIPES.values())
    assert f"{right} of 150 runs right; findings: 1 of known defects, 0 new." in page
    assert "findings: 0 of known defects, 1 new" in page_of(tmp_path, str(path))


def test_a_reproducer_is_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finding that has a reproducer leads to it."""
    monkeypatch.setattr(
        report_generated,
        "find",
        lambda *given: [replace(one, reproducer="gelu.py") for one in find(*given)],
    )
    path = write_generated(tmp_path / "a.jsonl", "5.0.0", failing("gelu", "refused"))
    assert '<a href="gelu.py">' in page_of(tmp_path, str(path))


def test_reproducers_are_found_from_the_page(tmp_path: Path) -> None:
    """--reproducers leads from a finding to its folder, as seen from where the page lies."""
    path = write_generated(tmp_path / "a.jsonl", "5.0.0", failing("gelu", "refused"))
    (found,) = read(path).findings
    root = tmp_path / "reproducers"
    (root / "refused-gelu").mkdir(parents=True)
    one = Reduced([found.id], "same", "refused-gelu", ["5.0.0"], ["gelu"], ["Neg"], [None, 2], {})
    write_reduced(root, [one], [])
    none, page = tmp_path / "none.toml", tmp_path / "pages" / "report.html"
    none.write_text("schema = 1\n")
    asked = ["report", str(path), "--reproducers", str(root), "--known-defects", str(none)]
    assert main([*asked, "-o", str(page)]) == 0
    assert '<a href="../reproducers/refused-gelu">' in page.read_text(encoding="utf-8")


def test_whole_models_are_told_as_without(tmp_path: Path) -> None:
    """Results of generated models change nothing in the sections of whole ones beside them."""
    files = write_matrix(tmp_path / "r", ("4.7.0",), ("mobilenet", "vgg16"))
    write_generated(
        tmp_path / "r" / "generated" / "4.7.0-classic.jsonl", "4.7.0", failing("gelu", "wrong")
    )
    both = page_of(tmp_path, str(tmp_path / "r"))
    alone = page_of(tmp_path, *(str(path.rename(tmp_path / path.name)) for path in files))
    told = ("columns", "models", "cells", "texts", "layers", "rows")
    assert {n: data_of(both)[n] for n in told} == {n: data_of(alone)[n] for n in told}
    assert 'id="operations"' in both
    assert 'id="operations"' not in alone
    assert _section(both, "failures") == _section(alone, "failures")


def _section(page: str, name: str) -> str:
    found = without_scripts(page).partition(f'<section id="{name}"')[2].partition("</section>")[0]
    assert found
    return found


def test_one_file_may_hold_both(tmp_path: Path) -> None:
    """A file of a run of whole and generated models is divided into both."""
    path = write_generated(tmp_path / "a.jsonl", "5.0.0")
    mixed = read_results(path)
    mixed.cases.append({**mixed.cases[0], "stage": "agreement", "model": "vgg16"})
    whole, small = divided(mixed)
    assert whole is not None
    assert small is not None
    assert ([case["model"] for case in whole.cases], whole.generated) == (["vgg16"], [])
    assert {case["model"] for case in small.cases} == {"generated"}


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    """Of two files of one OpenCV the newer is used; one of other models is left out; both told."""
    times = ("2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00")
    old = write_generated(
        tmp_path / "old.jsonl", "5.0.0", failing("gelu", "wrong"), created=times[0]
    )
    new = write_generated(tmp_path / "new.jsonl", "5.0.0", created=times[1])
    other = write_generated(tmp_path / "other.jsonl", "4.9.0", seed=1, created=times[1])
    found = read(other, new, old)
    assert [one.path for one in found.files] == [new]
    assert sorted(note.split(" left out")[0] for note in found.notes) == [str(old), str(other)]
    assert found.findings == []


def test_a_defect_that_no_model_meets_is_noted(tmp_path: Path) -> None:
    """A run whose known defects were not met says so at the head of the report."""
    path = write_generated(tmp_path / "a.jsonl", "5.0.0")
    part = divided(read_results(path))[1]
    assert part is not None
    unmet = "test_generated.py::test_known_defects_are_met[classic]"
    part.cases.append({**part.cases[0], "id": unmet, "outcome": "failed", "reason": "no model"})
    found = build_generated([part], ())
    assert found is not None
    assert found.notes == ["OpenCV 5.0.0-classic: no model"]


def test_markdown_tells_operations(tmp_path: Path) -> None:
    """The CI summary has the headline, the operations that are not right, and the findings."""
    path = write_generated(tmp_path / "a.jsonl", "5.0.0", failing("gelu", "refused"))
    write_generated(tmp_path / "b.jsonl", "4.9.0")
    text = page_of(tmp_path, str(path), str(tmp_path / "b.jsonl"), "--format", "md")
    assert "Generated models: " in text
    assert "| gelu | 5 | ✓ | r |" in text
    assert "| Dense |" not in text
    assert "| refused | tensorflow | classic | single | gelu | 5.0.0 | 4.9.0 |" in text


def test_needs_neither_side(tmp_path: Path) -> None:
    """The report of generated models is made where TensorFlow and OpenCV are not installed."""
    path = write_generated(tmp_path / "a.jsonl", "5.0.0", failing("gelu", "refused"))
    code = (
        "import sys; sys.modules.update(tensorflow=None, cv2=None); "
        "from conformance.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "report", str(path), "--format", "md"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "| gelu | 5 | r |" in done.stdout


@pytest.mark.skipif(find_chromium() is None, reason="no chromium on the PATH")
def test_a_cell_opens_its_findings(tmp_path: Path) -> None:
    """A click on a cell shows its findings, and their link the place in the list, unfolded."""
    pytest.importorskip("playwright")
    path = write_generated(tmp_path / "a.jsonl", "5.0.0", failing("gelu", "refused"))
    page_of(tmp_path, str(path))
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.goto((tmp_path / "report.html").as_uri())
        page.locator("#operations a.mark.refused").click()
        page.locator("#cases").wait_for()
        assert page.locator("#cases h2").inner_text() == (
            "gelu on OpenCV 5.0.0 classic, importer tensorflow"
        )
        assert "keras.activations.gelu(x)" in page.locator("#cases dl").inner_text()
        assert page.evaluate("document.getElementById('cases').scrollWidth") <= 390
        page.locator("#cases-body a[href^='#f-']").click()
        page.locator("#cases").wait_for(state="hidden")
        page.locator("#operations .finding dl").wait_for(timeout=5000)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.check("#by-trouble")
        rows = page.locator("#operations .heat tbody tr:not([hidden])")
        assert rows.locator("th").all_inner_texts() == ["gelu"]
