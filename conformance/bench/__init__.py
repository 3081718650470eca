"""Inference times: recorded by pytest-benchmark, and compared between OpenCV wheels."""
