"""The TensorFlow side: the only room that imports TensorFlow or Keras.

Importing it sets TensorFlow up in the one way every module here relies on: the legacy or the
current Keras as TF_USE_LEGACY_KERAS says, on the CPU, float32, channels last, deterministic
operations, and silent unless CONFORMANCE_VERBOSE=1.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Iterator

from conformance.errors import ConformanceError, install


def verbose() -> bool:
    """Whether CONFORMANCE_VERBOSE asks for what TensorFlow logs."""
    return os.environ.get("CONFORMANCE_VERBOSE", "0") not in ("", "0")


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage inside, and never again look through what was there at its end.

    TensorFlow's modules are half a million objects that stay: Python would go through them in vain
    a dozen times while they come, a quarter of the import, and again in all that follows.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


@contextlib.contextmanager
def muted_stderr() -> Iterator[None]:
    """Silence what native code writes to file descriptor 2, whatever the log level."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as devnull:
            os.dup2(devnull.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def quiet() -> contextlib.AbstractContextManager[None]:
    """Return a context in which nothing shows on standard error unless CONFORMANCE_VERBOSE=1."""
    return contextlib.nullcontext() if verbose() else muted_stderr()


def first_line(error: Exception) -> str:
    """Return how an error of TensorFlow or Keras begins: they may go on for pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:400]


def use_threads(threads: int) -> None:
    """Run each operation on so many threads, one operation after another, as OpenCV does."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _set_up() -> None:
    # Keras reads its backend once, at import; a user's keras.json must not change the reference.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if not verbose():
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
    # Some lines precede TensorFlow's own reading of the log level: only a muted stderr stops them.
    with quiet(), uncollected():
        try:
            import tensorflow as tf
        except ModuleNotFoundError as error:
            raise ConformanceError(
                f"building a reference needs TensorFlow ({error}): {install('tensorflow')}, or "
                "use packs built elsewhere with --packs DIR"
            ) from error
        tf.config.set_visible_devices([], "GPU")
        tf.config.experimental.enable_op_determinism()
        tf.keras.backend.set_floatx("float32")
        tf.keras.backend.set_image_data_format("channels_last")


def keras_flavour() -> str:
    """Return "legacy" where TensorFlow runs with tf_keras (TF_USE_LEGACY_KERAS=1), or "keras3"."""
    import tensorflow as tf

    return "legacy" if tf.keras.Model.__module__.startswith("tf_keras") else "keras3"


_set_up()
