"""Which images there are and what is on them: three layouts, checked before anything is run.

A labels file tells by its content which layout it belongs to:

- "name index" lines (val.txt, as the tutorial has it): files below the folder, classes 0-999;
- numbers only (ILSVRC2012_validation_ground_truth.txt of the development kit): classes in the
  kit's own order, which meta.mat beside the file translates;
- lines that begin with a synset ("n01440764 tench", LOC_synset_mapping.txt): the images lie in
  folders named by synset. Without a labels file, all thousand folders must be there.

Keras' class order is the alphabetical order of the synsets.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from conformance.errors import ConformanceError, install
from conformance.pack.sealed import json_digest

CLASSES = 1000
SUFFIXES = (".jpeg", ".jpg", ".png")
HOW_TO_GET = """\
The data set can't be downloaded by a program: register at https://image-net.org, take
ILSVRC2012_img_val.tar (6.3 GB) and unpack it, then give its folder and the labels:
  --imagenet-dir ILSVRC2012_img_val --imagenet-labels val.txt
Three layouts are understood:
  a folder of images and val.txt with lines "ILSVRC2012_val_00000001.JPEG 65" (classes 0-999);
  a folder for each synset (n01440764/...), with LOC_synset_mapping.txt where some are missing;
  a folder of images and ILSVRC2012_validation_ground_truth.txt of the development kit, with
  the kit's meta.mat beside it."""

_SYNSET = re.compile(r"n\d{8}")
_NUMBER_AT_END = re.compile(r"(\d+)$")


@dataclass(frozen=True)
class Entry:
    """One image. name: its path below the data set's folder, with "/". label: Keras' class."""

    name: str
    label: int
    bytes: int


@dataclass(frozen=True)
class Dataset:
    """The images to evaluate, in the order in which they are run."""

    folder: Path
    entries: tuple[Entry, ...]

    def digest(self) -> str:
        """Return what tells this choice of images, sizes and labels from any other."""
        return json_digest([[e.name, e.label, e.bytes] for e in self.entries])[:16]


def read_dataset(folder: Path, labels: Optional[Path] = None) -> Dataset:
    """Return the images of `folder` with their labels, in the order of the names.

    Raises ConformanceError naming file and line for whatever does not fit: an empty or missing
    folder, a name that is missing, listed twice or without label, a class out of range.
    """
    sizes = _image_sizes(folder)
    found = _by_folder(folder, sizes, None) if labels is None else _labelled(folder, labels, sizes)
    unlabelled = sorted(sizes.keys() - found.keys())
    if unlabelled:
        more = f" (nor for {len(unlabelled) - 1} more)" if len(unlabelled) > 1 else ""
        raise ConformanceError(
            f"{folder / unlabelled[0]}: no label for this image in {labels or folder}"
            f"{more}; add its line or move the file away"
        )
    return Dataset(folder, tuple(Entry(n, found[n], sizes[n]) for n in sorted(found)))


def _image_sizes(folder: Path) -> dict[str, int]:
    """Return {name: bytes} of the images below `folder`."""
    if not folder.is_dir():
        raise ConformanceError(f"--imagenet-dir {folder}: there is no such folder.\n{HOW_TO_GET}")
    sizes = {}
    for where, _, files in os.walk(folder, followlinks=True):
        for name in files:
            path = Path(where, name)
            if path.suffix.lower() in SUFFIXES and path.exists():
                sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    if not sizes:
        raise ConformanceError(
            f"--imagenet-dir {folder}: no image ({', '.join(SUFFIXES)}) in it.\n{HOW_TO_GET}"
        )
    return sizes


def _labelled(folder: Path, labels: Path, sizes: dict[str, int]) -> dict[str, int]:
    lines = _lines(labels)
    first = lines[0][1].split()
    if _SYNSET.fullmatch(first[0]):
        return _by_folder(folder, sizes, [_synset(labels, number, text) for number, text in lines])
    if len(first) == 1 and first[0].isdigit():
        return _ground_truth(folder, labels, lines, sizes)
    return _name_index(folder, labels, lines, sizes)


def _lines(labels: Path) -> list[tuple[int, str]]:
    """Return (line number, text) of the lines that hold something, whatever their line ends."""
    try:
        text = labels.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConformanceError(
            f"--imagenet-labels {labels}: can't be read ({error.strerror}).\n{HOW_TO_GET}"
        ) from error
    except UnicodeDecodeError as error:
        raise ConformanceError(f"{labels}: not a text in UTF-8 ({error})") from error
    lines = [(n, line.strip()) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise ConformanceError(f"{labels}: the file is empty.\n{HOW_TO_GET}")
    return lines


def _name_index(
    folder: Path, labels: Path, lines: Iterable[tuple[int, str]], sizes: dict[str, int]
) -> dict[str, int]:
    found: dict[str, int] = {}
    for number, line in lines:
        where = f"{labels}:{number}"
        # A name may hold spaces, a class can't.
        name, _, last = (part.strip() for part in line.replace("\t", " ").rpartition(" "))
        if not name:
            raise ConformanceError(f'{where}: {line!r}: expected "name index"')
        label = _class(where, last)
        if name in found:
            raise ConformanceError(f"{where}: {name!r} is listed a second time; remove one line")
        if name not in sizes:
            raise ConformanceError(f"{where}: there is no image {folder / name}")
        found[name] = label
    return found


def _class(where: str, text: str) -> int:
    if not re.fullmatch(r"-?\d+", text):
        raise ConformanceError(f"{where}: {text!r} is no class: expected a number, 0-{CLASSES - 1}")
    if not 0 <= int(text) < CLASSES:
        raise ConformanceError(f"{where}: class {text} is out of range: expected 0-{CLASSES - 1}")
    return int(text)


def _synset(labels: Path, number: int, line: str) -> str:
    name = line.split()[0]
    if not _SYNSET.fullmatch(name):
        raise ConformanceError(f"{labels}:{number}: {name!r}: expected a synset such as n01440764")
    return name


def _by_folder(
    folder: Path, sizes: dict[str, int], synsets: Optional[Sequence[str]]
) -> dict[str, int]:
    """Label each image by the folder it lies in, whose name is a synset."""
    folders = {name: name.rpartition("/")[0].rpartition("/")[2] for name in sizes}
    stray = next((name for name, synset in folders.items() if not _SYNSET.fullmatch(synset)), None)
    if stray is not None:
        raise ConformanceError(
            f"{folder / stray}: not in a folder named by a synset such as n01440764; where the "
            f"images lie in one folder, give --imagenet-labels FILE.\n{HOW_TO_GET}"
        )
    classes = sorted(set(_folders(folder) if synsets is None else synsets))
    if len(classes) != CLASSES:
        raise ConformanceError(
            f"{folder}: {len(classes)} synsets instead of {CLASSES}, so their classes can't be "
            f"told: give the list of all with --imagenet-labels LOC_synset_mapping.txt"
        )
    index = {synset: label for label, synset in enumerate(classes)}
    unknown = next((name for name in sizes if folders[name] not in index), None)
    if unknown is not None:
        raise ConformanceError(f"{folder / unknown}: its folder's synset is not in the labels file")
    return {name: index[synset] for name, synset in folders.items()}


def _folders(folder: Path) -> Iterator[str]:
    """Give the synsets that folders are named by, those without an image in them, too."""
    for where, _, _ in os.walk(folder, followlinks=True):
        name = os.path.basename(where)
        if _SYNSET.fullmatch(name):
            yield name


def _ground_truth(
    folder: Path, labels: Path, lines: Sequence[tuple[int, str]], sizes: dict[str, int]
) -> dict[str, int]:
    """Label image 1, 2, … (the number that ends its name) by the lines of the kit's file."""
    classes = _kit_classes(labels.with_name("meta.mat"))
    by_number = {_image_number(folder, name): name for name in sizes}
    found = {}
    for image, (number, text) in enumerate(lines, 1):
        where = f"{labels}:{number}"
        if not text.isdigit() or int(text) not in classes:
            raise ConformanceError(f"{where}: {text!r}: expected the kit's class, 1-{CLASSES}")
        if image not in by_number:
            raise ConformanceError(f"{where}: there is no image number {image} in {folder}")
        found[by_number[image]] = classes[int(text)]
    return found


def _image_number(folder: Path, name: str) -> int:
    match = _NUMBER_AT_END.search(Path(name).stem)
    if match is None:
        raise ConformanceError(
            f"{folder / name}: its name does not end in a number, by which the development kit's "
            f"file counts (ILSVRC2012_val_00000001.JPEG)"
        )
    return int(match.group(1))


def _kit_classes(meta: Path) -> dict[int, int]:
    """Return {the development kit's class: Keras' class}."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ConformanceError(f"reading {meta} needs SciPy: {install('imagenet')}") from error
    try:
        rows = loadmat(meta, squeeze_me=True)["synsets"]
        synsets = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows}
    except (OSError, KeyError, ValueError, TypeError, IndexError) as error:
        raise ConformanceError(
            f"{meta}: can't be read as the development kit's list of synsets ({error}); the "
            f"ground truth's classes mean nothing without: keep it beside the file, or give val.txt"
        ) from error
    # Numbers above are inner nodes of WordNet's tree.
    names = sorted(synsets[number] for number in range(1, CLASSES + 1) if number in synsets)
    if len(names) != CLASSES:
        raise ConformanceError(f"{meta}: {len(names)} of the {CLASSES} classes are in it")
    return {n: names.index(synset) for n, synset in synsets.items() if n <= CLASSES}


def subset(dataset: Dataset, count: int, seed: int = 0) -> Dataset:
    """Return `count` images chosen by `seed`, of each class as many as possible alike.

    Raises ConformanceError for fewer than one and for more than there are.
    """
    if not 1 <= count <= len(dataset.entries):
        raise ConformanceError(
            f"--subset {count}: give a number from 1 to {len(dataset.entries)}, the images of "
            f"{dataset.folder}"
        )
    rng = np.random.RandomState(seed)  # whose sequence no NumPy version changes
    turns: dict[int, int] = {}
    ranked = []
    order = rng.permutation(len(dataset.entries))
    for place, index in enumerate(order):
        label = dataset.entries[index].label
        turn = turns[label] = turns.get(label, -1) + 1
        ranked.append((turn, place, int(index)))
    chosen = sorted(index for _, _, index in sorted(ranked)[:count])
    return Dataset(dataset.folder, tuple(dataset.entries[index] for index in chosen))
