"""Sampled positions: the same everywhere, distinct, and fair to every channel."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from conformance.pack.sampling import MAX_SAMPLES, node_seed, sample_positions


def test_positions_do_not_depend_on_versions() -> None:
    """The positions are those that were drawn when packs were first written (same CRC-32)."""
    positions = sample_positions([8, 112, 112, 64], node_seed("conv1"))
    assert zlib.crc32(positions.astype("<i8").tobytes()) == 1251275143


def test_small_activations_are_kept_whole() -> None:
    """An activation of at most MAX_SAMPLES values is kept in order, a scalar included."""
    np.testing.assert_array_equal(sample_positions([8, 3, 3, 5], 1), np.arange(360))
    np.testing.assert_array_equal(sample_positions([], 1), [0])
    assert len(sample_positions([1, MAX_SAMPLES], 1)) == MAX_SAMPLES


@pytest.mark.parametrize(
    "shape",
    [[8, 112, 112, 64], [8, 7, 7, 2048], [8, 1000], [2, 10_000], [3, 50, 37], [8, 165, 165, 96]],
)
def test_no_channel_is_sampled_twice_before_each_was_once(shape: list[int]) -> None:
    """Samples are distinct, inside the activation, and differ by at most one between channels."""
    positions = sample_positions(shape, seed=5)
    counts = np.bincount(positions % shape[-1], minlength=shape[-1])
    assert len(np.unique(positions)) == len(positions) == MAX_SAMPLES
    assert positions.dtype == np.int64
    assert positions.min() >= 0
    assert positions.max() < np.prod(shape)
    assert counts.max() - counts.min() <= 1


def test_every_image_is_sampled() -> None:
    """The samples of a layer come from all images of the batch."""
    positions = sample_positions([8, 14, 14, 1024], seed=7)
    assert set(positions // (14 * 14 * 1024)) == set(range(8))


def test_layers_differ_in_their_positions() -> None:
    """Two nodes of one shape are sampled at different positions."""
    shape = [8, 56, 56, 64]
    first, second = (sample_positions(shape, node_seed(node)) for node in ("a", "b"))
    assert not np.array_equal(first, second)
