"""Patterns: what models that fail have in common, and models that pass have not.

A pattern is of layers, in Keras' words and with the values of attributes that matter, or of one
operation of the file, in brackets. Stem and head count: a classifier's Dense can be to blame.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from conformance.errors import ConformanceError

from .drawing import plain
from .recipes import HEADS, Layer, Recipe, frozen, shapes_of
from .vocabulary import OPERATIONS

# One layer of a pattern: its operation, and values that some of its attributes must have.
Token = tuple[str, tuple[tuple[str, str], ...]]
ANY = "*"
LONGEST = 3
_TOKEN = re.compile(r"(\w+)=(\([^=]*\)|[^\s]+)")
_FILE = re.compile(r"\[(\w+)\]")


@dataclass(frozen=True, order=True)
class Pattern:
    """Layers of which each takes what the one before gives, in that order; "*" is any model.

    Or, with `file`, an operation that the file has.
    """

    tokens: tuple[Token, ...] = ()
    file: str = ""

    def __str__(self) -> str:
        if self.file:
            return f"[{self.file}]"
        texts = [
            " ".join([operation, *(f"{name}={value}" for name, value in given)])
            for operation, given in self.tokens
        ]
        return " -> ".join(texts) or ANY

    @property
    def cost(self) -> tuple[int, int]:
        """What makes a pattern less plain: its layers, and the values that it asks for."""
        return len(self.tokens) or len(self.file[:1]), sum(len(given) for _, given in self.tokens)


@dataclass(frozen=True)
class Shown:
    """A model as patterns see it: its recipe, and the operations of one importer's file."""

    recipe: Recipe
    operations: Collection[str] = ()

    @cached_property
    def layers(self) -> list[Layer]:
        """The stem, whose number is 0, the recipe's layers and those of the head."""
        recipe, shapes = self.recipe, shapes_of(self.recipe) or [(0, 0, 0)]
        ends: list[tuple[str, dict[str, Any]]] = [("Dense", {"units": HEADS[recipe.head]})]
        if len(shapes[-1]) == 3:
            ends.insert(0, ("GlobalAveragePooling2D" if recipe.head == "gap" else "Flatten", {}))
        if recipe.head == "gap":
            ends.append(("Softmax", {}))
        stem = Layer("Conv2D", plain("Conv2D", padding="same"), ())
        found = [stem, *recipe.layers]
        for operation, given in ends:
            found.append(Layer(operation, plain(operation, **given), (len(found) - 1,)))
        return found


EVERY = Pattern()  # that of any model


def parse_pattern(where: str, text: str) -> Pattern:
    """Return the pattern of a text such as "Conv2D dilation_rate=(2, 2) -> relu".

    Raises ConformanceError naming `where` for an unknown operation or attribute.
    """
    of_file = _FILE.fullmatch(text.strip())
    if of_file:
        return Pattern(file=of_file[1])
    tokens = []
    for part in [] if text.strip() == ANY else text.split("->"):
        operation, _, rest = part.strip().partition(" ")
        if operation not in OPERATIONS:
            raise ConformanceError(f"{where}: unknown operation {operation!r} in {text!r}")
        given = tuple((name, value.strip()) for name, value in _TOKEN.findall(rest))
        for name, _ in given:
            if name not in OPERATIONS[operation].attributes:
                known = ", ".join(OPERATIONS[operation].attributes) or "none"
                raise ConformanceError(
                    f"{where}: {operation} has no attribute {name!r} (it has: {known})"
                )
        tokens.append((operation, given))
    return Pattern(tuple(tokens))


def chains(layers: Collection[Layer], longest: int = LONGEST) -> Iterator[tuple[int, ...]]:
    """Yield the numbers of layers one after the other, up to `longest` of them."""
    ending: list[list[tuple[int, ...]]] = []
    for number, layer in enumerate(layers):
        before = [chain for source in layer.inputs for chain in ending[source]]
        ending.append(
            [(number,), *((*c, number) for c in dict.fromkeys(before) if len(c) < longest)]
        )
        yield from ending[number]


def own_operations(operations: Iterable[Sequence[Any]]) -> list[str]:
    """Return a file's operations less those of stem and head, which are of layer 0."""
    return [kind for kind, layer in operations if layer]


def file_patterns(shown: Shown) -> dict[Pattern, tuple[int, ...]]:
    """Return a pattern for each operation of the file, with the numbers of the recipe's layers."""
    own = tuple(range(1, len(shown.recipe.layers) + 1))
    return {Pattern(file=operation): own for operation in shown.operations}


def layer_patterns(shown: Shown) -> dict[Pattern, tuple[int, ...]]:
    """Return each pattern of layers that a model has, with the numbers of the layers that show it.

    Any model's, every chain of up to LONGEST layers without values, and with one value of one of
    its layers.
    """
    own = tuple(range(1, len(shown.recipe.layers) + 1))
    found: dict[Pattern, tuple[int, ...]] = {EVERY: own}
    for chain in chains(shown.layers):
        layers = [shown.layers[number] for number in chain]
        bare: list[Token] = [(layer.operation, ()) for layer in layers]
        found.setdefault(Pattern(tuple(bare)), chain)
        for place, layer in enumerate(layers):
            for name in OPERATIONS[layer.operation].attributes:
                token = (layer.operation, ((name, repr(frozen(layer.attributes[name]))),))
                tokens = (*bare[:place], token, *bare[place + 1 :])
                found.setdefault(Pattern(tokens), chain)
    return found


def has(shown: Shown, pattern: Pattern) -> bool:
    """Return whether a model is as the pattern asks."""
    if pattern.file:
        return pattern.file in shown.operations
    return not pattern.tokens or next(layers_as(shown, pattern), None) is not None


def layers_as(shown: Shown, pattern: Pattern) -> Iterator[tuple[int, ...]]:
    """Yield the numbers of layers that are as the pattern asks."""
    length = len(pattern.tokens)
    for chain in chains(shown.layers, length):
        tokens = zip(chain, pattern.tokens)
        if len(chain) == length and all(_is(shown.layers[n], token) for n, token in tokens):
            yield chain


def _is(layer: Any, token: Token) -> bool:
    operation, given = token
    return layer.operation == operation and all(
        repr(frozen(layer.attributes[name])) == value for name, value in given
    )
