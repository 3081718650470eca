"""What the attempts work on, made once for a campaign, each in a process of its own.

``python -m conformance.selftest.campaign.samples NAME DIR`` makes one.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from subprocess import run
from typing import Any, Callable

from conformance.fixtures import fixture_path

from .attempt import SUITE, Place, once

PHOTO = "images/squirrel_cls.jpg"
WHEEL = "4.12.0.88"
COUNT = 24  # of generated models
TABLES = ("known_failures", "known_defects", "tolerances")


def sample(place: Place, name: str) -> Path:
    """Return the folder of samples of that name."""

    def make(folder: Path) -> None:
        words = [sys.executable, "-m", __name__, name, str(folder)]
        done = run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"samples {name}: {done.stdout}{done.stderr}")

    return once(place.shop / name, make)


def small(folder: Path) -> None:
    """Write a file of most kinds that need no TensorFlow: a pack, images, results, tables."""
    from ..imagenet_sample import labelled_sample
    from ..sample_generated import write_generated
    from ..sample_report import bench_document, write_matrix

    labelled_sample(folder)
    (folder / "results").mkdir()
    write_matrix(folder / "results", ("4.6.0", "4.7.0"), ("mobilenet", "vgg16"))
    write_generated(folder / "generated" / "4.13.0-classic.jsonl", "4.13.0")
    for table in TABLES:
        shutil.copy(fixture_path(f"{table}.toml"), folder)
    shutil.copy(fixture_path(PHOTO), folder / "photo.jpg")
    (folder / "labels.txt").write_text("".join(f"sort {n}\n" for n in range(1000)))
    (folder / "bench.json").write_text(json.dumps(bench_document()))
    route = {"schema": 1, "file": {"name": "mobilenet.pb"}}
    (folder / "out").mkdir()
    (folder / "out" / "route.json").write_text(json.dumps(route))
    (folder / "out" / "mobilenet.pb").write_text("an earlier one")


def models(folder: Path) -> None:
    """Write models as users have them."""
    import tensorflow as tf

    from ..own_models import frozen_v2, model, save
    from ..test_file_models import network

    made: Any = model()
    save(made, folder / "plain.keras")
    save(made, folder / "plain.h5")
    frozen_v2(made, folder / "plain.pb")
    network(folder / "flowers.onnx")
    converter = tf.lite.TFLiteConverter.from_keras_model(made)
    (folder / "plain.tflite").write_bytes(converter.convert())
    (folder / "figures.toml").write_text("scale = 0.01\nmean = [120, 110, 100]\nrgb = false\n")
    (folder / "conformance.toml").write_text(
        '[[model]]\nname = "plain"\npath = "plain.keras"\nsize = [32, 32]\n'
    )


def generated(folder: Path) -> None:
    """Write a pack of generated models, the results of judging them, and a finding's id."""
    packs, results = folder / "packs", folder / "results"
    count = [f"--generated={COUNT}", f"--packs={packs}", "--importer=tensorflow"]
    run([sys.executable, "-m", "conformance", "pack", "build", *count], check=True)
    words = [*SUITE, *count, "-q", "-m", "generated", f"--results={results}", "--engine=classic"]
    run([sys.executable, "-m", "pytest", *words], check=False)
    words = ["findings", str(results), "--format=json"]
    done = run([sys.executable, "-m", "conformance", *words], stdout=-1, check=False)
    (folder / "only").write_text(min(one["id"] for one in json.loads(done.stdout)))


def routes(folder: Path) -> None:
    """Write packs of two models for each of OpenCV's importers."""
    import tensorflow as tf

    from ..own_models import model
    from ..test_file_models import network
    from ..tiny import tiny_pack

    for name in ("mobilenet", "mobilenetv2"):
        tiny_pack(folder / "packs", name)
    network(folder / "victim.onnx")
    network(folder / "other.onnx")
    made: Any = model()
    for name in ("victim", "other"):
        converter = tf.lite.TFLiteConverter.from_keras_model(made)
        (folder / f"{name}.tflite").write_bytes(converter.convert())
    words = [sys.executable, "-m", "conformance", "pack", "build"]
    files = [str(path) for suffix in ("onnx", "tflite") for path in folder.glob(f"*.{suffix}")]
    run([*words, *files, "--packs", str(folder / "packs")], check=True)


def commands(folder: Path) -> None:
    """Write what commands that run OpenCV work on, and an OpenCV that is broken on purpose.

    ``site`` stands before the installed one; ``wheels`` has it as a wheel.
    """
    from ..changed_wheel import broken_wheel
    from ..imagenet_sample import CLASSES, labelled_sample
    from ..tiny import tiny_pack

    labelled_sample(folder)
    tiny_pack(folder / "packs", "mobilenetv2", size=32, classes=CLASSES)
    shutil.copy(fixture_path(PHOTO), folder / "photo.jpg")
    (folder / "wheels").mkdir()
    shutil.unpack_archive(broken_wheel(folder / "wheels"), folder / "site", "zip")


def company(folder: Path) -> None:
    """Write two models whose packs are soon built, without TensorFlow."""
    from ..test_file_models import network

    network(folder / "flowers.onnx")
    network(folder / "second.onnx")


SAMPLES: dict[str, Callable[[Path], None]] = {
    "small": small,
    "models": models,
    "generated": generated,
    "routes": routes,
    "commands": commands,
    "company": company,
}

if __name__ == "__main__":
    SAMPLES[sys.argv[1]](Path(sys.argv[2]))
