"""The controls of a form, ready for its template: each with its text, its items and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from source.page.form.fields import Field, Kind
from source.page.form.rows import Tree, path_of, place_of
from source.page.form.texts import AS_JSON, ITEM, Faults, Node
from source.params.base import CONTAINERS

#: stands for the number of an item that is still to be added; one for each depth of lists in lists
ANY_ITEM = "__{depth}__"
_OPTIONS = {
    Kind.FLAG: (("true", "yes"), ("false", "no")),
    Kind.SWITCH: (("1", "on"), ("0", "off")),
}


@dataclass(frozen=True)
class Control:
    """One field, where it stands in a form."""

    field: Field
    #: where its value stands: the names of its own controls begin with it
    path: str
    kind: Kind
    text: str = ""
    problem: str = ""
    #: the parts of a group, the items of a list
    parts: tuple[Control, ...] = ()
    #: a list's next item
    blank: Control | None = None
    depth: int = 0

    @property
    def name(self) -> str:
        """Of the HTML control."""
        return f"{self.path}.{AS_JSON}" if self.kind is Kind.JSON and self.field.kind is not Kind.JSON else self.path

    @property
    def id(self) -> str:
        return f"f-{self.path}".replace(".", "-")

    @property
    def written(self) -> str:
        """Where its value stands, where that is not the row itself under the usual name."""
        level, _, name = self.path.rpartition(".")
        here = name in self.field.names and (level in CONTAINERS or not level)
        return self.path if here and self.path != self.field.name else ""

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        """What may be chosen: each value with its text."""
        if self.kind in _OPTIONS:
            return _OPTIONS[self.kind]
        found = tuple((each, each) for each in self.field.choices)
        return found if not self.text or self.text in self.field.choices else (*found, (self.text, self.text))

    @property
    def unchosen(self) -> str:
        """What it is when nothing is chosen."""
        default = self.field.default
        return f"default: {dict(self.options).get(default, default)}" if default else "–"

    @property
    def marker(self) -> str:
        """Of a group in a list: the hidden control that says that the item is there."""
        return f"{self.path}.{ITEM}"

    @property
    def given(self) -> bool:
        """Whether something is written here."""
        return (
            bool(self.text) or any(part.given for part in self.parts) or (self.kind is Kind.LIST and bool(self.parts))
        )

    @property
    def faulty(self) -> bool:
        """Whether something is wrong here or inside."""
        return bool(self.problem) or any(part.faulty for part in self.parts)


def controls_of(fields: Iterable[Field], tree: Tree, faults: Faults) -> tuple[tuple[Control, ...], Faults]:
    """A control for each field, in their order, and the faults that belong to none of them."""
    left = dict(faults)
    made = []
    for field in fields:
        level, name = place_of(field, tree)
        values = tree if level is None else tree[level]
        made.append(_control(field, values.get(name), path_of(level, name), left, 0))
    return tuple(made), left


def problems(controls: Iterable[Control]) -> tuple[Control, ...]:
    """Every control at fault."""
    return tuple(
        each for control in controls for each in (*((control,) if control.problem else ()), *problems(control.parts))
    )


def _control(field: Field, node: Node | None, path: str, faults: Faults, depth: int) -> Control:
    if isinstance(node, dict) and AS_JSON in node:
        return Control(field, path, Kind.JSON, str(node[AS_JSON]), _problem(path, faults), depth=depth)
    held = node if isinstance(node, dict) else {}
    if field.kind is Kind.LIST:
        item = field.of[0]
        numbers = sorted((name for name in held if name.isdecimal()), key=int)
        items = tuple(_control(item, held[each], f"{path}.{each}", faults, depth + 1) for each in numbers)
        blank = _control(item, None, f"{path}.{ANY_ITEM.format(depth=depth)}", {}, depth + 1)
        return Control(field, path, Kind.LIST, "", _problem(path, faults), items, blank, depth)
    if field.kind is Kind.GROUP:
        parts = tuple(_control(each, held.get(each.name), f"{path}.{each.name}", faults, depth) for each in field.of)
        return Control(field, path, Kind.GROUP, "", _problem(path, faults), parts, depth=depth)
    return Control(field, path, field.kind, node if isinstance(node, str) else "", _problem(path, faults), depth=depth)


def _problem(path: str, faults: Faults) -> str:
    """What is wrong at a place or inside it, as far as no control inside took it."""
    here = [where for where in faults if where == path or where.startswith(f"{path}.")]
    return "; ".join(faults.pop(where) for where in here)
