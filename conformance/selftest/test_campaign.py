"""The campaign: its short form holds, each attempt can be made again, and it notices what fails."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

pytest.importorskip("tensorflow")

from .campaign import __main__ as campaign
from .campaign import damage
from .campaign.attempt import Attempt, Done, Failed, Kind, Place, drawn, made


def test_short_campaign_holds(tmp_path: Path) -> None:
    """A few attempts of every kind: all are made, and none of them breaks the suite."""
    file = tmp_path / "rows.json"
    words = ["--short", "--seed", "3", "--json", str(file)]
    command = [sys.executable, "-m", "conformance.selftest.campaign", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = json.loads(file.read_text(encoding="utf-8"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["kind"] for row in rows} == {kind.name for kind in campaign.KINDS}
    assert len(rows) == sum(len(kind.short) for kind in campaign.KINDS)


@pytest.mark.parametrize("kind", campaign.KINDS, ids=lambda kind: kind.name)
def test_attempt_depends_on_seed_and_number_only(kind: Kind) -> None:
    """An attempt drawn alone is that of the whole campaign; another seed draws others."""

    def words(seed: int) -> list[str]:
        found = [drawn(kind, seed, number) for number in range(8)]
        return [f"{attempt.target}: {attempt.what}" for attempt in found]

    assert drawn(kind, 1, 5).what == words(1)[5].split(": ")[-1] or kind.name == "lines"
    assert words(1) == words(1)
    if kind.name != "resources":  # of which the size is drawn
        assert words(1) != words(2)


def _kind(run: object) -> Kind:
    return Kind("trial", 1, (0,), lambda *_: Attempt("trial", "trial", run))  # type: ignore[arg-type]


def _orphan(place: Place) -> str:
    # That it speaks says that its variables, by which an attempt's processes are found, are there.
    code, log = "import time; print('here', flush=True); time.sleep(600)", place.folder / "log"
    place.start([sys.executable, "-c", code], log)
    while not log.read_text():
        time.sleep(0.02)
    return "well"


def _leftover(place: Place) -> str:
    (place.folder / "tmp" / "opencv-conformance-run-x").mkdir()
    return "well"


def _fault(place: Place) -> str:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (_orphan, "left behind: orphan "),
        (_leftover, "left behind: temporary opencv-conformance-run-x"),
        (_fault, "ZeroDivisionError"),
        (lambda place: "well", ""),
    ],
)
def test_what_is_left_behind_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: object, said: str
) -> None:
    """A process or a temporary folder that outlives its attempt, and an error, are failures."""
    monkeypatch.setattr("conformance.selftest.campaign.attempt.PATIENCE", 0.5)
    row = made(_kind(run), 0, 0, tmp_path)
    assert row.outcome == ("failed" if said else "held")
    assert said in row.words


@pytest.mark.parametrize(
    ("status", "text", "way", "said"),
    [
        (0, "fine", "flipped", "a verdict on a changed file that is sealed"),
        (2, "error: damaged", "flipped", "does not name"),
        (2, "error: pack.json\nerror: pack.json", "flipped", "not one error"),
    ],
)
def test_silent_pass_is_noticed(status: int, text: str, way: str, said: str) -> None:
    """A verdict on a damaged file, and an error that does not name it, are failures."""
    with pytest.raises(Failed, match=said):
        damage.judged(Done(status, text), damage.TARGETS[0], way, Path("pack.json"))


def test_fork_tells_its_end(tmp_path: Path) -> None:
    """A fork gives the status and all that it prints; one that hangs is ended."""
    place = Place(tmp_path / "place", tmp_path)

    def call() -> int:
        print("said")
        return Random(0).randrange(1) + 3

    done = place.forked(call)
    assert (done.status, done.text) == (3, "said\n")
    assert place.forked(lambda: __import__("time").sleep(600), 0.5).status is None


def test_only_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """--only with an unknown kind is an error that lists the kinds."""
    with pytest.raises(SystemExit):
        campaign.main(["--only", "magic/1"])
    assert "give one of damage, kills, lines" in capsys.readouterr().err
