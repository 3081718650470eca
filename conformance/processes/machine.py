"""What this machine is called, for figures that hold on one machine only, and what it has."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Optional

# setpriority(2): the least there is, 1.5 % of what others get where they want all of the cores.
_NICE = 19


def cpu_name() -> str:
    """Return the processor's name, such as "AMD EPYC 7B13"; where none is told, its kind."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def on_threads(machine: str, threads: int) -> str:
    """Return what times and results are told apart by, such as "AMD EPYC, 2 threads"."""
    return f"{machine}, {threads_text(threads)}"


def threads_text(threads: int) -> str:
    """Return a number of threads in words, such as "2 threads"."""
    return f"{threads} thread{'s' if threads != 1 else ''}"


def peak_mib() -> Optional[float]:
    """Return this process's peak memory in MiB, or None where the system doesn't tell.

    Linux carries the parent's peak over into getrusage's ru_maxrss (exec keeps the larger of the
    two), but not into VmHWM, which is asked first.
    """
    peak = _status_mib("VmHWM")
    if peak is not None:
        return peak
    with suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return None


def file_pages_mib() -> float:
    """Return how much of this process's memory are files' pages, as a library's code; 0 if unknown.

    They come in as the code runs, and the kernel brings others along: as many as it likes.
    """
    return _status_mib("RssFile") or 0.0


def _status_mib(name: str) -> Optional[float]:
    """Return a figure of proc(5)'s status in MiB, None where the system doesn't tell."""
    told = _told(Path("/proc/self/status"), name)
    return None if told is None else told / 1024


def _told(file: Path, name: str) -> Optional[int]:
    """Return a figure of proc(5) in KiB, None where the system doesn't tell."""
    with suppress(OSError, ValueError, IndexError):
        return int(file.read_text(encoding="utf-8").split(f"{name}:")[1].split()[0])
    return None


def reset_peak() -> None:
    """Have peak_mib count from now on, where the system lets a process say so (Linux does)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5)


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def sharing_workers() -> int:
    """Return how many workers of pytest-xdist share this machine with this one, itself included."""
    return int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))


def resident_bytes(session: int) -> int:
    """Return the memory of all processes of a session, 0 where the system doesn't tell."""
    pages = 0
    for process in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError, ValueError):  # it has ended
            fields = process.read_text(encoding="utf-8").rpartition(")")[2].split()  # proc(5)
            pages += int(fields[21]) if int(fields[3]) == session else 0
    return pages * os.sysconf("SC_PAGE_SIZE") if pages else 0


def available_bytes() -> int:
    """Return how much memory there is for more, a great number where nobody tells."""
    told = _told(Path("/proc/meminfo"), "MemAvailable")
    return 1 << 50 if told is None else told << 10


def give_way(process: int) -> None:
    """Let this machine's other work go before a process that has just begun, where that can be.

    Linux shares the cores among sessions first (autogroup in sched(7)): a session is told, too.
    """
    with suppress(OSError, AttributeError):  # it has ended; a system that knows no priorities
        os.setpriority(os.PRIO_PROCESS, process, _NICE)
        Path(f"/proc/{process}/autogroup").write_text(str(_NICE), encoding="ascii")


def give_back_memory() -> None:
    """Collect garbage, and give what the heap keeps (processes.child.REUSED_HEAP) to the system."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
