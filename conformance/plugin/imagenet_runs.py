"""When pytest evaluates on ImageNet: only where it is asked to, and with a data set that fits."""

from __future__ import annotations

import re
from typing import Any

import pytest

from conformance.errors import ConformanceError
from conformance.imagenet.options import OPTIONS

from . import names_mark

MARK = "imagenet"
WHAT = "full evaluation on the ImageNet validation set; runs only when asked for with a data set"
# The path or, with --pyargs, the module, but not one of the self-tests.
_FILE = re.compile(r"\btest_imagenet(?:\.py)?(?:::|$)")


def options_of(config: pytest.Config) -> dict[str, Any]:
    """Return the evaluation's options as they were given to pytest, named as argparse does."""
    return {name.lstrip("-").replace("-", "_"): config.getoption(name) for name in OPTIONS}


def is_asked(config: pytest.Config) -> bool:
    """Return whether the evaluation was asked for: by marker, by file or with a data set."""
    by_file = any(_FILE.search(argument) for argument in config.args)
    return bool(names_mark(config, MARK) or by_file or config.getoption("--imagenet-dir"))


def check(config: pytest.Config) -> None:
    """Raise pytest.UsageError where an evaluation is asked for that can't be done."""
    from conformance.imagenet.asked import Asked  # here: it imports much that no other run needs

    try:
        if not config.option.collectonly:
            Asked(options_of(config)).dataset()
    except ConformanceError as error:
        raise pytest.UsageError(str(error)) from None
