"""Benchmarks of the suite itself."""
