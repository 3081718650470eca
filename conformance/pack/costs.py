"""What building a model's pack takes: for the order of builders, their memory, and how long yet."""

from __future__ import annotations

from conformance.models import EXTENDED, MODELS

# Seconds on one core of an AMD EPYC with AVX-512, TensorFlow 2.21. Their ratios decide the order;
# of other models a guess does.
_SECONDS = {
    "vgg16": 17,
    "vgg19": 20,
    "resnet50": 7,
    "resnet101": 15,
    "resnet152": 22,
    "densenet121": 11,
    "densenet169": 15,
    "densenet201": 19,
    "inceptionresnetv2": 27,
    "inceptionv3": 12,
    "mobilenet": 3,
    "mobilenetv2": 3,
    "nasnetlarge": 43,
    "nasnetmobile": 14,
    "xception": 11,
}
_UNKNOWN_SECONDS = 20.0
# The greatest of the 15 that is measured so is vgg19: 4.3 GiB. TensorFlow itself, and for each byte
# of float32 weights so many at the worst moment, that of the float64 answers.
_BASE_BYTES = 900 << 20
_BYTES_A_WEIGHT = 26
_UNKNOWN_WEIGHTS = 50_000_000


def building_seconds(model: str) -> float:
    """Return about how many seconds building the pack of `model` takes on one core."""
    return float(_SECONDS.get(model, _UNKNOWN_SECONDS))


def building_bytes(model: str) -> int:
    """Return about how much memory, in bytes, building the pack of `model` takes at most."""
    known = {**MODELS, **EXTENDED}
    weights = known[model].parameters if model in known else _UNKNOWN_WEIGHTS
    return _BASE_BYTES + _BYTES_A_WEIGHT * weights
