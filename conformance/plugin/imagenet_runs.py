"""When pytest evaluates on ImageNet: only where it is asked to, and with a data set that fits."""

from __future__ import annotations

import re

import pytest

from conformance.errors import ConformanceError
from conformance.imagenet.options import OPTIONS, Asked

MARK = "imagenet"
WHAT = "full evaluation on the ImageNet validation set; runs only when asked for with a data set"
# The path or, with --pyargs, the module, but not one of the self-tests.
_FILE = re.compile(r"\btest_imagenet(?:\.py)?(?:::|$)")


def of_pytest(config: pytest.Config) -> Asked:
    """Return what pytest's options ask for."""
    return Asked({name.lstrip("-").replace("-", "_"): config.getoption(name) for name in OPTIONS})


def is_asked(config: pytest.Config) -> bool:
    """Return whether the evaluation was asked for: by marker, by file or with a data set."""
    expression = config.option.markexpr or ""
    by_marker = MARK in expression and f"not {MARK}" not in expression
    by_file = any(_FILE.search(argument) for argument in config.args)
    return bool(by_marker or by_file or config.getoption("--imagenet-dir"))


def check(config: pytest.Config) -> None:
    """Raise pytest.UsageError where an evaluation is asked for that can't be done."""
    asked = of_pytest(config)
    try:
        if not config.option.collectonly:
            asked.dataset()
    except ConformanceError as error:
        raise pytest.UsageError(str(error)) from None
