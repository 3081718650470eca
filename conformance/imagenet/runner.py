"""Shards run side by side: by threads of this process, by workers of this machine, or on a cluster.

Each is a concurrent.futures.Executor to one loop. A lost worker of Dask costs the shards it had:
Dask gives them to another one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from itertools import islice
from typing import Any, Callable, Optional

from conformance.errors import ConformanceError, imported
from conformance.processes.server import close_servers, servers_ended

from .dataset import Entry
from .shards import Job, ShardResult, run_shard

_CONNECT_SECONDS = 10

Shard = tuple[int, tuple[Entry, ...]]
Runner = Callable[[Job, Sequence[Shard]], Generator[ShardResult, None, None]]
# An executor, and how many shards it is to have at a time just now.
Workers = AbstractContextManager[tuple[Executor, Callable[[], int]]]


def in_threads(workers: int) -> Runner:
    """Return what runs shards side by side in this process, `workers` at a time.

    One that decodes leaves a core to one that infers, so that all cores are always busy.
    """
    return _runner(lambda: _threads(workers))


def on_dask(scheduler: Optional[str] = None, workers: int = 0) -> Runner:
    """Return what runs shards on the cluster at `scheduler` (tcp://…), or on local workers."""
    dask = distributed()
    return _runner(lambda: _dask_workers(dask, scheduler, workers))


def _runner(opened: Callable[[], Workers]) -> Runner:
    def run(job: Job, shards: Sequence[Shard]) -> Generator[ShardResult, None, None]:
        if shards:
            with opened() as (executor, count):
                yield from _results(executor, count, job, shards)

    return run


def _results(
    executor: Executor, count: Callable[[], int], job: Job, shards: Sequence[Shard]
) -> Generator[ShardResult, None, None]:
    """Yield the results as they come; no more than `count` shards are handed out at a time.

    Memory stays flat however slowly results are taken. Dask itself would let a shard wait behind
    another one while a worker has nothing to do.
    """
    waiting = iter(shards)
    running: set[Future[ShardResult]] = set()

    def fill() -> None:
        for index, entries in islice(waiting, max(0, max(1, count()) - len(running))):
            running.add(executor.submit(run_shard, job, index, entries))

    try:
        fill()
        while running:
            done = wait(running, return_when=FIRST_COMPLETED).done
            running -= done
            # A failure ends all: nothing is begun after it.
            results = [future.result() for future in done]
            fill()
            yield from results
    finally:
        for future in running:
            future.cancel()


@contextmanager
def _threads(workers: int) -> Iterator[tuple[Executor, Callable[[], int]]]:
    pool = ThreadPoolExecutor(workers)
    try:
        # One waits, so that no thread does while a result is written.
        yield pool, lambda: workers + 1
    finally:
        with servers_ended():  # and with them the shards that are being run
            pool.shutdown(wait=True)


@contextmanager
def _dask_workers(
    dask: Any, scheduler: Optional[str], workers: int
) -> Iterator[tuple[Executor, Callable[[], int]]]:
    with _client(dask, scheduler, workers) as client:
        try:
            # Not pure: another run's shard is none of this one's.
            yield client.get_executor(pure=False), lambda: sum(client.nthreads().values())
        except dask.KilledWorker as error:
            raise ConformanceError(
                f"a shard took down several workers, most often for want of memory: {error}. Give "
                f"workers more of it or fewer threads, then go on with --resume"
            ) from error
        except (OSError, CancelledError, asyncio.CancelledError) as error:
            raise ConformanceError(
                f"the Dask scheduler is gone ({error or type(error).__name__}): finished shards "
                f"are kept; start it again and go on with --resume"
            ) from error
        finally:
            with suppress(OSError):  # of a scheduler that is gone
                client.run(close_servers)


def distributed() -> Any:
    """Return the module; raise ConformanceError saying what to install where it is missing."""
    return imported("distributed", "--scheduler and --workers need Dask ({error})", "cluster")


@contextmanager
def _client(dask: Any, scheduler: Optional[str], workers: int) -> Iterator[Any]:
    if scheduler is None:
        # Workers in this process share its TensorFlow; each has its own process of OpenCV.
        local = dask.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=False,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,  # a shard's failure is told by its exception
        )
        with ExitStack() as closing, local as cluster, dask.Client(cluster) as client:
            try:
                yield client
            finally:
                closing.enter_context(servers_ended())  # until the workers are closed, too
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
                f"packs and images under the same paths: dask worker {scheduler} --nthreads 8"
            )
        yield client
