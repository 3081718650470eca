"""What came of one injected fault."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What became of one fault, or of the unchanged model."""

    model: str
    kind: str  # "" of the unchanged model
    node: str
    equivalent: bool
    top1: bool  # whether the method raised the alarm, as the next two
    opencv: bool
    ours: bool
    located: str = ""  # the node that ours names
    localised: bool = False  # whether that is the changed node or the one OpenCV folds it into
    how: str = ""  # the stages and metrics that failed
