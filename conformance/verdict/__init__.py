"""Judging arrays: NumPy only."""
