"""Registers the suite's pytest plugin; nothing else."""

pytest_plugins = ["conformance.plugin.hooks"]
