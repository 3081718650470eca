"""Reading the data set: three layouts, the faults in them, and images of all kinds."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps

from conformance.errors import ConformanceError
from conformance.imagenet.dataset import Dataset, Entry, read_dataset, subset
from conformance.imagenet.decoder import decode, decode_all
from conformance.inputs.blob import resize

from .imagenet_sample import names, synsets, write_images, write_kit, write_labels

LABELS = [3, 3, 7, 999, 0, 7]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with six images, in a path with a space and letters beyond ASCII."""
    folder = tmp_path / "val Bilder ü"
    write_images(folder, len(LABELS))
    return folder


def labels_of(dataset: Dataset) -> list[int]:
    """Return the labels in the data set's order."""
    return [entry.label for entry in dataset.entries]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_flat_folder(images: Path, tmp_path: Path, end: str) -> None:
    """A folder with val.txt gives each image its class, whatever the line ends are."""
    labels = write_labels(tmp_path / "val.txt", names(6), LABELS, end)
    assert labels_of(read_dataset(images, labels)) == LABELS


def test_names_with_spaces(images: Path, tmp_path: Path) -> None:
    """A name may hold spaces and letters beyond ASCII: the class is what follows the last one."""
    for name in names(6)[1:]:
        (images / name).unlink()
    (images / names(1)[0]).rename(images / "ein Bild é.JPEG")
    labels = write_labels(tmp_path / "val.txt", ["ein Bild é.JPEG"], [5])
    assert labels_of(read_dataset(images, labels)) == [5]


def test_synset_folders(images: Path, tmp_path: Path) -> None:
    """Images in folders by synset have the class of the synset's alphabetical place."""
    for name, label in zip(names(6), LABELS):
        (images / synsets()[label]).mkdir(exist_ok=True)
        (images / name).rename(images / synsets()[label] / name)
    listed = tmp_path / "LOC_synset_mapping.txt"
    listed.write_text("".join(f"{s} some, words\n" for s in reversed(synsets())))
    found = read_dataset(images, listed)
    assert sorted(labels_of(found)) == sorted(LABELS)
    with pytest.raises(ConformanceError, match="4 synsets instead of 1000"):
        read_dataset(images)
    for synset in synsets():
        (images / synset).mkdir(exist_ok=True)
    assert read_dataset(images) == found  # where folders are empty, their names tell all the same


def test_development_kit(images: Path, tmp_path: Path) -> None:
    """The kit's own class order is translated to Keras' by meta.mat."""
    truth = write_kit(tmp_path / "kit", LABELS)
    assert labels_of(read_dataset(images, truth)) == LABELS
    (tmp_path / "kit" / "meta.mat").unlink()
    with pytest.raises(ConformanceError, match=r"meta\.mat"):
        read_dataset(images, truth)


FAULTS: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "out of range": (lambda lines: [*lines[:2], names(3)[2] + " 1000", *lines[3:]], "txt:3: class"),
    "negative": (lambda lines: [names(1)[0] + " -1", *lines[1:]], "txt:1: class -1 is out"),
    "no number": (lambda lines: [*lines[:-1], names(6)[5] + " cat"], "txt:6: 'cat' is no class"),
    "twice": (lambda lines: [*lines, lines[0]], r"txt:7: .*_00000001\.JPEG' is listed a second"),
    "missing": (lambda lines: [*lines, "other.JPEG 5"], r"txt:7: there is no image .*other\.JPEG"),
    "unlabelled": (lambda lines: lines[:-2], r"_00000005\.JPEG: no label .*\(nor for 1 more\)"),
    "no name": (lambda lines: [lines[0], "17", *lines[2:]], 'txt:2: .* expected "name index"'),
    "empty": (lambda lines: ["", ""], r"val\.txt: the file is empty"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_structural_fault(images: Path, tmp_path: Path, fault: str) -> None:
    """A fault in val.txt stops at once with file and line."""
    change, said = FAULTS[fault]
    lines = change([f"{name} {label}" for name, label in zip(names(6), LABELS)])
    path = tmp_path / "val.txt"
    path.write_text("\n".join(lines))
    with pytest.raises(ConformanceError, match=said):
        read_dataset(images, path)


def test_labels_that_cannot_be_read(images: Path, tmp_path: Path) -> None:
    """A labels file that is missing, or no text, stops at once with its name."""
    with pytest.raises(ConformanceError, match=r"nowhere\.txt: can't be read \(No such file"):
        read_dataset(images, tmp_path / "nowhere.txt")
    (tmp_path / "val.txt").write_bytes(b"ILSVRC2012_val_00000001.JPEG 6\xff\n")
    with pytest.raises(ConformanceError, match=r"val\.txt: not a text in UTF-8"):
        read_dataset(images, tmp_path / "val.txt")


def test_nothing_there_says_how_to_get_it(tmp_path: Path) -> None:
    """A missing or empty folder is an error that says where the data set is had."""
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConformanceError, match=r"image-net\.org"):
            read_dataset(folder)


def test_subset_is_stratified_and_seeded() -> None:
    """A subset has its classes as evenly as can be; the seed, and nothing else, decides which."""
    entries = tuple(Entry(f"{i:04}.JPEG", min(i // 50, 9), 1) for i in range(1000))
    whole = Dataset(Path(), entries)
    chosen = subset(whole, 25, seed=1)
    counts = Counter(labels_of(chosen))
    assert sorted(counts.values()) == [2] * 5 + [3] * 5
    assert chosen == subset(whole, 25, seed=1)
    assert chosen != subset(whole, 25, seed=2)
    for count in (0, 1001):
        with pytest.raises(ConformanceError, match="from 1 to 1000"):
            subset(whole, count)


@pytest.mark.parametrize("size", [224, 128, 400])
def test_tutorial_recipe_is_opencv_s_bilinear(tmp_path: Path, size: int) -> None:
    """The tutorial's recipe differs from cv2.resize and a centre crop by one level at most."""
    noise = np.random.RandomState(0).randint(0, 256, (320, 480, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    centre = resize(noise, (size * 3 // 2, size))[:, size // 4 : size // 4 + size]
    found = decode(tmp_path / "noise.png", size, "tutorial")
    assert np.abs(found.astype(int) - centre).max() <= 1


def test_keras_recipe_is_keras(tmp_path: Path) -> None:
    """Keras' recipe is Pillow's bicubic to a short side of 256, or 342 for 299, and a crop."""
    write_images(tmp_path, 1, 500, 375)
    path = tmp_path / names(1)[0]
    for size, wide, high in ((224, 341, 256), (299, 456, 342)):
        with Image.open(path) as image:
            large = np.asarray(image.resize((wide, high), Image.Resampling.BICUBIC))
        top, left = (high - size) // 2, (wide - size) // 2
        cut = large[top : top + size, left : left + size]
        np.testing.assert_array_equal(decode(path, size, "keras"), cut)


def half_red(mode: str = "RGB") -> Image.Image:
    """Return an image [40, 60] whose left half is red, its right half black."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30, 0] = 255
    return Image.fromarray(pixels).convert(mode)


def test_kinds_of_images(tmp_path: Path) -> None:
    """CMYK, grey, palette and PNGs named .JPEG are read as what they show."""
    for kind, mode, form in (
        ("cmyk", "CMYK", "JPEG"),
        ("png", "RGB", "PNG"),
        ("palette", "P", "PNG"),
        ("grey", "L", "JPEG"),
    ):
        path = tmp_path / f"{kind}.JPEG"
        half_red(mode).save(path, form)
        left, right = decode(path, 32, "tutorial")[16, [4, 27]].astype(int)
        expected = [76, 76, 76] if kind == "grey" else [255, 0, 0]
        assert np.abs(left - expected).max() <= 6, kind
        assert right.max() <= 6, kind


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    """A photo taken with the camera turned is turned upright."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees
    half_red().save(tmp_path / "a.JPEG", exif=exif, quality=95)
    upper, lower = decode(tmp_path / "a.JPEG", 32, "tutorial")[[4, 27], 16].astype(int)
    assert upper[0] > 240
    assert lower[0] < 12


def test_whatever_pillow_raises_is_a_bad_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged EXIF block, of which Pillow makes an error of its own, costs that image only."""
    files = write_images(tmp_path, 2)

    def damaged(image: Image.Image) -> Image.Image:
        raise struct.error("required argument is not an integer")

    monkeypatch.setattr(ImageOps, "exif_transpose", damaged)
    pixels, bad = decode_all(tmp_path, files, 16, "tutorial")
    assert [(one.name, one.reason) for one in bad] == [
        (name, "required argument is not an integer") for name in files
    ]
    assert len(pixels) == 0


def test_bad_images_are_listed(tmp_path: Path) -> None:
    """Truncated, corrupt, empty and vanished files are listed by name; the others are given."""
    files = write_images(tmp_path, 6)
    truncated, corrupt, empty, gone = (tmp_path / name for name in files[1:5])
    truncated.write_bytes(truncated.read_bytes()[:-400])
    corrupt.write_bytes(b"\xff\xd8" + b"no JPEG" * 40)
    empty.write_bytes(b"")
    gone.unlink()
    pixels, bad = decode_all(tmp_path, files, 16, "tutorial")
    assert [one.name for one in bad] == files[1:5]
    assert all(one.reason for one in bad)
    for given, name in zip(pixels, (files[0], files[5])):
        np.testing.assert_array_equal(given, decode(tmp_path / name, 16, "tutorial"))
    assert len(pixels) == 2
