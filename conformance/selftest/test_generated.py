"""Generated models: recipes, their shapes and drawing, and packs of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from conformance.cli.main import main
from conformance.errors import ConformanceError
from conformance.generated.drawing import Coverage, all_pairs, all_values, draw, pairs_of, plain
from conformance.generated.recipes import Layer, Recipe, recipe_from, shapes_of
from conformance.generated.store import (
    ARRAYS,
    GeneratedPack,
    Request,
    find_generated,
    require_generated,
)
from conformance.generated.vocabulary import OPERATIONS, REGISTRY

from .sample_generated import PACKED

tf = pytest.importorskip("tensorflow")


def test_a_seed_gives_the_same_models() -> None:
    """The same seed gives the same models, and a greater number of them begins with those."""
    few, many = draw(40, 3), draw(80, 3)
    assert [recipe.key() for recipe in few] == [recipe.key() for recipe in many[:40]]
    assert len({recipe.key() for recipe in many}) == 80
    assert [recipe.key() for recipe in draw(40, 4)] != [recipe.key() for recipe in few]


def test_a_thousand_models_cover_what_is_promised() -> None:
    """1,000 models have every attribute value and 60 % of the pairs, all of the registry's."""
    covered = Coverage()
    for recipe in draw(1000, 0):
        covered.add(recipe)
    assert set(all_values()) <= covered.values
    pairs = all_pairs()
    assert len(covered.pairs & set(pairs)) >= 0.6 * len(pairs)
    often = [pair for pair in pairs if set(pair) <= set(REGISTRY)]
    assert len(set(often) - covered.pairs) <= 1


def test_small_runs_have_every_operation() -> None:
    """The first models have each operation of the vocabulary."""
    operations = {
        layer.operation for recipe in draw(len(OPERATIONS) + 40, 0) for layer in recipe.layers
    }
    assert operations == set(OPERATIONS)


def test_a_recipe_is_read_back() -> None:
    """What a recipe writes as JSON is read back as the same recipe, of the same key and words."""
    for recipe in draw(60, 1):
        again = recipe_from(json.loads(json.dumps(recipe.as_dict())), "here")
        assert (again.key(), again.words()) == (recipe.key(), recipe.words())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": 2}, "schema 2"),
        ({"layers": [{"operation": "Conv9D", "attributes": {}, "inputs": [0]}]}, "Conv9D"),
        ({"layers": [{"operation": "relu", "attributes": {"x": 1}, "inputs": [0]}]}, "attributes"),
        ({"layers": [{"operation": "relu", "attributes": {}, "inputs": [1]}]}, "before it"),
        ({"head": "none"}, "head 'none'"),
        ({"input": [3]}, "no recipe"),
    ],
    ids=["schema", "operation", "attribute", "wiring", "head", "input"],
)
def test_bad_recipe_is_refused(change: dict[str, Any], says: str) -> None:
    """A recipe of a newer schema, or one that means nothing, is refused by name."""
    values = {**draw(1, 0)[0].as_dict(), **change}
    with pytest.raises(ConformanceError, match=f"file: m.*{says}|file.*{says}"):
        recipe_from(values, "file: m")


def test_shapes_are_keras_own() -> None:
    """Each operation, with each value of each attribute, gives the shape that Keras gives."""
    from conformance.reference.generated import apply

    checked = 0
    image = (14, 14, 8)
    for name, operation in OPERATIONS.items():
        values = [(a, v) for a, options in operation.attributes.items() for v in options]
        for change in [{}, *({a: v} for a, v in values)]:
            layer = Layer(name, plain(name, **change), (0, 0) if operation.merges else (0,))
            recipe = Recipe((14, 14, 3), (layer,))
            known = shapes_of(recipe)
            if known is None:
                continue
            x = tf.keras.Input(image)
            given = [x] * len(layer.inputs)
            assert tuple(apply(layer, given, f"n{checked}", known, 1).shape[1:]) == known[1], layer
            checked += 1
    assert checked > 300


def test_float64_without_a_kernel() -> None:
    """What TensorFlow has no float64 kernel for is written out, and agrees with its float32."""
    from conformance.reference.graph.precision import _weights

    x = np.random.default_rng(0).uniform(-1, 1, (2, 7, 9, 5)).astype(np.float32)
    for half, corners in ((True, False), (False, False), (False, True)):
        resized = tf.compat.v1.image.resize_bilinear(
            x, (12, 5), align_corners=corners, half_pixel_centers=half
        )
        rows, columns = _weights(7, 12, half, corners), _weights(9, 5, half, corners)
        stated = np.einsum("ih,bhwc,jw->bijc", rows, x.astype(np.float64), columns)
        np.testing.assert_allclose(stated, resized.numpy(), atol=2e-6)


def test_values_move_with_the_images(generated_pack: GeneratedPack) -> None:
    """No model's softmax has all in one class: what goes wrong before it would not be seen."""
    with np.load(generated_pack.path / ARRAYS) as arrays:
        softmaxes = [
            arrays[f"{key}/f64"]
            for key, recipe in generated_pack.recipes.items()
            if recipe.head == "gap"
        ]
    assert softmaxes
    assert all(values.max(axis=1).min() < 0.99 for values in softmaxes)


@pytest.mark.parametrize("where", ["build_generated", "convert"])
@pytest.mark.parametrize(
    ("shortage", "raised"),
    [
        (RuntimeError("frozen.pb; No space left on device"), OSError),
        (MemoryError("4 GiB"), MemoryError),
    ],
)
def test_no_room_is_no_refusal(
    generated_pack: GeneratedPack,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    shortage: Exception,
    raised: type[Exception],
) -> None:
    """A full disk or memory ends the build; no model is left out, and no converter refuses it."""
    from conformance.reference.generated_pack import build_part

    def short(*_: object) -> None:
        raise shortage

    recipe = draw(1, 0)[0]
    (entry,), _, _ = build_part([recipe], ["tensorflow", "tflite"])
    assert "tflite" in entry["operations"]
    monkeypatch.setattr(f"conformance.reference.generated.{where}", short)
    with pytest.raises(raised):
        build_part([recipe], ["tensorflow", "tflite"])


def test_a_pack_is_found_for_fewer_models(generated_pack: GeneratedPack) -> None:
    """A pack serves a request for its first models and for fewer importers, and no greater one."""
    root = generated_pack.path.parent.parent
    fewer = find_generated(root, Request(5, 0))
    assert fewer is not None
    assert list(fewer.models) == list(generated_pack.models)[:5]
    for greater in (Request(PACKED + 1, 0), Request(5, 1), Request(5, 0, ("tensorflow", "onnx"))):
        with pytest.raises(ConformanceError, match="no pack of generated models"):
            require_generated(root, greater)


def test_no_models_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """--generated 0 is a usage error with one message."""
    assert main(["pack", "build", "--generated", "0"]) == 2
    assert "--generated 0: give 1 or more" in capsys.readouterr().err


def test_pairs_are_of_neighbours() -> None:
    """A pair is of a layer and one that it takes, not of the input."""
    recipe = Recipe((14, 14, 3), (Layer("relu", {}, (0,)), Layer("Flatten", {}, (1,))))
    assert list(pairs_of(recipe)) == [("relu", "Flatten")]
