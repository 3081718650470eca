"""The child that runs generated models, with a real fault in the one that SABOTAGED_MODEL names."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

from conformance.opencv import generated, net

read = net.read


def faulty(cv2: Any, graph: Path, *more: Any) -> Any:
    """Crash, or hang where SABOTAGE says so, when the model's turn has come."""
    begun = (graph.parent / "journal").read_text(encoding="utf-8").split()[-2]
    if begun == os.environ["SABOTAGED_MODEL"]:
        if os.environ.get("SABOTAGE") == "hang":
            time.sleep(60)
        ctypes.string_at(0)
    return read(cv2, graph, *more)


if __name__ == "__main__":
    mock.patch.object(net, "read", faulty).start()
    generated.main(Path(sys.argv[1]))
