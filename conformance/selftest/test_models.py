"""The registry: the 15 models, spelled and described as published."""

from __future__ import annotations

import csv
import subprocess
import sys

import pytest

from conformance.errors import ConformanceError
from conformance.fixtures import fixture_path
from conformance.models import EXTENDED, MODELS, get_model
from conformance.pack.request import producer_versions

NAMES = (
    "vgg16 vgg19 resnet50 resnet101 resnet152 densenet121 densenet169 densenet201 "
    "inceptionresnetv2 inceptionv3 mobilenet mobilenetv2 nasnetlarge nasnetmobile xception"
)


def test_registry_holds_the_15_models() -> None:
    """The registry holds exactly the 15 test ids."""
    assert list(MODELS) == NAMES.split()
    assert all(name == spec.name for name, spec in {**MODELS, **EXTENDED}.items())
    assert not MODELS.keys() & EXTENDED.keys()


def test_input_sizes() -> None:
    """Inputs are 224 pixels square but for the four models that take larger ones."""
    larger = {"inceptionv3": 299, "inceptionresnetv2": 299, "xception": 299, "nasnetlarge": 331}
    assert {name: spec.size for name, spec in MODELS.items() if spec.size != 224} == larger


def test_accuracy_is_the_published_one() -> None:
    """Top-1 and top-5 of every model equal those of the committed table."""
    with fixture_path("keras_published_accuracy.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    tops = ("top1_percent", "top5_percent")
    published = {n: tuple(float(r[t]) if r[t] else None for t in tops) for n, r in rows.items()}
    assert {n: (s.top1, s.top5) for n, s in {**MODELS, **EXTENDED}.items()} == published


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("moblenet", "mobilenet"),
        ("ResNet50", "resnet50"),
        ("VGG-16", "vgg16"),
        ("nasnet", "nasnet"),
    ],
)
def test_unknown_model_names_the_nearest(typed: str, meant: str) -> None:
    """A misspelled name is an error that suggests the model that was probably meant."""
    with pytest.raises(ConformanceError, match=f"{typed!r}: did you mean '{meant}"):
        get_model(typed)


def test_unknown_model_near_to_none_lists_all() -> None:
    """A name like no other is an error that lists the registry and suggests nothing."""
    with pytest.raises(ConformanceError, match="xception") as caught:
        get_model("qqq")
    assert "did you mean" not in str(caught.value)


_AS_KERAS_HAS_IT = """
import sys
import keras
import numpy as np
from conformance.models import EXTENDED, MODELS

BLUE_FIRST, SCALED, STANDARDISED, UNTOUCHED = "caffe", "tf", "torch", "none"

def mode(module):
    white = module.preprocess_input(np.full((1, 1, 1, 3), 255.0, np.float32))[0, 0, 0]
    if (white == 255).all():
        return UNTOUCHED
    if white.max() > 100:
        return BLUE_FIRST
    return SCALED if np.allclose(white, 1) else STANDARDISED

for spec in {**MODELS, **EXTENDED}.values():
    builder = getattr(keras.applications, spec.builder)
    module = sys.modules[builder.__module__]
    print(spec.name, mode(module), flush=True)
    if spec.name in sys.argv[1:]:
        model = builder(weights=None)
        # MobileNetV3 takes any size, and 224 is the one its weights were trained on.
        size = [side or spec.size for side in model.input_shape[1:]]
        print(spec.name, model.count_params(), size, model.output_shape)
"""


@pytest.mark.skipif(producer_versions() is None, reason="compares with Keras, not installed")
def test_preprocessing_and_parameters_are_those_of_keras() -> None:
    """Mode (all models), parameters and shapes (the small ones) are what Keras itself has."""
    small = [n for n, spec in {**MODELS, **EXTENDED}.items() if spec.parameters < 6e6]
    command = [sys.executable, "-c", _AS_KERAS_HAS_IT, *small]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    for spec in {**MODELS, **EXTENDED}.values():
        assert f"{spec.name} {spec.mode}" in lines
    assert len(small) == 6
    for spec in map(get_model, small):
        shapes = f"[{spec.size}, {spec.size}, 3] (None, {spec.classes})"
        assert f"{spec.name} {spec.parameters} {shapes}" in lines
