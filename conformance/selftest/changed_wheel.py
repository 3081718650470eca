"""OpenCV as it is installed here with some Python code of ours in its cv2, as a wheel."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path

from conformance.errors import ConformanceError

from . import broken_cv2


def changed_wheel(
    packages: Path, target: Path, build: str, code: str, more: Mapping[str, str] = {}
) -> Path:
    """Make a wheel, in the folder `target`, of the OpenCV in `packages`; return its path.

    build: its build number, which makes it another wheel of the same version. code: is run at the
    end of cv2/__init__.py. more: further files and their text.
    """
    try:
        (info,) = packages.glob("opencv_python_headless-*.dist-info")
    except ValueError:
        raise ConformanceError(f"{packages}: there is no opencv-python-headless") from None
    tag = next(
        line.partition(": ")[2]
        for line in (info / "WHEEL").read_text(encoding="utf-8").splitlines()
        if line.startswith("Tag: ")
    )
    path = target / f"{info.name.removesuffix('.dist-info')}-{build}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name in _files(info):
            wheel.writestr(name, (packages / name).read_bytes())
        before = (packages / "cv2" / "__init__.py").read_text(encoding="utf-8")
        wheel.writestr("cv2/__init__.py", before + code)
        for name, text in more.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{info.name}/RECORD", "")
    return path


def broken_wheel(target: Path) -> Path:
    """Make a wheel, in the folder `target`, of this OpenCV, but it goes wrong (see broken_cv2)."""
    packages = Path(str(distribution("opencv-python-headless").locate_file("")))
    code = "from . import broken_cv2\n\nbroken_cv2.change(dnn)\n"
    more = {"cv2/broken_cv2.py": Path(broken_cv2.__file__).read_text(encoding="utf-8")}
    return changed_wheel(packages, target, "1broken", code, more)


def _files(info: Path) -> list[str]:
    """Return the files that the wheel came with, but for those that are written anew."""
    with (info / "RECORD").open(encoding="utf-8", newline="") as record:
        names = [row[0] for row in csv.reader(record)]
    own = ("cv2/", f"{info.name}/", "opencv_python_headless.libs/")
    anew = ("cv2/__init__.py", f"{info.name}/RECORD")
    return [n for n in names if n.startswith(own) and n not in anew and "__pycache__" not in n]
