"""A file that OpenCV reads rightly: routes are tried and judged, and the first is written."""
