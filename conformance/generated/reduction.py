"""Shrinking a recipe to the smallest one that still shows what OpenCV does wrong.

Greedy, over recipes as data, and not by Hypothesis: its shrinker asks for one example at a time, a
third of a second each in TensorFlow, a converter and OpenCV, and by way of the choices that a
strategy made, some hundreds of them. A recipe has few layers and each attribute few values in a
known order, so what is plainer can be listed; and the candidates of all findings can be asked about
together, built by all processors and judged by one process of OpenCV.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, product
from typing import Any, Callable, Optional

from .outcomes import Outcome, reason_kind
from .patterns import EVERY, Pattern, Shown, has
from .recipes import Layer, Recipe, frozen, problem_of
from .vocabulary import OPERATIONS

# A wrong answer must stay so many times beyond what is allowed as its root, within these bounds: a
# rounding near the limit would be another finding.
CLEAR, ENOUGH = 3.0, 1000.0
# Sides and channels of an input that are tried: under 2 there would be nothing to go wrong.
SIDES, CHANNELS = (2, 3, 4, 6, 8, 10, 12), (1, 3)
# So many candidates are asked about at once: the plainest of them may spare the others.
AT_ONCE = 10


@dataclass(frozen=True)
class Target:
    """What a smaller model must show to be the same finding."""

    importer: str
    engine: str
    run: str
    symptom: str
    stage: str
    kind: str  # of a refusal or shape: OpenCV's words without names and numbers
    ratio: float  # of a wrong answer: how many times what is allowed it must stray

    @property
    def axes(self) -> tuple[str, str]:
        """What it takes to judge it: importer and engine."""
        return self.importer, self.engine

    def shown(self, outcomes: Iterable[Outcome]) -> bool:
        """Return whether one of a model's outcomes is this."""
        return any(
            (one.run, one.symptom, one.stage) == (self.run, self.symptom, self.stage)
            and kind_of(one) == self.kind
            and strays(one) >= self.ratio
            for one in outcomes
        )


def target_of(importer: str, engine: str, outcome: Outcome) -> Target:
    """Return what a smaller model must show to be the finding that an outcome is of."""
    found = strays(outcome)
    ratio = min(max(CLEAR, found**0.5), ENOUGH) if found >= CLEAR else min(found, 1.0)
    told = (outcome.run, outcome.symptom, outcome.stage, kind_of(outcome))
    return Target(importer, engine, *told, ratio)


def strays(outcome: Outcome) -> float:
    """Return how many times what is allowed an answer strays, 0 where it is no matter of that."""
    if outcome.deviation is None or not outcome.allowed:
        return 0.0
    ratio = float(outcome.deviation) / outcome.allowed
    return ratio if ratio == ratio else float("inf")


def kind_of(outcome: Outcome) -> str:
    """Return what OpenCV's words must be of, where a model is refused or another shape comes."""
    return reason_kind(outcome.detail) if outcome.symptom in ("refused", "shape") else ""


# Yields candidates, is sent the keys of those that show it; returns the way it went, the first
# recipe and each smaller one.
Shrinking = Generator[Sequence[Recipe], Collection[str], list[Recipe]]
Step = Callable[[Recipe], Iterable[Recipe]]


def shrink(recipe: Recipe, pattern: Pattern) -> Shrinking:
    """Shrink a recipe that shows a finding.

    pattern: what the finding is blamed on. It is kept until nothing else can go, so that a model
    with two defects is not shrunk to the other one.
    """
    way = [recipe]
    for keep in (pattern, EVERY) if has(Shown(recipe), pattern) and pattern.tokens else (EVERY,):
        steps = 0
        while steps != len(way):
            steps = len(way)
            if keep.tokens:
                yield from _settle(way, partial(alone, keep), keep)
            for step in (fewer_layers, plainer_attributes, plainer_wiring):
                yield from _settle(way, step, keep)
            yield from _settle(way, plainer_surroundings, keep, guarded=True)
    return way


def _settle(way: list[Recipe], step: Step, keep: Pattern, guarded: bool = False) -> Any:
    """Take the step as long as something simpler shows it.

    guarded: what shows it without any layer, too, has another fault than its layers'.
    """
    while True:
        asked = simpler(way[-1], step(way[-1]), keep)
        for start in range(0, len(asked), AT_ONCE):
            some = asked[start : start + AT_ONCE]
            bare = [without_layers(one) for one in some] if guarded and way[-1].layers else []
            showing = yield [*some, *bare]
            good = [
                one
                for one in some
                if one.key() in showing and not (bare and without_layers(one).key() in showing)
            ]
            if good:
                way.append(good[0])
                break
        else:
            return


def simpler(recipe: Recipe, candidates: Iterable[Recipe], keep: Pattern = EVERY) -> list[Recipe]:
    """Return those that are recipes, simpler, and still have a pattern; the simplest first."""
    most = cost(recipe)
    found = {
        one.key(): one
        for one in candidates
        if cost(one) < most and has(Shown(one), keep) and not problem_of(one)
    }
    return sorted(found.values(), key=lambda one: (cost(one), one.key()))


def cost(recipe: Recipe) -> tuple[int, ...]:
    """Return what there is in a recipe that could be less: its layers above all."""
    height, width, channels = recipe.input
    wiring = sum(
        number - 1 - source
        for number, layer in enumerate(recipe.layers, 1)
        for source in layer.inputs
    )
    values = sum(_rank(layer, name) for layer in recipe.layers for name in layer.attributes)
    plain = (recipe.any_size, recipe.head != "flatten", recipe.seed != 0)
    return len(recipe.layers), values, wiring, sum(plain), height * width * channels, height + width


def _rank(layer: Layer, name: str) -> int:
    """Return how far an attribute is from its plainest value."""
    values = OPERATIONS[layer.operation].attributes.get(name, ())
    value = frozen(layer.attributes[name])
    return values.index(value) if value in values else len(values)


def without_layers(recipe: Recipe) -> Recipe:
    """Return the recipe with nothing between stem and head."""
    return replace(recipe, layers=(), seed=0)


def alone(pattern: Pattern, recipe: Recipe) -> Iterator[Recipe]:
    """Yield a chain of the pattern's layers, plain but for the values that it asks for."""
    chain = []
    for number, (name, given) in enumerate(pattern.tokens, 1):
        operation = OPERATIONS[name]
        wanted = dict(given)
        values = {
            attribute: next((v for v in known if repr(v) == wanted.get(attribute)), known[0])
            for attribute, known in operation.attributes.items()
        }
        inputs = (number - 1,) * (2 if operation.merges else 1)
        chain.append(Layer(name, {**operation.fixed, **values}, inputs))
    yield replace(recipe, layers=tuple(chain))
    yield replace(recipe, layers=tuple(chain), any_size=False, head="flatten", seed=0)


def fewer_layers(recipe: Recipe) -> Iterator[Recipe]:
    """Yield the recipe with some of its layers only."""
    count = len(recipe.layers)
    sizes = range(count) if count < 6 else (0, 1, 2, count - 2, count - 1)
    for size in sizes:
        for kept in combinations(range(1, count + 1), size):
            for operand in (0, -1):
                yield keeping(recipe, kept, operand)


def keeping(recipe: Recipe, kept: Collection[int], operand: int = 0) -> Recipe:
    """Return the recipe with the layers `kept` only, less those of which nothing comes out.

    operand: which of its inputs takes a layer's place.
    """
    place = {0: 0}
    layers: list[Layer] = []
    for number, layer in enumerate(recipe.layers, 1):
        inputs = tuple(place[source] for source in layer.inputs)
        if number in kept:
            layers.append(replace(layer, inputs=inputs))
        place[number] = len(layers) if number in kept else inputs[operand]
    return _used(replace(recipe, layers=tuple(layers[: place[len(recipe.layers)]])))


def _used(recipe: Recipe) -> Recipe:
    """Return the recipe less the layers that its last one does not come from."""
    used = {len(recipe.layers)}
    for number in range(len(recipe.layers), 0, -1):
        if number in used:
            used.update(recipe.layers[number - 1].inputs)
    number_of = {old: new for new, old in enumerate(sorted(used | {0}))}
    layers = [
        replace(layer, inputs=tuple(number_of[source] for source in layer.inputs))
        for number, layer in enumerate(recipe.layers, 1)
        if number in used
    ]
    return replace(recipe, layers=tuple(layers))


def plainer_attributes(recipe: Recipe) -> Iterator[Recipe]:
    """Yield the recipe with all attributes plain, those of one layer, and one of them plainer."""
    everywhere = {number: _plain(layer) for number, layer in enumerate(recipe.layers)}
    yield _changed(recipe, everywhere)
    for number, layer in enumerate(recipe.layers):
        yield _changed(recipe, {number: everywhere[number]})
        for name, values in OPERATIONS[layer.operation].attributes.items():
            for value in values[: _rank(layer, name)]:
                yield _changed(recipe, {number: {name: value}})


def _plain(layer: Layer) -> dict[str, Any]:
    return {name: v[0] for name, v in OPERATIONS[layer.operation].attributes.items()}


def _changed(recipe: Recipe, changes: Mapping[int, Mapping[str, Any]]) -> Recipe:
    layers = [
        replace(layer, attributes={**layer.attributes, **changes.get(number, {})})
        for number, layer in enumerate(recipe.layers)
    ]
    return replace(recipe, layers=tuple(layers))


def plainer_wiring(recipe: Recipe) -> Iterator[Recipe]:
    """Yield the recipe with one operand taken from the layer just before instead."""
    for number, layer in enumerate(recipe.layers):
        for at, source in enumerate(layer.inputs):
            if source != number:
                inputs = (*layer.inputs[:at], number, *layer.inputs[at + 1 :])
                changed = list(recipe.layers)
                changed[number] = replace(layer, inputs=inputs)
                yield _used(replace(recipe, layers=tuple(changed)))


def plainer_surroundings(recipe: Recipe) -> Iterator[Recipe]:
    """Yield the recipe with a plainer head, a seed of 0 and a smaller input, at once and singly."""
    plain = replace(recipe, any_size=False, head="flatten", seed=0)
    yield plain
    for change in ({"any_size": False}, {"head": "flatten"}, {"seed": 0}):
        yield replace(recipe, **change)  # type: ignore[arg-type]
    height, width, channels = recipe.input
    for one, fewer in product((plain, recipe), dict.fromkeys((*CHANNELS, channels))):
        for side in SIDES:
            for size in ((side, side), (side, width), (height, side)):
                if size[0] <= height and size[1] <= width and fewer <= channels:
                    yield replace(one, input=(*size, fewer))
        yield replace(one, input=(height, width, fewer))


@dataclass
class Shrunk:
    """One finding's shrinking: what it is, and how far it has come."""

    target: Target
    steps: Shrinking
    asked: Sequence[Recipe] = ()
    way: Optional[list[Recipe]] = None  # when it is done

    def take(self, showing: Optional[Collection[str]] = None) -> None:
        """Go on with the keys of the candidates that show it, None at the beginning."""
        try:
            self.asked = next(self.steps) if showing is None else self.steps.send(showing)
        except StopIteration as stop:
            self.asked, self.way = (), stop.value


# Takes recipes by importer and engine; returns the outcomes of each by importer, engine and key.
Asked = Mapping[tuple[str, str], Sequence[Recipe]]
Answers = Mapping[tuple[str, str, str], Sequence[Outcome]]


def shrink_all(
    started: Sequence[Shrunk],
    ask: Callable[[Asked], Answers],
    progress: Callable[[int], None] = lambda left: None,
) -> None:
    """Shrink all at once, round by round: what they ask for is asked together.

    progress: called with how many are not done yet.
    """
    for one in started:
        one.take()
    while True:
        busy = [one for one in started if one.way is None]
        if not busy:
            return
        progress(len(busy))
        asked: dict[tuple[str, str], dict[str, Recipe]] = {}
        for one in busy:
            asked.setdefault(one.target.axes, {}).update({r.key(): r for r in one.asked})
        answers = ask({axes: list(recipes.values()) for axes, recipes in asked.items()})
        for one in busy:
            showing = {
                recipe.key()
                for recipe in one.asked
                if one.target.shown(answers.get((*one.target.axes, recipe.key()), ()))
            }
            one.take(showing)
