"""The commands on results files: what they print and the status that a CI job sees."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path

import pytest

from conformance.cli.main import main
from conformance.cli.options import versions
from conformance.results.cases import read_results
from conformance.verdict.expectations import load_known_failures

from .sample_results import case, run, write

GOOD = [case("mobilenet"), run("mobilenet")]
BAD = [case("mobilenet", outcome="failed", reason="top1 is 0.3\nmore"), run("mobilenet")]


@pytest.fixture
def old(tmp_path: Path) -> str:
    """Results in which all passes, of 4.6.0."""
    return str(write(tmp_path / "old.jsonl", GOOD, version="4.6.0"))


@pytest.fixture
def new(tmp_path: Path) -> str:
    """Results in which a case fails, of 4.7.0."""
    return str(write(tmp_path / "new.jsonl", BAD, version="4.7.0"))


def test_status_tells_regression(old: str, new: str) -> None:
    """compare ends with 0 without and 1 with a regression; the way back is none."""
    assert main(["compare", old, old]) == 0
    assert main(["compare", old, new]) == 1
    assert main(["compare", new, old]) == 0


@pytest.mark.parametrize("content", ["", "not json\n"])
def test_status_tells_what_cannot_be_compared(
    old: str, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """compare ends with 2 and names the file when one is no evidence."""
    broken = tmp_path / "broken.jsonl"
    broken.write_text(content)
    assert main(["compare", old, str(broken)]) == 2
    assert "broken.jsonl" in capsys.readouterr().err


def test_markdown_is_a_table(old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--format md prints a heading and a table that a CI summary shows."""
    main(["compare", old, new, "--format", "md"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "### OpenCV 4.6.0-classic -> 4.7.0-classic: regression in 1 cases"
    assert "| newly failing | mobilenet |" in "\n".join(lines)


def test_json_is_json(old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--format json prints one document with the verdict and the changes."""
    main(["compare", old, new, "--format", "json"])
    document = json.loads(capsys.readouterr().out)
    assert document["regression"] is True
    assert document["changes"][0]["kind"] == "newly failing"


def test_baseline_is_written_and_used(old: str, new: str, tmp_path: Path) -> None:
    """--update writes the baseline that the next compare is held against."""
    baseline = tmp_path / "baselines" / "mine.jsonl"
    assert main(["compare", "--baseline", str(baseline), old, "--update"]) == 0
    assert read_results(baseline).cases == read_results(Path(old)).cases
    assert read_results(baseline).header == read_results(Path(old)).header
    assert main(["compare", "--baseline", str(baseline), new]) == 1


def test_compare_needs_two_files(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One file alone is refused with what to give."""
    assert main(["compare", old]) == 2
    assert "--baseline FILE" in capsys.readouterr().err


def test_history_names_what_was_not_run(
    old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An expected version without results is named and fails the command."""
    assert main(["history", old, new, "--expect", "4.6.0,4.7.0"]) == 0
    assert main(["history", old, new, "--expect", "4.5.1,4.7.0"]) == 1
    assert "not run: OpenCV 4.5.1" in capsys.readouterr().out


def test_history_is_strict_about_known_failures(
    old: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --strict an entry that no case of the matrix matches fails the command."""
    known = tmp_path / "known.toml"
    known.write_text(
        'schema = 1\n[[failure]]\nmodel = "mobilenet"\nstage = "batch"\nreason = "r"\n'
    )
    arguments = ["history", old, "--known-failures", str(known)]
    assert main(["history", old]) == 0
    assert main([*arguments, "--strict"]) == 1
    assert "known failure never seen" in capsys.readouterr().out


def test_ready_entry_expects_the_failure(
    new: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What known-failure prints loads as an entry for the failed case's model and reason."""
    assert main(["known-failure", new, "--link", "https://example.invalid/1"]) == 0
    known = tmp_path / "known.toml"
    known.write_text("schema = 1\n" + capsys.readouterr().out)
    (entry,) = load_known_failures(known)
    assert (entry.models, entry.reason) == (("mobilenet",), "top1 is 0.3")


def test_tox_expects_the_versions_it_runs(tmp_path: Path) -> None:
    """The report of tox's matrix expects exactly the versions that have an environment."""
    tox = Path(__file__).resolve().parent.parent.parent / "tox.ini"
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(tox)
    deps = parser["testenv"]["deps"]
    wheels = dict(re.findall(r"^cv(.+): opencv-python-headless==(.+)\.\d+$", deps, re.MULTILINE))
    assert versions(str(tox)) == list(wheels) == list(wheels.values())
    report = parser["testenv:matrix-report"]
    assert report["commands"].count("--expect {tox_root}/tox.ini") == 2
    assert report["depends"] == "cv*"
    (tmp_path / "other.ini").write_text("[testenv]\n")
    for bad in ("other.ini", "none.ini"):
        with pytest.raises(ValueError, match=r"no line such as|can't be read"):
            versions(str(tmp_path / bad))


def test_baseline_is_replaced_whole_or_not_at_all(
    new: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--update writes over no other file than a baseline, and takes no --format."""
    other = tmp_path / "bench.json"
    other.write_text("{}")
    assert main(["compare", "--update", "--baseline", str(other), new]) == 2
    assert other.read_text() == "{}"
    assert "bench.json" in capsys.readouterr().err
    words = ["compare", "--update", "--baseline", str(tmp_path / "b.jsonl"), new]
    assert main([*words, "--format", "md"]) == 2
    assert main(words) == main(words) == 0
    assert not list(tmp_path.glob(".*.jsonl"))
