"""The pytest plugin, asleep in every run but the suite's own.

pytest loads this module, the package's entry point, in each project of an environment that has the
package. So it only looks whether the suite is asked for; hooks.py, which it then loads, does the
rest. In a checkout conftest.py loads hooks.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

_PACKAGE = Path(__file__).resolve().parents[1]
SUITE, SELFTEST = _PACKAGE / "suite", _PACKAGE / "selftest"
# Of a checkout; an installed package has none.
INI = _PACKAGE.parent / "pytest.ini"
# What OpenCV offers, a Probing, begun here: a project that is not ours must not import its module.
PROBING = pytest.StashKey[Any]()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> None:
    """Wake the plugin in a run of the suite, before the options are parsed."""
    known, unknown = parser.parse_known_and_unknown_args(args)
    # The suite's options are not known yet: pytest takes a value that follows one for a path.
    values = {value for option, value in zip(args, args[1:]) if option in unknown}
    paths = [path for path in known.file_or_dir if path not in values] or ["."]
    if asks_for_suite(paths, known.pyargs, early_config.invocation_params.dir):
        from conformance.opencv.capability import Probing

        early_config.stash[PROBING] = Probing()
        early_config.pluginmanager.import_plugin("conformance.plugin.hooks")


def names_mark(config: pytest.Config, mark: str) -> bool:
    """Return whether the expression of -m names a marker, and does not leave it out."""
    expression = config.option.markexpr or ""
    return mark in expression and f"not {mark}" not in expression


def asks_for_suite(args: Sequence[str], pyargs: bool, here: Path) -> bool:
    """Return whether pytest's arguments name the suite: as a module, or by path.

    here: the folder that paths are relative to.
    """
    if pyargs and any(f"{arg}.".startswith("conformance.") for arg in args):
        return True
    paths = [(here / arg.split("::")[0]).resolve() for arg in args]
    # The checkout's root counts, site-packages does not: it may lie below anyone's project.
    root = INI.parent if INI.exists() else _PACKAGE
    return any(path in (root, _PACKAGE, SUITE) or SUITE in path.parents for path in paths)
