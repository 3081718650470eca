"""The child's end of a framework that answers shard after shard in a process of its own.

Requests and answers are lines of JSON on the child's stdin and stdout; pixels and outputs pass as
.npy files. server.py is the parent's end. Imports neither cv2 nor TensorFlow:
conformance.opencv.evaluation and conformance.reference.evaluation do.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Callable

import numpy as np

Array = np.ndarray[Any, Any]
Request = Mapping[str, Any]
Answer = Callable[[Request], dict[str, Any]]


def serve(prepare: Callable[[], Answer]) -> None:
    """Prepare, say {} for ready, and answer line by line until the parent is gone.

    Whatever is raised is the answer: {"error": its text}.
    """
    sys.stdout.flush()
    # Native code prints on file descriptor 1 what it likes.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as line:
        os.dup2(2, 1)
        try:
            answer = prepare()
        except Exception as error:
            print(_told(error), file=line, flush=True)
            return
        print("{}", file=line, flush=True)
        for text in sys.stdin:
            try:
                said = json.dumps(answer(json.loads(text)))
            except Exception as error:
                said = _told(error)
            print(said, file=line, flush=True)


def _told(error: Exception) -> str:
    return json.dumps({"error": str(error).strip() or repr(error)})


def answer_shard(
    request: Request,
    batch: int,
    prepare: Callable[[Array], Array],
    infer: Callable[[Array], Array],
    classes: int,
) -> dict[str, Any]:
    """Run request["pixels"] (a file, uint8 [N, S, S, 3]) in batches into request["outputs"].

    prepare: makes of pixels what `infer` takes. Returns {"seconds": of the inferences alone}.
    Raises ValueError for an output of another shape than [images, classes].
    """
    pixels = np.load(request["pixels"], mmap_mode="r", allow_pickle=False)
    outputs = np.empty((len(pixels), classes), np.float32)
    seconds = 0.0
    for begin in range(0, len(pixels), batch):
        taken = prepare(np.asarray(pixels[begin : begin + batch]))
        start = time.perf_counter()
        given = infer(taken)
        seconds += time.perf_counter() - start
        expected = (len(taken), classes)
        if given.shape != expected:
            raise ValueError(f"the output has the shape {given.shape} instead of {expected}")
        outputs[begin : begin + batch] = given
    np.save(request["outputs"], outputs)
    return {"seconds": seconds}
