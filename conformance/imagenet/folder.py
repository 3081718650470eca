"""The folder of an unfinished evaluation: what it is of, and a file for each finished shard."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from conformance.errors import ConformanceError
from conformance.pack.sealed import parse_json, whole_file, write_text

from .decoder import Bad
from .shards import ShardResult, disk_errors

_RUN = "run.json"


@dataclass(frozen=True)
class RunFolder:
    """path: the folder. identity: what decides the numbers; a folder of another one is stale."""

    path: Path
    identity: dict[str, Any]

    def open(self, resume: bool) -> dict[int, ShardResult]:
        """Return the finished shards by index; without `resume` begin anew.

        Raises ConformanceError for a folder of another evaluation, and one that can't be written.
        """
        with disk_errors(self.path):
            if not resume:
                shutil.rmtree(self.path, ignore_errors=True)
            elif (self.path / _RUN).exists() or any(self.path.glob("[0-9]*.npz")):
                self._require_same()
                found = (_read(file) for file in sorted(self.path.glob("[0-9]*.npz")))
                return {shard.index: shard for shard in found if shard is not None}
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.path / _RUN, json.dumps(self.identity, indent=1) + "\n")
            return {}

    def _require_same(self) -> None:
        file = self.path / _RUN
        try:
            there = parse_json(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConformanceError(
                f"--resume: {file} can't be read ({error}): begin anew without --resume"
            ) from error
        if not isinstance(there, dict):
            raise ConformanceError(f"--resume: {file} is damaged: begin anew without --resume")
        now = json.loads(json.dumps(self.identity))  # as it is kept: a tuple is a list there
        differ = [name for name in now if there.get(name) != now[name]]
        if differ:
            text = "; ".join(f"{n}: {there.get(n)!r}, now {now[n]!r}" for n in differ)
            raise ConformanceError(
                f"--resume: {self.path} is of another evaluation ({text}): run that one again as "
                f"it was, or begin anew without --resume"
            )

    def keep(self, shard: ShardResult) -> None:
        """Write a finished shard; raise ConformanceError where the disk does not take it."""
        notes = json.dumps({"bad": [asdict(one) for one in shard.bad], "seconds": shard.seconds})
        arrays: dict[str, Any] = {f"a_{name}": array for name, array in shard.arrays.items()}
        with disk_errors(self.path), whole_file(self.path / f"{shard.index:06}.npz") as temporary:
            np.savez(temporary, index=shard.index, notes=notes, **arrays)

    def remove(self) -> None:
        """Remove the folder: the results are written."""
        shutil.rmtree(self.path, ignore_errors=True)


def _read(file: Path) -> Optional[ShardResult]:
    """Return the shard, or None for a damaged file: that shard is run again."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            notes = json.loads(str(arrays["notes"]))
            held = {name[2:]: arrays[name] for name in arrays.files if name.startswith("a_")}
            bad = [Bad(**one) for one in notes["bad"]]
            return ShardResult(int(arrays["index"]), held, bad, notes["seconds"])
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
