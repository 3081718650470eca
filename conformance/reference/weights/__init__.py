"""A registry model with weights that mean something: synthetic, ImageNet's, or the user's."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from conformance.inputs.images import calibration_inputs
from conformance.inputs.preprocessing import MODES
from conformance.models import ModelSpec

from .files import imagenet_model, load_weights

Array = NDArray[Any]

# Spread of the synthetic weights. A batch norm whose gamma is 1 and beta 0 would hide a reader
# that loses them; logits of standard deviation 3 give confidences all the way from 0.02 to 1.
GAMMA_RANGE = (0.7, 1.3)
BETA_SIGMA = 0.2
LOGIT_SIGMA = 3.0
# Of pixels 0-1, as Keras' "torch" preprocessing has them.
IMAGENET_MEAN, IMAGENET_STD = MODES["torch"].mean, np.asarray(MODES["torch"].std)


def build_model(spec: ModelSpec, weights: str = "synthetic") -> Any:
    """Return the Keras model of `spec`, float32, with its weights set.

    weights: "synthetic" (seeded and calibrated, nothing downloaded), "imagenet" (Keras' download
    or cache), or the path of a weights file or of a folder that holds one named after the model.
    Raises ConformanceError when weights can't be had or don't fit.
    """
    # Forgets Keras' layer counters, so that a model's layers are named alike in every build.
    tf.keras.backend.clear_session()
    if weights == "imagenet":
        return imagenet_model(spec)
    model = new_model(spec)
    if weights == "synthetic":
        set_synthetic_weights(model, spec)
    else:
        load_weights(model, spec, weights)
    return model


def new_model(spec: ModelSpec) -> Any:
    """Return the Keras model of `spec` with Keras' own random weights."""
    builder = getattr(tf.keras.applications, spec.builder)
    return builder(weights=None, input_shape=(spec.size, spec.size, 3), classes=spec.classes)


def set_synthetic_weights(model: Any, spec: ModelSpec) -> None:
    """Give `model` seeded random weights, calibrated on photos; the same bits in every process.

    Kernels are drawn at random, then every activation is standardised over the calibration
    crops: batch norms take their statistics from one pass in training mode, layers without batch
    norm (VGG) and the classifier are rescaled; layer norms (ConvNeXt) standardise by themselves.
    Logits get mean 0 and deviation LOGIT_SIGMA.
    """
    for layer in model.layers:
        if _is(layer, "Normalization"):
            _set_statistics(layer)
        else:
            layer.set_weights([_initial(spec.name, layer, variable) for variable in layer.weights])
    inputs = tf.constant(calibration_inputs(spec))
    batch_norms = [layer for layer in model.layers if _is(layer, "BatchNormalization")]
    if batch_norms:
        features = _calibrate_batch_norms(model, batch_norms, inputs)
    elif any(_is(layer, "LayerNormalization") for layer in model.layers):
        features = np.asarray(tf.function(_body(model))(inputs))
    else:
        features = _calibrate_chain(model, inputs, spec.name)
    _standardise_classifier(_classifier(model), features)


def _is(layer: Any, kind: str) -> bool:
    return type(layer).__name__ == kind


def _classifier(model: Any) -> Any:
    return [layer for layer in model.layers if layer.weights][-1]


def _body(model: Any) -> Any:
    return tf.keras.Model(model.input, _classifier(model).input)


def _set_statistics(layer: Any) -> None:
    """Let a Normalization layer of pixels 0-1 standardise them as those of ImageNet."""
    if not layer.weights:
        return  # they are constants of the layer
    values = {"mean": IMAGENET_MEAN, "variance": np.square(IMAGENET_STD), "count": 0}
    layer.set_weights(
        [
            np.broadcast_to(values[_leaf(variable)], tuple(variable.shape)).astype(
                variable.dtype if isinstance(variable.dtype, str) else variable.dtype.as_numpy_dtype
            )
            for variable in layer.weights
        ]
    )
    layer.finalize_state()  # what the layer computes with


def _random(model_name: str, path: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(f"{model_name}/{path}".encode()))


def _leaf(variable: Any) -> str:
    """Return "kernel" of "conv1/kernel" (Keras 3) or of "conv1/kernel:0" (legacy Keras)."""
    return str(getattr(variable, "path", variable.name)).rsplit("/", 1)[-1].split(":")[0]


def _initial(model_name: str, layer: Any, variable: Any) -> Array:
    leaf, shape = _leaf(variable), tuple(variable.shape)
    rng = _random(model_name, f"{layer.name}/{leaf}")
    if leaf == "gamma":
        return rng.uniform(*GAMMA_RANGE, shape).astype(np.float32)
    if leaf in ("beta", "bias"):
        return BETA_SIGMA * rng.standard_normal(shape, np.float32)
    if leaf.endswith("kernel"):
        depthwise = leaf == "depthwise_kernel" or _is(layer, "DepthwiseConv2D")
        return _he_normal(rng, shape, fan_in=int(np.prod(shape[: 2 if depthwise else -1])))
    return np.zeros(shape, np.float32)  # moving statistics, which calibration overwrites


def _he_normal(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> Array:
    kernel = rng.standard_normal(shape, np.float32)
    kernel *= np.float32(np.sqrt(2.0 / fan_in))
    return kernel


def _calibrate_batch_norms(model: Any, batch_norms: list[Any], inputs: Any) -> Array:
    """Set moving statistics to those of `inputs`; return the classifier's input [N, ..., F]."""
    body = _body(model)
    dropouts = [layer for layer in model.layers if _is(layer, "Dropout")]
    with ExitStack() as stack:
        for layer in batch_norms:
            stack.enter_context(_changed(layer, "momentum", 0.0))
        for layer in dropouts:
            stack.enter_context(_changed(layer, "rate", 0.0))
        stack.enter_context(_optimized(_HEEDED))
        # As a graph, activations are freed once used: nasnetlarge needs 1.7 GiB instead of 24.
        features = tf.function(lambda images: body(images, training=True))(inputs)
    return np.asarray(features)


# Of the optimizers of TensorFlow's graphs the one that decides the statistics' last bits. The rest
# takes up to a second for nothing: the graph runs once.
_HEEDED = "arithmetic_optimization"
_OPTIMIZERS = (
    "layout_optimizer",
    "constant_folding",
    "shape_optimization",
    "remapping",
    "arithmetic_optimization",
    "dependency_optimization",
    "loop_optimization",
    "function_optimization",
)


@contextmanager
def _optimized(heeded: str) -> Iterator[None]:
    """Let one optimizer of _OPTIMIZERS change the graphs that are run for the first time."""
    before = tf.config.optimizer.get_experimental_options()
    chosen = {name: name == heeded for name in _OPTIMIZERS}
    tf.config.optimizer.set_experimental_options(chosen)
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({**dict.fromkeys(_OPTIMIZERS, True), **before})


@contextmanager
def _changed(layer: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(layer, name)
    setattr(layer, name, value)
    try:
        yield
    finally:
        setattr(layer, name, before)


def _calibrate_chain(model: Any, inputs: Any, model_name: str) -> Array:
    """Standardise each pre-activation of a model without batch norms, layer after layer."""
    hidden = inputs
    classifier = _classifier(model)
    for layer in model.layers[1:]:
        if layer is classifier:
            break
        hidden = _standardised(layer, hidden, model_name) if layer.weights else layer(hidden)
    return np.asarray(hidden)


def _standardised(layer: Any, hidden: Any, model_name: str) -> Any:
    """Rescale `layer` as a calibrated batch norm after it would; return its activation."""
    activation = layer.activation
    with _changed(layer, "activation", tf.keras.activations.linear):
        before = layer(hidden)
    mean, variance = tf.nn.moments(before, axes=list(range(before.ndim - 1)))
    rng = _random(model_name, f"{layer.name}/gamma")
    gamma = rng.uniform(*GAMMA_RANGE, mean.shape).astype(np.float32)
    beta = BETA_SIGMA * rng.standard_normal(mean.shape, np.float32)
    scale = gamma / np.sqrt(variance + np.float32(1e-3))
    shift = beta - np.asarray(mean) * scale
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel * scale, bias * scale + shift])
    return activation(before * scale + shift)


def _standardise_classifier(classifier: Any, features: Array) -> None:
    kernel, bias = classifier.get_weights()
    flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
    logits = flat @ kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)
    scale = LOGIT_SIGMA / logits.std(axis=0)
    bias = -logits.mean(axis=0) * scale
    classifier.set_weights([(kernel * scale).astype(np.float32), bias.astype(np.float32)])
