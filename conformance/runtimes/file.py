"""What a model file says of itself, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np

from conformance.errors import ConformanceError, first_line
from conformance.pack.request import runtime_title

Array = np.ndarray[Any, Any]

# They give the same numbers, in another shape at most.
SAME_VALUES = (
    *("Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze"),
    *("RESHAPE", "SQUEEZE", "EXPAND_DIMS"),
)
# Of those, the ones that OpenCV makes no layer of.
UNCHANGED = ("Identity", "Dropout")


class Unsupported(Exception):
    """A file can't be run this way. The message says why."""


@contextmanager
def refusing(importer: str, what: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn a runtime's `errors` into a ConformanceError: `what` it can't do, and its reason."""
    try:
        yield
    except errors as error:
        reason = f"{runtime_title(importer)} can't {what}: {first_line(error, 300)}"
        raise ConformanceError(reason) from error


@dataclass(frozen=True)
class Setting:
    """A way to run a file. inner: whether the inner tensors can be read then.

    options: what the format's module makes of it.
    """

    name: str
    options: tuple[Any, ...] = ()
    inner: bool = True


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file. shape: as the file has it, None for what it leaves open.

    step, zero: its scale and zero point where it holds whole numbers, else step is 0.
    """

    name: str
    shape: tuple[Optional[int], ...]
    dtype: str
    step: float = 0.0
    zero: int = 0


@dataclass(frozen=True)
class Operation:
    """An operation of a file by the tensor that it gives. layer: its own name, if it has one."""

    tensor: str
    layer: str
    kind: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class File:
    """What a file says of itself.

    layout: of its input, "NCHW" or "NHWC". operations: in the file's order. winograd: how many
    convolutions OpenCV may run as Winograd's. notes: what else should be known of it.
    """

    input: Tensor
    outputs: tuple[Tensor, ...]
    operations: tuple[Operation, ...]
    layout: str
    winograd: int
    tensors: dict[str, Tensor] = field(default_factory=dict)  # those in whole numbers
    notes: tuple[str, ...] = ()

    @property
    def channels_last(self) -> tuple[Optional[int], ...]:
        """The shape of its input, NHWC."""
        n, *rest = self.input.shape
        return (n, *rest) if self.layout == "NHWC" else (n, *rest[1:], rest[0])

    def dependents(self) -> list[Operation]:
        """Return the operations whose value depends on the input."""
        found, kept = {self.input.name}, []
        for operation in self.operations:
            if found.intersection(operation.inputs):
                found.add(operation.tensor)
                kept.append(operation)
        return kept


def channels_last(value: Array, format: str) -> Array:
    """Return a tensor's value with the channels last: those of ONNX come second."""
    return value.transpose(0, 2, 3, 1) if format == "onnx" and value.ndim == 4 else value


def behind(operations: dict[str, Operation], tensor: str, passed: Sequence[str]) -> str:
    """Return the first tensor at or before `tensor` that none of the operations `passed` gives."""
    while tensor in operations and operations[tensor].kind in passed:
        tensor = operations[tensor].inputs[0]
    return tensor
