"""One value as the texts of a form, and back. What a control cannot show exactly is shown as JSON.

A node is what a form sends for one place: a text, or the nodes of the places inside. In a node

    {"_json": "[1, 2]"}     the value is written as JSON
    {"0": …, "1": …}        the items of a list; one of several fields has "_item" too, so that an empty one is seen
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from source.enqueue import parsed_json
from source.errors import InvalidInput
from source.page.form.fields import Field, Kind

#: of `_json` and `_item` no parameter has the name
AS_JSON, ITEM = "_json", "_item"
Node = str | dict[str, Any]
#: HTML name of a control -> what is wrong there
Faults = dict[str, str]


class _Absent:
    """Nothing is written."""


ABSENT = _Absent()
#: what browsers keep of a number; a larger one is shown as JSON
_MOST_EXACT = 2**53
_WHOLE, _DECIMAL = re.compile(r"[+-]?\d{1,40}"), re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")


# -- from texts -----------------------------------------------------------------------------------------------------


def read(field: Field, node: Node | None, path: str, faults: Faults) -> Any:
    """The value that a node says, ABSENT for none. What cannot be read is put into `faults` by the place's name."""
    if node is None:
        return ABSENT
    if isinstance(node, dict) and AS_JSON in node:
        return _read_text(_json, str(node[AS_JSON]), f"{path}.{AS_JSON}", faults)
    if field.kind is Kind.LIST:
        return _read_list(field, node, path, faults)
    if field.kind is Kind.GROUP:
        return _read_group(field, node, path, faults)
    return _read_text(_READERS[field.kind], node, path, faults) if isinstance(node, str) else ABSENT


def _read_list(field: Field, node: Node, path: str, faults: Faults) -> Any:
    if isinstance(node, str):
        return ABSENT
    item = field.of[0]
    places = sorted((name for name in node if name.isdecimal()), key=int)
    found = [_read_item(item, node[place], f"{path}.{place}", faults) for place in places]
    return found or ABSENT


def _read_item(item: Field, node: Node, path: str, faults: Faults) -> Any:
    """An item is there even when it says nothing."""
    value = read(item, node, path, faults)
    return value if value is not ABSENT else {} if item.kind is Kind.GROUP else ""


def _read_group(field: Field, node: Node, path: str, faults: Faults) -> Any:
    if isinstance(node, str):
        return ABSENT
    found = {each.name: read(each, node.get(each.name), f"{path}.{each.name}", faults) for each in field.of}
    said = {name: value for name, value in found.items() if value is not ABSENT}
    return said or ABSENT


def _read_text(reader: Callable[[str], Any], text: str, path: str, faults: Faults) -> Any:
    text = text.replace("\r\n", "\n")  # browsers send lines so
    if text == "":
        return ABSENT
    try:
        return reader(text)
    except ValueError as error:
        faults[path] = str(error)
        return ABSENT


def _json(text: str) -> Any:
    if not text.strip():
        return ABSENT
    try:
        return parsed_json(text)
    except InvalidInput as error:
        raise ValueError(str(error)) from None


def _integer(text: str) -> int:
    if not _WHOLE.fullmatch(text.strip()):
        raise ValueError(f"{text.strip()[:40]!r} is not a whole number")
    return int(text)


def _switch(text: str) -> int:
    if text not in ("0", "1"):
        raise ValueError(f"{text[:40]!r} is neither on (1) nor off (0)")
    return int(text)


def _number(text: str) -> int | float:
    text = text.strip()
    if _WHOLE.fullmatch(text):
        return int(text)
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a number; write it like 0.5")
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("is too large")
    return value


def _numbers(text: str) -> list[int | float]:
    parts = [part for part in re.split(r"[\s,;]+", text.strip()) if part]
    return [_number(part) for part in parts]


def _some_numbers(text: str) -> int | float | list[int | float]:
    """One number stands for itself; [4] is a list of one."""
    found = _numbers(text.strip().removeprefix("[").removesuffix("]"))
    return found[0] if len(found) == 1 and not text.strip().startswith("[") else found


def _mixed(text: str) -> Any:
    """JSON where it is a number, a quoted text, a list or an object; else the text as it is."""
    try:
        value = parsed_json(text)
    except InvalidInput:
        return text
    return text if value is None or isinstance(value, bool) else value


_READERS: Mapping[Kind, Callable[[str], Any]] = {
    Kind.TEXT: str, Kind.LONG: str, Kind.MEDIA: str, Kind.CHOICE: str, Kind.INTEGER: _integer, Kind.NUMBER: _number,
    Kind.NUMBERS: _numbers, Kind.SOME_NUMBERS: _some_numbers, Kind.MIXED: _mixed, Kind.JSON: _json,
    Kind.FLAG: lambda text: text == "true", Kind.SWITCH: _switch,
}  # fmt: skip


# -- to texts -------------------------------------------------------------------------------------------------------


def shown(field: Field, value: Any) -> Node:
    """A node that says exactly this value."""
    node = _shown(field, value)
    if node is not None:
        faults: Faults = {}
        if same(read(field, node, "", faults), value) and not faults:
            return node
    return {AS_JSON: as_json(value)}


def _shown(field: Field, value: Any) -> Node | None:
    """A node for the field's own control, where there may be one."""
    if field.kind is Kind.LIST:
        return dict(_items(field.of[0], value)) if isinstance(value, list) else None
    if field.kind is Kind.GROUP:
        return {name: _inner(field, name, each) for name, each in value.items()} if isinstance(value, dict) else None
    if field.kind is Kind.JSON:
        return as_json(value)
    if field.kind is Kind.NUMBERS:
        return ", ".join(json.dumps(each) for each in value) if isinstance(value, list) else None
    return _one_text(field.kind, value)


def _items(item: Field, values: list[Any]) -> Iterator[tuple[str, Node]]:
    for place, value in enumerate(values):
        if value == "":
            yield str(place), ""
            continue
        node = {} if value == {} else shown(item, value)
        yield str(place), ({ITEM: "1"} | node if isinstance(node, dict) and item.kind is Kind.GROUP else node)


def _inner(field: Field, name: str, value: Any) -> Node:
    """A part of a group; one that the group does not know makes the whole group JSON, for nothing reads it."""
    known = next((each for each in field.of if each.name == name), None)
    return "" if known is None else shown(known, value)


def _one_text(kind: Kind, value: Any) -> str | None:
    if isinstance(value, str):
        text: str | None = as_json(value) if kind is Kind.MIXED and not same(_mixed(value), value) else value
        return text if _survives(text or "", lines=kind is Kind.LONG) else None
    if isinstance(value, int | float) and kind in (Kind.INTEGER, Kind.NUMBER) and abs(value) > _MOST_EXACT:
        return None
    return None if kind in (Kind.TEXT, Kind.LONG, Kind.MEDIA, Kind.CHOICE) else as_json(value)


def _survives(text: str, *, lines: bool) -> bool:
    """Whether a control of a browser gives a text back as it is."""
    control = r"[\x00-\x08\x0b-\x1f\ud800-\udfff]" if lines else r"[\x00-\x1f\ud800-\udfff]"
    return not re.search(control, text)


def as_json(value: Any) -> str:
    """JSON for people to read and change."""
    text = json.dumps(value, ensure_ascii=False, indent=2 if isinstance(value, dict | list) and value else None)
    return text if _survives(text, lines=True) else json.dumps(value)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: 1, 1.0 and true are three."""
    return one is not ABSENT and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
