"""Company: two sessions of two workers each, on one cold folder of packs and one of results."""

from __future__ import annotations

import sys
import time
from random import Random

from conformance.results.cases import read_results

from .attempt import SUITE, TRACE, Attempt, Done, Kind, Place, expect, read_text, waited
from .samples import sample

BUSY = "another run is writing this results file"
MODELS = ("flowers.onnx", "second.onnx")


def draw(random: Random, number: int) -> Attempt:
    """Return an attempt: the second session begins at a moment that is drawn."""
    late = random.uniform(0, 4)
    what = f"the second {late:.1f} s later"
    return Attempt("two sessions of two workers", what, lambda place: _attempt(place, late))


def _attempt(place: Place, late: float) -> str:
    home = sample(place, "company")
    files = [word for name in MODELS for word in ("--model", str(home / name))]
    out = ["--packs", str(place.folder / "packs"), "--results", str(place.folder / "results")]
    words = [sys.executable, "-m", "pytest", *SUITE, *files, *out, "-q", "-n", "2"]
    words += ["-m", "not generated", "--engine", "default", "-k", "test_import or test_top1"]
    logs = [place.folder / name for name in ("first", "second")]
    first = place.start(words, logs[0])
    time.sleep(late)
    second = place.start(words, logs[1])
    ended = [Done(waited(one, 240), read_text(log)) for one, log in zip((first, second), logs)]
    for done in ended:
        expect(done.status is not None, "it hangs", done)
        expect(not TRACE.search(done.text), "a traceback", done)
        expect(done.status == 0 or BUSY in done.text, "neither well nor told why", done)
    expect(any(done.status == 0 for done in ended), "neither ends well", ended[0])
    (file,) = (place.folder / "results").glob("*.jsonl")
    found = read_results(file)
    expect(set(found.header["packs"]) == set(MODELS), "packs missing in the header")
    bad = [case["id"] for case in found.cases if case["outcome"] in ("failed", "errored")]
    expect(not bad, f"failed: {', '.join(bad)}", ended[0])
    checked = place.conformance("pack", "verify", "--packs", str(place.folder / "packs"))
    expect(checked.status == 0, "a pack is damaged", checked)
    again = place.run(words)
    expect(again.status == 0, "the next run fails", again)
    return "both well" if all(done.status == 0 for done in ended) else "one told to wait"


KIND = Kind("company", full=20, short=(0,), draw=draw)
