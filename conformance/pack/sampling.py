"""Which activations of a layer a pack keeps: the same positions for TensorFlow and OpenCV.

A layer's samples are its values at the sampled positions, then the greatest value of each image,
then the least of each: a few values too large for a ReLU6 seldom lie at sampled positions.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The inputs whose activations and logits are compared: of a pack's eight the first and the fifth,
# photos both. Each costs a run that hands out every layer, twice the time of a plain one. Noise is
# not among them: Winograd's error is 10 noise floors there, so that it would hide faults.
SAMPLED = slice(None, None, 4)

# 64 KiB a layer, for one float32 and one float64 value a position.
MAX_SAMPLES = 64 * 1024 // 12


def node_seed(node: str) -> int:
    """Return the seed of a node's sample: the CRC-32 of its name."""
    return zlib.crc32(node.encode())


def sample_positions(shape: Sequence[int], seed: int) -> NDArray[np.int64]:
    """Return the sorted, distinct flat positions (C order, int64 [S]) sampled in `shape`.

    shape: [N, ..., C], the last axis holding the channels. All positions when there are at most
    MAX_SAMPLES; otherwise MAX_SAMPLES of them, where no channel is sampled twice before every
    channel was sampled once, and each channel's samples spread over images and places.
    """
    size = int(np.prod(shape, dtype=np.int64))
    if size <= MAX_SAMPLES:
        return np.arange(size, dtype=np.int64)
    channels = int(shape[-1])
    rows = size // channels
    # RandomState's stream is frozen; that of Generator may change between NumPy versions.
    random = np.random.RandomState(seed)
    shuffled = np.argsort(random.random_sample(channels), kind="stable")
    turn = np.arange(MAX_SAMPLES, dtype=np.int64)
    channel = shuffled[turn % channels]
    row = _one_row_a_stratum(turn // channels, rows, random.random_sample(MAX_SAMPLES))
    return np.sort(row * channels + channel)


def sampled_values(activation: NDArray[Any], seed: int) -> NDArray[Any]:
    """Return the samples of a whole activation [N, ..., C]: [S + 2 N]."""
    images = activation.reshape(len(activation), -1)
    at = sample_positions(activation.shape, seed)
    return np.concatenate([images.reshape(-1)[at], images.max(axis=1), images.min(axis=1)])


def within(
    positions: NDArray[np.int64], shape: Sequence[int], start: int, stop: int
) -> tuple[NDArray[np.int64], slice]:
    """Return those of the sorted `positions` in images start…stop of `shape`, and where they are.

    They are counted from the beginning of image `start`.
    """
    size = int(np.prod(shape[1:], dtype=np.int64))
    first, last = (int(at) for at in np.searchsorted(positions, [start * size, stop * size]))
    return positions[first:last] - start * size, slice(first, last)


def _one_row_a_stratum(
    stratum: NDArray[np.int64], rows: int, uniform: NDArray[np.float64]
) -> NDArray[np.int64]:
    # Integer bounds keep the strata disjoint, so that a channel never meets the same row twice.
    strata = int(stratum[-1]) + 1
    low = stratum * rows // strata
    high = (stratum + 1) * rows // strata
    return low + (uniform * (high - low)).astype(np.int64)
