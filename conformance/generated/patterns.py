"""Patterns of layers: what models that fail have in common, and models that pass have not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from conformance.errors import ConformanceError

from .recipes import Recipe
from .vocabulary import OPERATIONS

# One layer of a pattern: its operation, and values that some of its attributes must have.
Token = tuple[str, tuple[tuple[str, str], ...]]
ANY = "*"
_TOKEN = re.compile(r"(\w+)=(\([^=]*\)|[^\s]+)")


@dataclass(frozen=True, order=True)
class Pattern:
    """Layers of which each takes what the one before gives, in that order; "*" is any model."""

    tokens: tuple[Token, ...]

    def __str__(self) -> str:
        texts = [
            " ".join([operation, *(f"{name}={value}" for name, value in given)])
            for operation, given in self.tokens
        ]
        return " -> ".join(texts) or ANY

    @property
    def cost(self) -> tuple[int, int]:
        """What makes a pattern less plain: its layers, and the values that it asks for."""
        return len(self.tokens), sum(len(given) for _, given in self.tokens)


def parse_pattern(where: str, text: str) -> Pattern:
    """Return the pattern of a text such as "Conv2D dilation_rate=(2, 2) -> relu".

    Raises ConformanceError naming `where` for an unknown operation or attribute.
    """
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


def chains(recipe: Recipe, longest: int = 3) -> Iterator[tuple[int, ...]]:
    """Yield the numbers of layers one after the other, up to `longest` of them."""
    ending: dict[int, list[tuple[int, ...]]] = {0: [()]}
    for number, layer in enumerate(recipe.layers, 1):
        before = [chain for source in layer.inputs for chain in ending[source]]
        ending[number] = [(number,)] + [
            (*chain, number) for chain in dict.fromkeys(before) if 0 < len(chain) < longest
        ]
        yield from ending[number]


def patterns_of(recipe: Recipe, longest: int = 3) -> dict[Pattern, tuple[int, ...]]:
    """Return each pattern that a recipe has, with the numbers of the layers that show it.

    Any model's, every chain of layers without values, and with one value of one of its layers.
    """
    found: dict[Pattern, tuple[int, ...]] = {Pattern(()): tuple(range(1, len(recipe.layers) + 1))}
    for chain in chains(recipe, longest):
        layers = [recipe.layers[number - 1] for number in chain]
        bare: list[Token] = [(layer.operation, ()) for layer in layers]
        found.setdefault(Pattern(tuple(bare)), chain)
        for place, layer in enumerate(layers):
            for name in OPERATIONS[layer.operation].attributes:
                token = (layer.operation, ((name, repr(_frozen(layer.attributes[name]))),))
                tokens = (*bare[:place], token, *bare[place + 1 :])
                found.setdefault(Pattern(tokens), chain)
    return found


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


def has(recipe: Recipe, pattern: Pattern) -> bool:
    """Return whether some layers of a recipe are as the pattern asks."""
    return not pattern.tokens or next(layers_as(recipe, pattern), None) is not None


def layers_as(recipe: Recipe, pattern: Pattern) -> Iterator[tuple[int, ...]]:
    """Yield the numbers of layers that are as the pattern asks."""
    length = len(pattern.tokens)
    for chain in chains(recipe, length):
        tokens = zip(chain, pattern.tokens)
        if len(chain) == length and all(_is(recipe.layers[n - 1], token) for n, token in tokens):
            yield chain


def _is(layer: Any, token: Token) -> bool:
    operation, given = token
    return layer.operation == operation and all(
        repr(_frozen(layer.attributes[name])) == value for name, value in given
    )
