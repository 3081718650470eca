"""Known failures: which cases an entry matches, and what its file may not contain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Callable

import pytest

from conformance.errors import ConformanceError
from conformance.verdict.expectations import (
    NO_MODEL,
    STAGES,
    Case,
    KnownFailure,
    load_known_failures,
    match_known_failure,
    ready_entry,
)

Load = Callable[..., tuple[KnownFailure, ...]]

_CASE = Case(
    model="mobilenet",
    stage="agreement",
    test="test_top1",
    opencv="4.14.0",
    importer="tensorflow",
    engine="classic",
    backend="default",
    target="cpu",
    graph="opencv",
    keras="keras3",
    python="3.9.18",
    numpy="1.26.4",
)
_ENTRY = {"model": '"mobilenet"', "stage": '"agreement"', "reason": '"because"'}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """A function that reads a file of known failures with one entry of the given keys."""

    def load(text: str = "", **keys: str) -> tuple[KnownFailure, ...]:
        entry = "".join(f"{key} = {value}\n" for key, value in keys.items())
        path = tmp_path / "known_failures.toml"
        path.write_text(f"schema = 1\n{text}" + (f"[[failure]]\n{entry}" if keys else ""))
        return load_known_failures(path)

    return load


def test_the_committed_file_can_be_read() -> None:
    """The committed file has no unknown key, model or specifier."""
    for entry in load_known_failures():
        assert entry.reason


@pytest.mark.parametrize(
    ("key", "value", "matches"),
    [
        ("model", '["vgg16", "mobilenet"]', True),
        ("model", '"mobilenetv2"', False),
        ("engine", '"classic"', True),
        ("engine", '"new"', False),
        ("importer", '"tflite"', False),
        ("backend", '"openvino"', False),
        ("target", '"cpu_fp16"', False),
        ("graph", '"raw"', False),
        ("keras", '"legacy"', False),
        ("switches", '"winograd_off"', False),
        ("opencv", '">=4.13,<5"', True),
        ("opencv", '"==4.14.*"', True),
        ("opencv", '">=5"', False),
        ("python", '"<3.10"', True),
        ("python", '">=3.10"', False),
        ("numpy", '"<2"', True),
        ("numpy", '">=2"', False),
        ("test", '"test_top*"', True),
        ("test", '"test_l1*"', False),
        ("stage", '"output"', False),
    ],
)
def test_an_entry_matches_where_all_it_names_does(
    load: Load, key: str, value: str, matches: bool
) -> None:
    """An entry matches a case exactly when each of its keys does."""
    entries = load(**{**_ENTRY, key: value})
    assert (match_known_failure(entries, _CASE) is not None) is matches


@pytest.mark.parametrize(
    ("opencv", "matches"),
    [
        ("4.12.0", False),
        ("4.13.0", True),
        ("4.13.0-dev", True),
        ("4.13.0-pre", True),
        ("4.13.0.90", True),
        ("4.14.0-alpha+build1", True),
        ("5.0.0-alpha", False),
        ("5.0.0", False),
    ],
)
def test_development_versions_count_as_their_release(
    load: Load, opencv: str, matches: bool
) -> None:
    """``>=4.13,<5`` holds for 4.13's wheels and development builds, and for none of 5's."""
    entries = load(**_ENTRY, opencv='">=4.13,<5"')
    assert (match_known_failure(entries, replace(_CASE, opencv=opencv)) is not None) is matches


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        ("parse", set(STAGES) - {"freeze", "convert", "preprocessing", "start"}),
        (
            "forward",
            set(STAGES) - {"freeze", "convert", "preprocessing", "start", "parse", "setup"},
        ),
        ("agreement", {"agreement"}),
        ("freeze", {"freeze"}),
    ],
)
def test_what_comes_after_a_failed_stage_fails_too(
    load: Load, failed: str, expected: set[str]
) -> None:
    """A failed parse, set-up or forward covers the later stages; any other only itself."""
    entries = load(**{**_ENTRY, "stage": f'"{failed}"'})
    found = {s for s in STAGES if match_known_failure(entries, replace(_CASE, stage=s))}
    assert found == expected


def test_a_ready_entry_expects_the_case_it_was_made_from(load: Load) -> None:
    """The entry printed for a new failure reads back, matches its case, and no other version."""
    reason = 'node "a\\b"\n\x7f said: Größe < 0 😀'
    entries = load(ready_entry(_CASE, reason, "https://example.org/1"))
    entry = match_known_failure(entries, _CASE)
    assert entry is not None
    assert match_known_failure(entries, replace(_CASE, opencv="4.14.0.94")) is entry
    assert (entry.reason, entry.link) == (reason, "https://example.org/1")
    assert match_known_failure(entries, replace(_CASE, opencv="4.13.0")) is None


_BLOB = replace(_CASE, model=NO_MODEL, stage="preprocessing", test="test_x", opencv="4.8.1")
_BLOB = replace(_BLOB, parameters="grey-swap-NHWC")


@pytest.mark.parametrize(
    ("case", "matches"),
    [
        (_BLOB, True),
        (replace(_BLOB, parameters="grey-as_is-NHWC"), False),
        (replace(_BLOB, test="test_y"), False),
        (replace(_BLOB, opencv="4.9.0"), False),
        (replace(_BLOB, model="mobilenet"), False),
    ],
)
def test_an_entry_without_a_model_is_about_blobs(load: Load, case: Case, matches: bool) -> None:
    """Of the stage preprocessing an entry without model covers the test and the cases it names."""
    names = {"stage": '"preprocessing"', "test": '"test_x"', "case": '"grey-swap-*"'}
    entries = load(**names, opencv='"<4.9"', reason='"because"')
    assert (match_known_failure(entries, case) is not None) is matches


@pytest.mark.parametrize(
    ("stage", "missing"), [("preprocessing", "'test' is missing"), ("parse", "'model' is missing")]
)
def test_an_entry_without_a_model_needs_a_test(load: Load, stage: str, missing: str) -> None:
    """Only preprocessing may go without a model, and then not without a test."""
    with pytest.raises(ConformanceError, match=missing):
        load(stage=f'"{stage}"', reason='"because"')


def test_a_ready_entry_keeps_the_switches(load: Load) -> None:
    """An entry made of a case with switches matches that case and not the one without."""
    switched = replace(_CASE, switches="winograd_off")
    entries = load(ready_entry(switched, "because"))
    assert match_known_failure(entries, switched) is not None
    assert match_known_failure(entries, _CASE) is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("modle", '"vgg16"', "unknown key 'modle'; did you mean 'model'"),
        ("model", '"mobilnet"', "unknown model 'mobilnet': did you mean 'mobilenet'"),
        ("model", "[]", "'model' is missing or empty"),
        ("model", "[1]", "'model' must be a string or a list of them"),
        ("stage", '"parsing"', "unknown stage 'parsing'; did you mean 'parse'"),
        ("opencv", '"4.13"', "opencv = '4.13' is no version specifier"),
        ("numpy", '">=two"', "numpy = '>=two' is no version specifier"),
        ("engine", "5", "'engine' must be a string, not 5"),
        ("reason", '""', "'reason' is missing or empty"),
    ],
)
def test_a_wrong_entry_is_refused(load: Load, key: str, value: str, message: str) -> None:
    """Each mistake is an error that names the file and the entry's number."""
    with pytest.raises(ConformanceError, match=message) as error:
        load(**{**_ENTRY, key: value})
    assert "known_failures.toml [[failure]] 1" in str(error.value)


def test_a_table_that_is_no_list_is_refused(load: Load) -> None:
    """``[failure]`` instead of ``[[failure]]`` is an error that says so."""
    with pytest.raises(ConformanceError, match=r"under \[\[failure\]\]"):
        load('[failure]\nmodel = "vgg16"')


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A file that is not there is an error that names it."""
    with pytest.raises(ConformanceError, match=r"absent.toml: can't be read"):
        load_known_failures(tmp_path / "absent.toml")


def test_a_version_without_numbers_is_refused(load: Load) -> None:
    """A version that is none can't be matched, and says so."""
    with pytest.raises(ConformanceError, match="version 'unknown'"):
        match_known_failure(load(**_ENTRY), replace(_CASE, opencv="unknown"))
