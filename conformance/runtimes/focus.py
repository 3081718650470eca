"""Every tensor's samples on one input: ``python -m conformance.runtimes.focus PACK INDEX FILE``.

As conformance.reference.focus, of a pack whose own file is an ONNX or TFLite file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from conformance.pack.format import Pack, read_manifest
from conformance.pack.heads import heads_of
from conformance.processes.serve import answer_once

from . import RUNTIMES
from .answers import Reader, find_truth, write_layers


def write_samples(pack: Pack, index: int, file: Path) -> None:
    """Write the samples of the pack's layers on its input number `index`, float32 and truth."""
    manifest = pack.manifest
    runtime = RUNTIMES[manifest.importer]
    image = pack.load("inputs")[index : index + 1]
    described = runtime.describe(pack.graph_path)
    reader = Reader(manifest.importer, described, list(heads_of(manifest.heads)), image)
    settings = [setting for setting in runtime.SETTINGS if setting.inner]
    found = {s.name: reader.read(runtime.run, pack.graph_path, s) for s in settings}
    truth = find_truth(reader, found, pack.graph_path).answers
    write_layers(file, described, next(iter(found.values())), truth)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    pack, index, file = Pack(folder, read_manifest(folder)), int(sys.argv[2]), Path(sys.argv[3])
    answer_once(lambda: write_samples(pack, index, file))
