"""The report's section on the evaluation, from results files made on the spot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conformance.candidate import RunConfig
from conformance.cli.main import main
from conformance.imagenet.dataset import Dataset, Entry
from conformance.imagenet.decoder import Bad
from conformance.imagenet.evaluation import Plan, make_job, summed_up
from conformance.imagenet.files import write_results
from conformance.imagenet.shards import ShardResult, compared
from conformance.results.evaluations import read_all

from .imagenet_sample import names, sample_pack
from .sample_results import case, run, write
from .test_report import data_of, page_of, without_scripts


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with evaluations on two OpenCVs: of 5 images one is bad, one answered otherwise."""
    home = tmp_path_factory.mktemp("results")
    entries = tuple(Entry(name, 1, 1) for name in names(5))
    job = make_job(sample_pack(home / "packs"), home, "keras", RunConfig())
    plan = Plan(job, Dataset(home, entries), "4.12.0", "synthetic", max_bad=20)
    theirs = np.eye(10, dtype=np.float32)[[1, 1, 1, 2]]
    ours = np.eye(10, dtype=np.float32)[[1, 1, 3, 2]]
    bad = [Bad(1, entries[1].name, "<b>truncated</b>")]
    seconds = {"opencv": 0.08, "tensorflow": 0.04}
    shard = ShardResult(0, compared(np.ones(4, np.int16), ours, theirs), bad, seconds)
    for version in ("4.12.0", "5.0.0"):
        write_results(home / "imagenet", summed_up(replace(plan, opencv=version), [shard]))
    return home


def test_section_has_both_accuracies(results: Path, tmp_path: Path) -> None:
    """The page shows accuracies, recipe, disagreement and bad image of each version."""
    page = page_of(tmp_path, str(results))
    told = without_scripts(page)
    assert told.count('<td class="n">50.000</td><td class="n">75.000</td>') == 2
    assert "short side to 8/7 of the input size, bicubic" in told
    assert f"{names(4)[3]}: class 1, OpenCV 3 (margin 1), TensorFlow 1 (margin 1)" in told
    assert "&lt;b&gt;truncated&lt;/b&gt;" in told
    packs = {one.header["pack"] for one in read_all((results / "imagenet").glob("*.jsonl"))}
    assert [told.count(f"<code>{pack}</code>") for pack in packs] == [2]
    rows = data_of(page)["rows"]["evaluations"]
    assert [(row["who"].split()[0], row["ms"]) for row in rows] == [
        ("OpenCV", 20.0),
        ("TensorFlow", 10.0),
        ("OpenCV", 20.0),
    ]


def test_verdicts_and_pictures_beside_it(results: Path, tmp_path: Path) -> None:
    """A folder with verdicts and evaluations gives both, and a picture of the times."""
    folder = tmp_path / "both"
    write(folder / "5.0.0-new.jsonl", [case("mobilenet"), run("mobilenet")])
    (folder / "imagenet").symlink_to(results / "imagenet")
    page = page_of(tmp_path, str(folder), "--png", str(tmp_path / "png"))
    assert 'id="verdicts-heading"' in page
    assert 'id="accuracy-heading"' in page
    assert len(list((tmp_path / "png").glob("imagenet-time*.png"))) == 1


def test_evaluations_are_found_however_they_are_named(results: Path, tmp_path: Path) -> None:
    """Files, their folder, or verdicts beside them: each evaluation is shown, and once."""
    folder = tmp_path / "both"
    verdicts = write(folder / "5.0.0-new.jsonl", [case("mobilenet"), run("mobilenet")])
    (folder / "imagenet").symlink_to(results / "imagenet")
    files = [str(path) for path in (folder / "imagenet").glob("*.jsonl")]
    for given in (files, [str(results / "imagenet")], [str(verdicts)], [str(folder), *files]):
        page = without_scripts(page_of(tmp_path, *given))
        assert page.count('<td class="n">50.000</td><td class="n">75.000</td>') == 2


def test_edited_evaluation_is_named(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An evaluation that was edited ends the command with 2, its name and why."""
    (original, *_) = (results / "imagenet").glob("*.jsonl")
    edited = tmp_path / "imagenet" / original.name
    edited.parent.mkdir()
    edited.write_text(original.read_text().replace('"bad": 1', '"bad": 0'))
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "r.html")]) == 2
    assert f"{original.name}: differs from the digest" in capsys.readouterr().err


def test_markdown_has_the_accuracies(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The CI summary has a line an evaluation."""
    assert main(["report", str(results), "--format", "md"]) == 0
    told = capsys.readouterr().out
    assert told.count("| keras | 4 | 50.000 / 75.000 | 100.000 / 100.000 |") == 2


def test_no_section_without_evaluation(tmp_path: Path) -> None:
    """A report of verdicts alone has no such section."""
    write(tmp_path / "5.0.0-new.jsonl", [case("mobilenet"), run("mobilenet")])
    assert 'id="accuracy-heading"' not in page_of(tmp_path, str(tmp_path))
