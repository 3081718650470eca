"""The user's own models: what --model and conformance.toml say of them. Imports no TensorFlow."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

from .errors import ConformanceError, naming
from .inputs.preprocessing import (
    MODES,
    Preprocessing,
    preprocessing_from,
    read_preprocessing,
    read_size,
)
from .models import EXTENDED, MODELS, get_model
from .tables import check_keys, parse_toml, text, texts

MODELS_FILE = "conformance.toml"
# Files that their own runtime answers for, and OpenCV's importer of them.
RUNTIME_FILES = {".onnx": "onnx", ".tflite": "tflite"}
SUFFIXES = (".keras", ".h5", ".hdf5", ".pb", *RUNTIME_FILES)
FORMATS = f"a {', '.join(SUFFIXES)} file or a SavedModel folder"

_EACH: dict[str, Any] = {"action": "append", "default": []}
# What more can be said of a model of one's own, as argparse and pytest both take it.
OPTIONS: dict[str, dict[str, Any]] = {
    "--model-preprocess": {
        **_EACH,
        "metavar": "WHICH",
        "help": "of a model of your own: tf, caffe, torch, none (default: RGB, 0-255) or "
        "FILE.toml; given once it is for every such model, else once for each, in order, as the "
        "next two",
    },
    "--model-labels": {
        **_EACH,
        "metavar": "FILE",
        "help": "the names of the model's classes, one a line",
    },
    "--model-size": {
        **_EACH,
        "nargs": 2,
        "type": int,
        "metavar": ("HEIGHT", "WIDTH"),
        "help": "size of the images for a model that takes any (default: 224 224)",
    },
    "--models-file": {
        "metavar": "FILE",
        "help": f"registers models of your own (default: {MODELS_FILE} here, where there is one)",
    },
}

# What a folder of packs, a test id and a command line can hold as it is.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
Shape = tuple[int, int, int]  # height, width, channels
# Height and width of the images where the model takes any and nobody said: ImageNet's usual size.
DEFAULT_SIDE = 224

_KEYS = ("name", "path", "preprocess", "labels", "size", "outputs")


@dataclass(frozen=True)
class OwnModel:
    """One model of the user's."""

    name: str  # the test id, the file's name unless given
    path: Optional[str] = None  # absolute, of file or folder; None where only its pack is at hand
    preprocess: Preprocessing = MODES["none"]
    labels: Optional[str] = None  # path of a file with a class a line
    size: Optional[tuple[int, int]] = None  # height and width, for a model that takes any
    outputs: tuple[str, ...] = ()  # of a frozen graph; none for the nodes that nothing else takes
    words: tuple[str, ...] = ()  # name it on a command line, options of its own included

    @property
    def importer(self) -> str:
        """OpenCV's importer of the model: of the file's own format, else of the frozen graph."""
        return RUNTIME_FILES.get(Path(self.path or "").suffix.lower(), "tensorflow")

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; `own_from` reads it."""
        return {**vars(self), "preprocess": self.preprocess.as_dict()}


def own_from(values: Mapping[str, Any]) -> OwnModel:
    """Return the model that `as_dict` wrote."""
    size = values["size"]
    return OwnModel(
        values["name"],
        values["path"],
        preprocessing_from(values["preprocess"]),
        values["labels"],
        (size[0], size[1]) if size else None,
        tuple(values["outputs"]),
        tuple(values["words"]),
    )


def own_model(
    path: Path,
    name: Optional[str] = None,
    preprocess: Preprocessing = MODES["none"],
    labels: Optional[Path] = None,
    size: Optional[tuple[int, int]] = None,
    outputs: Sequence[str] = (),
) -> OwnModel:
    """Return the model at `path`, its id being the file's name unless `name` is given.

    Raises ConformanceError where there is no such file, its suffix is none of SUFFIXES, the name
    won't do, or there is no file of labels.
    """
    path = path.expanduser().absolute()
    check_format(path)
    name = path.name if name is None else name
    check_name(str(path), name)
    if labels is not None and not labels.expanduser().is_file():
        raise ConformanceError(f"labels of {name}: there is no file {labels}")
    found = str(labels.expanduser().absolute()) if labels else None
    return OwnModel(name, str(path), preprocess, found, size, tuple(outputs))


def check_format(path: Path) -> None:
    """Raise ConformanceError unless `path` is there and may be a model."""
    if not path.exists():
        raise ConformanceError(f"model {path}: no such file or folder; give {FORMATS}")
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            raise ConformanceError(
                f"model {path}: a folder without saved_model.pb is no SavedModel; give {FORMATS}"
            )
    elif path.name == "saved_model.pb":
        raise ConformanceError(f"model {path}: part of a SavedModel; give its folder {path.parent}")
    elif path.suffix.lower() not in SUFFIXES:
        raise ConformanceError(f"model {path}: unknown suffix {path.suffix!r}; give {FORMATS}")


def check_name(where: str, name: str) -> None:
    """Raise ConformanceError for a name that can't be a test id or is one of the registry's."""
    if not _NAME.fullmatch(name):
        raise ConformanceError(
            f"{where}: {name!r} can't be a test id (letters, digits, '_', '.', '+', '-'): rename "
            f"the file, or give the model a name in {MODELS_FILE}"
        )
    if name in MODELS or name in EXTENDED:
        raise ConformanceError(
            f"{where}: {name!r} is a model of the registry: rename yours, or give it another name "
            f"in {MODELS_FILE}"
        )


def image_shape(own: OwnModel, dimensions: Sequence[Optional[int]]) -> tuple[Shape, list[str]]:
    """Return height, width and channels of a model's images, and what was decided about them.

    dimensions: what the file says of them, None for what it leaves open. Raises ConformanceError
    for what is no image, and for a size that the model does not take.
    """
    if len(dimensions) != 3 or dimensions[2] not in (1, 3):
        raise ConformanceError(
            f"takes input of the shape {[None, *dimensions]}: expected images, NHWC, of 3 channels "
            "(RGB or BGR) or 1 (grey)"
        )
    wanted = own.size or (DEFAULT_SIDE, DEFAULT_SIDE)
    height, width = (given or side for given, side in zip(dimensions, wanted))
    if own.size is not None and own.size != (height, width):
        raise ConformanceError(
            f"takes images of {height} x {width} only: leave --model-size {own.size[0]} "
            f"{own.size[1]} out"
        )
    notes = []
    if own.size is None and None in dimensions[:2]:
        notes = [f"takes images of any size: judged at {height} x {width} (--model-size)"]
    return (height, width, int(dimensions[2] or 3)), notes


def read_models_file(path: Path) -> dict[str, OwnModel]:
    """Return the models that the TOML file `path` registers, by name.

    One ``[[model]]`` table each: path (required, relative to the file), name, preprocess (a mode, a
    TOML file or a table), labels, size = [height, width], outputs. Raises ConformanceError naming
    file and table for what is unknown, missing or given twice.
    """
    data = parse_toml(path)
    check_keys(str(path), data, ("model",), ())
    tables = data.get("model", [])
    if not isinstance(tables, list):
        raise ConformanceError(f"{path}: write each model under [[model]], not [model]")
    models = [_entry(f"{path} [[model]] {n}", t, path.parent) for n, t in enumerate(tables, 1)]
    return by_name(models)


def _entry(where: str, table: Mapping[str, Any], folder: Path) -> OwnModel:
    check_keys(where, table, _KEYS, ("path",))
    labels = text(where, table, "labels")
    size = table.get("size")
    with naming(where):
        return own_model(
            folder / Path(text(where, table, "path") or "").expanduser(),
            text(where, table, "name"),
            read_preprocessing(f"{where}: preprocess", table.get("preprocess", "none"), folder),
            folder / Path(labels).expanduser() if labels else None,
            None if size is None else read_size(f"{where}: 'size'", size),
            texts(where, table, "outputs"),
        )


def by_name(models: Iterable[OwnModel]) -> dict[str, OwnModel]:
    """Return {name: model}; raise ConformanceError where two have the same name."""
    listed = list(models)
    for name, count in Counter(model.name for model in listed).items():
        if count > 1:
            paths = " and ".join(str(model.path) for model in listed if model.name == name)
            raise ConformanceError(
                f"{count} models have the name {name!r} ({paths}): rename a file, or give them "
                f"names in {MODELS_FILE}"
            )
    return {model.name: model for model in listed}


@dataclass(frozen=True)
class Asked:
    """What the options say: --model, --model-preprocess, -labels, -size (each may be repeated)."""

    models: Sequence[str] = ()
    preprocess: Sequence[str] = ()
    labels: Sequence[str] = ()
    sizes: Sequence[Sequence[int]] = ()
    models_file: Optional[str] = None


@dataclass(frozen=True)
class Chosen:
    """names: the models to judge, in order; none where none was asked for. own: the user's."""

    names: tuple[str, ...] = ()
    own: Mapping[str, OwnModel] = field(default_factory=dict)


def choose(asked: Asked, packs: Path) -> Chosen:
    """Return the models that the options name, and those that the models file registers.

    A model may be named by its path, by its name in the models file or the registry, or by that of
    its pack in the folder `packs`. Raises ConformanceError for what is none of these, and where
    options are not given once or once for each model.
    """
    registered = _registered(asked.models_file)
    options = _spread(asked)
    found = [
        _named(name, registered, packs, options[index]) for index, name in enumerate(asked.models)
    ]
    given = by_name(model for model in found if isinstance(model, OwnModel))
    if any(options) and not given:
        option = next(iter(options[0]))
        raise ConformanceError(
            f"--model-{option} is of models of your own, and {', '.join(asked.models)} of the "
            "registry: leave it out"
        )
    names = tuple(dict.fromkeys(m if isinstance(m, str) else m.name for m in found))
    return Chosen(names, {**registered, **given})


def _registered(models_file: Optional[str]) -> dict[str, OwnModel]:
    path = Path(models_file or MODELS_FILE).expanduser()
    if not models_file and not path.is_file():
        return {}
    found = read_models_file(path.absolute())
    if models_file and not found:
        raise ConformanceError(f"{path}: registers no model; write each under [[model]]")
    where = ("--models-file", models_file) if models_file else ()
    return {name: replace(model, words=(name, *where)) for name, model in found.items()}


def _spread(asked: Asked) -> list[dict[str, Any]]:
    """Return the options of each model: given once for all, or once for each, in order."""
    count = len(asked.models)
    columns: dict[str, list[Any]] = {}
    for option, values in (
        ("preprocess", asked.preprocess),
        ("labels", asked.labels),
        ("size", asked.sizes),
    ):
        if len(values) not in (0, 1, count) or (values and not count):
            raise ConformanceError(
                f"--model-{option} is given {len(values)} times and --model {count} times: give it "
                "once for all models, or once for each, in the same order"
            )
        columns[option] = list(values) * count if len(values) == 1 else list(values)
    return [{o: v[index] for o, v in columns.items() if v} for index in range(count)]


def _named(
    name: str, registered: Mapping[str, OwnModel], packs: Path, options: Mapping[str, Any]
) -> Any:
    """Return the own model that `name` means, or the name of one of the registry."""
    if name in registered:
        return _changed(registered[name], options)
    path = Path(name).expanduser()
    if (name in MODELS or name in EXTENDED) and not path.is_file():
        return name
    if path.exists() or (path.suffix.lower() in SUFFIXES and path.name != name):
        return _changed(replace(own_model(path), words=(str(path),)), options)
    packed = _packed(packs)
    if name in packed:
        return OwnModel(name, words=(name,))
    if path.suffix or "/" in name:
        check_format(path.absolute())
    try:
        return get_model(name).name
    except ConformanceError as error:
        more = ", ".join(dict.fromkeys([*registered, *packed]))
        raise ConformanceError(
            f"{error}; and there is no such file or folder"
            + (f". {MODELS_FILE} and the packs in {packs} have {more}" if more else "")
        ) from None


def _packed(packs: Path) -> list[str]:
    # Not every folder: a model that could not be built has left one without a pack.
    names = {manifest.parent.parent.name for manifest in packs.glob("*/*/pack.json")}
    return sorted(names - {*MODELS, *EXTENDED})


def _changed(model: OwnModel, options: Mapping[str, Any]) -> OwnModel:
    here = Path.cwd()
    words = list(model.words)
    for option, value in options.items():
        words += [f"--model-{option}", *(map(str, value) if option == "size" else [value])]
    model = replace(model, words=tuple(words))
    if "preprocess" in options:
        given = read_preprocessing("--model-preprocess", options["preprocess"], here)
        model = replace(model, preprocess=given)
    if "labels" in options:
        labels = here / Path(options["labels"]).expanduser()
        if not labels.is_file():
            raise ConformanceError(f"--model-labels {options['labels']}: no such file")
        model = replace(model, labels=str(labels))
    if "size" in options:
        model = replace(model, size=read_size("--model-size", list(options["size"])))
    return model
