"""A campaign that tries to break the suite: ``python -m conformance.selftest.campaign``."""
