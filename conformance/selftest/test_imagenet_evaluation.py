"""The evaluation engine on small real images: OpenCV, TensorFlow and the tiny network."""

from __future__ import annotations

import errno
import os
import signal
import time
import tracemalloc
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Callable

import numpy as np
import psutil
import pytest

from conformance.errors import ConformanceError
from conformance.imagenet import runner, shards
from conformance.imagenet.dataset import Dataset, read_dataset
from conformance.imagenet.evaluation import (
    Evaluation,
    Plan,
    Tally,
    evaluate,
)
from conformance.imagenet.files import results_name, write_results
from conformance.imagenet.folder import RunFolder
from conformance.imagenet.runner import Runner, Shard, in_threads
from conformance.imagenet.shards import Job, ShardResult
from conformance.imagenet.statistics import require_scipy
from conformance.processes.server import OPENCV, TENSORFLOW, FrameworkError, Server, server
from conformance.results.evaluations import read_results

from .benchmarks.evaluation import servers_closed
from .graphdef import Node, changed
from .imagenet_sample import (
    CLASSES,
    IMAGES,
    SIZE,
    WRONG,
    numbers,
    sample_plan,
    synsets,
    true_labels,
    write_images,
    write_kit,
    write_labels,
)
from .tiny import graph_nodes, tiny_pack, tiny_weights


def test_accuracy_is_known(whole: Evaluation) -> None:
    """Both frameworks have exactly the share of right labels that the labels were made with."""
    for name in ("opencv", "tensorflow"):
        assert whole.summary[name]["top1"]["hits"] == IMAGES - WRONG
        assert whole.summary[name]["top5"]["hits"] == IMAGES - WRONG
        assert whole.summary[name]["ms_an_image"] > 0
        share = whole.summary[name]["top1"]
        assert share["low"] < share["value"] == (IMAGES - WRONG) / IMAGES < share["high"]
    assert [sorted(times) for times in whole.times] == [["opencv", "tensorflow"]] * 3
    assert whole.top1.agree
    assert whole.disagreements == []
    assert 0 < whole.summary["l1_mean"] < 1e-5


def by_synset(root: Path, flat: Dataset) -> Dataset:
    """Return the same images in folders named by synset, with the list of all synsets."""
    for entry in flat.entries:
        folder = root / "val" / synsets()[entry.label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / entry.name).symlink_to(flat.folder / entry.name)
    listed = root / "LOC_synset_mapping.txt"
    listed.write_text("".join(f"{synset} some words\n" for synset in synsets()))
    return read_dataset(root / "val", listed)


def by_kit(root: Path, flat: Dataset) -> Dataset:
    """Return the same images with the development kit's labels, in its own order of classes."""
    return read_dataset(flat.folder, write_kit(root, [entry.label for entry in flat.entries]))


@pytest.mark.parametrize("layout", [by_synset, by_kit])
def test_accuracy_is_known_in_every_layout(
    layout: Callable[[Path, Dataset], Dataset], plan: Plan, whole: Evaluation, tmp_path: Path
) -> None:
    """Folders by synset and the development kit give the accuracy that val.txt gives."""
    dataset = layout(tmp_path / "data", plan.dataset)
    job = replace(plan.job, folder=str(dataset.folder))
    found = evaluate(replace(plan, dataset=dataset, job=job), tmp_path / "run", in_threads(1))
    for name in ("opencv", "tensorflow"):
        assert found.summary[name]["top1"] == whole.summary[name]["top1"]


def judged_by(plan: Plan, folder: Path, nodes: list[Node]) -> Plan:
    """Return the plan with another graph for OpenCV; TensorFlow's answers are in the cache."""
    other = tiny_pack(folder, "mobilenet", size=SIZE, classes=CLASSES, nodes=nodes)
    return replace(plan, job=replace(plan.job, pack=str(other.path)))


def test_wrong_graph_is_found(plan: Plan, whole: Evaluation, tmp_path: Path) -> None:
    """An OpenCV that computes another network has lower accuracy, a high L1 and disagreements."""
    wrong = judged_by(plan, tmp_path, graph_nodes(tiny_weights(CLASSES, seed=1), SIZE))
    found = evaluate(wrong, tmp_path / "run", in_threads(1))
    assert found.summary["tensorflow"]["top1"] == whole.summary["tensorflow"]["top1"]
    assert not found.top1.agree
    assert found.top1.only_second > 50
    assert found.summary["l1_mean"] > 0.1
    first = found.disagreements[0]
    assert first["opencv"]["class"] != first["tensorflow"]["class"]
    assert first["file"].startswith("ILSVRC2012_val_")
    assert 0 <= first["opencv"]["margin"] <= first["opencv"]["probability"] <= 1


def interrupted_after(count: int) -> Runner:
    """Return a runner that Ctrl-C stops after `count` shards."""

    def run(job: Job, left: Sequence[Shard]) -> Generator[ShardResult, None, None]:
        with closing(in_threads(1)(job, left)) as results:
            for number, result in enumerate(results):
                if number == count:
                    raise KeyboardInterrupt
                yield result

    return run


def test_resumed_run_ends_with_the_same_bits(plan: Plan, whole: Evaluation, tmp_path: Path) -> None:
    """Interrupted after one shard and resumed, with a shard file damaged: the same numbers."""
    with pytest.raises(KeyboardInterrupt):
        evaluate(plan, tmp_path, interrupted_after(2))
    kept = sorted(tmp_path.glob("*.npz"))
    assert len(kept) == 2
    kept[0].write_bytes(kept[0].read_bytes()[:50])
    tallies: list[Tally] = []
    found = evaluate(plan, tmp_path, in_threads(2), resume=True, report=tallies.append)
    assert numbers(found) == numbers(whole)
    assert [tally.done for tally in tallies] == [40, 80, 120]


def test_stale_folder_is_refused(plan: Plan, tmp_path: Path) -> None:
    """--resume in a folder of another pack names what differs; without it the run begins anew."""
    evaluate(plan, tmp_path, in_threads(1))
    other = replace(plan, job=replace(plan.job, digest="other", model="resnet50"))
    with pytest.raises(ConformanceError, match="model: 'mobilenet', now 'resnet50'; digest: "):
        evaluate(other, tmp_path, in_threads(1), resume=True)
    again = replace(plan, job=replace(plan.job, opencv_batch=4))
    assert evaluate(again, tmp_path, in_threads(1)).summary["images"] == IMAGES


def test_reference_and_pixels_are_computed_once(
    plan: Plan, whole: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For another OpenCV neither images nor TensorFlow are needed again: the cache has both."""

    def never(*arguments: Any) -> Any:
        raise AssertionError(f"computed again: {arguments}")

    monkeypatch.setattr(shards, "decode_all", never)
    monkeypatch.setattr(shards, "tensorflow_request", never)
    assert numbers(evaluate(plan, tmp_path, in_threads(1))) == numbers(whole)


def test_missing_tensorflow_is_a_line(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without TensorFlow and without its outputs in the cache, the error says how to get them."""
    monkeypatch.setattr(shards, "producer_versions", lambda _: None)
    empty = replace(plan, job=replace(plan.job, cache=str(tmp_path / "cache")))
    with pytest.raises(ConformanceError, match=r"TensorFlow is not installed, and .*cache has"):
        evaluate(empty, tmp_path / "run", in_threads(1))


def test_bad_images_are_left_out_up_to_a_limit(imagenet_home: Path, tmp_path: Path) -> None:
    """Bad images are counted and listed; one more than --max-bad allows stops the run."""
    files = write_images(tmp_path / "val", 24)
    labels = true_labels(tmp_path / "val", files)
    for name in files[3:5]:
        (tmp_path / "val" / name).write_bytes(b"no image")
    dataset = read_dataset(tmp_path / "val", write_labels(tmp_path / "val.txt", files, labels))
    plan = sample_plan(imagenet_home, dataset)
    found = evaluate(replace(plan, max_bad=9.0), tmp_path / "run", in_threads(1))
    assert [one["file"] for one in found.bad] == files[3:5]
    assert found.summary["images"] == 22
    assert found.summary["opencv"]["top1"]["hits"] == 22
    with pytest.raises(ConformanceError, match=rf"2 of 24 images .*8 %:\n  {files[3]}: "):
        evaluate(replace(plan, max_bad=8.0), tmp_path / "run", in_threads(1))


def test_refusal_of_opencv_is_its_failure(plan: Plan, whole: Evaluation, tmp_path: Path) -> None:
    """A graph that OpenCV can't read is OpenCV's failure, told with model and version."""
    nodes = changed(graph_nodes(tiny_weights(CLASSES), SIZE), "conv1/Relu", op="NoSuchOp")
    with pytest.raises(FrameworkError, match=f"OpenCV {plan.opencv} .* mobilenet") as caught:
        evaluate(judged_by(plan, tmp_path, nodes), tmp_path / "run", in_threads(1))
    assert caught.value.module == OPENCV


def test_crash_of_opencv_is_its_failure(plan: Plan) -> None:
    """An OpenCV whose process dies is told with the signal, and another one is started."""
    with servers_closed():
        child = server(OPENCV, shards.opencv_request(plan.job), 60)
        os.kill(child.process.pid, signal.SIGSEGV)
        with pytest.raises(FrameworkError, match="process of OpenCV was killed by SIGSEGV"):
            child.ask({"pixels": "", "outputs": ""})
        assert server(OPENCV, shards.opencv_request(plan.job), 60) is not child


def test_hanging_opencv_is_its_failure(plan: Plan, whole: Evaluation, tmp_path: Path) -> None:
    """An OpenCV that takes too long is ended, and its failure says so."""
    late = replace(plan, job=replace(plan.job, timeout=0.01))
    with pytest.raises(
        FrameworkError, match=r"OpenCV gave no answer within the time limit of 0\.01 s"
    ):
        evaluate(late, tmp_path, in_threads(1))


def test_shards_at_a_time_give_the_same_bits(plan: Plan, whole: Evaluation, tmp_path: Path) -> None:
    """TensorFlow gives an image the same bits with others or not, side by side or in turn."""
    assert plan.job.cache is not None
    pixels = np.load(next(Path(plan.job.cache).glob("pixels-*.npy")))
    parts = np.array_split(pixels, 4)
    for name, part in [("all", pixels), *enumerate(parts)]:
        np.save(tmp_path / f"{name}.npy", part)

    def outputs(child: Server, name: object) -> np.ndarray[Any, Any]:
        given = tmp_path / f"outputs-{name}.npy"
        child.ask({"pixels": str(tmp_path / f"{name}.npy"), "outputs": str(given)})
        return np.asarray(np.load(given))

    request = {**shards.tensorflow_request(plan.job), "batch": len(pixels)}
    with closing(Server(TENSORFLOW, request, 60)) as child, ThreadPoolExecutor(4) as pool:
        together = outputs(child, "all")
        in_turn = [outputs(child, number) for number in range(4)]
        at_once = [list(pool.map(partial(outputs, child), range(4))) for _ in range(5)]
    for found in (in_turn, *at_once):
        np.testing.assert_array_equal(np.concatenate(found), together)


def test_workers_share_a_tensorflow(plan: Plan, whole: Evaluation, tmp_path: Path) -> None:
    """Two workers start one TensorFlow; its death ends the run, which --resume takes up again."""
    alone = replace(plan, job=replace(plan.job, cache=None, batch=2))
    started: list[int] = []

    def killing(tally: Tally) -> None:
        if tally.done and not started:
            started.extend(processes_of(TENSORFLOW))
            for sent in (signal.SIGSTOP, signal.SIGKILL):
                for process in started:
                    os.kill(process, sent)
                time.sleep(1)  # in which the next shards come to it

    with pytest.raises(FrameworkError, match=r"process of TensorFlow was killed by SIGKILL \(out"):
        evaluate(alone, tmp_path, in_threads(2), report=killing)
    assert len(started) == 1
    assert list(tmp_path.glob("*.npz"))
    assert numbers(evaluate(alone, tmp_path, in_threads(2), resume=True)) == numbers(whole)


def processes_of(module: str) -> list[int]:
    """Return the processes of the module that this one started."""
    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if module in child.cmdline()]


@pytest.mark.parametrize("what", ["run", "cache"])
def test_full_disk(
    plan: Plan, whole: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A full disk is an error that names the folder and how to go on."""
    if what == "cache":
        plan = replace(plan, job=replace(plan.job, cache=str(tmp_path / "cache")))
    replaced = os.replace

    def full(source: Path, target: Path) -> None:
        if target.is_relative_to(tmp_path / what) and target.suffix in (".npz", ".npy"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replaced(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ConformanceError, match=rf"{what}: no space left.* --resume"):
        evaluate(plan, tmp_path / "run", in_threads(1))


@pytest.mark.parametrize("framework", ["opencv", "outputs"])
def test_disk_full_for_a_framework(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framework: str
) -> None:
    """A child whose answer finds no room is an error of the disk, and no failure of OpenCV's."""

    @contextmanager
    def scratch() -> Iterator[str]:
        with TemporaryDirectory(dir=tmp_path) as name:
            Path(name, f"{framework}.npy").symlink_to("/dev/full")
            yield name

    monkeypatch.setattr(shards, "Scratch", scratch)
    cold = replace(plan, job=replace(plan.job, cache=str(tmp_path / "cache")))
    with pytest.raises(ConformanceError, match=r"cache: no space left.* --resume"):
        evaluate(cold, tmp_path / "run", in_threads(1))


def test_results_are_whole_or_refused(whole: Evaluation, tmp_path: Path) -> None:
    """What is written is read back; an edited or cut file is refused. The log has parameters."""
    odd = {**whole.summary, "l1_max": float("nan")}
    path = write_results(tmp_path, replace(whole, summary=odd))
    found = read_results(path)
    assert path.name == f"{results_name(whole.plan)}.jsonl"
    assert found.summary["opencv"] == whole.summary["opencv"]
    assert found.summary["l1_max"] == "nan"
    assert found.header["recipe"].startswith("short side to the input size")
    log = (tmp_path / "TF_mobilenet_log.txt").read_text()
    assert "frame size: 16" in log
    assert "TensorFlow: top-1 85.000%" in log
    text = path.read_text()
    for changed_text, said in (
        (text.replace('"bad": 0', '"bad": 1'), "differs from the digest"),
        ("".join(text.splitlines(keepends=True)[:-1]), "no complete results"),
        (text[:-40], ":3: not JSON, truncated"),
    ):
        path.write_text(changed_text)
        with pytest.raises(ConformanceError, match=said):
            read_results(path)


@pytest.mark.parametrize(
    ("opencv", "engine", "name"),
    [
        ("4.14.0", "classic", "mobilenet-4.14.0"),
        ("5.0.0", "new", "mobilenet-5.0.0"),
        ("5.0.0", "classic", "mobilenet-5.0.0-classic"),
    ],
)
def test_only_a_second_engine_is_in_the_name(
    plan: Plan, opencv: str, engine: str, name: str
) -> None:
    """Results are <model>-<opencv>, and only OpenCV 5's classic engine says so in the name."""
    job = replace(plan.job, config=replace(plan.job.config, engine=engine))
    assert results_name(replace(plan, opencv=opencv, job=job)) == name


def test_memory_is_bounded(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 50,000 images, a list of the same files again and again, few bytes each are held."""
    entries = (plan.dataset.entries * 500)[:50_000]
    job = replace(plan.job, batch=50)
    many = replace(plan, job=job, dataset=replace(plan.dataset, entries=entries))
    outputs = np.random.RandomState(0).random_sample((200, CLASSES)).astype(np.float32)
    arrays = shards.compared(np.zeros(200, np.int16), outputs, outputs)

    def fake(job: Job, left: Sequence[Shard]) -> Generator[ShardResult, None, None]:
        for index, _ in left:
            copies = {name: array.copy() for name, array in arrays.items()}
            yield ShardResult(index, copies, [], {"opencv": 1.0, "tensorflow": 1.0})

    monkeypatch.setattr(os, "fsync", lambda _: None)  # a slow disk is none of this
    require_scipy()  # whose import is none of it either
    tracemalloc.start()
    found = evaluate(many, tmp_path, fake)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.summary["images"] == 50_000
    assert peak < 100 << 20


class Counting(Executor):
    """Runs nothing; counts the shards that it holds."""

    def __init__(self) -> None:
        self.held: list[int] = []
        self.futures: list[Future[Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Take a shard, and end it at once where it is the third of those under way."""
        future: Future[Any] = Future()
        self.futures.append(future)
        under_way = [one for one in self.futures if not one.done()]
        self.held.append(len(under_way))
        if len(under_way) == 3:
            under_way[0].set_result(len(self.futures) - 3)
        return future


def test_no_more_shards_wait_than_there_are_workers() -> None:
    """An executor gets a shard for each of its workers at a time; closing cancels what is left."""
    executor = Counting()
    job: Any = None
    left: Any = [(index, ()) for index in range(50)]
    results: Generator[Any, None, None] = runner._results(executor, lambda: 3, job, left)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(executor.futures) < 8
    assert max(executor.held) == 3
    results.close()
    assert all(future.done() for future in executor.futures)


def test_outputs_that_are_not_finite_are_wrong() -> None:
    """NaN in OpenCV's output is no hit by chance, and shows in the L1."""
    outputs = np.full((1, 10), 0.1, np.float32)
    broken = np.full((1, 10), np.nan, np.float32)
    arrays = shards.compared(np.array([3]), broken, outputs)
    assert np.isnan(arrays["l1"]).all()


@pytest.mark.parametrize("identity", [{"config": {"cpu_off": ("AVX2",)}}, {"batch": 10}])
def test_run_of_the_same_is_resumed(tmp_path: Path, identity: dict[str, Any]) -> None:
    """A run is recognised by what it was, tuples included; one that did not begin is begun."""
    folder = RunFolder(tmp_path / "shards", identity)
    (tmp_path / "shards").mkdir()  # a run that was killed before its first line
    assert folder.open(resume=True) == {}
    assert folder.open(resume=True) == {}
    with pytest.raises(ConformanceError, match="of another evaluation"):
        RunFolder(tmp_path / "shards", {"config": "another", "batch": 0}).open(resume=True)
