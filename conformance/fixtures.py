"""Where the committed data files are: photos, labels, tolerances, known failures."""

from __future__ import annotations

from pathlib import Path

from .errors import ConformanceError

_PACKAGE = Path(__file__).resolve().parent
# An installed wheel carries the data inside the package; a checkout keeps it beside the package.
_CANDIDATES = (_PACKAGE / "_fixtures", _PACKAGE.parent / "fixtures")


def fixture_path(name: str) -> Path:
    """Return the path of the committed data file or folder `name`, such as ``images/apple.jpg``.

    Raises ConformanceError when the installation lacks it.
    """
    for folder in _CANDIDATES:
        if (folder / name).exists():
            return folder / name
    looked = " or ".join(str(folder) for folder in _CANDIDATES)
    raise ConformanceError(f"fixture {name!r} not found in {looked}: reinstall the package")
