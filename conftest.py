"""Wakes the suite's pytest plugin, also where the package is not installed; nothing else."""

import pytest


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Load the plugin, with its options."""
    # Not by pytest_plugins, which pytest refuses where it comes late to this file.
    pluginmanager.import_plugin("conformance.plugin.hooks")
