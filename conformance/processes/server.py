"""A framework in a process of its own that answers request after request; serve.py is its end."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import suppress
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
    """The parent's end: a child that is ready to answer. Raises FrameworkError where it is not."""

    def __init__(self, module: str, request: Request, timeout: float) -> None:
        self.module = module
        environment = child_environment(
            # Dask has its workers give memory back at once, which costs inferences page faults.
            MALLOC_TRIM_THRESHOLD_=None,
            # One heap (of glibc) for all threads of TensorFlow, only one of which works: 50 MiB
            # less each.
            MALLOC_ARENA_MAX=os.environ.get("MALLOC_ARENA_MAX", "1"),
        )
        command = [sys.executable, "-m", module, json.dumps(request)]
        self.timeout, self.child = timeout, Child(command, environment, piped=True)
        self.close, self.process = self.child.close, self.child.process
        try:
            self._answer(timeout)
        except BaseException:
            self.close()
            raise

    def ask(self, request: Request, timeout: Optional[float] = None) -> dict[str, Any]:
        """Return the child's answer to one request."""
        with suppress(BrokenPipeError):
            assert self.process.stdin is not None
            print(json.dumps(request), file=self.process.stdin, flush=True)
        return self._answer(timeout or self.timeout)

    def _answer(self, timeout: float) -> dict[str, Any]:
        assert self.process.stdout is not None
        timer = threading.Timer(timeout, self.child.kill)
        begin = time.monotonic()
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:
            # Python waits for its threads before it ends: after Ctrl-C for as long as `timeout`.
            timer.cancel()
        late = time.monotonic() - begin >= timeout
        if line.endswith("\n"):
            answer: dict[str, Any] = json.loads(line)
            if "error" not in answer:
                return answer
            raise FrameworkError(self.module, answer["error"])
        ending = self.child.ending()
        if late:
            ending = replace(ending, code=None, timeout=timeout)
        raise FrameworkError(self.module, f"the process of {framework(self.module)} {ending}")


# Starting a framework takes seconds, so that each thread keeps its own from shard to shard.
_running: dict[tuple[int, str, str], Server] = {}


def server(module: str, request: Request, timeout: float) -> Server:
    """Return this thread's server for the request, started where there is none."""
    key = (threading.get_ident(), module, json.dumps(request, sort_keys=True))
    if key not in _running or _running[key].process.poll() is not None:
        _running[key] = Server(module, request, timeout)
    return _running[key]


def close_servers() -> None:
    """End all servers of this process."""
    while _running:
        _running.popitem()[1].close()
