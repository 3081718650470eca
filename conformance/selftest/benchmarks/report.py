"""report: what a report of 13 OpenCV versions and 15 models takes

It writes such results, of 2 engines and with layer profiles, runs the command on them in a process
of its own, opens the page in Chromium where there is one, and prints the figures.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from conformance.cli import OK
from conformance.selftest.browser import find_chromium, open_page
from conformance.selftest.sample_report import write_matrix

ROUNDS = 3


def cost(command: list[str]) -> tuple[float, float]:
    """Return seconds and peak MiB (resident) of one process; raise RuntimeError if it fails."""
    begin = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with status {status}")
    return time.perf_counter() - begin, usage.ru_maxrss / 1024


def first_paint(page: Path) -> float:
    """Return the seconds from navigation to the first contentful paint in headless Chromium."""
    with open_page(page) as opened:
        opened.wait_for_selector("body[data-drawn]", timeout=60_000)
        milliseconds = opened.evaluate(
            "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        )
    return float(milliseconds) / 1e3


def add_arguments(_: argparse.ArgumentParser) -> None:
    """Add nothing."""


def main(_: argparse.Namespace) -> int:
    """Print time, memory, size and first paint: medians of ROUNDS."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_matrix(Path(folder, "results"))
        lines = sum(path.read_bytes().count(b"\n") for path in files)
        page = Path(folder, "report.html")
        command = [sys.executable, "-m", "conformance", "report", *map(str, files)]
        costs = [cost([*command, "-o", str(page)]) for _ in range(ROUNDS)]
        seconds, mib = (statistics.median(column) for column in zip(*costs))
        megabytes = sum(path.stat().st_size for path in files) / 1e6
        print(f"{len(files)} files, {lines} lines, {megabytes:.1f} MB")
        print(f"built in        {seconds:6.2f} s    (must be under 5)")
        print(f"peak memory     {mib:6.0f} MiB  (must be under 300)")
        print(f"page            {page.stat().st_size / 1e6:6.2f} MB   (must be under 5)")
        if find_chromium() is None:
            print("first paint     not measured: no chromium on the PATH")
            return OK
        paint = statistics.median(first_paint(page) for _ in range(ROUNDS))
        print(f"first paint     {paint:6.2f} s    (must be under 1)")
    return OK
