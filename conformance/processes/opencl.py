"""Which OpenCL a child process is given: the system's, or PoCL from PyPI where it is installed."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
from pathlib import Path

# How to get a device where there is no GPU.
INSTALL = (
    "PoCL makes one of the CPU: apt-get install pocl-opencl-icd, or "
    "python -m pip install pyopencl pocl-binary-distribution"
)
# OpenCV's variables: networks on any device, and which library to load.
ALLOW_ALL, RUNTIME = "OPENCV_DNN_OPENCL_ALLOW_ALL_DEVICES", "OPENCV_OPENCL_RUNTIME"
_VENDORS = Path("/etc/OpenCL/vendors")  # where packages leave a file each (cl_khr_icd)


def opencl_environment() -> dict[str, str]:
    """Return the variables that let OpenCV's networks run on any OpenCL device.

    Those that are set already stay as they are.
    """
    variables = {
        # By itself OpenCV runs networks on Intel's GPUs alone, and others' on the CPU.
        ALLOW_ALL: "1",
        # Of any platform and name; OpenCV then takes a GPU if there is one, else a CPU.
        "OPENCV_OPENCL_DEVICE": "::",
        **_pocl_of_pypi(),
    }
    return {name: os.environ.get(name, value) for name, value in variables.items()}


def _pocl_of_pypi() -> dict[str, str]:
    """Return the variables by which the OpenCL of the packages pyopencl and PoCL is found."""
    package = importlib.util.find_spec("pyopencl")
    if RUNTIME in os.environ or package is None or not package.origin:
        return {}
    # Asked last: it starts a process.
    if any(_VENDORS.glob("*.icd")) and ctypes.util.find_library("OpenCL"):
        return {}
    folder = Path(package.origin).parent
    loaders, runtimes = (
        sorted(folder.glob(f".libs/lib{name}*.so*")) for name in ("OpenCL", "pocl")
    )
    if not (loaders and runtimes):
        return {}
    return {
        "PYOPENCL_HOME": str(folder),  # that loader crashes without it
        "OCL_ICD_VENDORS": str(runtimes[0]),
        RUNTIME: str(loaders[0]),
    }
