"""Models of the user's own: what the options and conformance.toml make of them, and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.errors import ConformanceError
from conformance.inputs.preprocessing import (
    MODES,
    Preprocessing,
    preprocessing_from,
    read_preprocessing,
)
from conformance.own_models import Asked, choose, own_from, own_model, read_models_file
from conformance.pack.request import PackRequest, describe_request


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: two model files, one in a folder, labels, figures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    for name in ("flowers.keras", "cats.pb", "other/flowers.keras"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "labels.txt").write_text("rose\ntulip\n")
    (tmp_path / "figures.toml").write_text("scale = 0.5\nmean = [1, 2, 3]\nrgb = false\n")
    return tmp_path


def test_file_name_is_the_id(home: Path) -> None:
    """--model PATH is judged alone, under its file's name."""
    chosen = choose(Asked(["flowers.keras"]), home / "packs")
    assert chosen.names == ("flowers.keras",)
    assert chosen.own["flowers.keras"].path == str(home / "flowers.keras")


def test_option_given_once_is_for_all_models(home: Path) -> None:
    """One --model-preprocess holds for every --model; one for each is taken in order."""
    models = ["flowers.keras", "cats.pb"]
    for given, expected in ((["tf"], ["tf", "tf"]), (["caffe", "torch"], ["caffe", "torch"])):
        own = choose(Asked(models, given), home).own
        assert [own[name].preprocess.mode for name in models] == expected


def test_option_given_another_number_of_times_is_refused(home: Path) -> None:
    """Two models and three preprocessings fit no way: the error says how often to give it."""
    with pytest.raises(ConformanceError, match=r"preprocess is given 3 times and --model 2 times"):
        choose(Asked(["flowers.keras", "cats.pb"], ["tf", "tf", "tf"]), home)


def test_option_without_a_model_of_ones_own_is_refused(home: Path) -> None:
    """The registry's models have their preprocessing: another one would be ignored unseen."""
    with pytest.raises(ConformanceError, match="--model-preprocess is of models of your own, and"):
        choose(Asked(["mobilenet"], ["caffe"]), home)
    assert choose(Asked(["mobilenet", "cats.pb"], ["caffe"]), home).own["cats.pb"]


def test_models_file_registers(home: Path) -> None:
    """conformance.toml's models join the registry's; an option of the command line overrides."""
    (home / "conformance.toml").write_text(
        '[[model]]\npath = "other/flowers.keras"\nname = "roses"\npreprocess = {scale = 2.0}\n'
        'labels = "labels.txt"\nsize = [96, 64]\noutputs = ["a", "b"]\n'
    )
    plain = choose(Asked(), home)
    assert plain.names == ()
    roses = plain.own["roses"]
    assert (roses.size, roses.outputs, roses.preprocess.scale) == ((96, 64), ("a", "b"), 2.0)
    assert choose(Asked(["roses"], ["tf"]), home).own["roses"].preprocess.mode == "tf"


def test_registry_models_can_be_named_too(home: Path) -> None:
    """--model takes names of the registry, so that both kinds can be judged together."""
    assert choose(Asked(["mobilenet", "cats.pb"]), home).names == ("mobilenet", "cats.pb")


def test_model_is_the_same_after_json(home: Path) -> None:
    """What is handed to the building process is the model that was chosen."""
    own = choose(Asked(["cats.pb"], ["figures.toml"], ["labels.txt"], [(8, 9)]), home).own[
        "cats.pb"
    ]
    assert own_from(own.as_dict()) == own


def test_key_follows_the_file_and_what_is_said_of_it(home: Path) -> None:
    """Another content, preprocessing, size or labels make another pack; another path does not."""

    def described(path: str, *options: Any) -> dict[str, str]:
        own = choose(Asked([path], *options), home).own["flowers.keras"]
        return describe_request(PackRequest(own.name, own=own))

    same = described("flowers.keras")
    assert described("flowers.keras", ["tf"]) != same
    assert described("flowers.keras", [], ["labels.txt"]) != same
    assert described("other/flowers.keras") != same
    (home / "other/flowers.keras").write_bytes(b"flowers.keras")
    assert described("other/flowers.keras") == same


def test_key_of_a_folder_follows_its_files(home: Path) -> None:
    """A SavedModel's key changes with any of its files."""
    saved = home / "saved"
    (saved / "variables").mkdir(parents=True)
    (saved / "saved_model.pb").write_bytes(b"graph")
    (saved / "variables/data").write_bytes(b"weights")
    request = PackRequest("saved", own=own_model(saved))
    before = describe_request(request)
    (saved / "variables/data").write_bytes(b"WEIGHTS")
    assert describe_request(request) != before


def test_figures_are_the_tutorials_arithmetic() -> None:
    """Figures of a TOML file mean (pixel - mean) * scale / std, as the tutorial's do."""
    own = Preprocessing(0.5, (10.0, 20.0, 30.0), (1.0, 2.0, 4.0), rgb=False)
    pixel = np.array([[[[100, 150, 200]]]], np.uint8)  # red, green, blue
    np.testing.assert_array_equal(own.apply(pixel).ravel(), [95.0, 32.5, 8.75])
    np.testing.assert_array_equal(own.blob(pixel[0, ..., ::-1]).ravel(), own.apply(pixel).ravel())


def test_recorded_form_is_that_of_packs_on_disk() -> None:
    """A mode is recorded by its name beside neutral figures, of which pack keys are digests."""
    neutral = {"scale": 1.0, "mean": (0.0,) * 3, "std": None, "rgb": True}
    for name, mode in MODES.items():
        assert mode.as_dict() == {"mode": name, **neutral, "crop": True, "resize": None}
        assert preprocessing_from(json.loads(json.dumps(mode.as_dict()))) == mode


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scal = 1.0", "unknown key 'scal'; did you mean 'scale'"),
        ("mean = [1, 2]", "one number for each of three channels"),
        ("std = [1, 0, 1]", "must not be 0"),
        ("std = 0", "must not be 0"),
        ("# scale = 0.01", "says nothing: give one or more of "),
        ('scale = "1"', "'scale' must be a number"),
        ("crop = 1", "'crop' must be true or false"),
        ("resize = [0, 5]", "'resize' must be height and width"),
        ("scale = ", "not valid TOML"),
    ],
)
def test_bad_figures_are_named(home: Path, text: str, said: str) -> None:
    """A preprocessing file that can't be meant gives one error with the file and the key."""
    (home / "bad.toml").write_text(text)
    with pytest.raises(ConformanceError, match=r"bad\.toml") as caught:
        read_preprocessing("--model-preprocess", "bad.toml", home)
    assert said in str(caught.value)


def test_unknown_preprocessing_lists_the_modes(home: Path) -> None:
    """A preprocessing that is neither mode nor file gives the modes there are."""
    with pytest.raises(ConformanceError, match="tf, caffe, torch, none"):
        choose(Asked(["cats.pb"], ["imagenet"]), home)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nowhere/x.keras", "nowhere/x.keras: no such file or folder; give a .keras"),
        ("model.mlmodel", "unknown suffix '.mlmodel'; give a .keras"),
        ("empty", "without saved_model.pb is no SavedModel"),
        ("saved/saved_model.pb", "part of a SavedModel; give its folder"),
        ("a b.keras", "can't be a test id"),
        ("notthere", "unknown model 'notthere'"),
    ],
)
def test_bad_model_is_named(home: Path, model: str, said: str) -> None:
    """A path that is no model gives one error that says what was expected."""
    for name in ("empty", "saved"):
        (home / name).mkdir()
    for name in ("model.mlmodel", "a b.keras", "saved/saved_model.pb"):
        (home / name).write_bytes(b"x")
    with pytest.raises(ConformanceError) as caught:
        choose(Asked([model]), home / "packs")
    assert said in str(caught.value)


def test_unknown_model_lists_ones_own(home: Path) -> None:
    """A misspelled name lists what is registered and packed; a folder without a pack is none."""
    (home / "conformance.toml").write_text('[[model]]\nname = "roses"\npath = "cats.pb"\n')
    for name in ("packs/roses/1", "packs/tulips.pb/1", "packs/unbuilt.pb", "packs/mobilenet/1"):
        (home / name).mkdir(parents=True)
        (home / name / "pack.json").touch()
    with pytest.raises(ConformanceError, match=r"have roses, tulips\.pb$"):
        choose(Asked(["rose"]), home / "packs")


def test_two_models_of_one_name_are_refused(home: Path) -> None:
    """Two files of the same name would share a test id: both paths are named."""
    with pytest.raises(ConformanceError, match=r"2 models have the name 'flowers\.keras'.*other"):
        choose(Asked(["flowers.keras", "other/flowers.keras"]), home)


def test_name_of_the_registry_is_refused(home: Path) -> None:
    """A user's model can't take the place of the registry's."""
    (home / "mobilenet").mkdir()
    (home / "mobilenet/saved_model.pb").write_bytes(b"x")
    with pytest.raises(ConformanceError, match="'mobilenet' is a model of the registry"):
        choose(Asked(["./mobilenet"]), home)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[model]]\npath = "cats.pb"\nlabel = "x"', "unknown key 'label'; did you mean 'labels'"),
        ("[[models]]", "unknown key 'models'; did you mean 'model'"),
        ('[model]\npath = "cats.pb"', "write each model under [[model]]"),
        ("[[model]]\nname = 'x'", "'path' is missing"),
        ('[[model]]\npath = "dogs.pb"', "no such file or folder"),
        ('[[model]]\npath = "cats.pb"\nlabels = "x.txt"', "there is no file"),
        ('[[model]]\npath = "cats.pb"\nsize = 5', "'size' must be height and width"),
        ('[[model]]\npath = "cats.pb"\n' * 2, "2 models have the name 'cats.pb'"),
        ("this is no TOML", "not valid TOML"),
    ],
)
def test_bad_models_file_is_named(home: Path, text: str, said: str) -> None:
    """What is wrong in conformance.toml is one error."""
    (home / "conformance.toml").write_text(text)
    with pytest.raises(ConformanceError) as caught:
        read_models_file(home / "conformance.toml")
    assert said in str(caught.value)
