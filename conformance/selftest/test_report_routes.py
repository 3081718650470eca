"""The report's section Routes: which route each cell names, and where the cell leads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conformance.cli.main import main
from conformance.report.matrix import build_matrix
from conformance.report.routes import share_of, tables_of
from conformance.results.cases import read_results
from conformance.verdict.expectations import NO_MODEL

from .browser import chromium, find_chromium
from .sample_generated import COUNT, RECIPES, failing, operations_in, write_generated
from .sample_results import case, run, write
from .test_report import data_of, page_of, without_scripts

BLOB = case(NO_MODEL, "test_uint8_blob", stage="preprocessing")


def lines(
    model: str, deviation: float, outcome: str = "passed", batch: str = "passed"
) -> list[Any]:
    """Return what a route leaves: a case of single images, one of a batch, a run."""
    more = {"reason": f"a <b>defect</b> of {model}"} if outcome != "passed" else {}
    together = case(model, "test_batch_equals_singles", batch, stage="batch")
    return [case(model, outcome=outcome, **more), together, run(model, deviation)]


@pytest.fixture
def results(tmp_path: Path) -> list[Path]:
    """Two versions and three importers, of which 4.9.0 lacks one.

    On 5.0.0 the new engine reads an ONNX file best, but none of its batches; nothing reads vgg16.
    """
    vgg = lines("vgg16", 1e-4, "xfailed")
    new = lines("resnet50", 1e-5, batch="failed")
    tflite = lines("resnet50", 2.0, "xfailed")
    written: list[tuple[str, str, str, list[Any]]] = [
        ("4.9.0", "tensorflow", "classic", [BLOB, *lines("resnet50", 3e-5), *lines("vgg16", 3e-5)]),
        ("4.9.0", "onnx", "classic", [*lines("resnet50", 4e-5), *vgg]),
        ("5.0.0", "tensorflow", "classic", [BLOB, *lines("resnet50", 3e-5), *vgg]),
        ("5.0.0", "tflite", "classic", [*tflite, *vgg]),
        ("5.0.0", "onnx", "new", [*new, *vgg]),
    ]
    return [
        write(
            tmp_path / f"{v}-{importer}-{engine}.jsonl",
            found,
            version=v,
            importer=importer,
            engine=engine,
        )
        for v, importer, engine, found in written
    ]


def test_a_cell_names_the_best_route(results: list[Path]) -> None:
    """A cell has the best route, with its engine if there are several, and how many others."""
    (table,) = tables_of(build_matrix(map(read_results, results), ["5.1.0"]))
    assert table.versions == ["4.9.0", "5.0.0", "5.1.0"]
    signs = {model: [cell.text for cell in cells] for model, cells in table.rows.items()}
    assert signs == {"vgg16": ["TF", "✗", "-"], "resnet50": ["TF +1", "ONNX new +1", "-"]}
    assert table.trouble == {"vgg16"}
    cell = table.rows["resnet50"][1]
    assert cell.words == (
        "2 of 3 routes conform, one image at a time; best: ONNX, new engine, "
        "1.0e-05 from float64, 10 ms"
    )
    assert [one.route.importer for one in cell.routes] == ["onnx", "tensorflow", "tflite"]


def test_one_route_needs_no_section(results: list[Path], tmp_path: Path) -> None:
    """Results of one route have no section; those of another machine have their own table."""
    alone = page_of(tmp_path, str(results[0]))
    assert '<section id="routes"' not in alone
    other = {"python": "3.11.7", "numpy": "2.0", "cpu": "NEON", "threads": 2}
    apart = write(tmp_path / "arm.jsonl", lines("vgg16", 1e-4), environment=other)
    tables = tables_of(build_matrix(map(read_results, (*results, apart))))
    assert [table.name for table in tables] == ["machine 1", "machine 2"]


def test_page_and_markdown_have_the_routes(
    results: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's cell leads to its routes, the Markdown marks what serves single images only."""
    page = page_of(tmp_path, *map(str, results))
    assert 'href="#r0.1/resnet50" title="2 of 3 routes conform' in without_scripts(page)
    (table,) = data_of(page)["routes"]
    assert [[row[5] for row in rows] for rows in table["rows"]["resnet50"]] == [[0, 2], [3, 1, 4]]
    assert main(["report", *map(str, results), "--format", "md"]) == 0
    text = capsys.readouterr().out
    assert "### Routes\n" in text
    assert "| resnet50 | TF +1 | ONNX new +1 (1) |" in text
    assert "| vgg16 | TF | **✗** |" in text


def test_generated_models_have_their_share(results: list[Path], tmp_path: Path) -> None:
    """Page and Markdown tell how many generated models are right by some route, and by each."""
    folder = tmp_path / "generated"
    small = [
        write_generated(folder / "a.jsonl", "5.0.0", failing("relu", "wrong")),
        write_generated(folder / "b.jsonl", "5.0.0", failing("gelu", "refused"), importer="onnx"),
    ]
    share = share_of([*map(read_results, small)])
    used = [operations_in(recipe) for recipe in RECIPES.values()]
    assert share.judged == {"5.0.0": COUNT}
    assert share.some == {"5.0.0": sum(not {"relu", "gelu"} <= one for one in used)}
    assert [route.importer for route in share.routes] == ["tensorflow", "onnx"]
    assert [*share.routes.values()] == [
        {"5.0.0": sum(name not in one for one in used)} for name in ("relu", "gelu")
    ]
    page = without_scripts(page_of(tmp_path, *map(str, results)))
    assert f"<b>{share.some['5.0.0']}</b>" in page


@pytest.mark.skipif(find_chromium() is None, reason="no chromium on the PATH")
def test_a_cell_leads_to_its_routes(results: list[Path], tmp_path: Path) -> None:
    """A click shows each route, the best first, with its figures; it leads on to the cases."""
    pytest.importorskip("playwright")
    page_of(tmp_path, *map(str, results))
    with chromium() as browser:
        page = browser.new_page()
        page.goto((tmp_path / "report.html").as_uri())
        page.locator("#routes a.mark").last.click()
        dialog = page.locator("#cases")
        dialog.wait_for()
        assert dialog.locator("h2").inner_text() == "resnet50 on OpenCV 5.0.0: routes"
        rows = [row.inner_text().split("\t") for row in dialog.locator("tbody tr").all()]
        best = ["ONNX, new engine", "✓", "conforms, one image at a time", "1.00e-5", "0.1", "10"]
        assert rows[0][:6] == best
        assert [row[0] for row in rows[1:]] == [
            "TensorFlow, classic engine",
            "TFLite, classic engine",
        ]
        assert "a <b>defect</b> of resnet50" in rows[2][6]
        dialog.locator("a").last.click()
        page.wait_for_function(
            "document.querySelector('#cases h2').textContent.includes('classic')"
        )
        assert dialog.locator("h2").inner_text().startswith("resnet50 on OpenCV 5.0.0 classic")
