"""When inference times are recorded, and where pytest-benchmark writes them."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from packaging.version import Version

from . import names_mark

MARK = "inference_time"
WHAT = "records times and judges nothing; runs only when asked for, by its file or with -m"
_FILE = "test_inference_time"


def is_asked(config: pytest.Config) -> bool:
    """Return whether inference times were asked for: by file, by marker, or --benchmark-only."""
    by_file = any(_FILE in argument for argument in config.args)
    only = bool(config.getoption("benchmark_only", False))
    return by_file or only or names_mark(config, MARK)


def check(config: pytest.Config) -> None:
    """Raise pytest.UsageError for what keeps times from being recorded, or from being any good."""
    if not config.pluginmanager.has_plugin("benchmark"):
        raise pytest.UsageError(
            "inference times are recorded by pytest-benchmark, which is turned off: "
            "run again without -p no:benchmark"
        )
    # A worker's own pytest-benchmark is off too, but by then the controller has refused.
    if config.getoption("tx", None) and config.getoption("dist", "no") != "no":
        raise pytest.UsageError(
            "inference times can't be recorded under pytest-xdist: processes side by side slow "
            "each other down, so pytest-benchmark turns itself off. Run again without -n"
        )


def write_to(config: pytest.Config, folder: Path, version: str) -> None:
    """Let pytest-benchmark write folder/bench-<version>.json, unless told where to write."""
    if config.option.benchmark_json is not None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bench-{version}.json"
    # The option's value was an open file before 5.3, the last that Python 3.9 can have.
    takes_path = Version(metadata.version("pytest-benchmark")) >= Version("5.3")
    config.option.benchmark_json = path if takes_path else path.open("wb")
