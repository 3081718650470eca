"""What came of one injected fault."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What became of one fault; of the unchanged model where kind is "".

    top1, opencv, ours: whether each method raised the alarm. located: the node that ours names.
    localised: whether that is the changed node or the one that OpenCV folds it into. how: the
    stages and metrics that failed.
    """

    model: str
    kind: str
    node: str
    equivalent: bool
    top1: bool
    opencv: bool
    ours: bool
    located: str = ""
    localised: bool = False
    how: str = ""
