"""How many kernels an OpenCL device was given, counted in its runtime, whatever OpenCV says of it.

OpenCV asked for OpenCL may run some layers, or all, on the CPU without a word. What tells is its
calls of clEnqueueNDRangeKernel. Every object of OpenCL begins with a pointer to its vendor's table
of functions (the extension cl_khr_icd); the entry of this one is exchanged for one that counts.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections import Counter
from contextlib import suppress
from typing import Any

from conformance.processes.opencl import RUNTIME

_LIBRARIES = ("libOpenCL.so", "libOpenCL.so.1")  # as OpenCV looks for it (opencl_core.cpp)
# The place of clEnqueueNDRangeKernel in struct _cl_icd_dispatch (CL/cl_icd.h).
_ENQUEUE = 59
_FUNCTION_NAME = 0x1190  # CL_KERNEL_FUNCTION_NAME (CL/cl.h), as the next one
_SUCCESS = 0
_NAME_BYTES = 256
_READ_AND_WRITE = 1 | 2  # PROT_READ | PROT_WRITE (sys/mman.h)
_POINTER = ctypes.sizeof(ctypes.c_void_p)

# cl_int f(queue, kernel, work_dim, offset, global size, local size, events, wait list, event)
_Enqueue = ctypes.CFUNCTYPE(
    ctypes.c_int,
    *[ctypes.c_void_p] * 2,
    ctypes.c_uint,
    *[ctypes.c_void_p] * 3,
    ctypes.c_uint,
    *[ctypes.c_void_p] * 2,
)
_exchanged: list[Any] = []  # must outlive every call


def count_kernels() -> Counter[str]:
    """Return the numbers of kernels, by name, that this process launches from now on.

    They stay empty where there is no OpenCL.
    """
    runtime = _load()
    counts: Counter[str] = Counter()
    for platform in _platforms(runtime) if runtime else ():
        table = ctypes.cast(platform, ctypes.POINTER(ctypes.c_void_p))[0]
        if table:
            _exchange(runtime, table + _ENQUEUE * _POINTER, counts)
    return counts


def _load() -> Any:
    asked = os.environ.get(RUNTIME)
    for name in (asked,) if asked else _LIBRARIES:
        with suppress(OSError):
            return ctypes.CDLL(name)
    return None


def _platforms(runtime: Any) -> list[int]:
    number = ctypes.c_uint()
    if runtime.clGetPlatformIDs(0, None, ctypes.byref(number)) != _SUCCESS:
        return []
    platforms = (ctypes.c_void_p * number.value)()
    runtime.clGetPlatformIDs(number, platforms, None)
    # A loader may name a platform twice.
    return list(dict.fromkeys(filter(None, platforms)))


def _exchange(runtime: Any, place: int, counts: Counter[str]) -> None:
    """Exchange the function whose address is at `place` for one that counts and calls it."""
    entry = ctypes.cast(place, ctypes.POINTER(ctypes.c_void_p))
    function = _Enqueue(entry[0] or 0)

    def counted(queue: Any, kernel: Any, *rest: Any) -> int:
        status = int(function(queue, kernel, *rest))
        if status == _SUCCESS:
            counts[_name(runtime, kernel)] += 1
        return status

    counting = _Enqueue(counted)
    _exchanged.append(counting)
    page = place & ~(mmap.PAGESIZE - 1)
    # Some runtimes keep the table where nobody may write.
    ctypes.CDLL(None).mprotect(
        ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), _READ_AND_WRITE
    )
    entry[0] = ctypes.cast(counting, ctypes.c_void_p).value


def _name(runtime: Any, kernel: Any) -> str:
    name = ctypes.create_string_buffer(_NAME_BYTES)
    size = ctypes.c_size_t(_NAME_BYTES)
    runtime.clGetKernelInfo(ctypes.c_void_p(kernel), _FUNCTION_NAME, size, name, None)
    return name.value.decode("ascii", "replace")
