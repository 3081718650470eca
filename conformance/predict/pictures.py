"""Which files are meant by --image, and where their pictures with the answer go."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from conformance.errors import ConformanceError

# What is taken from a folder; a file that is named is tried whatever it is called.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".jp2"),
    *(".pbm", ".pgm", ".ppm", ".pnm", ".gif", ".avif"),
)
_MAGIC = set("*?[")


def find_pictures(names: Sequence[str]) -> list[Path]:
    """Return the files meant by names of files, folders and globs, in order, each once.

    Raises ConformanceError for one that is missing, a folder without images, or a glob that
    matches nothing.
    """
    return list(dict.fromkeys(path for name in names for path in _one(name)))


def _one(name: str) -> list[Path]:
    path = Path(name).expanduser()
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise ConformanceError(
                f"--image {name}: no images in this folder (looked for {', '.join(SUFFIXES)}); "
                f"give a folder with images, a file or a glob"
            )
        return found
    if path.exists():
        return [path]
    if _MAGIC & set(name):
        found = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
        if not found:
            raise ConformanceError(f"--image {name}: no file matches this glob; check the folder")
        return found
    raise ConformanceError(f"--image {name}: no such file; give a file, a folder or a glob")


def refusal(path: Path) -> str:
    """Return why a file is no image, as far as that shows without decoding it; else ""."""
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not start:
        return "an empty file"
    if start == b"\x93NUMPY" or path.suffix.lower() in (".npy", ".npz"):
        return "a NumPy array is not an image, and is not loaded"
    return ""


def output_paths(pictures: Sequence[Path], output: Path) -> list[Path]:
    """Return where each picture's answer is drawn to.

    One picture: the file `output`, or a file in the folder `output`. Several: in the folder, made
    if missing, each under its own name as PNG. Raises ConformanceError where that can't be.
    """
    if len(pictures) == 1 and not output.is_dir():
        if not output.suffix:
            raise ConformanceError(f"--output {output}: give a name that ends with .png or .jpg")
        if not output.parent.is_dir():
            raise ConformanceError(f"--output {output}: there is no folder {output.parent}")
        if not os.access(output.parent, os.W_OK):
            raise ConformanceError(f"--output {output}: {output.parent} can't be written to")
        return [output]
    if output.is_file():
        raise ConformanceError(
            f"--output {output}: a file, but there are {len(pictures)} pictures; give a folder"
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConformanceError(f"--output {output}: {error.strerror}; give another") from error
    return [output / name for name in _distinct([picture.stem for picture in pictures])]


def _distinct(stems: Sequence[str]) -> list[str]:
    before = [stems[:number].count(stem) for number, stem in enumerate(stems)]
    return [f"{stem}-{n + 1}.png" if n else f"{stem}.png" for stem, n in zip(stems, before)]
