"""The only place that starts a process: children, servers, environments, how they ended."""

from .lifeline import watch

watch()
