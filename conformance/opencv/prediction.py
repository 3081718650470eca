"""OpenCV as the child of `predict`: ``python -m conformance.opencv.prediction REQUEST``.

REQUEST is JSON: model, pack (its folder, of whose files the first is read that this OpenCV has an
importer for), config (of RunConfig; engine "default" is what this OpenCV takes by itself), classes,
head (which of the outputs, None for a model with one). Each line of stdin then asks for one thing:
about, predict, draw or show (see `prepare`); conformance.processes.serve is the protocol.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from conformance.candidate import Array, RunConfig
from conformance.inputs.preprocessing import TUTORIAL, Preprocessing, preprocessing_from
from conformance.pack.conversion import (
    chosen_importer,
    file_for,
    open_conversion,
    own_tensors,
)
from conformance.pack.format import read_manifest
from conformance.processes.inference import timed
from conformance.processes.serve import Answer, Request, printed_since, serve

from . import layers, net
from .capability import importers, load_cv2
from .caption import caption
from .importers import IMPORTERS

# The limit: CV_IO_MAX_IMAGE_PIXELS in modules/imgcodecs/src/loadsave.cpp.
_UNREADABLE = (
    "no image that cv2.imread can decode: no image at all, damaged, of a format this OpenCV lacks, "
    "or of more than 2^30 pixels (the variable OPENCV_IO_MAX_IMAGE_PIXELS raises that)"
)


# The fields that place a picture, whatever is done to its pixels.
_PLACING = ("crop", "resize", "size", "grey")


class Refused(Exception):
    """The picture can't be used; others may be."""


class Predictor:
    """One network, ready, and the picture that was read last."""

    def __init__(self, request: Request) -> None:
        self.cv2 = load_cv2()
        config = net.settled(self.cv2, RunConfig(**request["config"]))
        if config.threads is not None:
            self.cv2.setNumThreads(config.threads)
        pack = Path(request["pack"])
        config = replace(config, importer=chosen_importer(pack, importers(self.cv2)))
        graph = file_for(pack, config.importer)
        self.config, self.classes = config, request["classes"]
        self.layout = read_manifest(pack).input_layout
        self.subject = net.Subject(request["model"], config, self.cv2.__version__)
        self.tap, self.head = None, request["head"]
        with net.stage("parse", self.subject):
            self.net = net.read(self.cv2, graph, config)
            if self.head is not None:
                self.tap = self._tap(pack, graph)
                self.net = self.tap.net
        with net.stage("setup", self.subject):
            net.configure(self.cv2, self.net, config)
        self.warm = False
        self.warning = ""
        self.picture: Array = np.empty((0, 0, 3), np.uint8)

    def _tap(self, pack: Path, graph: Path) -> layers.Tap:
        """Return what reads the outputs of a model that has several."""
        manifest, importer = read_manifest(pack), self.config.importer
        names = [str(name) for name in self.net.getLayerNames()]
        tensors = own_tensors(manifest)
        if graph.parent != pack:
            tensors = open_conversion(graph.parent).manifest.tensors
        carriers = IMPORTERS[importer].carriers
        held = carriers(names, manifest.layers, tensors, self.config.engine)
        outputs = [
            layers.layer_holding(held, manifest.layers, head["output"]) for head in manifest.heads
        ]
        return layers.tap_outputs(self.cv2, graph, self.config, outputs, self.net)

    def about(self, request: Request) -> dict[str, Any]:
        """Say which OpenCV this is, and whether it has windows."""
        gui = re.search(r"GUI:\s+(\S+)", self.cv2.getBuildInformation())
        return {
            "version": self.cv2.__version__,
            "title": self.config.title,
            "threads": self.cv2.getNumThreads(),
            "windows": gui is not None and gui.group(1) != "NONE",
        }

    def predict(self, request: Request) -> dict[str, Any]:
        """Read request["image"] and run it; write its blob, NCHW, and the outputs as .npy.

        Where request["pixels"] names a file, write there, too, what the blob is made of: the
        pixels "decoded" and, of the blob's size, "uint8" and "float32", all BGR, NHWC. The answer's
        "warning" is what the decoder said of a picture that it decoded all the same.
        """
        try:
            settings = preprocessing_from(request["settings"])
            self.picture = self._read(request["image"], settings.grey)
            blob = self._blob(settings)
        except Refused as refused:
            return {"refused": str(refused)}
        except self.cv2.error as error:
            return {"refused": net.explain(error)[0]}
        with net.stage("forward", self.subject):
            outputs, ms = self._infer(blob)
        np.save(request["blob"], blob)
        np.save(request["outputs"], outputs.reshape(1, -1))
        if request.get("pixels"):
            np.savez(request["pixels"], **self._pixels(settings))
        height, width = self.picture.shape[:2]
        return {
            "size": [width, height],
            "warning": self.warning,
            "input_shape": blob.shape,
            "output_shape": outputs.shape,
            "ms": ms,
        }

    def _read(self, path: str, grey: bool) -> Array:
        before = os.fstat(2).st_size
        try:
            how = self.cv2.IMREAD_GRAYSCALE if grey else self.cv2.IMREAD_COLOR
            picture = self.cv2.imread(path, how)
        except self.cv2.error as error:
            raise Refused(f"{_UNREADABLE}. OpenCV says: {net.explain(error)[0]}") from error
        said = _printed(before)
        if picture is None:
            raise Refused(f"{_UNREADABLE}{f'. OpenCV says: {said}' if said else ''}")
        self.warning = said
        return np.asarray(picture)

    def _blob(self, settings: Preprocessing) -> Array:
        picture = self.picture.astype(np.float32) if settings.float32 else self.picture
        if settings.resize:
            picture = self.cv2.resize(picture, settings.resize[::-1])
        blob = self.cv2.dnn.blobFromImage(picture, **settings.call().keywords())
        return np.ascontiguousarray(settings.divide(blob))

    def _pixels(self, settings: Preprocessing) -> dict[str, Any]:
        # Without mean and scale the blob is the resized pixels themselves.
        plain = replace(TUTORIAL, rgb=False, **{n: getattr(settings, n) for n in _PLACING})
        made = {n: self._blob(replace(plain, float32=n == "float32")) for n in ("uint8", "float32")}
        nhwc = {name: blob.transpose(0, 2, 3, 1) for name, blob in made.items()}
        return {"decoded": self.picture[None], **nhwc}

    def _infer(self, blob: Array) -> tuple[Array, float]:
        """Return the outputs and the ms of the inference, once the network has run before."""
        turned = blob.transpose(0, 2, 3, 1) if self.layout == "NHWC" else blob
        given = np.ascontiguousarray(turned)

        def infer() -> Array:
            self.net.setInput(given)
            return np.array(self._forward())

        with net.untouched(given):
            outputs, ms = timed(infer, self.warm)
        self.warm = True
        if outputs.size != self.classes:
            raise ValueError(
                f"the output has the shape {list(outputs.shape)} for {self.classes} classes"
            )
        return outputs, ms

    def _forward(self) -> Any:
        if self.tap is None:
            return self.net.forward()
        return layers.forward_tap(self.tap)[self.head]

    def _drawn(self, lines: list[str]) -> Array:
        picture = self.picture
        if picture.ndim == 2:
            picture = np.asarray(self.cv2.cvtColor(picture, self.cv2.COLOR_GRAY2BGR))
        return caption(self.cv2, picture, lines)

    def draw(self, request: Request) -> dict[str, Any]:
        """Write the picture with request["lines"] at its top left to request["output"]."""
        drawn = self._drawn(request["lines"])
        before = os.fstat(2).st_size
        try:
            written = self.cv2.imwrite(request["output"], drawn)
            said = "" if written else _printed(before)
        except self.cv2.error as error:
            written, said = False, net.explain(error)[0]
        return {} if written else {"refused": f"cannot be written {said}".strip()}

    def show(self, request: Request) -> dict[str, Any]:
        """Show the picture with request["lines"] in a window until a key is pressed."""
        window = request["title"]
        self.cv2.namedWindow(window, self.cv2.WINDOW_NORMAL | self.cv2.WINDOW_KEEPRATIO)
        self.cv2.imshow(window, self._drawn(request["lines"]))
        # A closed window gets no key any more, and one whose parent was killed no user.
        parent = os.getppid()
        while self.cv2.getWindowProperty(window, self.cv2.WND_PROP_VISIBLE) >= 1:
            if self.cv2.waitKey(100) >= 0 or os.getppid() != parent:
                break
        self.cv2.destroyAllWindows()
        return {}


def _printed(before: int) -> str:
    """Return the last line OpenCV wrote since stderr was so long."""
    return (printed_since(before).strip().splitlines() or [""])[-1].strip()


def prepare(request: Request) -> Answer:
    """Read the graph and return what answers."""
    predictor = Predictor(request)
    doing = {
        "about": predictor.about,
        "predict": predictor.predict,
        "draw": predictor.draw,
        "show": predictor.show,
    }
    return lambda asked: doing[asked["do"]](asked)


if __name__ == "__main__":
    serve(prepare)
