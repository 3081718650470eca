"""The report command: what it reads, refuses and writes; in a browser: test_report_page."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Optional

import pytest

from conformance.bench.comparison import as_json
from conformance.cli.main import main
from conformance.fixtures import fixture_path
from conformance.models import MODELS
from conformance.report.content import Report
from conformance.report.matrix import build_matrix
from conformance.report.pictures import pictures
from conformance.results.cases import read_results
from conformance.results.quantities import QUANTITIES
from conformance.results.times import read_benchmarks
from conformance.verdict.expectations import NO_MODEL

from .sample_report import HOSTILE, bench_document, write_matrix
from .sample_results import case, run, write
from .sample_timings import LIMITS
from .sample_timings import comparison as comparison_of

FAILED = "mobilenet"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Results of two versions and both engines: mobilenet fails on 4.7.0, xception as expected."""
    folder = tmp_path_factory.mktemp("results")
    return [*map(str, write_matrix(folder, ("4.6.0", "4.7.0"), (FAILED, "vgg16", "xception")))]


def bench(folder: Path, name: str = "bench.json", **changes: Any) -> str:
    """Write a benchmark file and return its path."""
    path = folder / name
    path.write_text(json.dumps(bench_document(**changes)))
    return str(path)


def page_of(tmp_path: Path, *arguments: str) -> str:
    """Return the page that the command writes."""
    output = tmp_path / "report.html"
    assert main(["report", *arguments, "-o", str(output)]) == 0
    return output.read_text(encoding="utf-8")


def data_of(page: str) -> dict[str, Any]:
    """Return the data that the page's script reads; fail where a browser would: NaN, Infinity."""
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
    assert found
    data: dict[str, Any] = json.loads(found.group(1), parse_constant=pytest.fail)
    return data


def without_scripts(page: str) -> str:
    """Return what the page has without its scripts and their data."""
    return re.sub(r"<script.*?</script>", "", page, flags=re.S)


def test_layers_are_read_back(tmp_path: Path) -> None:
    """A line of layers comes back as written, with a missing layer and one that is not finite."""
    line: dict[str, Any] = {"kind": "layers", "model": "vgg16", "variant": ""}
    line |= {"nodes": ["a", "b"], "ops": ["A", "B"], "observed": ["nan", None]}
    line |= {"noise": [1e-7, 2e-7], "allowed": [1e-6, 2e-6]}
    assert read_results(write(tmp_path / "a.jsonl", [line])).layers == [line]


def test_page_holds_every_case(results: list[str], tmp_path: Path) -> None:
    """Each case of each results file is in the page's data, once."""
    cells = [cell for c in data_of(page_of(tmp_path, *results))["cells"] for cell in c.values()]
    written = sum(len(read_results(Path(path)).cases) for path in results)
    assert sum(len(cell["cases"]) for cell in cells) == written


def test_page_needs_no_network(results: list[str], tmp_path: Path) -> None:
    """No element of the page names another file or address."""
    page = without_scripts(page_of(tmp_path, *results))
    addresses = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert [a for a in addresses if not a.startswith(("#", "data:,"))] == []


def test_text_of_results_stays_text(results: list[str], tmp_path: Path) -> None:
    """Markup in a recorded reason becomes no markup of the page, and its text is kept."""
    page = page_of(tmp_path, *results)
    assert "<script>alert" not in page
    assert any(HOSTILE in text for text in data_of(page)["texts"])


def test_failure_shows_its_command(results: list[str], tmp_path: Path) -> None:
    """The failed case's command stands in the page and in the Markdown."""
    command = "conformance/suite/test_agreement.py::test_softmax[mobilenet-metric_0]"
    assert command in without_scripts(page_of(tmp_path, *results))
    output = tmp_path / "summary.md"
    assert main(["report", *results, "--format", "md", "-o", str(output)]) == 0
    assert command in output.read_text()


def test_markdown_tells_verdicts_and_changes(
    results: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The CI summary has the matrix with symbols and words, and at which version it changed."""
    assert main(["report", *results, "--format", "md", "--expect", "4.8.0"]) == 0
    text = capsys.readouterr().out
    row = "| mobilenet | ✓ | ✓ | **✗ failed** | **✗ failed** | - |"
    assert row in text
    assert "| xception | ✓ | x | ✓ | x | - |" in text
    assert "| mobilenet | classic | verdict | 4.6.0 | 4.7.0 | passed -> " in text


def test_pictures_have_the_tutorials_chart(results: list[str], tmp_path: Path) -> None:
    """--png writes PNG files, among them the time against iteration of each benchmarked model."""
    folder = tmp_path / "png"
    page_of(tmp_path, results[0], "--bench", bench(tmp_path), "--png", str(folder))
    pictures = {path.stem: path.read_bytes() for path in folder.iterdir()}
    assert all(content.startswith(PNG) for content in pictures.values())
    assert pictures.keys() >= {"verdicts", "deviation-vgg16", "inference-time"}
    assert pictures.keys() >= {"inference-time-mobilenet", "inference-time-resnet50"}


def test_pictures_of_times_name_the_machine(tmp_path: Path) -> None:
    """A picture of times, which may be shown alone, says on which CPU and how many threads."""
    timings = read_benchmarks([Path(bench(tmp_path))]).timings
    drawn = pictures(Report(build_matrix([]), timings, [], "", ""))
    titles = {name: str(spec["title"]) for name, spec in drawn}
    assert titles.keys() == {f"inference-time{m}" for m in ("", "-mobilenet", "-resnet50")}
    assert all("AMD EPYC 9R14, 2 threads, batch 1" in title for title in titles.values())


def test_benchmarks_keep_the_order_of_their_rounds(tmp_path: Path) -> None:
    """The page has each benchmark's rounds in milliseconds, in the order they were measured."""
    rows = data_of(page_of(tmp_path, "--bench", bench(tmp_path)))["rows"]["iterations"]
    written = bench_document()["benchmarks"]
    by_framework = {(row["model"], row["who"]): row["iterations"] for row in rows}
    assert len(by_framework) == len(written) == 6
    found = by_framework["mobilenet", "OpenCV 5.0.0 new"]
    assert found == pytest.approx([s * 1e3 for s in written[0]["stats"]["data"]], rel=1e-3)


def comparison(folder: Path, rounds: int = 6, cpu: str = "AMD EPYC 9R14") -> str:
    """Write a file as `bench --json` does, of `rounds` of 8, and return its path."""
    done = as_json(comparison_of([10.0] * rounds, [15.0] * rounds, planned=8), LIMITS)
    document = {"kind": "opencv-comparison", "schema": 2, "cpu": cpu, "batch": 1, "threads": [2]}
    document["comparisons"] = [done]
    path = folder / "wheels.json"
    path.write_text(json.dumps(document))
    return str(path)


@pytest.mark.parametrize(
    ("rounds", "told"), [(8, ("1.500 to 1.500", "8")), (3, ("too few rounds", "3, interrupted"))]
)
def test_comparisons_of_wheels_are_shown(
    tmp_path: Path, rounds: int, told: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What `bench --json` kept is in the page and the Markdown, labelled where interrupted."""
    path = comparison(tmp_path, rounds)
    page = page_of(tmp_path, "--bench", path)
    for cell in ("4.0.0 classic", "4.1.0 classic", "10.00 ms", "15.00 ms", *told):
        assert f">{cell}</td>" in page
    capsys.readouterr()
    assert main(["report", "--bench", path, "--format", "md"]) == 0
    ratio = "**1.500**" if rounds == 8 else "1.500"
    row = f"| warm inference | 4.0.0 classic | 4.1.0 classic | {ratio} | {told[0]} | {told[1]} |"
    assert row in capsys.readouterr().out


def test_comparisons_of_before_are_still_read(tmp_path: Path) -> None:
    """A file of the first schema, with warm medians of two wheels alone, is shown as it was."""
    sides = [{"version": v, "engine": "classic", "threads": 2} for v in ("4.0.0", "4.1.0")]
    timed = [{**side, "times_ms": [ms]} for side, ms in zip(sides, (10.0, 15.0))]
    one = {"model": "mobilenet", "complete": True, "ratio": 1.5, "interval": [1.4, 1.6]}
    document = {"kind": "opencv-comparison", "schema": 1, "cpu": "AMD EPYC 9R14", "batch": 1}
    path = tmp_path / "wheels.json"
    path.write_text(json.dumps({**document, "comparisons": [{**one, "rounds": [timed] * 6}]}))
    page = page_of(tmp_path, "--bench", str(path))
    for cell in ("warm inference", "4.1.0 classic", "15.00 ms", "1.400 to 1.600"):
        assert f">{cell}</td>" in page


def test_costs_across_versions_are_drawn(tmp_path: Path) -> None:
    """Of each cost the chart has every version's as so many times the first's, with its unit."""
    files = [
        bench(tmp_path, f"{version}.json", opencv=version, memory=mib)
        for version, mib in (("4.10.0", 90.0), ("4.9.0", 50.0))
    ]
    page = page_of(tmp_path, "--bench", *files)
    rows = [row for row in data_of(page)["rows"]["costs"] if row["model"] == "mobilenet"]
    assert len(rows) == 2 * len(QUANTITIES)
    memory = [row for row in rows if row["series"] == "memory"]
    assert [(r["version"], r["value"], r["unit"], r["times"]) for r in memory] == [
        ("4.9.0", 50.0, "MiB", 1.0),
        ("4.10.0", 90.0, "MiB", 1.8),
    ]
    assert ">50.0 -&gt; 90.0 MiB (x 1.80); AMD EPYC 9R14, 2 threads, batch 1</td>" in page


def test_comparison_of_another_machine_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--strict ends with 2 where wheels were compared on another CPU than the benchmarks'."""
    files = [bench(tmp_path), comparison(tmp_path, cpu="another")]
    assert main(["report", "-o", str(tmp_path / "r"), "--strict", "--bench", *files]) == 2
    assert "wheels.json: another, 2 threads, batch 1" in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"cpu": "another"}, {"threads": 1}])
def test_other_machines_times_are_apart_or_refused(
    tmp_path: Path, change: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Times of another CPU or thread count are a group of their own; --strict ends with 2."""
    files = [bench(tmp_path), bench(tmp_path, "other.json", **change)]
    groups = {
        row["group"] for row in data_of(page_of(tmp_path, "--bench", *files))["rows"]["medians"]
    }
    assert len(groups) == 2
    assert main(["report", "-o", str(tmp_path / "r"), "--strict", "--bench", *files]) == 2
    assert "other.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not JSON"),
        ("[]", "no pytest-benchmark file"),
        ('{"benchmarks": [{"name": "b", "stats": {"data": [1]}}]}', "no benchmark of the suite"),
        (json.dumps(bench_document()).replace('"data": [0', '"data": [NaN, 0'), "no seconds"),
        ('{"kind": "opencv-comparison", "comparisons": [{"rounds": [1]}]}', "bench --json"),
        ('{"kind": "opencv-comparison", "schema": 2, "comparisons": [{}]}', "bench --json"),
        ('{"kind": "opencv-comparison", "schema": 3}', "schema 3, but this version reads up to 2"),
        (None, "can't be read"),
    ],
)
def test_bad_benchmark_file_is_named(
    tmp_path: Path, content: Optional[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is no benchmark of the suite ends the command with 2, its name and why."""
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_text(content)
    assert main(["report", "--bench", str(path), "-o", str(tmp_path / "r.html")]) == 2
    error = capsys.readouterr().err
    assert "bad.json" in error
    assert told in error


def test_missing_extra_is_named(
    results: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without the packages of the extra the command says what to install and ends with 2."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(["report", *results, "-o", str(tmp_path / "r.html")]) == 2
    assert "pip install -e '.[report]' in a checkout" in capsys.readouterr().err


def test_nothing_to_report_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Without any file the command ends with 2 and says what to give."""
    assert main(["report"]) == 2
    assert "results/*.jsonl" in capsys.readouterr().err


def test_answers_that_are_not_finite_are_reported(tmp_path: Path) -> None:
    """A run that strayed infinitely far, and cases observed as nan, make a page all the same."""
    line = run("vgg16")
    line["deviation"] = dict.fromkeys(line["deviation"], "inf")
    failed = case("vgg16", outcome="failed", metric="m", observed="nan", allowed=1.0, reason="r")
    path = write(tmp_path / "a.jsonl", [failed, line])
    page = page_of(tmp_path, str(path))
    assert "nan of 1" in page
    (row,) = data_of(page)["rows"]["deviation"]
    assert row["deviation"] is None


def test_committed_baselines_make_a_page(tmp_path: Path) -> None:
    """The committed results make a page of 15 models, the blobs, and both of their columns."""
    page = page_of(tmp_path, str(fixture_path("baselines")))
    data = data_of(page)
    assert data["models"] == [*MODELS, NO_MODEL]
    assert [column["label"] for column in data["columns"]] == ["4.14.0 classic", "5.0.0 new"]
    assert len(page.encode()) < 5e6
