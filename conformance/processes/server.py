"""A framework in a process of its own that answers request after request; serve.py is its end."""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Optional

from .child import Child, child_environment
from .serve import Request

OPENCV, TENSORFLOW = "conformance.opencv.evaluation", "conformance.reference.evaluation"


def framework(module: str) -> str:
    """Return which framework a child's module runs."""
    return "OpenCV" if module.startswith("conformance.opencv.") else "TensorFlow"


class FrameworkError(Exception):
    """A framework gave no answer: it refused, crashed or hung. The message tells the story."""

    def __init__(self, module: str, message: str) -> None:
        super().__init__(module, message)
        self.module = module
        self.message = message


class Server:
    """The parent's end: a child that is ready to answer. Raises FrameworkError where it is not.

    Any number of threads may ask at a time. The child answers side by side or one after the other.
    """

    def __init__(self, module: str, request: Request, timeout: float) -> None:
        self.module = module
        environment = child_environment(
            # Dask has its workers give memory back at once, which costs inferences page faults.
            MALLOC_TRIM_THRESHOLD_=None,
            # One heap (of glibc) for all threads of TensorFlow: 50 MiB less each.
            MALLOC_ARENA_MAX=os.environ.get("MALLOC_ARENA_MAX", "1"),
        )
        command = [sys.executable, "-m", module, json.dumps(request)]
        self.timeout, self.child = timeout, Child(command, environment, piped=True)
        self.process = self.child.process
        self._lock, self._ids = threading.Lock(), itertools.count()
        # What the child says first, that it is ready, has no id.
        ready: Future[dict[str, Any]] = Future()
        self._asked: dict[Optional[int], Future[dict[str, Any]]] = {None: ready}
        self._late: Optional[tuple[float, str]] = None  # the time limit, and what had it
        self._gone: Optional[str] = None  # how the child ended
        # A daemon: Python would wait for other threads at its end, after Ctrl-C too.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self._answer(ready, timeout, "")
        except BaseException:
            self.close()
            raise

    def ask(
        self, request: Request, timeout: Optional[float] = None, what: str = ""
    ) -> dict[str, Any]:
        """Return the child's answer to one request.

        what: the name of the request, for the error of one that takes over `timeout` s. Its child
        is ended then, and with it all that it was asked.
        """
        asked: Future[dict[str, Any]] = Future()
        with self._lock:
            if self._gone is not None:
                raise FrameworkError(self.module, self._gone)
            number = next(self._ids)
            self._asked[number] = asked
            with suppress(BrokenPipeError):
                assert self.process.stdin is not None
                print(json.dumps({**request, "id": number}), file=self.process.stdin, flush=True)
        return self._answer(asked, timeout or self.timeout, what)

    def close(self) -> None:
        """End the child, and what it is asked."""
        self.child.kill()
        self._reader.join()
        self.child.close()

    def _answer(self, asked: Future[dict[str, Any]], timeout: float, what: str) -> dict[str, Any]:
        if not wait([asked], timeout).done:
            with self._lock:
                self._late = self._late or (timeout, what)
            self.child.kill()
        answer = asked.result()
        if "error" in answer:
            raise FrameworkError(self.module, answer["error"])
        return answer

    def _read(self) -> None:
        """Hand out answers until the child is gone, which answers all that is left."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith("\n"):
                answer = json.loads(line)
                self._asked.pop(answer.pop("id", None)).set_result(answer)
        ending = self.child.ending()
        with self._lock:
            what = ""
            if self._late is not None:
                timeout, what = self._late
                ending = replace(ending, code=None, timeout=timeout)
            named = f"{what}: " if what else ""
            self._gone = f"{named}the process of {framework(self.module)} {ending}"
            left = list(self._asked.values())
        for asked in left:
            asked.set_result({"error": self._gone})


# Starting a framework takes seconds: what was started is kept from shard to shard.
_running: dict[tuple[int, str, str], Server] = {}
_starting = threading.Lock()
_ending = threading.Event()


def server(module: str, request: Request, timeout: float) -> Server:
    """Return this process's TensorFlow or this thread's OpenCV for the request.

    It is started where there is none, or none any more. One TensorFlow answers all threads side by
    side, as its own memory and the weights are what is large; OpenCV's network answers one.
    """
    if module != TENSORFLOW:
        return _kept(threading.get_ident(), module, request, timeout)
    with _starting:
        return _kept(0, module, request, timeout)


def _kept(thread: int, module: str, request: Request, timeout: float) -> Server:
    if _ending.is_set():
        raise FrameworkError(module, f"{framework(module)} is not started: its user ends")
    key = (thread, module, json.dumps(request, sort_keys=True))
    if key not in _running or _running[key].process.poll() is not None:
        _running[key] = Server(module, request, timeout)
    return _running[key]


def close_servers() -> None:
    """End all servers of this process."""
    while _running:
        _running.popitem()[1].close()


@contextmanager
def servers_ended() -> Iterator[None]:
    """End all servers of this process, and start none in the block: whoever asks fails at once."""
    _ending.set()
    try:
        close_servers()
        yield
    finally:
        close_servers()  # those that were being started
        _ending.clear()
