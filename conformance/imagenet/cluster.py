"""Shards on Dask: workers of this machine, or a cluster that is there already.

A lost worker costs the shards it had: Dask gives them to another one.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Optional

from conformance.errors import ConformanceError, install
from conformance.processes.server import close_servers

from .evaluation import Runner, Shard
from .shards import Job, ShardResult, run_shard

_CONNECT_SECONDS = 10


def distributed() -> Any:
    """Return the module; raise ConformanceError saying what to install where it is missing."""
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise ConformanceError(
            f"--scheduler and --workers need Dask ({error}): {install('cluster')}"
        ) from None


def on_dask(scheduler: Optional[str] = None, workers: int = 0) -> Runner:
    """Return what runs shards on the cluster at `scheduler` (tcp://…), or on local workers."""
    dask = distributed()

    def run(job: Job, shards: Sequence[Shard]) -> Generator[ShardResult, None, None]:
        if not shards:
            return
        with _client(dask, scheduler, workers) as client:
            try:
                yield from _fed(dask, client, job, shards)
            finally:
                client.run(close_servers)

    return run


def _fed(
    dask: Any, client: Any, job: Job, shards: Sequence[Shard]
) -> Generator[ShardResult, None, None]:
    """Give each thread of the workers one shard at a time.

    Dask itself would let a shard wait behind another one while a worker has nothing to do.
    """
    waiting = list(reversed(shards))
    running: set[Any] = set()
    results = dask.as_completed()

    def feed() -> None:
        while waiting and len(running) < max(1, sum(client.nthreads().values())):
            index, entries = waiting.pop()
            # Not pure: another run's shard is none of this one's.
            future = client.submit(run_shard, job, index, entries, pure=False)
            running.add(future)
            results.add(future)

    try:
        feed()
        for future in results:
            running.remove(future)
            feed()
            yield _result(dask, future)
    finally:
        client.cancel(list(running))


def _result(dask: Any, future: Any) -> ShardResult:
    try:
        result: ShardResult = future.result()
    except dask.KilledWorker as error:
        raise ConformanceError(
            f"a shard took down several workers, most often for want of memory: {error}. Give "
            f"workers more of it, or a smaller --batch-size; --resume is for the same one only"
        ) from error
    return result


@contextmanager
def _client(dask: Any, scheduler: Optional[str], workers: int) -> Iterator[Any]:
    if scheduler is None:
        with _local(dask, workers) as cluster, dask.Client(cluster) as client:
            yield client
        return
    try:
        client = dask.Client(scheduler, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise ConformanceError(
            f"--scheduler {scheduler}: no Dask scheduler answers there ({error}). Start one with "
            f"`dask scheduler` and give the address it prints, such as tcp://10.0.0.1:8786"
        ) from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise ConformanceError(
                f"--scheduler {scheduler}: it has no workers; start some on machines that see the "
                f"packs and images under the same paths: dask worker {scheduler} --nthreads 1"
            )
        yield client


def _local(dask: Any, workers: int) -> Any:
    # One thread each: a worker has its own processes of OpenCV and TensorFlow.
    return dask.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address=":0",
        silence_logs=logging.ERROR,
    )
