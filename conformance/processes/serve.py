"""The child's end: answers as JSON on stdout, once (`answer_once`) or request after request.

Requests are lines of JSON on stdin, each with an "id" that its answer repeats; arrays pass as .npy
files. child.py and server.py are the parent's ends. Imports neither cv2 nor TensorFlow nor NumPy:
the modules that answer do.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Callable, TextIO

from conformance.errors import ConformanceError

Request = Mapping[str, Any]
Answer = Callable[[Request], dict[str, Any]]
# The exit code of a child that can't answer and says why.
REFUSED = 2
_MOST_THREADS = 256


@contextmanager
def own_standard_output() -> Iterator[TextIO]:
    """Give the real standard output; what anyone else prints there goes to standard error."""
    # Keras prints its download bar, and native code what it likes, on file descriptor 1.
    sys.stdout.flush()
    ours = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(ours), "w", encoding="utf-8") as stream:
            yield stream
    finally:
        sys.stdout.flush()
        os.dup2(ours, 1)
        os.close(ours)


def answer_once(compute: Callable[[], Any]) -> None:
    """Print what `compute` returns, or its ConformanceError, and exit with REFUSED then."""
    try:
        with own_standard_output() as stream:
            try:
                print(json.dumps(compute(), indent=1), file=stream)
            except ConformanceError as error:
                print(error, file=sys.stderr)
                print(_error(error), file=stream)
                raise SystemExit(REFUSED) from None
    except OSError as error:  # stdout is a file of the parent's: its disk may be full
        raise SystemExit(f"the answer can't be written: {error}") from None


def serve(prepare: Callable[[Request], Answer], side_by_side: bool = False) -> None:
    """Prepare for the request in argv, say {} for ready, answer until the parent is gone.

    Whatever is raised is the answer: {"error": its text}. side_by_side: requests have a thread
    each, and are answered in whatever order; else one after the other, in this thread.
    """
    with own_standard_output() as stream:
        try:
            answer = prepare(json.loads(sys.argv[1]))
        except Exception as error:
            print(_error(error), file=stream, flush=True)
            return
        print("{}", file=stream, flush=True)
        writing = threading.Lock()

        def reply(line: str) -> None:
            text = _reply(answer, json.loads(line))
            with writing:
                print(text, file=stream, flush=True)

        if side_by_side:
            # A thread is started when no other is idle: never more than are asked for at a time.
            with ThreadPoolExecutor(_MOST_THREADS) as pool:
                for line in sys.stdin:
                    pool.submit(reply, line)
        else:
            for line in sys.stdin:
                reply(line)


def _reply(answer: Answer, request: Request) -> str:
    name = {"id": request["id"]}
    try:
        return json.dumps({**answer(request), **name})
    except Exception as error:
        return _error(error, **name)


def printed_since(size: int) -> str:
    """Return what this process printed since its stderr, a file of the parent's, had that size."""
    try:
        return os.pread(2, 1 << 20, size).decode("utf-8", "replace")
    except (OSError, AttributeError):  # not readable; Windows has no pread
        return ""


def _error(error: Exception, **name: int) -> str:
    return json.dumps({"error": str(error).strip() or repr(error), **name})
