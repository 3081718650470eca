"""What the installed OpenCV offers. ``python -m conformance.opencv.capability`` prints it as JSON.

A new engine is one entry in ENGINES; a new importer, a module in importers/.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import sys
import weakref
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from conformance.errors import ConformanceError
from conformance.processes.child import HERE, Interpreter, answer_of, ask_module, begin_module
from conformance.processes.opencl import ALLOW_ALL, INSTALL, RUNTIME
from conformance.processes.serve import answer_once, printed_since

from .importers import IMPORTERS
from .kernels import count_kernels

if TYPE_CHECKING:  # NumPy need not be there to tell that cv2 is missing
    from conformance.candidate import RunConfig

# The constants that an engine goes by. OpenCV 5 brought a second one; 4.x has the classic one only,
# and no constant. After 5.0 the classic one is gone and the new one is called ENGINE_OPENCV.
ENGINES = {"classic": ("ENGINE_CLASSIC",), "new": ("ENGINE_NEW", "ENGINE_OPENCV")}

DISTRIBUTIONS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
# What DNN_TFLITE_UNSUPPORTED and DNN_PROTOBUF_UNSUPPORTED say (tflite_importer.cpp and others).
_BUILT_WITHOUT = "Build OpenCV with"
_NO_SUCH_FILE = "no-such-file"
_OPENCL = "opencl"
_MODULE, _FAILURE = "conformance.opencv.capability", "cv2 can't be used"
_INSTALL = "python -m pip install opencv-python-headless (or opencv-python)"


def load_cv2() -> Any:
    """Import cv2; raise ConformanceError that says what to install where that fails."""
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cv2":
            raise ConformanceError(
                f"OpenCV is not installed for {sys.executable} (no module cv2): {_INSTALL}"
            ) from error
        raise ConformanceError(
            f"cv2 is installed for {sys.executable} but cannot be imported: {error}. "
            f"If a library of the desktop (libGL, libgthread) is missing, the headless build "
            f"needs none: python -m pip install opencv-python-headless"
        ) from error
    if not hasattr(cv2, "dnn"):
        where = getattr(cv2, "__file__", None) or list(getattr(cv2, "__path__", ["?"]))
        raise ConformanceError(f"cv2 from {where} has no DNN module: {_INSTALL}")
    _without_opencl(cv2)
    return cv2


@cache
def _without_opencl(cv2: Any) -> None:
    """Have OpenCV load no OpenCL, unless this process is to run a network on it.

    It looks for devices when it is asked for targets. A driver's compiler and TensorFlow's do not
    go together in one process: with PoCL installed that ends in SIGSEGV.
    """
    if ALLOW_ALL in os.environ or RUNTIME in os.environ or not hasattr(cv2, "ocl"):
        return
    os.environ[RUNTIME] = "disabled"
    try:
        cv2.ocl.haveOpenCL()  # reads the variable, once a process
    finally:
        del os.environ[RUNTIME]  # for the processes that this one starts


def probe(opencl: bool = False) -> dict[str, Any]:
    """Return what this OpenCV offers, as plain JSON values.

    opencl: find the OpenCL device that it takes, and have it run a kernel.

    Keys: version, distribution, importers, engines, engine_constants ({engine: its constant's
    name}), available (list of [backend, target] names), cpu_features, threads, python, numpy, and
    device (of OpenCL) where asked for. Raises ConformanceError where cv2 cannot be imported, or no
    OpenCL device used.
    """
    cv2 = load_cv2()
    return {
        **({"device": opencl_device(cv2)} if opencl else {}),
        "version": cv2.__version__,
        "distribution": providing_distribution(cv2),
        "importers": importers(cv2),
        "engines": engines(cv2),
        "engine_constants": engine_constants(cv2),
        "available": [list(pair) for pair in available_targets(cv2)],
        "cpu_features": cpu_features(cv2),
        "threads": cv2.getNumThreads(),
        "python": platform.python_version(),
        "numpy": importlib.import_module("numpy").__version__,
    }


def opencl_device(cv2: Any) -> str:
    """Return name and version of the OpenCL device that OpenCV takes.

    Raises ConformanceError where there is none, or it can't run a kernel of OpenCV's.
    """
    import numpy as np

    begin, launched = os.fstat(2).st_size, count_kernels()
    cv2.ocl.setUseOpenCL(True)
    if not cv2.ocl.useOpenCL():
        raise ConformanceError(f"OpenCV {cv2.__version__} finds no OpenCL device; {INSTALL}")
    # Old versions have no class for it.
    found = cv2.ocl.Device.getDefault() if hasattr(cv2.ocl, "Device") else None
    device = f"{found.name()}, {found.version()}" if found else "of a name that OpenCV doesn't tell"
    ones = cv2.UMat(np.ones((8, 8), np.float32))
    cv2.add(ones, ones).get()
    if not launched:
        said = printed_since(begin).strip()
        raise ConformanceError(
            f"OpenCV {cv2.__version__} finds the OpenCL device {device}, but that runs no kernel "
            f"of OpenCV's, here of cv2.add: {said[-500:] or 'no reason was printed'}\n"
            f"Take another device by OPENCV_OPENCL_DEVICE, or another driver: {INSTALL}"
        )
    return device


def importers(cv2: Any) -> list[str]:
    """Return the names of the importers that this build has.

    A build without FlatBuffers or Protobuf has the function too: it only says what is missing.
    """
    return [name for name, importer in IMPORTERS.items() if _can_read(cv2, importer.READER)]


def _can_read(cv2: Any, attribute: str) -> bool:
    if not hasattr(cv2.dnn, attribute):
        return False
    try:
        getattr(cv2.dnn, attribute)(_NO_SUCH_FILE)
    except Exception as error:  # of a file that is not there, whatever the binding makes of it
        return _BUILT_WITHOUT not in str(error)
    return True


def engines(cv2: Any) -> list[str]:
    """Return the names of the engines that this build has."""
    return list(engine_constants(cv2)) or ["classic"]


def engine_constants(cv2: Any) -> dict[str, str]:
    """Return {engine: the name of its constant in cv2.dnn}, empty on 4.x."""
    return {
        name: constant
        for name, constants in ENGINES.items()
        for constant in constants
        if hasattr(cv2.dnn, constant)
    }


def dnn_constants(cv2: Any, prefix: str) -> dict[str, int]:
    """Return {lower-case name: value} of the constants such as DNN_TARGET_CPU."""
    names = (name for name in dir(cv2.dnn) if name.startswith(prefix))
    return {name[len(prefix) :].lower(): getattr(cv2.dnn, name) for name in names}


def available_targets(cv2: Any) -> list[tuple[str, str]]:
    """Return the (backend, target) names that getAvailableTargets says can be used."""
    import numpy as np  # here, so that a missing cv2 is told where NumPy is missing too

    targets = {value: name for name, value in dnn_constants(cv2, "DNN_TARGET_").items()}
    pairs = []
    for backend, value in dnn_constants(cv2, "DNN_BACKEND_").items():
        try:
            offered = cv2.dnn.getAvailableTargets(value)
        except cv2.error:  # a backend this build was made without
            continue
        # OpenCV 4.5.1 gives a column of an array, later ones a flat list.
        numbers = np.asarray(offered, dtype=int).ravel()
        pairs += [(backend, targets.get(int(n), str(n))) for n in numbers]
    return pairs


def cpu_features(cv2: Any) -> str:
    """Return the CPU features OpenCV was built with; a star: chosen at run time, "?": not here."""
    if hasattr(cv2, "getCPUFeaturesLine"):
        return str(cv2.getCPUFeaturesLine()).strip()
    lines = re.findall(r"(?:Baseline|Dispatched[^:]*):\s+(.*)", cv2.getBuildInformation())
    return " ".join(lines)


def providing_distribution(cv2: Any) -> str:
    """Return name and version of the pip distribution(s) that hold this cv2, or "unknown build"."""
    folder = Path(cv2.__file__).resolve().parent
    found = [dist for dist in map(_distribution, DISTRIBUTIONS) if dist is not None]
    if not any(_holds(dist, folder) for dist in found):
        every = metadata.distributions()
        found = [d for d in every if any(file.parts[0] == "cv2" for file in d.files or ())]
    held = [dist for dist in found if _holds(dist, folder)]
    return ", ".join(f"{d.metadata['Name']} {d.version}" for d in held) or "unknown build"


def _distribution(name: str) -> Any:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _holds(distribution: Any, folder: Path) -> bool:
    return Path(str(distribution.locate_file("cv2"))).resolve() == folder


def probe_in_child(
    timeout: float = 60,
    interpreter: Interpreter = HERE,
    config: Optional[RunConfig] = None,
) -> dict[str, Any]:
    """Return probe() made in a process of its own, so that this one never loads cv2.

    timeout in seconds. config: whose target and CPU level it is asked about. Raises
    ConformanceError with what the child said when it fails: cv2 missing or not importable, a crash
    on import, or no answer in time.
    """
    words, failure = [], _FAILURE
    if config is not None and config.on_opencl:
        words, failure = [_OPENCL], f"target {config.target} can't be used"
    changes = config.environment if config is not None else {}
    found: dict[str, Any] = ask_module(_MODULE, words, timeout, failure, interpreter, **changes)
    return found


class Probing:
    """probe_in_child, begun before anyone wants its answer: meanwhile this process goes on."""

    def __init__(self, timeout: float = 60) -> None:
        self._timeout = timeout
        self._environment = dict(os.environ)
        child = begin_module(_MODULE, [])
        self._child = child
        self._close = weakref.finalize(self, child.close)  # also where nobody asks

    def answer(self) -> dict[str, Any]:
        """Return what probe_in_child does now; raise what it raises."""
        # Other variables, such as OPENCV_CPU_DISABLE, may make it another answer.
        if not self._close.alive or dict(os.environ) != self._environment:
            self._close()
            return probe_in_child(self._timeout)
        try:
            found: dict[str, Any] = answer_of(self._child, self._timeout, _FAILURE)
        finally:
            self._close()
        return found


if __name__ == "__main__":
    answer_once(lambda: probe(_OPENCL in sys.argv))
