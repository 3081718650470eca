"""What the first commands do: the registry, packs, and the checks of the reference side.

Only here and in conformance.reference is TensorFlow's side imported, inside the commands that
need it, so that the others start at once and run where it is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .errors import ConformanceError
from .models import EXTENDED, MODELS, ModelSpec, get_model
from .own_models import OPTIONS, Asked, Chosen, by_name, choose, own_from
from .pack.builder import require_tensorflow
from .pack.conversion import FORMATS, open_conversion, require_converter
from .pack.format import open_pack, read_manifest
from .pack.request import GRAPHS, PackRequest, keras_flavour, weights_identity
from .pack.schedule import Convert, build_packs
from .pack.store import default_packs, list_packs
from .processes.progress import STYLES, reporter
from .session import Session

# Exit statuses: fine; a check found something bad; the command could not be carried out.
OK, BAD, ERROR = 0, 1, 2

Arguments = argparse.Namespace


def no_options(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""


def packs_option(parser: argparse.ArgumentParser) -> None:
    """Add --packs, which every command that uses packs takes."""
    parser.add_argument(
        "--packs",
        type=Path,
        default=default_packs(),
        metavar="DIR",
        help="folder of reference packs (default: %(default)s)",
    )


def models_option(parser: argparse.ArgumentParser) -> None:
    """Add the positional MODEL…, all models where none is given."""
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: all models")


def weights_option(parser: argparse.ArgumentParser) -> None:
    """Add --weights."""
    parser.add_argument(
        "--weights",
        default="synthetic",
        metavar="W",
        help="synthetic (default), imagenet, or a file or folder with <model>.weights.h5",
    )


def build_options(parser: argparse.ArgumentParser) -> None:
    """Add what `pack build` takes."""
    models_option(parser)
    packs_option(parser)
    weights_option(parser)
    parser.add_argument("--graph", choices=GRAPHS, default="opencv", help="default: %(default)s")
    parser.add_argument(
        "--importer",
        default="tensorflow",
        metavar="LIST",
        help="also make the files of these importers: tflite,onnx (default: the frozen graph only)",
    )
    parser.add_argument("--force", action="store_true", help="build even what is there")
    parser.add_argument("--progress", choices=STYLES, default="auto", help="default: %(default)s")
    parser.add_argument("-v", "--verbose", action="store_true", help="let TensorFlow log")
    own_options(parser)
    # How a session hands a model of the user's to the process that builds its pack.
    parser.add_argument("--own", help=argparse.SUPPRESS)


def own_options(parser: argparse.ArgumentParser) -> None:
    """Add what says more of a model of the user's own, where a path is given for MODEL."""
    for name, settings in OPTIONS.items():
        parser.add_argument(name, **settings)


def chosen(arguments: Arguments, models: Sequence[str]) -> Chosen:
    """Return what `models`, names or paths, mean; see own_models.choose."""
    asked = Asked(
        models,
        arguments.model_preprocess,
        arguments.model_labels,
        arguments.model_size,
        arguments.models_file,
    )
    return choose(asked, arguments.packs)


def diversity_options(parser: argparse.ArgumentParser) -> None:
    """Add what `diversity` takes."""
    models_option(parser)
    weights_option(parser)


def importer_list(text: str) -> list[str]:
    """Return the importers of a comma-separated list; raise ConformanceError for an unknown one."""
    known = ("tensorflow", *FORMATS)
    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in known:
            raise ConformanceError(f"--importer {text!r}: {name!r} is none of {', '.join(known)}")
    return names


def count(text: str) -> int:
    """Return the number that an option was given; for argparse, which tells the option's name."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def benchmark_options(parser: argparse.ArgumentParser) -> None:
    """Add what `freeze-benchmark` takes."""
    parser.add_argument("model", nargs="?", default="vgg16", metavar="MODEL", help="default: vgg16")


def faults_options(parser: argparse.ArgumentParser) -> None:
    """Add what `faults` takes."""
    models_option(parser)
    packs_option(parser)
    parser.add_argument("--quick", action="store_true", help="one of each kind on two models")
    parser.add_argument("--a-kind", type=count, metavar="N", help="faults of each kind and model")
    parser.add_argument(
        "--engine", default="default", help="classic, new, or default: OpenCV's own"
    )
    parser.add_argument("--workers", type=count, default=1, metavar="N", help="models at once")
    parser.add_argument("--output", type=Path, metavar="FILE.jsonl", help="append each outcome")
    parser.add_argument(
        "--read", type=Path, nargs="+", metavar="FILE.jsonl", help="inject nothing; print these"
    )
    parser.add_argument("--format", choices=("table", "md"), default="table")


def chosen_models(names: Sequence[str]) -> list[str]:
    """Return the names without repetition, all of the registry's where there are none.

    Raises ConformanceError with the nearest name for an unknown one.
    """
    return list(dict.fromkeys(get_model(name).name for name in names)) or list(MODELS)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output; a column whose name starts with ">" is right-aligned."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1))
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column[0] == ">" else "left")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)


def run_list(_: Arguments) -> int:
    """Print the registry, in at most 80 columns."""
    columns = ("model", ">input", "preprocessing", ">parameters", ">top-1 %", ">top-5 %")
    title = "ImageNet classifiers; accuracy as Keras publishes it"
    print_table(title, columns, [_model_row(spec, 3) for spec in MODELS.values()])
    print()
    title = "More of Keras Applications: pytest -m extended"
    print_table(title, columns, [_model_row(spec, 1) for spec in EXTENDED.values()])
    return OK


def _model_row(spec: ModelSpec, digits: int) -> tuple[str, ...]:
    published = ("-" if top is None else f"{top:.{digits}f}" for top in (spec.top1, spec.top5))
    size = f"{spec.size}x{spec.size}"
    return (spec.name, size, spec.mode, f"{spec.parameters:,}", *published)


def run_pack_build(arguments: Arguments) -> int:
    """Build packs; raise ConformanceError naming the models that were not built."""
    flavour = keras_flavour()
    requests = _build_requests(arguments)
    for request in requests:
        weights_identity(request)  # a missing file is better reported before an hour of building
    require_tensorflow(flavour)
    importers = [name for name in importer_list(arguments.importer) if name in FORMATS]
    for name in importers:
        require_converter(name, flavour)
    if arguments.verbose:
        os.environ["CONFORMANCE_VERBOSE"] = "1"
    with reporter(arguments.progress, len(requests)) as report:
        from .reference.build import build_pack  # noqa: TID251  (this is the building process)

        failed = build_packs(
            requests,
            arguments.packs,
            build_pack,
            report,
            arguments.force,
            importers,
            _converter() if importers else None,
        )
    if failed:
        raise ConformanceError(f"not built: {', '.join(failed)} (see above)")
    return OK


def _converter() -> Convert:
    from .reference.convert import build_conversion  # noqa: TID251  (this is the building process)

    return build_conversion


def _build_requests(arguments: Arguments) -> list[PackRequest]:
    if arguments.own:
        models = Chosen((), by_name([own_from(json.loads(arguments.own))]))
    else:
        models = chosen(arguments, arguments.models)
    session = Session(
        arguments.packs, arguments.weights, arguments.graph, own=models.own, chosen=models.names
    )
    names = list(models.own) if arguments.own else session.models
    return [session.request(name) for name in names]


def _existing_packs(root: Path) -> list[Path]:
    folders = list_packs(root)
    if not folders:
        raise ConformanceError(
            f"pack folder {root}: there are no packs; build some with "
            f"python -m conformance pack build --packs {root}"
        )
    return folders


def run_pack_verify(arguments: Arguments) -> int:
    """Check every pack; return BAD when one is damaged."""
    status = OK
    for folder in _existing_packs(arguments.packs):
        label = f"{folder.parent.name}/{folder.name}"
        try:
            open_pack(folder)
            converted = [name for name in FORMATS if (folder / name).is_dir()]
            for name in converted:
                open_conversion(folder / name)
            print(f"ok       {label}{''.join(f', {name}' for name in converted)}")
        except ConformanceError as error:
            status = BAD
            print(f"damaged  {label}\n         {error}")
    return status


def run_pack_list(arguments: Arguments) -> int:
    """Print a table of the packs."""
    rows = [_pack_row(folder) for folder in _existing_packs(arguments.packs)]
    columns = ("model", "key", "weights", "graph", "TF", "Keras", ">MiB")
    print_table(f"Packs in {arguments.packs}", columns, rows)
    return OK


def _pack_row(folder: Path) -> tuple[str, ...]:
    try:
        manifest = read_manifest(folder)
    except ConformanceError:
        return (folder.parent.name, folder.name, "unreadable", *[""] * 4)
    request, size = manifest.request, sum(f["bytes"] for f in manifest.files.values())
    return (
        manifest.model,
        manifest.key,
        request["weights"][:13],
        request["graph"],
        manifest.producer["tensorflow"],
        manifest.producer["keras"],
        f"{size / (1 << 20):.1f}",
    )


def run_diversity(arguments: Arguments) -> int:
    """Print how many classes each model tells apart; return BAD when one tells too few."""
    models = chosen_models(arguments.models)
    require_tensorflow(keras_flavour(), "diversity")
    from .reference.diversity import diversity  # noqa: TID251  (needs the Keras models)

    print(f"{'model':<18} classes  median  lowest  highest top-1 probability, 16 unseen crops")
    status = OK
    for name in models:
        d = diversity(name, arguments.weights)
        figures = (
            f"{d.classes:>7}  {d.median_top1:6.3f}  {d.lowest_top1:6.3f}  {d.highest_top1:7.3f}"
        )
        print(f"{name:<18} {figures}  {'ok' if d.sufficient else 'too much alike'}", flush=True)
        status = status if d.sufficient else BAD
    return status


def run_freeze_benchmark(arguments: Arguments) -> int:
    """Print time and memory of freezing beside those of TensorFlow's own recipe."""
    get_model(arguments.model)
    require_tensorflow(keras_flavour(), "freeze-benchmark")
    from .reference.freeze_benchmark import freeze_benchmark  # noqa: TID251  (times the freezing)

    print(freeze_benchmark(arguments.model))
    return OK


def run_faults(arguments: Arguments) -> int:
    """Inject faults; return BAD where too few are caught or an unchanged model raises an alarm."""
    require_tensorflow(keras_flavour(), "faults")
    from .selftest.fault_report import run_faults as run  # needs TensorFlow to change graphs

    return run(arguments)
