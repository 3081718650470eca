"""The registry: one entry for each Keras classification model. Imports no TensorFlow."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from .errors import ConformanceError


@dataclass(frozen=True)
class ModelSpec:
    """What is known of a model before it is built.

    name: the test id. builder: the function's name in ``keras.applications``. size: height and
    width of the input in pixels. mode: Keras' name for the preprocessing ("tf", "caffe" or
    "torch"). parameters: number of weights. top1, top5: single-crop ImageNet accuracy in percent
    as Keras publishes it (keras-applications README at bc89834; fixtures/
    keras_published_accuracy.csv, which a self-test holds against this table).
    """

    name: str
    builder: str
    size: int
    mode: str
    parameters: int
    top1: float
    top5: float
    classes: int = 1000


_ENTRIES = (
    ModelSpec("vgg16", "VGG16", 224, "caffe", 138_357_544, 71.268, 90.050),
    ModelSpec("vgg19", "VGG19", 224, "caffe", 143_667_240, 71.256, 89.988),
    ModelSpec("resnet50", "ResNet50", 224, "caffe", 25_636_712, 74.928, 92.060),
    ModelSpec("resnet101", "ResNet101", 224, "caffe", 44_707_176, 76.420, 92.786),
    ModelSpec("resnet152", "ResNet152", 224, "caffe", 60_419_944, 76.604, 93.118),
    ModelSpec("densenet121", "DenseNet121", 224, "torch", 8_062_504, 74.972, 92.258),
    ModelSpec("densenet169", "DenseNet169", 224, "torch", 14_307_880, 76.176, 93.176),
    ModelSpec("densenet201", "DenseNet201", 224, "torch", 20_242_984, 77.320, 93.620),
    ModelSpec("inceptionresnetv2", "InceptionResNetV2", 299, "tf", 55_873_736, 80.256, 95.252),
    ModelSpec("inceptionv3", "InceptionV3", 299, "tf", 23_851_784, 77.898, 93.720),
    ModelSpec("mobilenet", "MobileNet", 224, "tf", 4_253_864, 70.424, 89.504),
    ModelSpec("mobilenetv2", "MobileNetV2", 224, "tf", 3_538_984, 71.336, 90.142),
    ModelSpec("nasnetlarge", "NASNetLarge", 331, "tf", 88_949_818, 82.498, 96.004),
    ModelSpec("nasnetmobile", "NASNetMobile", 224, "tf", 5_326_716, 74.366, 91.854),
    ModelSpec("xception", "Xception", 299, "tf", 22_910_480, 79.006, 94.452),
)

MODELS: dict[str, ModelSpec] = {spec.name: spec for spec in _ENTRIES}


def get_model(name: str) -> ModelSpec:
    """Return the entry of `name`; raise ConformanceError with the nearest name if unknown."""
    if name in MODELS:
        return MODELS[name]
    near = difflib.get_close_matches(name.lower(), MODELS, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConformanceError(f"unknown model {name!r}: {hint}The registry has {', '.join(MODELS)}")


def model_order(name: str) -> tuple[int, str]:
    """Return what sorts models as the registry has them, unknown ones by name behind them."""
    names = list(MODELS)
    return (names.index(name) if name in MODELS else len(names), name)
