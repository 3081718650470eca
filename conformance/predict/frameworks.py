"""OpenCV and TensorFlow, each in a process of its own, answering picture after picture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np

from conformance.candidate import RunConfig, read_arrays
from conformance.errors import ConformanceError
from conformance.inputs.preprocessing import Preprocessing
from conformance.own_models import OwnModel
from conformance.pack.format import Pack
from conformance.pack.formats import FORMATS
from conformance.processes.scratch import Scratch
from conformance.processes.server import FrameworkError, Server

from .answers import Answer, Array, best_classes
from .explanation import Explanation, Levels, explain

OPENCV, TENSORFLOW = "conformance.opencv.prediction", "conformance.reference.prediction"
# In the place of TensorFlow, for a pack of an ONNX or TFLite file.
RUNTIME = "conformance.runtimes.prediction"
# A window stays open as long as its user likes: a week, in seconds.
_LOOKED_AT = 7 * 24 * 3600.0


class PictureError(ConformanceError):
    """One picture can't be used; the next ones may be."""


@dataclass
class Frameworks:
    """Both frameworks on one model; a context manager that ends their processes.

    pack: as the output sees it that is asked for. labels: one a class, or none. own: the user's
    own model that the pack is of. timeout: seconds that one answer may take. TensorFlow is started
    when it is first asked. Every method raises ConformanceError where a framework gives no answer.
    """

    pack: Pack
    config: RunConfig
    weights: str
    classes: int
    labels: Sequence[str]
    timeout: float
    own: Optional[OwnModel] = None
    _open: ExitStack = field(default_factory=ExitStack)
    _tensorflow: Optional[Server] = None

    def __enter__(self) -> Frameworks:
        self.folder = Path(self._open.enter_context(Scratch()))
        try:
            self._opencv = self._start(
                OPENCV,
                model=self.pack.model,
                pack=str(self.pack.path.resolve()),
                config=asdict(self.config),
                classes=self.classes,
                head=self.pack.head if len(self.pack.heads()) > 1 else None,
            )
            self.about = self._ask(self._opencv, do="about")
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Have a framework's error name the model."""
        try:
            yield
        except FrameworkError as error:
            named = "" if self.pack.model in error.message else f"{self.pack.model}: "
            raise ConformanceError(f"{named}{error.message}") from error

    def _start(self, module: str, **request: Any) -> Server:
        with self._named():
            server = Server(module, request, self.timeout)
        self._open.callback(server.close)
        return server

    def _ask(self, server: Server, **request: Any) -> dict[str, Any]:
        with self._named():
            return server.ask(request)

    def _file(self, name: str) -> str:
        return str(self.folder / name)

    def opencv(
        self, picture: Path, settings: Preprocessing, pixels: bool
    ) -> tuple[Answer, list[int], str]:
        """Return OpenCV's answer to the picture, the picture's [width, height], and a warning.

        The warning is what the decoder said of a damaged picture, else empty.
        pixels: keep the decoded and resized pixels for `explain`. Raises PictureError where the
        picture is to blame.
        """
        found = self._ask(
            self._opencv,
            do="predict",
            image=os.path.realpath(picture),
            settings=asdict(settings),
            blob=self._file("blob.npy"),
            outputs=self._file("opencv.npy"),
            pixels=self._file("pixels.npz") if pixels else None,
        )
        if "refused" in found:
            raise PictureError(f"{picture}: {found['refused']}")
        about = self.about
        how, threads = about["title"], int(about["threads"])
        answer = self._answer("OpenCV", about["version"], how, threads, found, "opencv.npy")
        return answer, found["size"], found["warning"]

    def tensorflow(self) -> Answer:
        """Return what TensorFlow's frozen graph makes of the blob that OpenCV was given.

        Of an ONNX or TFLite file, what its own runtime makes of it.
        """
        found = self._ask(
            self._started_tensorflow(),
            do="predict",
            blob=self._file("blob.npy"),
            outputs=self._file("tensorflow.npy"),
        )
        threads, own = int(self.about["threads"]), FORMATS.get(self.pack.manifest.importer)
        name, version, how = "TensorFlow", found["version"], "frozen graph"
        if own is not None:
            (name, _, version), how = version.rpartition(" "), f"{own.title} file"
        return self._answer(name, version, how, threads, found, "tensorflow.npy")

    def _started_tensorflow(self) -> Server:
        if self._tensorflow is None:
            self._tensorflow = self._start(
                RUNTIME if self.pack.manifest.importer in FORMATS else TENSORFLOW,
                pack=str(self.pack.path.resolve()),
                head=self.pack.head,
                own=self.own.as_dict() if self.own else None,
                weights=self.weights,
                # As many as OpenCV has, so that the times can be compared.
                threads=int(self.about["threads"]),
            )
        return self._tensorflow

    def _answer(
        self,
        framework: str,
        version: str,
        how: str,
        threads: int,
        found: dict[str, Any],
        outputs: str,
    ) -> Answer:
        values: Array = np.load(self._file(outputs), allow_pickle=False)
        wrong = int(np.count_nonzero(~np.isfinite(values)))
        if wrong:
            raise ConformanceError(
                f"{self.pack.model}: {wrong} of {values.size} outputs of {framework} {version} "
                f"({how}) are NaN or infinite: no class is the best"
            )
        shapes = (tuple(found["input_shape"]), tuple(found["output_shape"]))
        best = best_classes(values, self.labels)
        kind = self.pack.kind
        return Answer(framework, version, how, threads, *shapes, found["ms"], best, values, kind)

    def explain(
        self, picture: Path, settings: Preprocessing, opencv: Answer, tensorflow: Answer
    ) -> Explanation:
        """Return what the difference between the two ends is made of, for the last picture."""
        found = self._ask(
            self._started_tensorflow(),
            do="explain",
            image=os.path.realpath(picture),
            settings=asdict(settings),
            blob=self._file("blob.npy"),
            pixels=self._file("pixels.npz"),
            stages=self._file("stages.npz"),
        )
        softmax = read_arrays(self.folder / "stages.npz")
        softmax.update(frozen=tensorflow.outputs, opencv=opencv.outputs)
        levels = {name: Levels(*values) for name, values in found["levels"].items()}
        return explain(softmax, levels, settings.float32)

    def draw(self, lines: Sequence[str], output: Path) -> None:
        """Write the last picture with the lines drawn on it."""
        path = os.path.realpath(output)
        found = self._ask(self._opencv, do="draw", lines=list(lines), output=path)
        if "refused" in found:
            raise ConformanceError(f"--output {output}: {found['refused']}; give another file")

    def show(self, lines: Sequence[str], title: str) -> None:
        """Show the last picture in a window until a key is pressed or it is closed."""
        try:
            asked = {"do": "show", "lines": list(lines), "title": title}
            self._opencv.ask(asked, timeout=_LOOKED_AT)
        except FrameworkError as error:
            # Qt aborts the process where it can't reach the display.
            raise ConformanceError(
                f"--show: {error.message}\nUse --output FILE and look at the file"
            ) from error
