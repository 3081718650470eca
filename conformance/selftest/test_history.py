"""The history of a matrix: at which version did something change?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conformance.cli.main import main
from conformance.results.cases import Results, read_results
from conformance.results.history import cost_history, history, unmatched
from conformance.results.times import read_benchmarks, recorded_costs
from conformance.verdict.expectations import load_known_failures

from .sample_report import bench_document
from .sample_results import case, run, write


def matrix(tmp_path: Path, *versions: tuple[str, list[dict[str, Any]]]) -> list[Results]:
    """Return results of the classic engine for (version, lines) pairs."""
    files = [write(tmp_path / v, lines, version=v) for v, lines in versions]
    return [read_results(file) for file in files]


def test_deviation_step_is_found(tmp_path: Path) -> None:
    """The version at which the deviation doubles is named, whatever the order of the files."""
    files = matrix(
        tmp_path,
        ("4.10.0", [case("resnet50"), run("resnet50", 1.1e-3)]),
        ("4.6.0", [case("resnet50"), run("resnet50", 3e-4)]),
        ("4.7.0", [case("resnet50"), run("resnet50", 1e-3)]),
    )
    steps = history(files)
    assert [(s.kind, s.before, s.version) for s in steps] == [("deviation", "4.6.0", "4.7.0")]
    assert "3.0e-04 -> 1.0e-03 (x 3.3)" in steps[0].detail


def test_verdict_step_names_the_case(tmp_path: Path) -> None:
    """The version at which a case begins to fail is named, with the case."""
    files = matrix(
        tmp_path,
        ("4.6.0", [case("resnet50")]),
        ("4.7.0", [case("resnet50", outcome="failed")]),
    )
    steps = history(files)
    assert [(s.kind, s.version) for s in steps] == [("verdict", "4.7.0")]
    assert steps[0].detail == "passed -> test_top1 failed"


def test_other_parameters_of_a_test_are_another_verdict(tmp_path: Path) -> None:
    """Where the same function fails with another parameter, both cases are named in full."""
    files = matrix(
        tmp_path,
        (
            "4.6.0",
            [
                case(
                    "resnet50", outcome="failed", id="test_agreement.py::test_softmax[resnet50-l1]"
                ),
                case("resnet50"),
            ],
        ),
        (
            "4.7.0",
            [
                case(
                    "resnet50",
                    outcome="failed",
                    id="test_agreement.py::test_softmax[resnet50-linf]",
                ),
                case("resnet50"),
            ],
        ),
    )
    detail = "test_softmax[resnet50-l1] failed -> test_softmax[resnet50-linf] failed"
    assert [s.detail for s in history(files)] == [detail]


def test_first_change_of_bits_is_told_with_the_later_ones(tmp_path: Path) -> None:
    """One line tells the first version with other bits and lists those that change them again."""
    bits = (("4.6.0", "a"), ("4.7.0", "b"), ("4.8.1", "b"), ("4.9.0", "c"))
    files = matrix(tmp_path, *((v, [case("resnet50"), run("resnet50", bits=b)]) for v, b in bits))
    assert [(s.kind, s.version, s.detail) for s in history(files)] == [
        ("bits", "4.7.0", "other bits; again at 4.9.0")
    ]


def test_engines_are_kept_apart(tmp_path: Path) -> None:
    """The new engine of 5.0 is no successor of the classic one of 4.14."""
    old = read_results(write(tmp_path / "a", [case("resnet50"), run("resnet50", 1e-3)]))
    lines = [case("resnet50"), run("resnet50", 1e-4)]
    new = read_results(write(tmp_path / "b", lines, version="5.0.0", engine="new"))
    assert history([old, new]) == []


def test_unmatched_known_failure_is_found(tmp_path: Path) -> None:
    """An entry that expects no case to fail is named; not a used one, nor one of other models."""
    toml = tmp_path / "known.toml"
    entry = '[[failure]]\nmodel = "{}"\nopencv = "{}"\nstage = "parse"\nreason = "r"\n'
    models = (("resnet50", "<4.7"), ("resnet50", ">=5"), ("vgg16", ">=5"))
    toml.write_text("schema = 1\n" + "".join(entry.format(*one) for one in models))
    files = matrix(tmp_path, ("4.6.0", [case("resnet50", "test_parse", "xfailed")]))
    entries = load_known_failures(toml)
    assert unmatched(entries, files) == [entries[1]]


def test_entry_of_another_graph_is_left_out(tmp_path: Path) -> None:
    """A known failure of the raw graph says nothing about a matrix of the other one."""
    toml = tmp_path / "known.toml"
    entry = 'schema = 1\n[[failure]]\nmodel = "resnet50"\ngraph = "{}"\nstage = "logits"\n'
    entry += 'reason = "r"\n'
    files = matrix(tmp_path, ("4.6.0", [case("resnet50")]))
    toml.write_text(entry.format("raw"))
    assert unmatched(load_known_failures(toml), files) == []
    toml.write_text(entry.format("opencv"))
    assert len(unmatched(load_known_failures(toml), files)) == 1


def recorded(folder: Path, **memory: float) -> None:
    """Write the benchmark files of versions ("v4_6_0"), each with what mobilenet needs there."""
    for name, mib in memory.items():
        version = name[1:].replace("_", ".")
        document = bench_document(opencv=version, memory=mib)
        (folder / f"bench-{version}.json").write_text(json.dumps(document))


def test_version_that_needs_more_memory_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The version of recorded costs at which memory rose is named, with figures and machine."""
    recorded(tmp_path, v4_10_0=180.0, v4_6_0=100.0, v4_7_0=180.0)
    assert main(["history", str(tmp_path), "--format", "json"]) == 0
    steps = json.loads(capsys.readouterr().out)
    assert [(s["model"], s["kind"], s["before"], s["version"]) for s in steps] == [
        ("resnet50", "memory", "4.6.0", "4.7.0"),
        ("mobilenet", "memory", "4.6.0", "4.7.0"),
    ]
    detail = "100.0 -> 180.0 MiB (x 1.80); AMD EPYC 9R14, 2 threads, batch 1"
    assert steps[1]["detail"] == detail


def test_memory_within_its_limit_is_no_step(tmp_path: Path) -> None:
    """A cost that changed by less than its limit is not told."""
    recorded(tmp_path, v4_6_0=100.0, v4_7_0=115.0)
    found = read_benchmarks(sorted(tmp_path.glob("*.json")))
    assert cost_history(recorded_costs(found.timings), found.comparisons) == []


@pytest.mark.parametrize("change", [{"cpu": "another"}, {"threads": 1}])
def test_costs_of_other_machines_are_kept_apart(tmp_path: Path, change: dict[str, Any]) -> None:
    """Memory on another machine, or number of threads, is no step from that of a version before."""
    recorded(tmp_path, v4_6_0=100.0)
    document = bench_document(opencv="4.7.0", memory=180.0, **change)
    (tmp_path / "bench-4.7.0.json").write_text(json.dumps(document))
    found = read_benchmarks(sorted(tmp_path.glob("*.json")))
    assert cost_history(recorded_costs(found.timings), found.comparisons) == []


def test_costs_are_told_beside_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder's results and benchmarks make one history; a benchmark file may be named, too."""
    for version, outcome in (("4.6.0", "passed"), ("4.7.0", "failed")):
        write(tmp_path / f"{version}.jsonl", [case("resnet50", outcome=outcome)], version=version)
    recorded(tmp_path, v4_6_0=100.0, v4_7_0=180.0)
    results = sorted(map(str, tmp_path.glob("*.jsonl")))
    benchmarks = sorted(map(str, tmp_path.glob("*.json")))
    for given in ([str(tmp_path)], results + benchmarks):
        assert main(["history", *given, "--format", "json"]) == 0
        kinds = [(s["model"], s["kind"]) for s in json.loads(capsys.readouterr().out)]
        assert kinds == [("resnet50", "verdict"), ("resnet50", "memory"), ("mobilenet", "memory")]
