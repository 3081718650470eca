"""A folder for each shrunk finding: the model, its file, and a script that needs cv2 and NumPy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from conformance.candidate import BATCH, RunConfig
from conformance.generated.code import code_of
from conformance.generated.findings import Finding, versions_text
from conformance.generated.outcomes import METRIC, MODEL, SINGLE, Outcome
from conformance.generated.patterns import own_operations
from conformance.generated.recipes import Recipe, input_of
from conformance.generated.reduced import versions_of
from conformance.generated.store import producer_of
from conformance.opencv.scripts import failing_output, quoted, read_call, remove_attempt
from conformance.pack.format import GRAPH
from conformance.pack.formats import FORMATS
from conformance.verdict.tolerance import Allowance, Tolerances, allow

_HEAD = '''"""{title}. Needs cv2 and NumPy only."""
import os
{imports}import sys

import cv2
import numpy as np

'''
_DATA = """RUNS = {runs}  # the images of each forward: from, to
here = os.path.dirname(os.path.abspath(__file__))
images = np.load(os.path.join(here, "input.npy"))  # NHWC
expected = np.load(os.path.join(here, "expected.npy"))  # TensorFlow in float64
"""
_FORWARD = """net = {read}
outputs = []
for start, stop in RUNS:
    net.setInput(np.ascontiguousarray(np.moveaxis(images[start:stop], -1, 1)))
    outputs.append(np.array(net.forward()))
"""
_ANSWERING = (
    _HEAD
    + """LIMIT = {limit!r}  # {why}
"""
    + _DATA
    + """print("OpenCV", cv2.__version__, flush=True)
try:
{forward}except cv2.error as error:
    sys.exit(f"refused: {{error}}")
truth = [expected[start:stop] for start, stop in RUNS]
if [one.shape for one in outputs] != [one.shape for one in truth]:
    sys.exit(f"shape {{outputs[-1].shape}}, should be {{truth[-1].shape}}")
{check}"""
)
_WRONG = """deviation = np.max([np.abs(a - b).max() for a, b in zip(outputs, truth)])
print(f"output {outputs[-1]}\\nshould be {truth[-1]}")
print(f"greatest deviation {deviation:.3g}, allowed {LIMIT:.3g}")
sys.exit(0 if deviation <= LIMIT else 1)
"""
_UNSTABLE = """again = outputs[len(outputs) // 2 :]
print(f"output {outputs[0]}\\na second time {again[0]}")
same = all(np.array_equal(a, b) for a, b in zip(outputs, again))
sys.exit(0 if same else "another answer for the same image")
"""
_DYING = (
    _HEAD
    + """if len(sys.argv) == 1:  # in a process of its own, so that this one can tell how it ends
    print("OpenCV", cv2.__version__, flush=True)
    try:
        code = subprocess.run([sys.executable, __file__, "forward"], timeout={seconds}).returncode
    except subprocess.TimeoutExpired:
        sys.exit("no answer within {seconds} s, should be one")
    sys.exit(f"died of signal {{-code}}, should answer" if code < 0 else code)
"""
    + _DATA
    + """{forward}print(f"output {{outputs[-1]}}\\nshould be {{expected[-1]}}")
"""
)
_SECONDS = 30
# What depends on what lies in memory must show in so many runs, and may take so many forwards.
RUNS, REPEATS = 3, 8

# What the script says where it shows a symptom.
_SAYS = {
    "wrong": "greatest deviation",
    "shape": "shape (",
    "unstable": "another answer",
    "refused": "refused: ",
    "crash": "died of signal",
    "hang": "no answer within",
}
_TITLES = {
    "wrong": "gives wrong values",
    "shape": "gives an output of another shape",
    "unstable": "gives another answer the second time",
    "refused": "is refused",
    "crash": "crashes the process",
    "hang": "does not end",
}
_RUNTIMES = {"tensorflow": "TensorFlow", "tflite": "the TFLite interpreter", "onnx": "ONNX Runtime"}

_ISSUE = """# {title}

`reproduce.py` (cv2 and NumPy only) reads `{file}` ({size:.0f} KiB), runs it on `input.npy` and
compares with `expected.npy`, TensorFlow's answer to the same model in double precision.

    python reproduce.py

gives

{output}

- OpenCV {version}, {config}, {distribution}
- {symptom} on {bad}; right on {good}
- layers: input {input}, Conv2D(8, 3), {layers}, {head}; `model.py` is the same in Keras
- operations of the file: {operations}
- observed: {observed}
- expected: at most {limit:.3g} from double precision ({why})
- {runtime} answers the same file rightly: it strays by {strayed:.2g} from double precision
- made with {producer}
- {count} small models, which opencv-dnn-conformance generated, show it
"""


@dataclass(frozen=True)
class Shown:
    """A model that shows a finding, and what there is to write about it.

    findings: those that it stands for, the first one to be told. file: what OpenCV reads. arrays:
    "inputs", "f32", "f64" and "runtime". operations: of the file, each with its layer's number.
    """

    findings: Sequence[Finding]
    recipe: Recipe
    outcome: Outcome
    config: RunConfig
    file: bytes
    arrays: dict[str, Any]
    operations: Sequence[tuple[str, int]]

    @property
    def own(self) -> list[str]:
        """The operations that are not stem's and head's."""
        return own_operations(self.operations)


@dataclass(frozen=True)
class Bench:
    """What all folders are written with."""

    root: Path
    capability: dict[str, Any]
    tolerances: Tolerances

    def allowance(self, shown: Shown) -> Allowance:
        """Return what each image's answer may stray."""
        single, truth = shown.arrays["f32"], shown.arrays["f64"]
        version, engine = self.capability["version"], shown.config.engine
        return allow(
            self.tolerances, METRIC, single, truth, model=MODEL, opencv=version, engine=engine
        )


def folder_name(shown: Shown) -> str:
    """Return a readable name that is one finding's alone."""
    layers = "-".join(layer.operation for layer in shown.recipe.layers) or "stem-and-head"
    words = re.sub(r"[^a-z0-9]+", "-", layers.lower())[:60].strip("-")
    first = shown.findings[0]
    return f"{shown.outcome.symptom}-{shown.config.importer}-{words}-{first.id}"


def write_folder(bench: Bench, shown: Shown) -> Optional[Path]:
    """Write a model's folder; return None, and leave none, where its script does not show it.

    One image and one forward are tried first, then what the model was judged by.
    """
    folder = bench.root / folder_name(shown)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _file(shown)).write_bytes(shown.file)
    for images, runs in _trials(shown):
        np.save(folder / "input.npy", shown.arrays["inputs"][images])
        np.save(folder / "expected.npy", shown.arrays["f64"][images])
        script = folder / "reproduce.py"
        script.write_text(_script(bench, shown, images, runs), encoding="utf-8")
        output = _showing(script, shown.outcome.symptom)
        if output is not None:
            title = _title(shown, shown.recipe.words())
            (folder / "model.py").write_text(code_of(shown.recipe, title), encoding="utf-8")
            (folder / "issue.md").write_text(_issue(bench, shown, output, folder), encoding="utf-8")
            return folder
    remove_attempt(folder, _file(shown))
    return None


def _showing(script: Path, symptom: str) -> Optional[str]:
    """Return what the script prints where it shows the symptom, each time if that is in doubt."""
    for _ in range(RUNS if symptom in ("crash", "unstable") else 1):
        output = failing_output(script)
        if output is None or _SAYS[symptom] not in output:
            return None
    return output


def _file(shown: Shown) -> str:
    importer = shown.config.importer
    return FORMATS[importer].file if importer in FORMATS else GRAPH


Runs = tuple[tuple[int, int], ...]


def _trials(shown: Shown) -> Iterator[tuple[list[int], Runs]]:
    """Yield which images, and from and to which of them each forward goes, the plainest first."""
    everything = list(range(len(shown.arrays["inputs"])))
    each = tuple((n, n + 1) for n in everything)
    if shown.outcome.run != SINGLE:
        yield everything[:BATCH], ((0, BATCH),)
        yield everything[:BATCH], ((0, 1), (0, BATCH))
        yield everything, (*each, *each, *[(0, BATCH)] * REPEATS)
    elif shown.outcome.symptom == "unstable":
        yield everything[:1], ((0, 1), (0, 1))
        yield everything, (*each, *each)
    else:
        worst = shown.outcome.position[0] if shown.outcome.position else 0
        yield [worst], ((0, 1),)
        yield everything, each


def _script(bench: Bench, shown: Shown, images: Sequence[int], runs: Runs) -> str:
    config, symptom = shown.config, shown.outcome.symptom
    allowance = bench.allowance(shown)
    constants = bench.capability["engine_constants"]
    read = read_call(config.importer, config.engine, constants, _file(shown))
    forward = _FORWARD.format(read=read)
    dying = symptom in ("crash", "hang")
    if not dying:
        forward = "".join(f"    {line}\n" for line in forward.splitlines())
    return (_DYING if dying else _ANSWERING).format(
        title=_title(shown, [layer.operation for layer in shown.recipe.layers]),
        imports="import subprocess\n" if dying else "",
        seconds=_SECONDS,
        forward=forward,
        runs=runs,
        limit=float(allowance.values[list(images)].max()),
        why=_why(allowance),
        check=_UNSTABLE if symptom == "unstable" else _WRONG,
    )


def _why(allowance: Allowance) -> str:
    return f"{allowance.multiple:g} x TensorFlow's own float32 rounding"


def _title(shown: Shown, layers: Sequence[str]) -> str:
    many = "" if shown.outcome.run == SINGLE else f" with a batch of {BATCH}"
    what = " -> ".join(layers) or "A convolution and a dense layer"
    return f"{what}{many} {_TITLES[shown.outcome.symptom]}"


def _issue(bench: Bench, shown: Shown, output: str, folder: Path) -> str:
    allowance, (bad, good) = bench.allowance(shown), versions_of(shown.findings)
    runtime, truth = shown.arrays["runtime"], shown.arrays["f64"]
    engines = sorted({finding.engine for finding in shown.findings} - {shown.config.engine})
    cases = {case for finding in shown.findings for case in finding.cases}
    producer = producer_of([shown.config.importer]) or {}
    also = f", and on the {' and '.join(engines)} engine" if engines else ""
    return _ISSUE.format(
        title=f"{_title(shown, shown.recipe.words())} ({shown.config.title}{also})",
        file=_file(shown),
        size=(folder / _file(shown)).stat().st_size / 1024,
        output=quoted(output, folder),
        version=bench.capability["version"],
        config=shown.config.title + also,
        distribution=bench.capability["distribution"],
        symptom=shown.outcome.symptom,
        bad=versions_text(bad),
        good=versions_text(good) if good else "none of the versions judged",
        input=input_of(shown.recipe)[1:],
        layers=", ".join(shown.recipe.words()) or "no further layers",
        head="Flatten, Dense(6)"
        if shown.recipe.head == "flatten"
        else "GlobalAveragePooling2D, Dense(5), Softmax",
        operations=", ".join(kind for kind, _ in shown.operations),
        observed=_observed(shown.outcome),
        limit=float(allowance.values.max()),
        why=_why(allowance),
        runtime=_RUNTIMES[shown.config.importer],
        strayed=float(np.abs(runtime - truth).max()),
        producer=", ".join(f"{k} {v}" for k, v in producer.items() if k != "recipe"),
        count=len(cases),
    )


def _observed(outcome: Outcome) -> str:
    if outcome.values is not None:
        got, wanted = outcome.values
        return f"{outcome.deviation:.3g}: {got:.6g} instead of {wanted:.6g}"
    return f"at {outcome.stage}: {outcome.detail or outcome.symptom}"
