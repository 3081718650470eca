"""The benchmark of the suite itself, at its smallest, and what it says of bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conformance.cli import ERROR, OK
from conformance.cli.main import main

from .benchmarks.__main__ import BENCHMARKS

PARTS = ["warm", "list"]


def test_costs_are_written_for_each_part(
    mobilenet_packs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each process of each part has its time, CPU-seconds and memory in the file."""
    written, packs = tmp_path / "costs.json", str(mobilenet_packs)
    options = ["--packs", packs, "--parts", ",".join(PARTS), "--rounds", "1", "-o", str(written)]
    assert main(["suite", "mobilenet", *options], files=BENCHMARKS) == OK
    document = json.loads(written.read_text(encoding="utf-8"))
    assert document["models"] == ["mobilenet"]
    assert document["versions"]["tensorflow"]
    assert len(document["sides"]) == 1
    measured = document["measured"]
    assert list(dict.fromkeys(figure["part"] for figure in measured)) == PARTS
    (warm,) = (figure for figure in measured if figure["part"] == "warm")
    # NumPy and OpenCV alone take so much, in two processes.
    assert warm["peak_bytes"] > 50 << 20
    assert all(figure["seconds"] > 0 and figure["user"] > 0 for figure in measured)
    assert "warm: judge" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mobilnet"], "unknown model 'mobilnet'"),
        (["--rounds", "0"], "--rounds 0: give 1 or more"),
        (["--against", "{tmp}"], "git worktree add"),
        (["--parts", "hot"], "--parts hot: 'hot' is none of cold, warm"),
        (["--parts", "cold", "--packs", "{tmp}"], "leave cold out of --parts"),
    ],
)
def test_bad_input_is_one_error(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown model or part, no rounds, no checkout and packs for cold are told by name."""
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    assert main(["suite", *given], files=BENCHMARKS) == ERROR
    assert says in capsys.readouterr().err
