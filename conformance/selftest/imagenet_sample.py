"""Small JPEGs made on the spot, labelled by the tiny network's float64 truth, in each layout.

``python -m conformance.selftest.imagenet_sample DIR COUNT`` makes larger ones of the committed
photos, with arbitrary labels, to measure on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Union

import numpy as np
from PIL import Image

from conformance.candidate import RunConfig
from conformance.fixtures import fixture_path
from conformance.imagenet.dataset import Dataset
from conformance.imagenet.decoder import decode
from conformance.imagenet.evaluation import Evaluation, Plan, make_job
from conformance.inputs.preprocessing import get_mode
from conformance.opencv.capability import probe_in_child
from conformance.pack.format import Pack
from conformance.pack.request import PackRequest
from conformance.pack.store import find_pack
from conformance.results.evaluations import Accuracies

from .tiny import OUTPUT, activations, tiny_pack, tiny_weights

SIZE, CLASSES = 16, 1000
IMAGES, WRONG, BATCH = 120, 18, 10
PHOTOS = ("apple", "board", "fruits", "home", "orange", "squirrel_cls")


def sample_pack(root: Path) -> Pack:
    """Write a pack of the tiny network with a thousand classes."""
    return tiny_pack(root, "mobilenet", size=SIZE, classes=CLASSES)


def names(count: int) -> list[str]:
    """Return names such as ImageNet's."""
    return [f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1, count + 1)]


def write_images(folder: Path, count: int, width: int = 50, height: int = 40) -> list[str]:
    """Write `count` seeded crops of the committed photos as JPEGs, and return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.RandomState(0)
    photos = [Image.open(fixture_path(f"images/{name}.jpg")).convert("RGB") for name in PHOTOS]
    for index, name in enumerate(names(count)):
        photo = photos[index % len(photos)]
        side = min(photo.size) * rng.uniform(0.2, 0.9)
        left, top = (rng.uniform(0, edge - side) for edge in photo.size)
        image = photo.resize((width, height), box=(left, top, left + side, top + side))
        tint = np.asarray(image) * rng.uniform(0.4, 1.0, 3)
        Image.fromarray(tint.astype(np.uint8)).save(folder / name, "JPEG", quality=90)
    return names(count)


def true_labels(folder: Path, files: Sequence[str], recipe: str = "tutorial") -> list[int]:
    """Return the class that the tiny network in float64 gives each image."""
    pixels = np.stack([decode(folder / name, SIZE, recipe) for name in files])
    outputs = activations(get_mode("tf").apply(pixels), tiny_weights(CLASSES))[OUTPUT]
    return [int(label) for label in outputs.argmax(axis=1)]


def corrupted(labels: Sequence[int], wrong: int) -> list[int]:
    """Return the labels, the first `wrong` of them no longer among the best five.

    The worst class of all is never the best of another image's five in so small a sample.
    """
    used = set(labels)
    unused = next(label for label in range(CLASSES - 1, -1, -1) if label not in used)
    return [unused] * wrong + list(labels[wrong:])


def write_labels(path: Path, files: Sequence[str], labels: Sequence[int], end: str = "\n") -> Path:
    """Write val.txt as the tutorial has it."""
    text = "".join(f"{name} {label}{end}" for name, label in zip(files, labels))
    path.write_bytes(text.encode())
    return path


def synsets() -> list[str]:
    """Return a thousand synsets in alphabetical order."""
    return [f"n{1440764 + 37 * index:08}" for index in range(CLASSES)]


def write_kit(folder: Path, labels: Sequence[int]) -> Path:
    """Write a development kit's meta.mat and ground truth, whose classes are in an own order."""
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    # The kit's class n is Keras' class (n * 7) % 1000; one inner node of WordNet comes after.
    rows: Any = np.zeros(CLASSES + 1, dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")])
    for index in range(CLASSES):
        rows[index] = (index + 1, synsets()[(index + 1) * 7 % CLASSES])
    rows[CLASSES] = (CLASSES + 1, "n00000001")
    savemat(folder / "meta.mat", {"synsets": rows.reshape(-1, 1)})
    number = {(n * 7) % CLASSES: n for n in range(1, CLASSES + 1)}
    path = folder / "ILSVRC2012_validation_ground_truth.txt"
    path.write_text("".join(f"{number[label]}\n" for label in labels), encoding="utf-8")
    return path


def labelled_sample(root: Path) -> Path:
    """Make packs, val and val.txt below `root`: WRONG of IMAGES labels are wrong."""
    sample_pack(root / "packs")
    files = write_images(root / "val", IMAGES)
    write_labels(root / "val.txt", files, corrupted(true_labels(root / "val", files), WRONG))
    return root


def sample_plan(home: Path, dataset: Dataset) -> Plan:
    """Return a plan on the classic engine, with the cache that the self-tests share."""
    pack = find_pack(home / "packs", PackRequest("mobilenet"))
    assert pack is not None
    config = RunConfig(threads=1)
    cache = str(home / "cache")
    opencv = probe_in_child()["version"]
    more = {"batch": BATCH, "cache": cache, "opencv": opencv}
    job = make_job(pack, dataset.folder, "tutorial", config, **more)
    return Plan(job, dataset, opencv, "synthetic")


def numbers(found: Union[Evaluation, Accuracies]) -> str:
    """Return what two runs of the same evaluation must have in common to the bit: all but times.

    found: an evaluation, or the file it was written to, whose lines have a kind, too.
    """
    lines = json.loads(json.dumps([found.summary, *found.bad, *found.disagreements]))
    for line in lines:
        line.pop("kind", None)
    for name in ("opencv", "tensorflow"):
        del lines[0][name]["ms_an_image"]
    return json.dumps(lines, sort_keys=True)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    written = write_images(target, int(sys.argv[2]), 500, 375)
    write_labels(target / "val.txt", written, [index % CLASSES for index in range(len(written))])
