"""pairing: how tightly two processes of one OpenCV agree: in turn, in blocks, and at once

In turn: one whole process after the other, as bench has it. Blocks: both are alive, and take turns
of a few inferences. Duet: both at once, each on a core of its own. ``python -m
conformance.selftest.benchmarks.pairing REQUEST`` is the process that is asked.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median, stdev
from typing import Any

import numpy as np

from conformance.candidate import RunConfig
from conformance.cli import OK
from conformance.cli.options import add_option, add_options, count
from conformance.cli.printing import print_table
from conformance.errors import ConformanceError
from conformance.models import get_model
from conformance.opencv.capability import engines, load_cv2
from conformance.opencv.timing import load_inference
from conformance.pack.request import PackRequest
from conformance.pack.store import find_pack
from conformance.processes.inference import repeated, warm_up
from conformance.processes.machine import cores
from conformance.processes.serve import Answer, Request, serve
from conformance.processes.server import Server

# Seconds of warm inferences: of each process, and of one turn of it in blocks.
SECONDS, BLOCK = 0.4, 0.1
_TIMEOUT = 600.0
Side = Callable[[float], list[float]]


def prepare(request: Request) -> Answer:
    """Load the model of the request; then each request's inferences take request["seconds"]."""
    if request["core"] is not None:
        os.sched_setaffinity(0, {request["core"]})
    config = RunConfig(engine=engines(load_cv2())[-1], threads=request["threads"])
    images = repeated(np.load(request["inputs"], allow_pickle=False), 1)
    _, infer = load_inference(Path(request["graph"]), images, config)
    warm_up(infer)

    def answer(asked: Request) -> dict[str, Any]:
        infer()  # whoever was at work before has filled the caches
        times: list[float] = []
        end = time.perf_counter() + asked["seconds"]
        while not times or time.perf_counter() < end:
            begin = time.perf_counter()
            infer()
            times.append(time.perf_counter() - begin)
        return {"times": times}

    return answer


def in_turn(begin: Callable[..., Server], threads: int, first: int) -> list[list[float]]:
    """Return the times of two processes that run one after the other."""
    times: dict[int, list[float]] = {}
    for place in (first, 1 - first):
        with closing(begin(threads)) as server:
            times[place] = _ask(server, SECONDS)
    return [times[0], times[1]]


def in_blocks(begin: Callable[..., Server], threads: int, first: int) -> list[list[float]]:
    """Return the times of two processes that take turns, A B B A A B B A."""
    times: list[list[float]] = [[], []]
    with ExitStack() as stack:
        servers = [stack.enter_context(closing(begin(threads))) for _ in times]
        for turn in range(round(SECONDS / BLOCK)):
            order = (0, 1) if (turn + first) % 2 == 0 else (1, 0)
            for place in order:
                times[place] += _ask(servers[place], BLOCK)
    return times


def duet(begin: Callable[..., Server], threads: int, first: int) -> list[list[float]]:
    """Return the times of two processes at once, on a core each: with one thread."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(closing(begin(threads, core=core))) for core in (first, 1 - first)
        ]
        pool = stack.enter_context(ThreadPoolExecutor(2))
        return list(pool.map(lambda server: _ask(server, SECONDS), servers))


def _ask(server: Server, seconds: float) -> list[float]:
    times: list[float] = server.ask({"seconds": seconds})["times"]
    return times


WAYS = {"in turn": in_turn, "blocks": in_blocks, "duet": duet}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `pairing` takes."""
    add_options(parser.add_argument, "models", "--packs")
    add_option(parser.add_argument, "--pairs", type=count, default=20, metavar="N")


def main(arguments: argparse.Namespace) -> int:
    """Print of each way of pairing how far the ratios of the two medians spread."""
    if not hasattr(os, "sched_setaffinity") or cores() < 2:
        raise ConformanceError("pairing: it takes Linux, and two cores for a duet")
    for model in arguments.models or ["mobilenet"]:
        pack = find_pack(arguments.packs, PackRequest(get_model(model).name))
        if pack is None:
            raise ConformanceError(f"no pack of {model} in {arguments.packs}: see pack build")
        rows = list(_rows(pack.path, arguments.pairs))
        heads = ("pairs", ">threads", ">spread, %", ">without outliers, %", ">median", ">s a pair")
        print_table(f"{model}: ratio of two processes of the same OpenCV", heads, rows)
    return OK


def _rows(pack: Path, pairs: int) -> Iterator[tuple[str, ...]]:
    def begin(threads: int, core: Any = None) -> Server:
        files = {"graph": str(pack / "frozen_graph.pb"), "inputs": str(pack / "inputs.npy")}
        return Server(__spec__.name, {**files, "threads": threads, "core": core}, _TIMEOUT)

    # All ways in turn: the machine's mood meets each.
    ratios: dict[tuple[str, int], list[float]] = {}
    took: dict[tuple[str, int], list[float]] = {}
    for number in range(pairs):
        for way, run in WAYS.items():
            for threads in (1,) if run is duet else sorted({1, cores()}):
                start = time.perf_counter()
                a, b = run(begin, threads, number % 2)
                took.setdefault((way, threads), []).append(time.perf_counter() - start)
                ratios.setdefault((way, threads), []).append(math.log(median(b) / median(a)))
    for (way, threads), logs in ratios.items():
        middle = median(logs)
        # Of normal ratios the deviation, deaf to a few spoilt ones.
        robust = 1.4826 * median(abs(log - middle) for log in logs)
        figures = [f"{100 * stdev(logs):.2f}", f"{100 * robust:.2f}", f"{math.exp(middle):.4f}"]
        yield (way, str(threads), *figures, f"{median(took[way, threads]):.2f}")


if __name__ == "__main__":
    serve(prepare)
