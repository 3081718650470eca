"""Drawing recipes: seeded, the same everywhere, and driven by what is not covered yet.

First every operation with every value of every attribute, then ordered pairs of operations, those
whose operations most of the registry's models use first. A pair is *covered* where the second
operation takes what the first one gives. Wiring, inputs and heads change along the way.

Python's own random.Random is used for its documented promise that a seed gives the same numbers in
each version. Hypothesis, which makes no such promise, holds the recipes to Keras in the self-tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain, product, zip_longest
from random import Random
from typing import Any, Optional

from .recipes import Layer, Recipe, problem_of, shape_after, shapes_of
from .shapes import Shape
from .vocabulary import OPERATIONS, REGISTRY, family

# Height, width and channels: even and odd sides, not square, one channel and many.
INPUTS = ((14, 14, 3), (13, 10, 3), (9, 12, 3), (12, 12, 1), (11, 15, 3), (14, 14, 8))
HEADS = ("flatten", "gap")
_TRIES = 40
Pair = tuple[str, str]


@dataclass
class Coverage:
    """What the recipes drawn so far have covered."""

    values: set[tuple[str, str, str]] = field(default_factory=set)  # operation, attribute, value
    pairs: set[Pair] = field(default_factory=set)

    def add(self, recipe: Recipe) -> None:
        """Count what a recipe has."""
        self.values.update(values_of(recipe))
        self.pairs.update(pairs_of(recipe))


def values_of(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """Yield each layer's operation, attributes and values."""
    for layer in recipe.layers:
        yield layer.operation, "", ""
        for name in OPERATIONS[layer.operation].attributes:
            yield layer.operation, name, repr(layer.attributes[name])


def pairs_of(recipe: Recipe) -> Iterator[Pair]:
    """Yield the operations (or their families) of which one takes what the other gives."""
    for layer in recipe.layers:
        for source in layer.inputs:
            if source:
                yield family(recipe.layers[source - 1].operation), family(layer.operation)


def all_values() -> list[tuple[str, str, str]]:
    """Return every operation with every value of every attribute."""
    found = []
    for name, operation in OPERATIONS.items():
        found.append((name, "", ""))
        for attribute, values in operation.attributes.items():
            found += [(name, attribute, repr(value)) for value in values]
    return found


def all_pairs() -> list[Pair]:
    """Return the pairs of families that fit each other, the registry's most used first."""
    fitting = {(family(a), family(b)) for a, b in product(OPERATIONS, OPERATIONS) if _fits(a, b)}
    return sorted(fitting, key=lambda p: (-min(_use(p[0]), _use(p[1])), p))


def coverage_text(recipes: Sequence[Recipe]) -> str:
    """Return in words which share of values and of pairs the recipes cover."""
    covered = Coverage()
    for recipe in recipes:
        covered.add(recipe)
    values, pairs = all_values(), all_pairs()
    shares = [
        sum(value in covered.values for value in values) / len(values),
        sum(pair in covered.pairs for pair in pairs) / len(pairs),
    ]
    return "{} models: {:.0%} of attribute values, {:.0%} of {} pairs of operations".format(
        len(recipes), *shares, len(pairs)
    )


def members(name: str) -> list[str]:
    """Return the operations of a family."""
    return [operation for operation in OPERATIONS if family(operation) == name]


def _use(operation: str) -> int:
    return REGISTRY.get(operation, 0)


def plain(operation: str, **given: Any) -> dict[str, Any]:
    """Return an operation's attributes, each at its plainest but for those given."""
    of = OPERATIONS[operation]
    return {**of.fixed, **{name: values[0] for name, values in of.attributes.items()}, **given}


def _fits(first: str, second: str) -> bool:
    """Return whether some attributes let the second operation take what the first one gives."""
    return any(_results(second, shape) for shape in _results(first, (14, 14, 8)))


@cache
def _results(operation: str, given: Shape) -> tuple[Shape, ...]:
    """Return the shapes that an operation may give, one attribute being other than plain."""
    of = OPERATIONS[operation]
    if len(given) not in of.takes:
        return ()
    if of.merges:
        return (given,)
    changes: list[dict[str, Any]] = [{}]
    changes += [{name: v} for name, values in of.attributes.items() for v in values]
    shapes = (of.shape(given, plain(operation, **change)) for change in changes)
    return tuple(dict.fromkeys(shape for shape in shapes if shape is not None))


def draw(count: int, seed: int) -> list[Recipe]:
    """Return `count` recipes; a greater count begins with the same ones."""
    random, covered = Random(seed), Coverage()
    drawn: list[Recipe] = []
    keys: set[str] = set()
    for recipe in _endless(random, covered, seed):
        if len(drawn) == count:
            break
        if recipe.key() not in keys:
            keys.add(recipe.key())
            drawn.append(recipe)
            covered.add(recipe)
    return drawn


def _endless(random: Random, covered: Coverage, seed: int) -> Iterator[Recipe]:
    number = 0
    left = (goal for goal in _goals(random, covered) if not _is_covered(goal, covered))
    for goal in chain(left, _longer(random)):
        recipe = _recipe_for(goal, random, number, seed)
        if recipe is not None:
            number += 1
            yield recipe


Goal = list[tuple[str, dict[str, Any]]]


def _longer(random: Random) -> Iterator[Goal]:
    """Yield longer chains without end: for when all is covered."""
    while True:
        yield [(random.choice(list(OPERATIONS)), {}) for _ in range(random.randint(3, 5))]


def _goals(random: Random, covered: Coverage) -> Iterator[Goal]:
    """Yield what to cover, in order: operations, commonest pairs, values, all other pairs.

    Pairs are yielded as chains of three operations, whose second pair is not covered either where
    there is such a one.
    """
    for name in sorted(OPERATIONS, key=lambda name: (-_use(name), name)):
        yield [(name, {})]
    pairs = all_pairs()
    after: dict[str, list[str]] = {}
    for first, second in pairs:
        after.setdefault(first, []).append(second)
    frequent = [pair for pair in pairs if min(map(_use, pair)) > 0]
    yield from _pair_goals(frequent, after, random, covered)
    for name, operation in OPERATIONS.items():
        # Values of several attributes at once, then, as these may not go together, one by one.
        for together in zip_longest(*operation.attributes.values()):
            given = dict(zip(operation.attributes, together))
            yield [(name, {a: v for a, v in given.items() if _lacks(covered, name, a, v)})]
        for attribute, values in operation.attributes.items():
            yield from ([(name, {attribute: value})] for value in values)
    yield from _pair_goals(pairs, after, random, covered)


def _lacks(covered: Coverage, operation: str, attribute: str, value: Any) -> bool:
    known = value in OPERATIONS[operation].attributes[attribute]  # no filling of zip_longest
    return known and (operation, attribute, repr(value)) not in covered.values


def _pair_goals(
    pairs: list[Pair], after: dict[str, list[str]], random: Random, covered: Coverage
) -> Iterator[Goal]:
    for first, second in pairs:
        if (first, second) not in covered.pairs:
            third = [n for n in after.get(second, ()) if (second, n) not in covered.pairs]
            chain = [first, second, *third[:1]]
            operations: Goal = [(random.choice(members(name)), {}) for name in chain]
            yield operations
            yield operations[:2]  # where the third does not fit


def _is_covered(goal: Goal, covered: Coverage) -> bool:
    if len(goal) > 1:
        names = [family(name) for name, _ in goal]
        return all(pair in covered.pairs for pair in zip(names, names[1:]))
    ((name, given),) = goal
    wanted = [(name, attribute, repr(value)) for attribute, value in given.items()]
    return all(value in covered.values for value in wanted or [(name, "", "")])


def _recipe_for(goal: Goal, random: Random, number: int, seed: int) -> Optional[Recipe]:
    """Return a recipe that has the goal's operations one after the other, None where none fits."""
    for attempt in range(_TRIES):
        image = INPUTS[0] if attempt < 2 else random.choice(INPUTS)
        operations = [(name, _attributes(name, given, random, attempt)) for name, given in goal]
        if len(goal) < 3 and random.random() < 0.3:
            operations = _surrounded(operations, random)
        layers = _chain(image, operations, random)
        if layers is None:
            continue
        recipe = Recipe(
            image,
            tuple(layers),
            HEADS[number % 4 == 3],
            any_size=number % 7 == 6 and random.random() < 0.5,
            seed=seed * 1_000_003 + number,
        )
        if recipe.any_size and not _takes_any_size(recipe):
            recipe = replace(recipe, any_size=False)
        if not problem_of(recipe):
            return recipe
    return None


def _takes_any_size(recipe: Recipe) -> bool:
    """Return whether nothing in a recipe needs to know the image's size."""
    bound = {"Reshape", "PReLU", "Flatten", "LayerNormalization", "attention", "split"}
    fixed = any(
        layer.operation in bound
        or layer.attributes.get("of") in ("pixels", "rows", "columns", "all")
        or (layer.operation.startswith("reduce") and not layer.attributes["keepdims"])
        for layer in recipe.layers
    )
    found = shapes_of(recipe)
    return recipe.head == "gap" and not fixed and found is not None and len(found[-1]) == 3


def _attributes(name: str, given: dict[str, Any], random: Random, attempt: int) -> dict[str, Any]:
    """Return plain attributes but for those given and one other, two where that doesn't fit."""
    of = OPERATIONS[name]
    free = [attribute for attribute in of.attributes if attribute not in given]
    changed = random.sample(free, min(len(free), 1 if attempt < _TRIES // 2 else 2)) if free else []
    return plain(name, **{a: random.choice(of.attributes[a]) for a in changed}, **given)


_AROUND = ("Conv2D", "BatchNormalization", "relu", "MaxPooling2D", "DepthwiseConv2D", "relu6")


def _surrounded(
    operations: list[tuple[str, dict[str, Any]]], random: Random
) -> list[tuple[str, dict[str, Any]]]:
    """Put an ordinary operation before or after what is to be covered."""
    extra = random.choice(_AROUND)
    one = (extra, plain(extra))
    return [one, *operations] if random.random() < 0.5 else [*operations, one]


def _chain(
    image: Shape, operations: list[tuple[str, dict[str, Any]]], random: Random
) -> Optional[list[Layer]]:
    """Return the layers of a chain, with a second operand for each merge, or None: no fit."""
    layers: list[Layer] = []
    found: list[Shape] = [(*image[:2], 8)]
    positive = False
    for name, attributes in operations:
        operation = OPERATIONS[name]
        if operation.positive and not positive:
            _append(layers, found, Layer("softplus", {}, (len(layers),)))
        inputs: tuple[int, ...] = (len(layers),)
        if operation.merges:
            other = _other_operand(layers, found, random)
            inputs = (len(layers) - other, len(layers)) if other else (len(layers), len(layers))
            if name == "Subtract" and not other:
                inputs = (0, len(layers))
        if not _append(layers, found, Layer(name, attributes, inputs)):
            return None
        positive = operation.gives_positive
    return layers


def _other_operand(layers: list[Layer], found: list[Shape], random: Random) -> int:
    """Append what is merged with the chain's end; return how far back the end then lies.

    A shortcut around the last layer where the shapes allow it (0 then: nothing is appended), a
    parallel convolution, or the same value twice.
    """
    end = found[-1]
    if len(end) == 3 and random.random() < 0.6:
        kind = random.choice(("Conv2D", "DepthwiseConv2D", "sigmoid"))
        given = {"kernel_size": (1, 1), "filters": end[2]} if kind == "Conv2D" else {}
        if kind == "DepthwiseConv2D":
            given = {"padding": "same"}
        if _append(layers, found, Layer(kind, plain(kind, **given), (len(layers),))):
            return 1
    return 0


def _append(layers: list[Layer], found: list[Shape], layer: Layer) -> bool:
    shape = shape_after(layer, [found[source] for source in layer.inputs])
    if shape is None:
        return False
    layers.append(layer)
    found.append(shape)
    return True
