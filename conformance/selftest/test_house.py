"""The house: import-linter's contracts notice an import that runs the wrong way."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter", reason="no import-linter: pip install -e '.[dev]'")

CHECKOUT = Path(__file__).parents[2]
LINT = (sys.executable, "-c", "from importlinter.cli import lint_imports_command as m; m()")
FLAT = 8


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its contracts."""
    root = tmp_path_factory.mktemp("house")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "conformance", root / "conformance", ignore=ignored)
    shutil.copy(CHECKOUT / "pyproject.toml", root)
    return root


def lint(house: Path) -> tuple[int, list[str]]:
    """Return import-linter's status and the contracts that it finds broken."""
    # The lint of a copy, which lies first on the path: not of the package in this environment.
    done = subprocess.run(LINT, cwd=house, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, re.findall(r"^(.+) BROKEN", done.stdout, re.MULTILINE)


def test_the_house_is_in_order(house: Path) -> None:
    """The package as it is keeps every contract."""
    assert lint(house) == (0, [])


@pytest.mark.parametrize(
    ("room", "line", "contract"),
    [
        ("opencv/net.py", "import tensorflow", "OpenCV's side knows no reference"),
        (
            "opencv/net.py",
            "import conformance.reference.freeze",
            "OpenCV's side knows no reference",
        ),
        ("reference/freeze.py", "import cv2", "The reference knows no OpenCV"),
        ("reference/freeze.py", "import conformance.opencv.net", "The reference knows no OpenCV"),
        ("verdict/judge.py", "import conformance.report.html", "A verdict takes arrays"),
        ("models.py", "import tensorflow", "The reference alone imports TensorFlow"),
        ("results/cases.py", "import cv2", "OpenCV's side alone imports cv2"),
        (
            "predict/command.py",
            "import conformance.reference",
            "Only named doors lead to the reference",
        ),
        ("pack/format.py", "import conformance.session", "Imports run down only"),
        ("pack/format.py", "import conformance.pack.store", "No circles"),
        ("attic.py", "import os", "Imports run down only"),
    ],
)
def test_an_import_the_wrong_way_fails(house: Path, room: str, line: str, contract: str) -> None:
    """An import that a contract forbids, or a room without a floor, fails with its name."""
    path = house / "conformance" / room
    before = path.read_text(encoding="utf-8") if path.exists() else None
    # Within a function, as the package imports what is slow.
    path.write_text(f"{before or ''}\n\ndef wrong() -> None:\n    {line}\n", encoding="utf-8")
    try:
        status, broken = lint(house)
    finally:
        path.unlink() if before is None else path.write_text(before, encoding="utf-8")
    assert status == 1
    assert contract in broken


def test_few_modules_are_flat() -> None:
    """At most eight modules lie flat beside the package's two ends: the others have a room."""
    flat = {path.stem for path in (CHECKOUT / "conformance").glob("*.py")}
    assert len(flat - {"__init__", "__main__"}) <= FLAT
