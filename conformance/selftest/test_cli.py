"""The command line: what it prints, what it exits with, what it says to bad input."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.cli import main as command_line
from conformance.cli.main import PACKAGE, Command, find_commands, main
from conformance.cli.options import (
    DECIDING,
    OPTIONS,
    add_option,
    chosen_models,
    repeated,
)
from conformance.errors import ConformanceError
from conformance.models import MODELS
from conformance.pack import builder as building
from conformance.pack.request import SCHEMA
from conformance.pack.store import default_packs

from .tiny_pack import write_tiny


def test_list_prints_every_model_in_80_columns() -> None:
    """`list`, as a user runs it, prints all 15 with their figures, in at most 80 columns."""
    command = [sys.executable, "-m", "conformance", "list"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert max(len(line) for line in lines) <= 80
    rows = {words[0]: words[1:] for words in map(str.split, lines) if words and words[0] in MODELS}
    assert list(rows) == list(MODELS)
    assert rows["nasnetlarge"] == ["331x331", "tf", "88,949,818", "82.498", "96.004"]


def test_light_commands_import_neither_side() -> None:
    """Starting the command line imports neither TensorFlow nor OpenCV."""
    script = (
        "import sys; from conformance.cli.main import main; main(['list']); "
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras', 'cv2')))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


def test_unknown_model_is_an_error_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelled model exits 2, names the nearest one and shows no traceback."""
    assert main(["pack", "build", "moblenet"]) == 2
    assert "did you mean 'mobilenet'" in capsys.readouterr().err


def test_missing_weights_are_reported_before_anything_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A weights folder that is not there exits 2 and names the folder."""
    arguments = ["--packs", str(tmp_path), "--weights", str(tmp_path / "nowhere")]
    assert main(["pack", "build", "mobilenet", *arguments]) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["pack", "build", "mobilenet"], ["diversity"]])
def test_without_tensorflow_the_extra_is_named(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands that need TensorFlow exit 2 where it is absent and say what to install."""
    monkeypatch.setattr(building, "producer_versions", lambda flavour: None)
    assert main(words) == 2
    assert "[tensorflow]" in capsys.readouterr().err


def test_verify_accepts_whole_packs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`pack verify` exits 0 and has a line for each pack when all are whole."""
    for model in ("mobilenet", "xception"):
        write_tiny(tmp_path, model)
    assert main(["pack", "verify", "--packs", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("ok ") == 2


def test_verify_names_the_damaged_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`pack verify` exits 1 when a pack is damaged, names its file and still checks the others."""
    write_tiny(tmp_path, "xception")
    with (write_tiny(tmp_path).path / "outputs_f64.npy").open("ab") as file:
        file.write(b"x")
    assert main(["pack", "verify", "--packs", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "outputs_f64.npy: has" in shown
    assert "ok       xception" in shown


def test_verify_notices_a_folder_that_is_no_pack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder without pack.json where a pack should be fails `pack verify`."""
    (tmp_path / "mobilenet" / "0123456789abcdef").mkdir(parents=True)
    assert main(["pack", "verify", "--packs", str(tmp_path)]) == 1
    assert "is not a pack" in capsys.readouterr().out


def test_verify_of_nothing_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`pack verify` of a folder without packs exits 2 rather than calling it fine."""
    assert main(["pack", "verify", "--packs", str(tmp_path / "absent")]) == 2
    assert "there are no packs" in capsys.readouterr().err


def test_list_of_packs_shows_damaged_ones_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`pack list` has a row for each pack, and for one it cannot read as well."""
    key = write_tiny(tmp_path).manifest.key
    write_tiny(tmp_path, "xception", schema=SCHEMA + 1)
    assert main(["pack", "list", "--packs", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert key in shown
    assert "synthetic" in shown
    assert "xception" in shown
    assert "unreadable" in shown
    assert max(len(line) for line in shown.splitlines()[1:]) <= 80


@pytest.mark.parametrize("command", [c for c in find_commands() if "pack" in c.words])
def test_pack_commands_take_a_folder(command: Command) -> None:
    """Every command on packs takes --packs, the user's cache folder by default."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert parser.parse_args(["--packs", "x"]).packs == Path("x")
    assert parser.parse_args([]).packs == default_packs()


def test_a_command_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that begins as a command does is one, in a group of its own too; others are none."""
    folder = tmp_path / "elsewhere" / "commands"
    folder.mkdir(parents=True)
    file = '"""far out: help."""\ndef add_arguments(_): ...\ndef main(_): return 1\n'
    (folder / "far.py").write_text(file, encoding="utf-8")
    (folder / "near.py").write_text(file.replace("far out: help", "Near"), encoding="utf-8")
    monkeypatch.setattr(command_line, "PACKAGE", folder.parent)
    monkeypatch.syspath_prepend(tmp_path)
    assert find_commands() == [Command("far out", "help.", "elsewhere.commands.far")]
    assert main(["far", "out"]) == 1


def test_each_file_of_a_command_is_found() -> None:
    """Each module of commands/, and each feature's command.py, is a command by its first line."""
    modules = {command.module for command in find_commands()}
    files = {*PACKAGE.glob("commands/[!_]*.py"), *PACKAGE.glob("*/command.py")}
    assert {module.rpartition("conformance.")[2] for module in modules} == {
        ".".join(file.relative_to(PACKAGE).with_suffix("").parts) for file in files
    }


@pytest.mark.parametrize("words", [[], ["pack"], ["nonsense"], ["pack", "build", "--graph", "x"]])
def test_bad_usage_exits_with_2(words: list[str]) -> None:
    """Whatever the parser does not understand exits 2."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    "words",
    [["faults", "--workers", "0"], ["faults", "--a-kind", "-1"], ["localize", "--threads=0"]],
)
def test_counts_below_one_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A number of workers, faults or threads below 1 is refused by its option's name."""
    assert main([*words, "mobilenet"]) == 2
    shown = capsys.readouterr().err
    assert words[1].split("=")[0] in shown
    assert "give 1 or more" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pack", "list", "--packs", __file__], "it is a file; give a folder"),
        (["evaluate", "vgg16", "--results", __file__], "it is a file; give a folder"),
        (["predict", "vgg16", "--timeout", "nan"], "--timeout nan: give a number above 0"),
        (["localize", "vgg16", "--fusion", "no"], "--fusion no: give on, off, or on,off"),
    ],
)
def test_bad_values_exit_with_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What an option can't take is refused in one line, before anything is done."""
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


def test_deciding_options_are_repeated() -> None:
    """What decides an answer is repeated as it was given, defaults left out."""
    parser = argparse.ArgumentParser()
    for name in DECIDING:
        add_option(parser.add_argument, name)
    words = ["--packs=p", "--weights=imagenet", "--graph=raw", "--importer=onnx", "--engine=new"]
    words += ["--target=cpu_fp16", "--threads=2", "--winograd=on,off", "--fusion=off"]
    values = vars(parser.parse_args(words))
    names = {option: option[2:].replace("-", "_") for option in DECIDING}
    by_option = {o: values[OPTIONS[o].get("dest", name)] for o, name in names.items()}
    assert sorted(f"{name}={value}" for name, value in repeated(by_option)) == sorted(words)
    assert list(repeated({**dict.fromkeys(DECIDING), "--target": "cpu"})) == []


def test_reader_that_leaves_is_no_error() -> None:
    """`list` whose reader closes the pipe at once shows no traceback."""
    command = [sys.executable, "-m", "conformance", "list"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    run.stdout.close()
    assert run.stderr is not None
    with run.stderr as errors:
        assert errors.read() == b""
    run.wait()


def test_models_are_chosen_once_each() -> None:
    """No names means all models, and a name given twice counts once."""
    assert chosen_models([]) == list(MODELS)
    assert chosen_models(["xception", "vgg16", "xception"]) == ["xception", "vgg16"]
    with pytest.raises(ConformanceError, match="vgg"):
        chosen_models(["vgg"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a pack", ["pack", "verify", "--packs"]),
        ("results", ["history"]),
        ("results", ["report", "-o", "page.html"]),
        ("results", ["findings"]),
    ],
)
@pytest.mark.parametrize("way", ["nested", "circle", "long"])
def test_paths_and_files_gone_wrong_are_one_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    words: list[str],
    way: str,
) -> None:
    """JSON nested too deeply, a link to itself and a name that is too long: one error each."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ("x" * 300 if way == "long" else "file.jsonl")
    if way == "nested":
        path.write_text("[" * 100_000)
    if way == "circle":
        path.symlink_to(path.name)
    if name == "a pack" and way != "long":
        folder = tmp_path / "packs" / "mobilenet" / "key"
        folder.mkdir(parents=True)
        path = path.rename(folder / "pack.json")
        assert main([*words, str(tmp_path / "packs")]) == 1
        said = capsys.readouterr().out
    else:
        assert main([*words, str(path)]) == 2
        said = capsys.readouterr().err
        assert len([line for line in said.splitlines() if line.startswith("error: ")]) == 1
    assert path.name[:20] in said


def test_own_model_that_can_not_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model whose bytes can't be read is an error that names it."""
    if not Path("/proc/self/mem").exists():
        pytest.skip("no file here that nobody can read")
    (tmp_path / "model.onnx").symlink_to("/proc/self/mem")
    words = ["pack", "build", str(tmp_path / "model.onnx"), "--packs", str(tmp_path / "packs")]
    assert main(words) == 2
    assert "model.onnx: can't be read" in capsys.readouterr().err


def test_models_file_without_a_model_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty --models-file is an error that names it, not a model that is unknown."""
    (tmp_path / "mine.toml").write_text("")
    assert main(["localize", "plain", "--models-file", str(tmp_path / "mine.toml")]) == 2
    assert "mine.toml: registers no model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["findings", "results", "--packs", "packs"], "--packs says where --reduce DIR finds"),
        (["history", "results", "--known-failures", "f"], "--known-failures says what --strict"),
    ],
)
def test_options_that_need_another_say_so(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option that means something beside another only is refused without that one."""
    from .sample_generated import write_generated

    path = write_generated(tmp_path / "4.13.0-classic.jsonl", "4.13.0")
    assert main([str(path) if word == "results" else word for word in words]) == 2
    assert said in capsys.readouterr().err
