"""The children of a task as a drawing: what depends on what, from left to right.

A layered layout: a node's layer is one behind the last of what it depends on, its place in the layer the mean place of
its neighbours (the barycentre heuristic of Sugiyama, Tagawa and Toda, 1981), so that few lines cross.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 176, 46, 44, 14, 8
SWEEPS = 4
#: more than these are not drawn: the list shows them
MOST_NODES = 400


@dataclass(frozen=True)
class Node:
    """A child, and where it stands. Pixels."""

    view: Mapping[str, Any]
    x: float
    y: float

    @property
    def label(self) -> str:
        text = str(self.view["child_key"] or self.view["task_type"])
        return text if len(text) <= 20 else f"{text[:19]}…"

    @property
    def bar(self) -> float:
        """The width of what is done."""
        return round((WIDTH - 2) * float(self.view["share"]), 1)


@dataclass(frozen=True)
class Graph:
    """A drawing of `width` times `height` pixels."""

    nodes: Sequence[Node]
    #: of the lines from what is needed to what needs it, as SVG paths
    paths: Sequence[str]
    width: float
    height: float


def graph_of(children: Sequence[Mapping[str, Any]]) -> Graph | None:
    """`children` are views with id, dependant_on, child_key, task_type, status and share. None where there is nothing
    to draw."""
    if not children or len(children) > MOST_NODES:
        return None
    views = {str(each["id"]): each for each in children}
    needs = _direct({name: [str(n) for n in each["dependant_on"] if str(n) in views] for name, each in views.items()})
    layers = _ordered(_layers(needs), needs)
    tallest = max(map(len, layers))
    nodes = {
        name: Node(views[name], MARGIN + column * (WIDTH + GAP_X), _top(row, len(layer), tallest))
        for column, layer in enumerate(layers)
        for row, name in enumerate(layer)
    }
    paths = [_path(nodes[needed], nodes[name]) for name, all_needed in needs.items() for needed in all_needed]
    width = 2 * MARGIN + len(layers) * WIDTH + (len(layers) - 1) * GAP_X
    return Graph(list(nodes.values()), paths, width, 2 * MARGIN + tallest * (HEIGHT + GAP_Y) - GAP_Y)


def _direct(needs: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Without what follows from the rest: where c needs b and b needs a, that c needs a as well is not drawn."""
    above: dict[str, set[str]] = {}
    for layer in _layers(needs):
        for name in layer:
            above[name] = {each for needed in needs[name] for each in (needed, *above.get(needed, ()))}
    implied = {name: set().union(*(above[each] - {each} for each in found)) for name, found in needs.items()}
    return {name: [each for each in found if each not in implied[name]] for name, found in needs.items()}


def _layers(needs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Names by layer. (Rows form no cycle; one that a front end wrote stands in the last layer.)"""
    depth: dict[str, int] = {}
    waiting = list(needs)
    while waiting:
        ready = [name for name in waiting if all(each in depth for each in needs[name])]
        for name in ready or waiting:
            depth[name] = max((depth.get(each, 0) + 1 for each in needs[name]), default=0)
        waiting = [name for name in waiting if name not in depth]
    for name, layer in _just_in_time(needs, depth).items():
        depth[name] = layer
    return [[name for name in needs if depth[name] == level] for level in sorted(set(depth.values()))]


def _just_in_time(needs: Mapping[str, Sequence[str]], depth: Mapping[str, int]) -> dict[str, int]:
    """What needs nothing stands right before the first that needs it, so that no line passes behind a node."""
    first: dict[str, int] = {}
    for name, all_needed in needs.items():
        for each in all_needed:
            first[each] = min(first.get(each, depth[name]), depth[name])
    return {name: max(layer - 1, 0) for name, layer in first.items() if not needs[name]}


def _ordered(layers: list[list[str]], needs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    needed_by: dict[str, list[str]] = {name: [] for name in needs}
    for name, all_needed in needs.items():
        for each in all_needed:
            needed_by[each].append(name)
    for sweep in range(SWEEPS):
        neighbours = needs if sweep % 2 == 0 else needed_by
        places = {name: place / max(len(layer), 1) for layer in layers for place, name in enumerate(layer)}
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            layer.sort(key=lambda name: _mean([places[each] for each in neighbours[name]], places[name]))
            places |= {name: place / len(layer) for place, name in enumerate(layer)}
    return layers


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _top(row: int, count: int, tallest: int) -> float:
    """The layers stand centred beside each other."""
    return MARGIN + (row + (tallest - count) / 2) * (HEIGHT + GAP_Y)


def _path(start: Node, end: Node) -> str:
    x1, y1, x2, y2 = start.x + WIDTH, start.y + HEIGHT / 2, end.x, end.y + HEIGHT / 2
    bend = max((x2 - x1) / 2, 16)
    return f"M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2:g} {y2:g}"
