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
from collections.abc import Iterator

from conformance.errors import ConformanceError, install
from conformance.processes.quiet import muted_stderr as muted_stderr
from conformance.processes.quiet import quiet as quiet
from conformance.processes.quiet import verbose as verbose


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


def use_threads(threads: int, at_once: int = 1) -> None:
    """Run each operation on so many threads, `at_once` operations at a time.

    One after another is as OpenCV does. More are for callers on several threads: each is given one,
    as TensorFlow has no other place to run their operations.
    """
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(at_once)


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
