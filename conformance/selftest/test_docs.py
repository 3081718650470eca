"""The how-tos: each command in docs/ is run, in order, as a reader in a checkout runs it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Optional

import pytest
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

from conformance.cli.main import make_parser

CHECKOUT = Path(__file__).parents[2]
DOCS = sorted((CHECKOUT / "docs").glob("*.md"))
# What a reader's commands find in the folder they are given in.
LINKED = ("conformance", "fixtures", "conftest.py", "pytest.ini")
# A block's language, and what runs it; -e: no command of a block may fail unnoticed.
RUN = {"sh": ("sh", "-ec"), "python": (sys.executable, "-c")}
# A block that is shown only: commands that need a network, data or much time.
SHOWN = "console"
# A drawing: nothing to run.
DRAWN = "mermaid"
WHY = re.compile(r"<!-- not run: .+ -->")
FENCE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})[ \t]*(\S*)", re.MULTILINE)
SECONDS = 300
# A place in this package's code, as a traceback names it.
TRACEBACK = re.compile(r'^ +File ".*/conformance/.*", line \d+', re.MULTILINE)


@pytest.fixture
def reader(tmp_path: Path, mobilenet_packs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like a checkout to run a document's commands in, with this Python's on the PATH."""
    for name in LINKED:
        (tmp_path / name).symlink_to(CHECKOUT / name)
    (tmp_path / "packs").symlink_to(mobilenet_packs)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONFORMANCE_PACKS", str(mobilenet_packs))
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    return tmp_path


def run_block(example: Example) -> Optional[str]:
    """Run a block in the current folder; return what it said if it failed.

    A traceback of this package is a failure even where status 1 is to be expected, as Python ends
    with that. A reproducer's, of OpenCV's error, is what it is there for.
    """
    language, source = example.region.lexemes["arguments"], str(example.parsed)
    done = subprocess.run(
        [*RUN[language], source],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    failed = done.returncode or TRACEBACK.search(done.stdout)
    return f"{source}\nstatus {done.returncode}:\n{done.stdout}" if failed else None


def parse(path: Path) -> Document:
    """Return a document's blocks that are to be run."""
    parsers = [CodeBlockParser(language, run_block) for language in RUN]
    return Sybil(parsers=parsers, path=str(path.parent)).parse(path)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)
def test_commands_run(path: Path, reader: Path) -> None:
    """Every sh and python block of a how-to ends with status 0, one after the other."""
    for example in parse(path).examples():
        example.evaluate()


def test_a_traceback_of_the_package_is_noticed(tmp_path: Path) -> None:
    """A command that breaks inside this package fails the test, whatever status it hides behind."""
    path = tmp_path / "broken.md"
    code = "from conformance.models import get_model; get_model([])"
    path.write_text(
        f"```sh\n{sys.executable} -c '{code}' || test $? -eq 1\n```\n", encoding="utf-8"
    )
    (example,) = parse(path).examples()
    with pytest.raises(AssertionError, match="Traceback"):
        example.evaluate()


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)
def test_no_block_is_left_out_silently(path: Path) -> None:
    """Each fenced block is either run, or shown only and says in the source why it is not run."""
    text = path.read_text(encoding="utf-8")
    fences = list(FENCE.finditer(text))
    opened, closed = fences[::2], fences[1::2]
    assert len(opened) == len(closed)
    languages = [fence[1] for fence in opened]
    assert set(languages) <= {*RUN, SHOWN, DRAWN}, f"{path.name}: a block in an unknown language"
    ran = [str(example.region.lexemes["arguments"]) for example in parse(path).examples()]
    assert ran == [language for language in languages if language in RUN]
    for fence in opened:
        if fence[1] == SHOWN:
            before = text[: fence.start()].rstrip().splitlines()
            line = text.count("\n", 0, fence.start()) + 1
            assert WHY.fullmatch("".join(before[-1:])), f"{path.name}:{line}: not run, but why?"


def test_a_failing_command_is_noticed(tmp_path: Path) -> None:
    """A command that fails in the middle of a block fails the test, which shows its output."""
    path = tmp_path / "broken.md"
    path.write_text("```sh\necho before\nfalse\necho after\n```\n", encoding="utf-8")
    (example,) = parse(path).examples()
    with pytest.raises(AssertionError, match=r"status 1:\nbefore\n") as failure:
        example.evaluate()
    assert "\nafter" not in str(failure.value).split("status 1:")[1]


def readme_commands() -> list[list[str]]:
    """Return the arguments of each command of this package in the README, unless abbreviated."""
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"(?:^    |`|time )python -m conformance (\w[^`\n]*)", text, re.MULTILINE)
    whole = [command for command in found if "..." not in command and "…" not in command]
    return [shlex.split(command, comments=True) for command in whole]


@pytest.mark.parametrize("given", readme_commands(), ids=" ".join)
def test_readme_names_what_there_is(given: list[str]) -> None:
    """The README's commands, which may take hours, have names and options that there are."""
    make_parser().parse_args(given)
