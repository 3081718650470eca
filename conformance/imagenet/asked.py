"""What the options of an evaluation ask for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from conformance.candidate import RunConfig
from conformance.errors import ConformanceError
from conformance.pack.conversion import chosen_importer
from conformance.pack.format import Pack
from conformance.processes.machine import cores

from .dataset import HOW_TO_GET, Dataset, read_dataset, subset
from .evaluation import Plan, make_job
from .runner import Runner, in_threads, on_dask


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
    return Path(os.path.realpath(Path(text).expanduser()))


def results_folder(root: Optional[str]) -> Path:
    """Return the folder of evaluations below that of all results."""
    return Path(root or "results") / "imagenet"
