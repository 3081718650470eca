"""The results store: what is written is read back, and nothing else is accepted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conformance.errors import ConformanceError
from conformance.results.cases import read_results, writing

from .sample_results import case, header, run, write

LINES = [case("mobilenet"), run("mobilenet"), case("resnet50", outcome="failed", reason="far off")]


@pytest.fixture
def results_file(tmp_path: Path) -> Path:
    """A complete results file of three lines."""
    return write(tmp_path / "4.14.0-classic.jsonl", LINES)


def test_lines_are_read_back(results_file: Path) -> None:
    """Header, cases, runs and counts come back as they were written."""
    results = read_results(results_file)
    assert results.name == "4.14.0-classic"
    assert results.cases == [LINES[0], LINES[2]]
    assert results.runs == [LINES[1]]
    assert results.counts == {"passed": 1, "failed": 1}


def test_bad_line_is_refused_on_write(tmp_path: Path) -> None:
    """A line outside the schema is not written, and the file gets no footer."""
    path = tmp_path / "a.jsonl"
    with pytest.raises(ValueError, match="schema"), writing(path, header()) as writer:
        writer.write(case("mobilenet", outcome="fine"))
    with pytest.raises(ConformanceError, match="no footer"):
        read_results(path)


def test_missing_footer_is_refused(results_file: Path) -> None:
    """A file cut off after a whole line is an incomplete run, not evidence."""
    lines = results_file.read_bytes().splitlines(keepends=True)
    results_file.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(ConformanceError, match=r"4\.14\.0-classic\.jsonl: no footer"):
        read_results(results_file)


def test_nan_is_refused(results_file: Path) -> None:
    """A bare NaN, which Python reads but JSON does not have, is refused with its line."""
    lines = results_file.read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace('"median_ms": 10.0', '"median_ms": NaN')
    results_file.write_text("".join(lines))
    with pytest.raises(ConformanceError, match=r"jsonl:3: not JSON.*NaN"):
        read_results(results_file)


def test_truncated_line_is_named(results_file: Path) -> None:
    """A file cut off within a line is refused with the number of that line."""
    data = results_file.read_bytes()
    results_file.write_bytes(data[: data.index(b"far off")])
    with pytest.raises(ConformanceError, match=r"jsonl:4: not JSON"):
        read_results(results_file)


def test_edited_file_is_refused(results_file: Path) -> None:
    """A verdict changed by hand no longer fits the digest in the footer."""
    text = results_file.read_text()
    results_file.write_text(text.replace('"outcome": "failed"', '"outcome": "passed"'))
    with pytest.raises(ConformanceError, match="edited"):
        read_results(results_file)


def test_newer_schema_asks_for_an_upgrade(results_file: Path) -> None:
    """A file of a later schema is refused by saying which is read."""
    lines = results_file.read_text().splitlines()
    newer = {**json.loads(lines[0]), "schema": 2}
    results_file.write_text("\n".join([json.dumps(newer), *lines[1:]]))
    with pytest.raises(ConformanceError, match=r"schema 2.*upgrade"):
        read_results(results_file)


@pytest.mark.parametrize("content", [b"", b"not json\n", b"{}\n", b"[1]\n", b"\xff\xfe\n"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    """Whatever else a file holds, it is refused by name."""
    path = tmp_path / "other.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConformanceError, match=r"other\.jsonl:1: "):
        read_results(path)


def test_two_runs_cannot_write_one_file(tmp_path: Path) -> None:
    """The second writer is refused and the first one's file stays whole."""
    path = tmp_path / "a.jsonl"
    with writing(path, header()) as first:
        with pytest.raises(ConformanceError, match="another run"), writing(path, header()):
            pass
        first.write(case("mobilenet"))
    assert read_results(path).counts == {"passed": 1}
