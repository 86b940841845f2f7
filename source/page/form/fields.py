"""A task type's JSON Schema as the fields of a form: what may be written where, and by which control."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from source.params.base import CONTAINERS
from source.params.schema import LARGE, Schema, needed_names, other_names


class Kind(StrEnum):
    """How a value is written."""

    TEXT = "text"
    #: a text of several lines
    LONG = "long"
    INTEGER = "integer"
    NUMBER = "number"
    #: true, false, or not given
    FLAG = "flag"
    #: 1, 0, or not given
    SWITCH = "switch"
    CHOICE = "choice"
    #: a path or URL, or a file that is uploaded
    MEDIA = "media"
    #: several numbers in one line
    NUMBERS = "numbers"
    #: one number, or several in one line
    SOME_NUMBERS = "some_numbers"
    #: a text, or JSON that is a number, a list or an object
    MIXED = "mixed"
    #: any number of the same; `of` has one field
    LIST = "list"
    #: several fields together
    GROUP = "group"
    JSON = "json"


#: words that are not written as the others are
_SPELLED = {"url": "URL", "fps": "FPS", "json": "JSON", "lora": "LoRA", "loras": "LoRAs", "svi": "SVI",
            "uni3c": "Uni3C", "vace": "VACE", "nag": "NAG", "gpu": "GPU", "riflex": "RIFLEx", "cfg": "CFG"}  # fmt: skip
#: words of a name that say where its value came from
_DROPPED = frozenset(("expanded", "resolved"))
#: parts of a name that ask for several lines, and those that say that it is no prompt after all
_LONG, _NOT_LONG = ("prompt",), ("type", "enhancer", "model", "enhance_")
#: a schema's types of one number
_NUMBERS = {"integer": Kind.INTEGER, "number": Kind.NUMBER}


@dataclass(frozen=True)
class Field:
    """One parameter, or a part of one."""

    name: str
    kind: Kind
    help: str = ""
    #: for people; "" for none
    default: str = ""
    #: every name under which it may be written, the usual one first
    names: tuple[str, ...] = ()
    needed: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    #: image, video, audio, or "" for what is no media
    media: str = ""
    of: tuple[Field, ...] = ()

    @property
    def label(self) -> str:
        """The name for people: "Guidance scale"."""
        words = [_SPELLED.get(word.lower(), word) for word in self.name.split("_") if word and word not in _DROPPED]
        text = " ".join(words)
        return text[:1].upper() + text[1:]

    @property
    def code(self) -> str:
        """The name as rows have it, where the label does not tell it."""
        return self.name if any(word in _DROPPED for word in self.name.split("_")) else ""


def fields_of(schema: Schema, defaults: Mapping[str, Any] | None = None) -> tuple[Field, ...]:
    """The fields of a task type, each once. `defaults`: what the type takes where nothing is written."""
    also, needed = other_names(schema), needed_names(schema)
    usual = {also.get(name, name): value for name, value in (defaults or {}).items()}
    return tuple(
        _field(
            name, shape | ({"default": usual[name]} if name in usual else {}), schema["$defs"],
            needed=name in needed, names=(name, *_others(name, also)),
        )
        for name, shape in schema["properties"].items()
        if name not in also and name not in CONTAINERS
    )  # fmt: skip


def _others(name: str, also: Mapping[str, str]) -> Iterator[str]:
    return (other for other, meant in also.items() if meant == name)


def _field(
    name: str, shape: Schema, definitions: Schema, *, needed: bool = False, names: tuple[str, ...] = ()
) -> Field:
    ways = [each for each in _ways(shape) if each != {"type": "null"}]
    kind, of = _control(name, ways, definitions)
    first = ways[0]
    return Field(
        name=name,
        kind=kind,
        help=shape.get("description", ""),
        default=_in_words(shape.get("default")),
        names=names or (name,),
        needed=needed,
        low=_bound(first, "minimum", "exclusiveMinimum"),
        high=_bound(first, "maximum", "exclusiveMaximum"),
        choices=tuple(first.get("enum", [first["const"]] if "const" in first else ())),
        media=_media(shape, first) if kind in (Kind.MEDIA, Kind.LIST) else "",
        of=of,
    )


def _ways(shape: Schema) -> Iterator[Schema]:
    """The ways to write a value, the usual one first."""
    if "anyOf" not in shape:
        yield shape
    for each in shape.get("anyOf", ()):
        yield from _ways(each)


def _control(name: str, ways: list[Schema], definitions: Schema) -> tuple[Kind, tuple[Field, ...]]:
    """The control for a value that may be written in these ways, and what it holds."""
    first, kinds = ways[0], {_type(each) for each in ways}
    if _type(first) == "array" and len(kinds - {"string"}) == 1:
        return _list(name, first, definitions)
    if _type(first) in _NUMBERS and kinds == {_type(first), "array"}:
        return Kind.SOME_NUMBERS, ()
    if kinds == {"integer", "boolean"}:
        return (Kind.SWITCH if (first.get("minimum"), first.get("maximum")) == (0, 1) else Kind.INTEGER), ()
    if len(ways) > 1:
        return (Kind.MIXED if kinds & {"string", "number", "integer"} else Kind.JSON), ()
    if "$ref" in first:
        held = _held(first, definitions)
        return (Kind.GROUP, held) if held else (Kind.JSON, ())
    if "enum" in first or "const" in first:
        return Kind.CHOICE, ()
    if (first.get("minimum"), first.get("maximum"), _type(first)) == (0, 1, "integer"):
        return Kind.SWITCH, ()
    simple = {**_NUMBERS, "boolean": Kind.FLAG, "string": _text(name, first)}
    return simple.get(_type(first), Kind.JSON), ()


def _type(shape: Schema) -> str:
    return str(shape.get("type", "object"))


def _text(name: str, shape: Schema) -> Kind:
    if "x-media" in shape:
        return Kind.MEDIA
    prompt = any(word in name for word in _LONG) and not any(word in name for word in _NOT_LONG)
    return Kind.LONG if prompt else Kind.TEXT


def _list(name: str, shape: Schema, definitions: Schema) -> tuple[Kind, tuple[Field, ...]]:
    held = [*shape.get("prefixItems", ()), *([shape["items"]] if "items" in shape else [])]
    every = [*_ways(held[0])] if held else []
    ways = [each for each in every if each != {"type": "null"}]
    if ways and {_type(each) for each in ways} <= set(_NUMBERS):
        return Kind.NUMBERS, ()
    # an object that may be null is not one that may be left out: of those there is no telling in a form
    objects = len(every) == 1 and _held(ways[0], definitions)
    if len(ways) == 1 and (_type(ways[0]) == "string" or objects):
        return Kind.LIST, (_field(name, ways[0], definitions),)
    return Kind.JSON, ()


def _held(shape: Schema, definitions: Schema) -> tuple[Field, ...]:
    """The fields of an object that the schema defines."""
    if "$ref" not in shape:
        return ()
    defined = definitions[shape["$ref"].rpartition("/")[2]]
    needed = defined.get("required", ())
    return tuple(
        _field(name, inner, definitions, needed=name in needed) for name, inner in defined.get("properties", {}).items()
    )


def _media(shape: Schema, first: Schema) -> str:
    return str(shape.get("x-media") or first.get("x-media") or first.get("items", {}).get("x-media", ""))


def _bound(shape: Schema, inclusive: str, exclusive: str) -> float | None:
    """A bound that a control can be given; the exclusive one is the strict check's to hold."""
    value = shape.get(inclusive, shape.get(exclusive))
    return None if value is None or abs(value) > LARGE else value


def _in_words(default: Any) -> str:
    if default in (None, [], {}, ""):
        return ""
    return default if isinstance(default, str) else json.dumps(default, ensure_ascii=False)
