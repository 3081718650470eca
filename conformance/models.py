"""The registry: one entry for each Keras classification model. Imports no TensorFlow."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Optional

from .errors import ConformanceError


@dataclass(frozen=True)
class ModelSpec:
    """What is known of a model before it is built.

    name: the test id. builder: the function's name in ``keras.applications``. size: height and
    width of the input in pixels. mode: Keras' name for the preprocessing ("tf", "caffe" or
    "torch"), or "none": RGB pixels 0-255, which the model's first layers prepare. parameters:
    number of weights. top1, top5: single-crop ImageNet accuracy in percent as Keras publishes it,
    None where it doesn't (fixtures/keras_published_accuracy.csv, which names the sources; a
    self-test holds it against this table).
    """

    name: str
    builder: str
    size: int
    mode: str
    parameters: int
    top1: Optional[float]
    top5: Optional[float]
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

# More of Keras Applications, judged when asked for: pytest -m extended.
_MORE = (
    ModelSpec("resnet50v2", "ResNet50V2", 224, "tf", 25_613_800, 76.0, 93.0),
    ModelSpec("resnet101v2", "ResNet101V2", 224, "tf", 44_675_560, 77.2, 93.8),
    ModelSpec("resnet152v2", "ResNet152V2", 224, "tf", 60_380_648, 78.0, 94.2),
    ModelSpec("mobilenetv3small", "MobileNetV3Small", 224, "none", 2_554_968, 68.1, None),
    ModelSpec("mobilenetv3large", "MobileNetV3Large", 224, "none", 5_507_432, 75.6, None),
    ModelSpec("efficientnetb0", "EfficientNetB0", 224, "none", 5_330_571, 77.1, 93.3),
    ModelSpec("efficientnetb1", "EfficientNetB1", 240, "none", 7_856_239, 79.1, 94.4),
    ModelSpec("efficientnetb2", "EfficientNetB2", 260, "none", 9_177_569, 80.1, 94.9),
    ModelSpec("efficientnetb3", "EfficientNetB3", 300, "none", 12_320_535, 81.6, 95.7),
    ModelSpec("efficientnetb4", "EfficientNetB4", 380, "none", 19_466_823, 82.9, 96.4),
    ModelSpec("efficientnetb5", "EfficientNetB5", 456, "none", 30_562_527, 83.6, 96.7),
    ModelSpec("efficientnetb6", "EfficientNetB6", 528, "none", 43_265_143, 84.0, 96.8),
    ModelSpec("efficientnetb7", "EfficientNetB7", 600, "none", 66_658_687, 84.3, 97.0),
    ModelSpec("efficientnetv2b0", "EfficientNetV2B0", 224, "none", 7_200_312, 78.7, 94.3),
    ModelSpec("efficientnetv2b1", "EfficientNetV2B1", 240, "none", 8_212_124, 79.8, 95.0),
    ModelSpec("efficientnetv2b2", "EfficientNetV2B2", 260, "none", 10_178_374, 80.5, 95.1),
    ModelSpec("efficientnetv2b3", "EfficientNetV2B3", 300, "none", 14_467_622, 82.0, 95.8),
    ModelSpec("efficientnetv2s", "EfficientNetV2S", 384, "none", 21_612_360, 83.9, 96.7),
    ModelSpec("efficientnetv2m", "EfficientNetV2M", 480, "none", 54_431_388, 85.3, 97.4),
    ModelSpec("efficientnetv2l", "EfficientNetV2L", 480, "none", 119_027_848, 85.7, 97.5),
    ModelSpec("convnexttiny", "ConvNeXtTiny", 224, "none", 28_589_128, 81.3, None),
    ModelSpec("convnextsmall", "ConvNeXtSmall", 224, "none", 50_223_688, 82.3, None),
    ModelSpec("convnextbase", "ConvNeXtBase", 224, "none", 88_591_464, 85.3, None),
    ModelSpec("convnextlarge", "ConvNeXtLarge", 224, "none", 197_767_336, 86.3, None),
    ModelSpec("convnextxlarge", "ConvNeXtXLarge", 224, "none", 350_196_968, 86.7, None),
)

MODELS: dict[str, ModelSpec] = {spec.name: spec for spec in _ENTRIES}
EXTENDED: dict[str, ModelSpec] = {spec.name: spec for spec in _MORE}


def get_model(name: str) -> ModelSpec:
    """Return the entry of `name`; raise ConformanceError with the nearest name if unknown."""
    known = {**MODELS, **EXTENDED}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConformanceError(f"unknown model {name!r}: {hint}The registry has {', '.join(known)}")


def model_order(name: str) -> tuple[int, str]:
    """Return what sorts models as the registry has them, unknown ones by name behind them."""
    names = [*MODELS, *EXTENDED]
    return (names.index(name) if name in names else len(names), name)
