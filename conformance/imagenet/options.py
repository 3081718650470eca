"""The options of an evaluation, for pytest and for the command.

Each run of the suite declares them: what carries them out, asked.py, is imported by those that do.
"""

from __future__ import annotations

from typing import Any

from conformance.cli.options import count

from .decoder import RECIPES

MAX_BAD_PERCENT = 0.1
# So many images of a batch TensorFlow takes at a time. It needs memory for each (mobilenet 12 MiB),
# and more of them are neither faster nor of other bits.
TENSORFLOW_AT_ONCE = 10


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise ValueError("give a number from 0 to 2^32-1")
    return int(text)


def _percent(text: str) -> float:
    if not 0 <= float(text) <= 100:
        raise ValueError("give percent, 0-100")
    return float(text)


# As cli.options has its own.
OPTIONS: dict[str, dict[str, Any]] = {
    "--imagenet-dir": {"metavar": "DIR", "help": "folder of the validation images"},
    "--imagenet-labels": {
        "metavar": "FILE",
        "help": "val.txt, the development kit's ground truth, or a list of synsets",
    },
    "--imagenet-cache": {
        "metavar": "DIR",
        "help": "keep decoded pixels (7.5 GB at 224 pixels) and TensorFlow's outputs here, for "
        "other OpenCV versions",
    },
    "--subset": {"type": int, "metavar": "N", "help": "only N images, evenly of each class"},
    "--seed": {"type": _seed, "default": 0, "metavar": "N", "help": "which images (default: 0)"},
    "--batch-size": {
        "type": count,
        "default": 50,
        "metavar": "N",
        "help": "images of a batch, four of which are a shard; TensorFlow takes at most "
        f"{TENSORFLOW_AT_ONCE} at once (default: 50)",
    },
    "--opencv-batch": {
        "type": count,
        "default": 1,
        "metavar": "N",
        "help": "images at once in OpenCV (default: 1, which is fastest on a CPU)",
    },
    "--preprocess": {
        "choices": tuple(RECIPES),
        "default": "tutorial",
        "help": "; ".join(f"{name}: {recipe.text}" for name, recipe in RECIPES.items()),
    },
    "--max-bad": {
        "type": _percent,
        "default": MAX_BAD_PERCENT,
        "metavar": "PERCENT",
        "help": "images that may be bad (default: 0.1)",
    },
    "--resume": {"action": "store_true", "help": "go on where an interrupted evaluation ended"},
    "--jobs": {
        "type": count,
        "metavar": "N",
        "help": "shards evaluated side by side, a core each (default: all cores)",
    },
    "--workers": {
        "type": count,
        "metavar": "N",
        "help": "the same in N Dask workers of this machine (needs the extra: cluster)",
    },
    "--scheduler": {"metavar": "ADDRESS", "help": "on the Dask cluster at tcp://…"},
}
