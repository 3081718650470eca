"""Rewrites: the same values in other words, and nothing done to what only looks alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import tensorflow as tf

from conformance.reference.freeze import trace
from conformance.reference.graph import Graph
from conformance.reference.graph.passes import apply_passes
from conformance.reference.graph.rewrites import REWRITES, fitting
from conformance.reference.oracle import run

from .own_models import layers

INPUTS = np.random.default_rng(0).uniform(-2, 2, (3, 6, 5, 8)).astype(np.float32)
# Of a float32 epsilon, which in float64 stands for the decimal number that it is nearest to.
EPSILON = 1e-9


def gelu(images: Any) -> Any:
    """Return Keras' gelu, the exact one, of images."""
    return layers.Activation("gelu")(images)


def random_norm(images: Any, groups: int) -> Any:
    """Return a GroupNormalization whose scale and shift are not the plain ones."""
    random = tf.keras.initializers.RandomUniform(0.5, 1.5, seed=1)
    given = {"gamma_initializer": random, "beta_initializer": random}
    return layers.GroupNormalization(groups, **given)(images)


def traced(body: Callable[[Any], Any]) -> Graph:
    """Return the graph of a small classifier that has `body`, after the passes."""
    tf.keras.utils.set_random_seed(1)
    images = layers.Input(INPUTS.shape[1:])
    values = layers.Dense(4)(layers.Flatten()(body(images)))
    model = tf.keras.Model(images, layers.Softmax()(values))
    return apply_passes(trace(model).graph)[0]


def gone(graph: Graph, rewritten: Graph) -> set[str]:
    """Return the operations that the rewritten graph lacks."""
    first, second = ({n.op for n in g.definition.node} for g in (graph, rewritten))
    return first - second


PLACES: dict[str, tuple[Callable[[Any], Any], set[str]]] = {
    "dense_as_convolution": (lambda images: layers.Dense(6)(images), {"GatherV2", "Prod"}),
    "erfc_as_erf": (gelu, {"Erfc"}),
    "group_normalization_by_convolution": (
        lambda images: random_norm(images, 2),
        {"SquaredDifference", "StopGradient"},
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_rewritten_graph_has_the_same_values(name: str) -> None:
    """A rewrite takes the pattern away; float64 answers are the same to its last digits."""
    body, operations = PLACES[name]
    graph = traced(body)
    assert fitting(graph) == [name]
    rewritten, applied = apply_passes(graph, rewritten=True)
    assert [(one.name, one.nodes) for one in applied] == [(name, 1)]
    assert operations <= gone(graph, rewritten)
    assert fitting(rewritten) == []
    truth = run(graph, INPUTS, "float64").outputs
    np.testing.assert_allclose(run(rewritten, INPUTS, "float64").outputs, truth, rtol=EPSILON)


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_group_normalization_of_any_number_of_groups(groups: int) -> None:
    """One group, several and one a channel are rewritten with the same values."""
    graph = traced(lambda images: random_norm(images, groups))
    rewritten, applied = apply_passes(graph, rewritten=True)
    assert [one.name for one in applied] == ["group_normalization_by_convolution"]
    truth = run(graph, INPUTS, "float64").outputs
    np.testing.assert_allclose(run(rewritten, INPUTS, "float64").outputs, truth, rtol=EPSILON)


def test_each_rewrite_is_tried_here() -> None:
    """No rewrite is without a place that shows what it does."""
    assert set(PLACES) == {step.name for step in REWRITES}


@pytest.mark.parametrize(
    "body",
    [
        lambda images: layers.Dense(6)(layers.Reshape((30, 8))(images)),
        layers.LayerNormalization(),
        lambda images: layers.Activation(lambda x: tf.nn.gelu(x, approximate=True))(images),
    ],
    ids=["a Dense on rows", "another normalization", "gelu by tanh"],
)
def test_what_looks_alike_is_left(body: Callable[[Any], Any]) -> None:
    """A graph that has none of the patterns stays the same object."""
    graph = traced(body)
    rewritten, applied = apply_passes(graph, rewritten=True)
    assert rewritten is graph
    assert applied == []


def test_two_places_are_both_rewritten() -> None:
    """A pattern inside what follows another one is found too, in one go."""
    graph = traced(lambda images: gelu(layers.Dense(6)(gelu(layers.Dense(8)(images)))))
    rewritten, applied = apply_passes(graph, rewritten=True)
    assert [(p.name, p.nodes) for p in applied] == [("dense_as_convolution", 2), ("erfc_as_erf", 2)]
    truth = run(graph, INPUTS, "float64").outputs
    np.testing.assert_allclose(run(rewritten, INPUTS, "float64").outputs, truth, rtol=EPSILON)
