"""CPU levels: what --cpu-disable takes, what OpenCV makes of it, and where it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.candidate import RunConfig
from conformance.errors import ConformanceError
from conformance.opencv.capability import probe_in_child
from conformance.opencv.levels import Level, check_off, chosen_features, levels
from conformance.opencv.run import run_candidate
from conformance.plugin.recorder import belongs
from conformance.report.matrix import build_matrix
from conformance.results.cases import read_results
from conformance.results.gate import compare
from conformance.results.history import history
from conformance.results.times import read_benchmarks

from . import sample_results
from .test_plugin import MODEL, packs, run_suite
from .tiny import tiny_pack

__all__ = ["packs"]  # a fixture

LINE = "SSE SSE2 SSE3 *SSE4.1 *SSE4.2 *AVX *FP16 *AVX2 *AVX512-SKX"
OLDER = "SSE SSE2 SSE3 *SSE4.1 *AVX2? *AVX512-SKX?"


@pytest.fixture(scope="module")
def chosen() -> list[str]:
    """The features that the installed OpenCV chooses kernels by."""
    return chosen_features(probe_in_child()["cpu_features"])


def test_features_are_named_in_the_order_of_opencvs() -> None:
    """Two ways to write the same set are one level."""
    (one, *more) = levels(["AVX512-SKX,AVX2", "AVX2,AVX512-SKX"], LINE)
    assert one == Level("without_AVX2_AVX512-SKX", ("AVX2", "AVX512-SKX"))
    assert not more


def test_baseline_is_all_that_can_be_switched_off() -> None:
    """What the CPU lacks already, or every CPU has, is no part of it."""
    assert levels(["baseline"], OLDER) == [Level("baseline", ("SSE4.1",))]


def test_each_goes_from_the_newest_instructions_to_none() -> None:
    """A machine with AVX-512 has three levels, one without AVX2 the last of them."""
    off = [level.off for level in levels(["each"], LINE)]
    assert off[:2] == [("AVX512-SKX",), ("FP16", "AVX2", "AVX512-SKX")]
    assert off[2:] == [("SSE4.1", "SSE4.2", "AVX", "FP16", "AVX2", "AVX512-SKX")]
    assert levels(["each"], OLDER) == [Level("baseline", ("SSE4.1",))]


@pytest.mark.parametrize(
    ("asked", "line", "said"),
    [
        ("SSE3", LINE, "SSE3 is in the baseline"),
        ("AVX2,NEON", LINE, "no kernels for a CPU feature 'NEON'"),
        ("AVX2", OLDER, "AVX2 is nothing that this CPU has"),
        ("baseline", "NEON FP16", "no kernels that it chooses by the CPU"),
    ],
)
def test_what_cannot_be_switched_off_is_an_error(asked: str, line: str, said: str) -> None:
    """OpenCV only warns of such features, if at all; the error names those that can be."""
    with pytest.raises(ConformanceError, match=said) as error:
        levels([asked], line)
    assert str(error.value).startswith(f"--cpu-disable {asked}: ")
    assert "SSE4.1" in str(error.value) or "NEON FP16" in str(error.value)


def test_opencv_that_takes_no_notice_is_an_error() -> None:
    """A feature that is still on in the process that was told to do without is no older CPU."""
    with pytest.raises(ConformanceError, match="without AVX2 and did not"):
        check_off(Level("x", ("AVX2",)), LINE)


def test_what_the_user_switched_off_stays_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A level goes without its features and those that the environment names already."""
    monkeypatch.setenv("OPENCV_CPU_DISABLE", "AVX2,FP16")
    level = RunConfig(cpu="x", cpu_off=("AVX512-SKX", "FP16"))
    assert level.environment == {"OPENCV_CPU_DISABLE": "AVX2,FP16,AVX512-SKX"}
    assert RunConfig().environment == {}


def test_another_level_computes_other_bits(tmp_path: Path, chosen: list[str]) -> None:
    """The candidate's process really runs without what was switched off."""
    if not chosen:
        pytest.skip("this OpenCV has no kernels that it chooses by the CPU")
    pack = tiny_pack(tmp_path)
    plain, old = (
        run_candidate(pack, RunConfig(cpu=name, cpu_off=off))
        for name, off in (("", ()), ("baseline", tuple(chosen)))
    )
    assert plain.outputs is not None
    assert old.outputs is not None
    assert (plain.outputs != old.outputs).any()


def test_run_at_two_levels_writes_a_file_each(packs: Path, chosen: list[str]) -> None:
    """The header says what is off and that OpenCV took notice; a case is in its level's file."""
    if len(chosen) < 2:
        pytest.skip("this OpenCV has no two features to switch off")
    one = chosen[-1]
    asked = ["--cpu-disable", one, "--cpu-disable", "baseline"]
    done = run_suite(packs, "--engine", "classic", *asked, "--results", "r")
    assert done.returncode == 0, done.stdout
    assert f"CPU without {one} (OpenCV took notice): " in done.stdout
    found = {path.name.partition("-")[2]: read_results(path) for path in packs.glob("r/*.jsonl")}
    assert set(found) == {f"classic-without_{one}.jsonl", "classic-baseline.jsonl"}
    ids = [sorted(case["id"] for case in results.cases) for results in found.values()]
    assert ids[0] == ids[1]
    assert not any("baseline" in case for case in ids[0])
    assert found["classic-baseline.jsonl"].header["cpu_disabled"] == chosen


def test_known_failure_is_of_its_level(packs: Path, chosen: list[str]) -> None:
    """An entry of the known failures that names a feature holds only where that is off."""
    if not chosen:
        pytest.skip("this OpenCV has no kernels that it chooses by the CPU")
    known = packs / "known.toml"
    known.write_text(
        f'schema = 1\n[[failure]]\nmodel = "{MODEL}"\ncpu_disabled = "{chosen[-1]}"\n'
        'stage = "agreement"\ntest = "test_top1"\nreason = "made up"\n'
    )
    options = ("--engine", "classic", "--known-failures", str(known))
    passed = run_suite(packs, *options)
    assert passed.returncode == 0, passed.stdout  # the entry is about other levels
    done = run_suite(packs, *options, "--cpu-disable", "baseline")
    assert done.returncode == 1
    assert "XPASS(strict)" in done.stdout


def test_case_belongs_to_its_level() -> None:
    """A case at a level is no evidence for another; one that OpenCV has no part in is for all."""
    plain, old = RunConfig(), RunConfig(cpu="baseline")
    assert belongs({"engine": "classic"}, plain)
    assert not belongs({"engine": "classic"}, old)
    assert belongs({"engine": "classic", "cpu": "baseline"}, old)
    assert not belongs({"engine": "classic", "cpu": "baseline"}, plain)
    assert belongs({}, old)


def test_reports_tell_levels_and_targets_apart(tmp_path: Path) -> None:
    """Each has a column of its own; history follows each by itself, and compare takes two."""
    lines = [sample_results.case("mobilenet"), sample_results.run("mobilenet")]
    bad = [sample_results.case("mobilenet", outcome="failed")]
    old = {"cpu_level": "baseline", "cpu_disabled": ["AVX2"]}
    made = [
        sample_results.write(tmp_path / "a.jsonl", lines, version="4.7.0"),
        sample_results.write(tmp_path / "b.jsonl", bad, version="4.7.0", **old),
        sample_results.write(tmp_path / "c.jsonl", lines, version="4.12.0", **old),
        sample_results.write(tmp_path / "d.jsonl", lines, version="4.12.0", target="opencl"),
    ]
    files = [read_results(path) for path in made]
    (group,) = build_matrix(files).groups
    assert [column.label for column in group.columns] == [
        *("4.7.0 classic", "4.7.0 classic-baseline"),
        *("4.12.0 classic-baseline", "4.12.0 classic-opencl"),
    ]
    steps = [(step.engine, step.kind, step.version) for step in history(files)]
    assert steps == [("classic-baseline", "verdict", "4.12.0")]
    assert [change.kind for change in compare(files[0], files[1])] == ["newly failing"]


def test_inference_times_are_of_the_level(packs: Path, chosen: list[str]) -> None:
    """They are recorded as of where they were taken; of several levels none are, as cv2 is one."""
    if not chosen:
        pytest.skip("this OpenCV has no kernels that it chooses by the CPU")
    asked = ["-m", "inference_time", "--engine", "classic", "--cpu-disable", "baseline"]
    quick = ["--benchmark-max-time=0.01", "--benchmark-min-rounds=2", "--benchmark-json=t.json"]
    done = run_suite(packs, *asked, *quick, keyword="mobilenet and not mobilenetv2 and opencv")
    assert done.returncode == 0, done.stdout
    (timing,) = read_benchmarks([packs / "t.json"]).timings
    assert timing.engine == "classic-baseline"
    several = run_suite(packs, *asked, "--cpu-disable", chosen[-1])
    assert several.returncode == 2  # as pytest tells what happens in a test's own file
    assert "give --cpu-disable once" in several.stdout + several.stderr
