"""A row's parameters as the controls of a form, and a submitted form as a row's parameters.

A control is named by where its value stands in the row: `seed`, `orchestrator_details.fps_helpers`,
`phase_config.phases.0.guidance_scale`. What no field stands for (names that front ends keep for themselves, weaker
levels) is kept as JSON under `_rest`, so that a row that was read and not changed comes back as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from source.enqueue import check_task, parsed_json
from source.errors import InvalidInput
from source.page.form.fields import Field
from source.page.form.secrets import half_written, restored
from source.page.form.texts import ABSENT, Faults, as_json, read, shown
from source.params.base import CONTAINERS, LEVELS
from source.redaction import REDACTED, redact

REST = "_rest"
#: where a fault is of no single parameter
_WHOLE = "parameters"
_UNCLEAR = f"{REDACTED} stands for a secret that is not shown; leave all of it as it was, or write it anew"
#: how deep a name may lead
_MAX_PARTS = 16
Tree = dict[str, Any]


def tree_of(fields: Iterable[Field], params: Mapping[str, Any]) -> Tree:
    """What the controls say of a row's parameters."""
    rest, tree = copy.deepcopy(dict(params)), Tree()
    for field in fields:
        if (found := _written(field, rest)) is None:
            continue
        level, name = found
        values = rest if level is None else rest[level]
        _level(tree, level)[name] = shown(field, values.pop(name))
        if level is not None and not values:
            del rest[level]
    if rest:
        tree[REST] = as_json(rest)
    return tree


def _written(field: Field, row: Mapping[str, Any]) -> tuple[str | None, str] | None:
    """The strongest level, and the name there, that give a field a value."""
    for level in reversed(LEVELS):
        values = row if level is None else row.get(level)
        if isinstance(values, Mapping):
            for name in field.names:
                if values.get(name) is not None:
                    return level, name
    return None


def _level(tree: Tree, level: str | None) -> Tree:
    return tree if level is None else tree.setdefault(level, {})


def tree_from(pairs: Iterable[tuple[str, str]]) -> Tree:
    """The controls of a submitted form, by their names. Names that lead nowhere are left out."""
    tree = Tree()
    for name, text in pairs:
        *places, last = name.split(".")
        node: Any = tree
        for place in places[:_MAX_PARTS]:
            node = node.setdefault(place, {}) if isinstance(node, dict) else None
        if isinstance(node, dict) and len(places) <= _MAX_PARTS:
            node.setdefault(last, text)
    return tree


@dataclass(frozen=True)
class Submitted:
    """What a form says: a row's parameters, and what is wrong with them by the names of controls ("": the whole)."""

    params: dict[str, Any]
    faults: Faults


def params_of(fields: Iterable[Field], tree: Tree) -> Submitted:
    """The parameters that the controls say. Only what cannot be read at all is a fault."""
    faults: Faults = {}
    params = _rest(tree, faults)
    for field, level, name in _places(fields, tree):
        path = path_of(level, name)
        value = read(field, _level(tree, level)[name], path, faults)
        if value is not ABSENT:
            _set(params, level, name, value)
    return Submitted(params, faults)


def checked(task_type: str, fields: Iterable[Field], tree: Tree, before: Mapping[str, Any] | None = None) -> Submitted:
    """As `params_of`, and held against all that `add_task.py` holds a row against. `before`: the parameters that the
    form was opened with; its secrets, which were not shown, are the row's again."""
    fields = tuple(fields)
    said = params_of(fields, tree)
    if said.faults:
        return said
    if before is not None:
        said = Submitted(restored(said.params, before), {})
        if unclear := {_without_level(where): _UNCLEAR for where in half_written(said.params, before)}:
            return Submitted(said.params, _placed(unclear, fields, tree))
    missing = {
        path_of(*place_of(field, tree)): "is needed"
        for field in fields
        if field.needed and _written(field, said.params) is None
    }
    try:
        check_task(task_type, said.params)
    except InvalidInput as error:
        found = _placed(error.faults or {"": str(error)}, fields, tree)
        if missing:  # which the whole may say a second time
            found.pop("", None)
        return Submitted(said.params, found | missing)
    return said


def path_of(level: str | None, name: str) -> str:
    """The name of a control."""
    return name if level is None else f"{level}.{name}"


def place_of(field: Field, tree: Tree) -> tuple[str | None, str]:
    """Where a form has a field: where its value is written, else at the row itself by its usual name."""
    return next(((level, name) for _, level, name in _places([field], tree)), (None, field.name))


def _places(fields: Iterable[Field], tree: Tree) -> Iterator[tuple[Field, str | None, str]]:
    for field in fields:
        for level in reversed(LEVELS):
            values: Any = tree if level is None else tree.get(level)
            if isinstance(values, dict):
                yield from ((field, level, name) for name in field.names if name in values)


def _rest(tree: Tree, faults: Faults) -> dict[str, Any]:
    text = tree.get(REST, "")
    if not isinstance(text, str) or not text.strip():
        return {}
    try:
        rest = parsed_json(text)
    except InvalidInput as error:
        faults[REST] = str(error)
        return {}
    if not isinstance(rest, dict):
        faults[REST] = 'must be a JSON object such as {"name": "value"}'
        return {}
    return rest


def _set(params: dict[str, Any], level: str | None, name: str, value: Any) -> None:
    values = params
    if level is not None:
        values = params.setdefault(level, {})
        if not isinstance(values, dict):  # `_rest` says otherwise; the strict check tells
            return
    values[name] = value


def _without_level(where: str) -> str:
    level, _, name = where.partition(".")
    return name if level in CONTAINERS and name else where


def _placed(said: Mapping[str, str], fields: tuple[Field, ...], tree: Tree) -> Faults:
    """The faults of a refused row, by parameter, by the controls that say them."""
    by_name = {name: field for field in fields for name in field.names}
    faults: Faults = {}
    for where, message in said.items():
        name, _, inside = where.partition(".")
        if name in ("", _WHOLE):  # of several fields together; the message may begin with one
            name, where = message.partition(" ")[0], ""
        if name not in by_name:
            text = redact(f"{where}: {message}" if where else message)
            faults[""] = "; ".join(filter(None, [faults.get(""), text]))
            continue
        path = path_of(*place_of(by_name[name], tree))
        faults[f"{path}.{inside}" if inside else path] = redact(message)
    return faults
