"""The evaluation on a real local Dask cluster."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from conformance.errors import ConformanceError
from conformance.imagenet import runner
from conformance.imagenet.evaluation import Evaluation, Plan, Tally, evaluate
from conformance.imagenet.runner import on_dask
from conformance.processes.server import OPENCV

from .imagenet_sample import numbers

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A scheduler with two workers, each a process."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as found:
        yield found


def test_cluster_gives_the_same_bits(
    cluster: Any, plan: Plan, whole: Evaluation, tmp_path: Path
) -> None:
    """On a cluster that is there already the numbers are those of the run in one process."""
    found = evaluate(plan, tmp_path, on_dask(cluster.scheduler_address))
    assert numbers(found) == numbers(whole)


def test_lost_worker_costs_only_its_shard(
    cluster: Any, plan: Plan, whole: Evaluation, tmp_path: Path
) -> None:
    """A worker killed after the first shard changes no number."""
    killed: list[int] = []

    def kill(tally: Tally) -> None:
        if tally.done and not killed:
            killed.append(cluster.workers[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    found = evaluate(plan, tmp_path, on_dask(cluster.scheduler_address), report=kill)
    assert killed
    assert numbers(found) == numbers(whole)


def test_worker_with_another_opencv_is_refused(cluster: Any, plan: Plan, tmp_path: Path) -> None:
    """A worker whose OpenCV is not the one evaluated ends the run, instead of answering for it."""
    other = replace(plan, job=replace(plan.job, opencv="4.0.0"))
    told = rf"has OpenCV {plan.opencv}, and 4\.0\.0 is to be evaluated: install the same"
    with pytest.raises(ConformanceError, match=told):
        evaluate(other, tmp_path, on_dask(cluster.scheduler_address))


def test_local_workers(plan: Plan, whole: Evaluation, tmp_path: Path) -> None:
    """--workers starts workers in this process, which share its TensorFlow, and ends theirs."""
    before, seen = psutil.Process().children(recursive=True), set()

    def look(tally: Tally) -> None:
        for child in psutil.Process().children(recursive=True):
            if tally.done and child not in before:
                seen.add(" ".join(child.cmdline()[1:3]))

    assert numbers(evaluate(plan, tmp_path, on_dask(workers=2), report=look)) == numbers(whole)
    # TensorFlow's answers are in the cache.
    assert seen == {f"-m {OPENCV}"}
    assert psutil.Process().children(recursive=True) == before


def shard_of_a_second(job: Any, index: int, entries: Any) -> int:
    """Stand for run_shard where nothing is to be computed."""
    time.sleep(1)
    return index


def test_lost_scheduler_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler that goes away in the middle is an error that says how to go on."""
    monkeypatch.setattr(runner, "run_shard", shard_of_a_second)
    monkeypatch.setattr(runner, "_CONNECT_SECONDS", 1)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as short_lived:
        job: Any = None
        left: Any = [(index, ()) for index in range(5)]
        dask = on_dask(short_lived.scheduler_address)
        results: Generator[Any, None, None] = dask(job, left)
        assert next(results) == 0
        short_lived.close()
        with pytest.raises(ConformanceError, match=r"scheduler is gone .*--resume"):
            list(results)


def test_no_scheduler_is_a_line(plan: Plan, tmp_path: Path) -> None:
    """An address where nobody answers is an error that says how to start a scheduler."""
    with pytest.raises(ConformanceError, match="no Dask scheduler answers there"):
        evaluate(plan, tmp_path, on_dask("nowhere"))
