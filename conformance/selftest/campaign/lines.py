"""Command lines drawn from the parsers' own definitions: refused by one message, or they work."""

from __future__ import annotations

import argparse
import random as randomness
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Optional

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from conformance.cli.main import main, make_parser
from conformance.plugin import options as plugin

from .attempt import SUITE, TRACE, Attempt, Done, Kind, Place, expect
from .samples import WHEEL, sample

# Longer than this is work, not a refusal: it is ended, and counted apart.
LIMIT = 10.0
EXAMPLES = 8  # Hypothesis begins with the simplest: the last of so many is taken
WRONG = (
    *("", " ", "0", "-1", "1.5", "nan", "inf", "1e999", "9" * 30, "\u0661\u0662", "two", "None"),
    *("nonsense", "missing/file.jsonl", "notes\nof two lines", "~nobody/there", "x" * 300, "-"),
    *(".", "photo.jpg", "val", "val.txt", "labels.txt", "bench.json", "tensorflow,", "on,of"),
    "a\u00fc b",
)
# By the name under which a parser keeps it: what is right, in a copy of the samples.
RIGHT: Mapping[str, Sequence[str]] = {
    "models": ("mobilenet",),
    "model": ("mobilenet",),
    "packs": ("packs",),
    "results": ("results", "results/4.6.0-classic.jsonl", "generated"),
    "old": ("results/4.6.0-classic.jsonl",),
    "new": ("results/4.7.0-classic.jsonl",),
    "baseline": ("results/4.6.0-classic.jsonl", "new.jsonl"),
    "known_failures": ("known_failures.toml",),
    "known_defects": ("known_defects.toml",),
    "update": ("new.toml",),
    "bench": ("bench.json",),
    "output": ("new", "new.png", "new.html"),
    "json": ("new.json",),
    "image": ("photo.jpg", "val"),
    "labels": ("labels.txt",),
    "model_labels": ("labels.txt",),
    "model_preprocess": ("tf", "caffe"),
    "imagenet_dir": ("val",),
    "imagenet_labels": ("val.txt",),
    "imagenet_cache": ("cache",),
    "opencv": (WHEEL,),
    "engine": ("classic", "new", "default"),
    "engines": ("classic", "new", "classic,new", "default"),
    "importers": ("tensorflow", "onnx", "tflite,onnx"),
    "target": ("cpu", "opencl"),
    "cpu_disable": ("AVX2", "baseline", "each"),
    "winograd": ("on", "off", "on,off"),
    "fusion": ("on", "off"),
    "expect": ("4.6.0", "4.6.0,4.7.0"),
    "weights": ("synthetic",),
    "only": ("nonsense",),
    "timeout": ("30",),
    "candidate_timeout": ("30",),
    "threads": ("1", "2"),
    "workers": ("1",),
    "subset": ("2",),
}
NUMBERS = ("1", "2", "0.5", "6")
# Of what there may be none of in the results given.
CONDITIONAL = {"link"}
# What a builder is given by its pool.
LEFT_OUT = {"as_told", "own"}


@cache
def leaves() -> dict[str, list[argparse.Action]]:
    """Return each command's words and its parser's actions, all imported before any fork."""
    return dict(_leaves(make_parser(), ()))


def _leaves(
    parser: argparse.ArgumentParser, words: tuple[str, ...]
) -> Iterator[tuple[str, list[argparse.Action]]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from _leaves(inner, (*words, name))
    if words and not any(isinstance(a, argparse._SubParsersAction) for a in parser._actions):
        yield " ".join(words), [a for a in parser._actions if a.dest not in ("help", *LEFT_OUT)]


@cache
def plugin_actions() -> list[argparse.Action]:
    """Return the actions of the options that the suite adds to pytest's."""
    parser = argparse.ArgumentParser()

    class Group:
        def addoption(self, *names: str, **how: Any) -> None:
            parser.add_argument(*names, **how)

    class Parser:
        def getgroup(self, *_: str) -> Group:
            return Group()

    plugin.add_options(Parser())  # type: ignore[arg-type]
    return [action for action in parser._actions if action.dest != "help"]


def values(action: argparse.Action) -> st.SearchStrategy[str]:
    """Return what draws one value: a right one more often than a wrong one."""
    right = list(action.choices or RIGHT.get(action.dest, NUMBERS))
    wrong = [word for word in WRONG if action.dest != "weights" or word != "imagenet"]
    return st.one_of(*[st.sampled_from(right)] * 2, st.sampled_from(wrong))


@st.composite
def words_of(draw: st.DrawFn, actions: Sequence[argparse.Action], least: int = 0) -> list[str]:
    """Return arguments: those that are required most often, and some others, in any order."""
    some = [action for action in actions if action.option_strings]
    chosen = draw(st.lists(st.sampled_from(some), min_size=least, max_size=4)) if some else []
    chosen += [a for a in actions if a.required and a not in chosen and draw(st.integers(0, 9))]
    words: list[str] = []
    for action in chosen:
        words += draw(_given(action))
    if not draw(st.integers(0, 19)):
        words.insert(draw(st.integers(0, len(words))), "--frobnicate")
    return words


@st.composite
def _given(draw: st.DrawFn, action: argparse.Action) -> list[str]:
    named = [draw(st.sampled_from(action.option_strings))] if action.option_strings else []
    if action.nargs == 0:
        return named
    count = action.nargs if isinstance(action.nargs, int) else 1
    if action.nargs in ("+", "*") and not draw(st.integers(0, 3)):
        count = 2
    given = [draw(values(action)) for _ in range(count)]
    if len(given) == 1 and named and named[0].startswith("--") and draw(st.booleans()):
        return [f"{named[0]}={given[0]}"]
    return named + given


def example(strategy: st.SearchStrategy[list[str]], number: int) -> list[str]:
    """Return an example that depends on the number only."""
    found: list[list[str]] = []

    @seed(number)
    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def note(words: list[str]) -> None:
        found.append(words)

    state = randomness.getstate()
    note()
    randomness.setstate(state)
    return found[-1]


def draw(random: randomness.Random, number: int) -> Attempt:
    """Return an attempt: each command has its turn, every fourth line is pytest's."""
    if number % 4 == 3:
        words = example(words_of(plugin_actions(), 1), random.getrandbits(32))
        if random.random() < 0.6:
            words.append("--collect-only")
        words += ["-q", "-k", "mobilenet and not mobilenetv2 and test_import"]
        return Attempt("pytest", _shown(words), lambda place: _pytest(place, words))
    names = list(leaves())
    name = names[(number - number // 4) % len(names)]
    words = [*name.split(), *example(words_of(leaves()[name]), random.getrandbits(32))]
    if words[:2] == ["pack", "build"] and not {"mobilenet", "--help"} & set(words):
        words.append("mobilenet")  # not all of them
    return Attempt(name, _shown(words[len(name.split()) :]), lambda place: _command(place, words))


def _shown(words: Sequence[str]) -> str:
    return " ".join(word if len(word) < 40 else f"{word[:9]}…" for word in map(repr, words))


class Watched(argparse.Namespace):
    """Parsed arguments that note which of them are read."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            return _Noting(object.__getattribute__(self, name))
        READ.add(name)
        return object.__getattribute__(self, name)


class _Noting(dict[str, Any]):
    def __getitem__(self, name: str) -> Any:
        READ.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        READ.add(name)
        return super().get(name, default)


READ: set[str] = set()


def _watching(words: Sequence[str]) -> int:
    """Run a command, and print what was given and is read by nobody."""
    parse = argparse.ArgumentParser.parse_args
    asked: dict[str, Any] = {}

    def parse_args(self: Any, arguments: Any, namespace: Optional[Any] = None) -> Any:
        parsed = parse(self, arguments, namespace)
        asked.update(vars(parsed))
        READ.clear()
        return Watched(**asked)

    argparse.ArgumentParser.parse_args = parse_args  # type: ignore[method-assign,assignment]
    status = main(words)
    if status in (0, 1):
        length = 2 if words[0] == "pack" else 1
        for action in leaves()[" ".join(words[:length])]:
            typed = any(w.split("=")[0] in action.option_strings for w in words)
            if (
                typed
                and action.dest not in READ | CONDITIONAL
                and asked.get(action.dest) != action.default
            ):
                print(f"IGNORED {action.option_strings[0]}", flush=True)
    return status


def _home(place: Place) -> None:
    shutil.copytree(sample(place, "small"), place.folder, dirs_exist_ok=True)
    (place.folder / "user").mkdir()
    place.variables |= {
        "CONFORMANCE_PACKS": str(place.folder / "packs"),
        "XDG_CACHE_HOME": str(place.folder / "user"),
        # Nothing is looked up in an index, nor fetched.
        "PIP_NO_INDEX": "1",
        "UV_OFFLINE": "1",
        "KERAS_HOME": str(place.folder / "user"),
    }


def _command(place: Place, words: list[str]) -> str:
    _home(place)
    done = place.forked(lambda: _watching(words), LIMIT)
    expect(not TRACE.search(done.text), "a traceback", done)
    if done.status is None:
        return _at_work(place)
    expect(done.status in (0, 1, 2), "a status other than 0, 1, 2", done)
    ignored = re.findall(r"^IGNORED (.+)$", done.text, re.MULTILINE)
    expect(not ignored, f"silently ignored: {', '.join(ignored)}", done)
    if done.status == 2:
        return _one_message(done, r"^(?:error: |.*: error: )")
    return "works"


def _pytest(place: Place, words: list[str]) -> str:
    _home(place)
    done = place.forked(lambda: int(pytest.main([*SUITE, *words])), 3 * LIMIT)
    expect(not TRACE.search(done.text), "a traceback", done)
    if done.status is None:
        return _at_work(place)
    expect(done.status in (0, 1, 4, 5), "a status other than 0, 1, 4, 5", done)
    return _one_message(done, r"^ERROR: ") if done.status == 4 else "works"


def _at_work(place: Place) -> str:
    """Clear what a killed run may leave, as the next run does."""
    place.swept()
    return "at work"


def _one_message(done: Done, begins: str) -> str:
    found = re.findall(begins, done.text, re.MULTILINE)
    expect(len(found) == 1, f"{len(found)} messages", done)
    return "refused"


KIND = Kind("lines", full=300, short=tuple(range(10)), draw=draw)
