"""The reference pack: the one door between TensorFlow's side and OpenCV's. Needs NumPy only.

pack_identity.py says what a pack is of, pack_format.py what is in it, pack_store.py where it is
kept, sampling.py which activations it holds; this module gathers what the other rooms use.
"""

from __future__ import annotations

from .pack_format import (
    ARRAYS,
    GRAPH,
    LABELS,
    LAYERS,
    MANIFEST,
    PREPROCESSING,
    REQUIRED_FILES,
    Layer,
    Manifest,
    Pack,
    array_file,
    new_manifest,
    open_pack,
    read_manifest,
)
from .pack_identity import (
    RECIPE,
    SCHEMA,
    PackRequest,
    describe_request,
    keras_flavour,
    pack_key,
    producer_versions,
    weights_file,
    weights_identity,
)
from .pack_store import (
    default_packs,
    estimated_bytes,
    find_pack,
    list_packs,
    locate_pack,
    pack_lock,
    require_pack,
    write_pack,
)
from .sampling import MAX_SAMPLES, SAMPLED, node_seed, sample_positions, sampled_values

__all__ = [
    "ARRAYS",
    "GRAPH",
    "LABELS",
    "LAYERS",
    "MANIFEST",
    "MAX_SAMPLES",
    "PREPROCESSING",
    "RECIPE",
    "REQUIRED_FILES",
    "SAMPLED",
    "SCHEMA",
    "Layer",
    "Manifest",
    "Pack",
    "PackRequest",
    "array_file",
    "default_packs",
    "describe_request",
    "estimated_bytes",
    "find_pack",
    "keras_flavour",
    "list_packs",
    "locate_pack",
    "new_manifest",
    "node_seed",
    "open_pack",
    "pack_key",
    "pack_lock",
    "producer_versions",
    "read_manifest",
    "require_pack",
    "sample_positions",
    "sampled_values",
    "weights_file",
    "weights_identity",
    "write_pack",
]
