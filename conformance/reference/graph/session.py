"""Running a GraphDef exactly as it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from conformance.reference.graph import Array


@contextmanager
def open_session(definition: Any) -> Iterator[Any]:
    """Yield a TensorFlow session on `definition` which rewrites none of its nodes.

    Grappler would fuse nodes whose values are asked for, and fold float32 constants.
    """
    # A session heeds no other setting: those of tf.config are for what is called eagerly.
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = -1  # L0
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
        with tf.compat.v1.Session(graph=graph, config=config) as session:
            yield session


def fetch(session: Any, feeds: Mapping[str, Array], nodes: Sequence[str]) -> dict[str, Array]:
    """Run `session` with the values of the Placeholders `feeds`; return {node: its value}."""
    feed_dict = {f"{name}:0": value for name, value in feeds.items()}
    values: dict[str, Array] = session.run({name: f"{name}:0" for name in nodes}, feed_dict)
    return values
