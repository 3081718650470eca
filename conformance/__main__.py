"""``python -m conformance``."""

import sys

try:
    from .cli.main import main

    status = main()
except KeyboardInterrupt:  # while this is imported; main() ends by itself
    status = 130

sys.exit(status)
