"""``python -m conformance.selftest.benchmarks NAME``, in a checkout: what the suite costs."""

from __future__ import annotations

from conformance.cli.main import main

BENCHMARKS = ("selftest/benchmarks/*.py",)

if __name__ == "__main__":
    raise SystemExit(main(files=BENCHMARKS, program="python -m conformance.selftest.benchmarks"))
