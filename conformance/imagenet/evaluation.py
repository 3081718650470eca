"""The whole evaluation of one model: its shards by whoever runs them, resumed, and summed up."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from conformance.candidate import RunConfig
from conformance.errors import ConformanceError
from conformance.models import get_model
from conformance.pack.format import Pack

from . import statistics
from .dataset import Dataset
from .decoder import RECIPES, Bad, require_pillow
from .folder import RunFolder
from .options import MAX_BAD_PERCENT
from .runner import Runner, Shard
from .shards import Array, Job, ShardResult

# So many batches of TensorFlow are a shard: what a lost worker or an interruption costs.
BATCHES_A_SHARD = 4
_BAD_NAMED = 10


@dataclass(frozen=True)
class Plan:
    """What is to be evaluated, and by what rules. max_bad: percent of images that may be bad."""

    job: Job
    dataset: Dataset
    opencv: str
    weights: str
    max_bad: float = MAX_BAD_PERCENT

    def identity(self) -> dict[str, Any]:
        """Return what decides the numbers: a run that differs in any of it is another one."""
        names = ("model", "digest", "recipe", "batch", "opencv_batch", "threads")
        job = {name: getattr(self.job, name) for name in names}
        return {
            **job,
            "config": asdict(self.job.config),
            "opencv": self.opencv,
            "dataset": self.dataset.digest(),
            "images": len(self.dataset.entries),
        }

    def shards(self) -> list[Shard]:
        """Return the shards: an index and the images of each."""
        size, entries = self.job.batch * BATCHES_A_SHARD, self.dataset.entries
        begins = range(0, len(entries), size)
        return [(i, entries[begin : begin + size]) for i, begin in enumerate(begins)]


@dataclass(frozen=True)
class Tally:
    """Where a run is: images done of all, good ones among them, and hits of each framework."""

    done: int
    total: int
    good: int = 0
    opencv: int = 0
    tensorflow: int = 0

    def plus(self, shard: ShardResult) -> Tally:
        """Return the tally with one more shard."""
        good = len(shard.arrays["label"])
        return Tally(
            self.done + good + len(shard.bad),
            self.total,
            self.good + good,
            self.opencv + int(_hits(shard.arrays, "opencv", 1).sum()),
            self.tensorflow + int(_hits(shard.arrays, "tensorflow", 1).sum()),
        )


@dataclass(frozen=True)
class Evaluation:
    """All numbers of one model. summary, disagreements, bad: as the results file has them.

    times: of each shard, in order, what {framework: ms an image} took.
    """

    plan: Plan
    summary: dict[str, Any]
    disagreements: list[dict[str, Any]]
    bad: list[dict[str, Any]]
    top1: statistics.Paired
    top5: statistics.Paired
    times: Sequence[dict[str, float]] = ()


def make_job(pack: Pack, folder: Path, recipe: str, config: RunConfig, **more: Any) -> Job:
    """Return the job of a pack's model on the images in `folder`; `more`: other fields of Job."""
    if recipe not in RECIPES:
        raise ConformanceError(f"--preprocess {recipe!r}: use one of {', '.join(RECIPES)}")
    # The shapes are enough of these arrays.
    inputs, outputs = (
        np.load(pack.path / f"{name}.npy", mmap_mode="r", allow_pickle=False).shape
        for name in ("inputs", "outputs_f32")
    )
    return Job(
        model=pack.model,
        pack=str(pack.path.resolve()),
        digest=pack.manifest.digest(),
        folder=str(folder.resolve()),
        size=int(inputs[1]),
        mode=get_model(pack.model).mode,
        classes=int(outputs[1]),
        recipe=recipe,
        config=config,
        **more,
    )


def evaluate(
    plan: Plan,
    folder: Path,
    runner: Runner,
    resume: bool = False,
    report: Callable[[Tally], None] = lambda tally: None,
) -> Evaluation:
    """Evaluate, keeping finished shards in `folder` until they are summed up.

    Raises FrameworkError where a framework fails, ConformanceError for too many bad images, a
    full disk or a stale folder. The shards that are done stay in `folder` for `resume`.
    """
    require_pillow()
    statistics.require_scipy()
    run = RunFolder(folder, plan.identity())
    done = run.open(resume)
    tally = Tally(0, len(plan.dataset.entries))
    bad: list[Bad] = []
    for result in done.values():
        tally, bad = tally.plus(result), bad + result.bad
    _check_bad(plan, bad)
    report(tally)
    left = [shard for shard in plan.shards() if shard[0] not in done]
    # Closed at once, whatever is raised: that ends the frameworks' processes.
    with closing(runner(plan.job, left)) as results:
        for result in results:
            run.keep(result)
            done[result.index] = result
            tally, bad = tally.plus(result), bad + result.bad
            _check_bad(plan, bad)
            report(tally)
    return summed_up(plan, [done[index] for index in sorted(done)])


def _hits(arrays: dict[str, Array], name: str, top: int) -> Array:
    """Return which images [N] have their label among the framework's first `top` classes."""
    found = arrays[f"{name}_top"][:, :top] == arrays["label"][:, None]
    return np.asarray(found.any(axis=1))


def _check_bad(plan: Plan, bad: Sequence[Bad]) -> None:
    images = len(plan.dataset.entries)
    if len(bad) <= plan.max_bad / 100 * images:
        return
    lines = "\n".join(f"  {one.name}: {one.reason}" for one in bad[:_BAD_NAMED])
    more = f"\n  and {len(bad) - _BAD_NAMED} more" if len(bad) > _BAD_NAMED else ""
    raise ConformanceError(
        f"{plan.dataset.folder}: {len(bad)} of {images} images can't be used, over --max-bad "
        f"{plan.max_bad:g} %:\n{lines}{more}\nRestore them, or raise --max-bad"
    )


def summed_up(plan: Plan, shards: Sequence[ShardResult]) -> Evaluation:
    """Return the evaluation of all shards, in their order."""
    bad = [{"file": one.name, "reason": one.reason} for shard in shards for one in shard.bad]
    names = [name for shard in shards for name in _good_names(plan, shard)]
    if not names:
        raise ConformanceError(f"{plan.dataset.folder}: not one image of it can be used")
    fields = list(shards[0].arrays)
    arrays = {name: np.concatenate([shard.arrays[name] for shard in shards]) for name in fields}
    hits = {(name, top): _hits(arrays, name, top) for name in _FRAMEWORKS for top in (1, 5)}
    top1, top5 = (statistics.compare(hits["opencv", t], hits["tensorflow", t]) for t in (1, 5))
    summary: dict[str, Any] = {
        "images": len(names),
        "bad": len(bad),
        "l1_mean": float(arrays["l1"].mean()),
        "l1_max": float(arrays["l1"].max()),
        "linf_mean": float(arrays["linf"].mean()),
        "linf_max": float(arrays["linf"].max()),
        "paired_top1": asdict(top1),
        "paired_top5": asdict(top5),
    }
    for name in _FRAMEWORKS:
        seconds = sum(shard.seconds[name] for shard in shards)
        summary[name] = {
            "top1": _share(hits[name, 1]),
            "top5": _share(hits[name, 5]),
            "ms_an_image": seconds / len(names) * 1e3,
        }
    times = [_times(shard) for shard in shards if len(shard.arrays["label"])]
    return Evaluation(plan, summary, _disagreements(names, arrays), bad, top1, top5, times)


_FRAMEWORKS = ("opencv", "tensorflow")


def _times(shard: ShardResult) -> dict[str, float]:
    images = len(shard.arrays["label"])
    return {name: shard.seconds[name] / images * 1e3 for name in _FRAMEWORKS}


def _share(hits: Array) -> dict[str, Any]:
    found = int(hits.sum())
    return {"hits": found, **asdict(statistics.proportion(found, len(hits)))}


def _good_names(plan: Plan, shard: ShardResult) -> list[str]:
    size = plan.job.batch * BATCHES_A_SHARD
    entries = plan.dataset.entries[shard.index * size : (shard.index + 1) * size]
    gone = {one.index for one in shard.bad}
    return [entry.name for place, entry in enumerate(entries) if place not in gone]


def _disagreements(names: Sequence[str], arrays: dict[str, Array]) -> list[dict[str, Any]]:
    """Return the images whose best class differs, with both and how sure each framework was."""
    differ = arrays["opencv_top"][:, 0] != arrays["tensorflow_top"][:, 0]
    return [
        {
            "file": names[index],
            "label": int(arrays["label"][index]),
            "l1": float(arrays["l1"][index]),
            **{name: _answer(arrays, name, index) for name in _FRAMEWORKS},
        }
        for index in np.flatnonzero(differ).tolist()
    ]


def _answer(arrays: dict[str, Array], name: str, index: int) -> dict[str, Any]:
    first, second = (float(p) for p in arrays[f"{name}_p"][index])
    chosen = int(arrays[f"{name}_top"][index, 0])
    return {"class": chosen, "probability": first, "margin": first - second}


def published(plan: Plan) -> Optional[tuple[float, float]]:
    """Return Keras' published top-1 and top-5 in percent, None for other weights or no figures."""
    spec = get_model(plan.job.model)
    if plan.weights != "imagenet" or spec.top1 is None or spec.top5 is None:
        return None
    return spec.top1, spec.top5
