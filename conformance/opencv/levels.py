"""CPU levels: OpenCV's kernels for newer CPUs switched off, so that it runs as on an older one.

A wheel holds each kernel for several instruction sets and chooses when it is loaded; the variable
OPENCV_CPU_DISABLE takes some away. Of a feature that it doesn't know, that is in its baseline or
that the CPU lacks OpenCV only warns, or says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from conformance.candidate import RunConfig
from conformance.errors import ConformanceError

BASELINE = "baseline"
EACH = "each"
# What CPUs of some years lack, widest vectors first: before Skylake-X or Zen 4, before Haswell.
_STEPS = (("AVX512",), ("AVX512", "AVX2", "FP16"))


@dataclass(frozen=True)
class Level:
    """What is switched off. name: "" for nothing, "baseline", or such as "without_AVX2_FP16"."""

    name: str = ""
    off: tuple[str, ...] = ()

    @property
    def config(self) -> RunConfig:
        """OpenCV run at this level, and as usual else."""
        return RunConfig(cpu=self.name, cpu_off=self.off)


AS_IT_IS = Level()


def chosen_features(line: str) -> list[str]:
    """Return the features of a line of OpenCV's (getCPUFeaturesLine) that it chooses at run time.

    There they have a star; a question mark besides: the CPU lacks it, or it is switched off.
    """
    words = line.split()
    return [w.strip("*") for w in words if w.startswith("*") and not w.endswith("?")]


def levels(asked: Sequence[str], line: str) -> list[Level]:
    """Return the levels that the values of --cpu-disable ask for, of an OpenCV with that line.

    Raises ConformanceError for a feature that can't be switched off, saying which can.
    """
    found = [level for value in asked for level in _levels(value, line)]
    return list(dict.fromkeys(found)) or [AS_IT_IS]


def _levels(value: str, line: str) -> list[Level]:
    chosen = chosen_features(line)
    if not chosen:
        raise ConformanceError(
            f"--cpu-disable {value}: this OpenCV has no kernels that it chooses by the CPU ({line})"
        )
    if value == EACH:
        steps = (tuple(f for f in chosen if f.startswith(step)) for step in _STEPS)
        return [
            *(_level(off) for off in dict.fromkeys(steps) if off),
            Level(BASELINE, tuple(chosen)),
        ]
    if value == BASELINE:
        return [Level(BASELINE, tuple(chosen))]
    names = value.split(",")
    for name in names:
        if name not in chosen:
            raise ConformanceError(f"--cpu-disable {value}: {_refusal(name, line)}")
    return [_level(tuple(f for f in chosen if f in names))]


def _level(off: tuple[str, ...]) -> Level:
    return Level("_".join(("without", *off)), off)


def _refusal(name: str, line: str) -> str:
    words = line.split()
    if name in words:
        why = f"{name} is in the baseline, code that runs on every CPU, and can't be switched off"
    elif f"*{name}?" in words:
        why = f"{name} is nothing that this CPU has, or it is off already"
    else:
        why = f"OpenCV has no kernels for a CPU feature {name!r}"
    return f"{why}; those that can be: {', '.join(chosen_features(line))}, or {BASELINE} for all"


def check_off(level: Level, line: str) -> None:
    """Raise ConformanceError where OpenCV, run at that level, has the line but took no notice."""
    left = [name for name in level.off if name in chosen_features(line)]
    if left:
        raise ConformanceError(
            f"OpenCV was told to do without {', '.join(left)} and did not (it says: {line})"
        )
