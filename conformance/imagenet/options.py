"""The options of an evaluation, for pytest and for the command, and what they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from conformance.candidate import RunConfig
from conformance.cli.options import count
from conformance.errors import ConformanceError
from conformance.pack.conversion import chosen_importer
from conformance.pack.format import Pack
from conformance.processes.machine import cores

from .dataset import HOW_TO_GET, Dataset, read_dataset, subset
from .decoder import RECIPES
from .evaluation import MAX_BAD_PERCENT, Plan, make_job
from .runner import Runner, in_threads, on_dask
from .shards import TENSORFLOW_AT_ONCE


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


@dataclass(frozen=True)
class Asked:
    """What the options say. options: {"imagenet_dir": …}, names as argparse makes them."""

    options: Mapping[str, Any]

    def dataset(self) -> Dataset:
        """Return the images; raise ConformanceError for what does not fit."""
        folder, labels = self.options["imagenet_dir"], self.options["imagenet_labels"]
        if not folder:
            raise ConformanceError(f"--imagenet-dir is missing: which images?\n{HOW_TO_GET}")
        whole = read_dataset(_path(folder), _path(labels) if labels else None)
        images = self.options["subset"]
        return whole if images is None else subset(whole, images, self.options["seed"])

    def plan(
        self,
        pack: Pack,
        dataset: Dataset,
        opencv: Mapping[str, Any],
        engine: str,
        weights: str,
        timeout: float,
    ) -> Plan:
        """Return the plan for one model. opencv: what capability.probe found."""
        cache, at_once = self.options["imagenet_cache"], self.options["opencv_batch"]
        importer = chosen_importer(pack.path, opencv["importers"], at_once)
        job = make_job(
            pack,
            dataset.folder,
            self.options["preprocess"],
            RunConfig(importer=importer, engine=engine, threads=1),
            batch=self.options["batch_size"],
            opencv_batch=at_once,
            timeout=timeout,
            cache=str(_path(cache)) if cache else None,
            opencv=opencv["version"],
        )
        return Plan(job, dataset, opencv["version"], weights, self.options["max_bad"])

    def runner(self) -> Runner:
        """Return what runs the shards; raise ConformanceError where Dask is wanted and missing."""
        scheduler, workers = self.options["scheduler"], self.options["workers"]
        if scheduler or workers:
            return on_dask(scheduler, workers or 0)
        return in_threads(self.options["jobs"] or cores())


def _path(text: str) -> Path:
    return Path(text).expanduser().resolve()


def results_folder(root: Optional[str]) -> Path:
    """Return the folder of evaluations below that of all results."""
    return Path(root or "results") / "imagenet"
