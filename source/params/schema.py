"""A task type's parameters as JSON Schema (draft 2020-12), read from the declarations, and as rows of a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from headless.options import GenerationOptions, media_fields
from source.params.base import CONTAINERS, LEVELS, TaskParams, field_names, knob_table

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]

#: what is read as a value of the type: before it is checked, a list may be one comma-separated text, true a 1 …
_ALSO_READ: dict[str, list[Schema]] = {
    "string": [{"type": "number"}, {"type": "array", "items": {"type": ["string", "number"]}}],
    "array": [{"type": "string"}],
    "integer": [{"type": "boolean"}],
}
LEVEL_HELP = {
    "full_orchestrator_payload": "weakest level: the same names as the row",
    "orchestrator_details": "parameters of the whole job: the same names; the row's own level beats them",
    "individual_segment_params": "strongest level: the same names",
}


class _Generator(GenerateJsonSchema):
    """Also says what a value may look like before our own validators read it."""

    def get_union_of_schemas(self, schemas: list[JsonSchemaValue]) -> JsonSchemaValue:
        """Keeps what belongs together: the ways to write one value are no types of their own."""
        if any("x-also-read" in each for each in schemas):
            return {"anyOf": schemas}
        return super().get_union_of_schemas(schemas)

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        made = super().function_before_schema(schema)
        if schema.get("json_schema_input_schema") or made.get("type") not in _ALSO_READ:
            return made
        return {"anyOf": [made, *_ALSO_READ[made["type"]]], "x-also-read": True}


def parameter_schema(
    kind: type[TaskParams],
    name: str,
    help: str,
    options_class: type[GenerationOptions] = GenerationOptions,
    default_model: str | None = None,
) -> Schema:
    """Everything that a row of the type may hold. A null is the same as an absent name.

    Names that are not listed are kept by the worker and reported, and refused by add_task; so that the schema also
    holds for rows that servers annotate, it lets them pass.
    """
    own, knobs = _generated(kind), _generated(options_class)
    names, knob_names = field_names(kind), knob_table(kind, options_class)
    properties = {
        **_properties(own, names, media_fields(kind)),
        **_properties(knobs, knob_names, media_fields(options_class)),
    }
    if default_model:
        properties["model"] = properties["model"] | {"default": default_model}
    level = {"type": "object", "properties": {each: {"$ref": f"#/properties/{each}"} for each in properties}}
    containers = {each: {"$ref": "#/$defs/level", "description": LEVEL_HELP[each]} for each in sorted(CONTAINERS)}
    definitions = {each: _nullable_inside(shape) for each, shape in (_defined(own) | _defined(knobs)).items()}
    needed = [_required(field, names) for field in own.get("required", ())]
    needed += [_required(knob, knob_names) for knob in kind.needed_knobs]
    return {
        "$schema": DIALECT,
        "title": name,
        "description": help,
        "type": "object",
        "properties": properties | containers,
        **({"allOf": needed} if needed else {}),
        "$defs": definitions | {"level": level},
    }


def _defined(schema: Schema) -> dict[str, Schema]:
    definitions: dict[str, Schema] = schema.get("$defs", {})
    return definitions


def _nullable_inside(shape: Schema) -> Schema:
    return shape | {"properties": {name: _nullable(each) for name, each in shape.get("properties", {}).items()}}


def _generated(model: type[BaseModel]) -> Schema:
    schema = model.model_json_schema(by_alias=False, schema_generator=_Generator, mode="validation")
    schema.get("$defs", {}).pop(GenerationOptions.__name__, None)
    schema["properties"].pop("options", None)
    return schema


def _properties(schema: Schema, names: Mapping[str, str], media: Mapping[str, str]) -> dict[str, Schema]:
    """A property for each accepted name: the field itself, or a reference to it. `names`: name -> field."""
    found: dict[str, Schema] = {}
    for name, field in names.items():
        shape = _nullable(schema["properties"][field]) | ({"x-media": media[field]} if field in media else {})
        found[name] = shape if name == field else _alias(field, shape, names)
    return found


def _alias(field: str, shape: Schema, names: Mapping[str, str]) -> Schema:
    if field not in names:  # the field's own name means something else here
        return shape
    return {"$ref": f"#/properties/{field}", "description": f"another name of {field}"}


def _nullable(shape: Schema) -> Schema:
    """The same, also for a null."""
    rest = {key: value for key, value in shape.items() if key in ("title", "description", "default")}
    value = {key: value for key, value in shape.items() if key not in rest}
    options = value["anyOf"] if set(value) == {"anyOf"} else [value]
    if {"type": "null"} not in options:
        options = [*options, {"type": "null"}]
    default = {"default": rest.pop("default")} if rest.get("default") is not None else {}
    return {key: rest[key] for key in ("title", "description") if key in rest} | {"anyOf": options} | default


def _required(field: str, names: Mapping[str, str]) -> Schema:
    """The field is there under one of its names at one of the levels."""
    ways: list[Schema] = []
    for name in (name for name, meant in names.items() if meant == field):
        here: Schema = {"required": [name], "properties": {name: {"not": {"type": "null"}}}}
        ways += [here if level is None else {"required": [level], "properties": {level: here}} for level in LEVELS]
    return {"anyOf": ways, "description": f"{field} is needed"}


@dataclass(frozen=True)
class ParameterRow:
    """One parameter, for people."""

    name: str
    type: str
    default: str
    meaning: str
    also: tuple[str, ...] = ()
    required: bool = False

    @property
    def field(self) -> str:
        """The parameter that it is, or is a part of."""
        return self.name.split(".")[0].removesuffix("[]")


def other_names(schema: Schema) -> dict[str, str]:
    """Further names of parameters -> the usual one."""
    return {
        name: shape["$ref"].rpartition("/")[2]
        for name, shape in schema["properties"].items()
        if "$ref" in shape and name not in CONTAINERS
    }


def needed_names(schema: Schema) -> set[str]:
    """The parameters that a row must give."""
    return {clause["description"].split()[0] for clause in schema.get("allOf", ())}


def parameter_rows(schema: Schema) -> Iterator[ParameterRow]:
    """The parameters of a schema in their order: aliases folded in, objects followed by what they hold."""
    also: dict[str, list[str]] = {}
    for name, meant in other_names(schema).items():
        also.setdefault(meant, []).append(name)
    required = needed_names(schema)
    for name, shape in schema["properties"].items():
        if "$ref" not in shape:
            yield _row(name, shape, schema["$defs"], tuple(also.get(name, ())), name in required)
            yield from _inner_rows(name, shape, schema["$defs"])


def _inner_rows(name: str, shape: Schema, definitions: Mapping[str, Schema]) -> Iterator[ParameterRow]:
    """phase_config.flow_shift, phase_config.phases[].guidance_scale …"""
    if "anyOf" in shape:
        for each in shape["anyOf"]:
            yield from _inner_rows(name, each, definitions)
    elif shape.get("type") == "array":
        yield from _inner_rows(f"{name}[]", shape.get("items", {}), definitions)
    elif "$ref" in shape:
        held = definitions[shape["$ref"].rpartition("/")[2]]
        for inner, its_shape in held["properties"].items():
            yield _row(f"{name}.{inner}", its_shape, definitions, required=inner in held.get("required", ()))
            yield from _inner_rows(f"{name}.{inner}", its_shape, definitions)


def _row(
    name: str, shape: Schema, definitions: Mapping[str, Schema], also: tuple[str, ...] = (), required: bool = False
) -> ParameterRow:
    default = shape.get("default")
    kind = type_text(shape, definitions)
    return ParameterRow(
        name,
        kind.replace("text", shape.get("x-media", "text")),
        "" if default in (None, [], {}, "") else json.dumps(default, ensure_ascii=False),
        shape.get("description", ""),
        also,
        required,
    )


def type_text(shape: Schema, definitions: Mapping[str, Schema]) -> str:
    """A schema in a few words: "integer 1-200", "list of text", "vace or i2v"."""
    if "x-also-read" in shape:
        return type_text(shape["anyOf"][0], definitions)
    if "anyOf" in shape:
        texts = (type_text(each, definitions) for each in shape["anyOf"] if each != {"type": "null"})
        return " or ".join(dict.fromkeys(texts))
    if "$ref" in shape:
        return type_text(definitions[shape["$ref"].rpartition("/")[2]], definitions)
    if "enum" in shape or "const" in shape:
        return " or ".join(str(value) for value in shape.get("enum", [shape.get("const")]))
    kind = shape.get("type", "anything")
    if isinstance(kind, list):
        return " or ".join(_WORDS.get(str(each), str(each)) for each in kind)
    if kind == "array":
        return _list_text(shape, definitions)
    return f"{_WORDS.get(kind, kind)} {_bounds(shape)}".strip()


def _list_text(shape: Schema, definitions: Mapping[str, Schema]) -> str:
    """ "list of text", "list of integer 0 to 9, at most 8", "list of number 0 to 1, exactly 2"."""
    held = [*shape.get("prefixItems", ()), shape.get("items", {})]
    low, high = shape.get("minItems", 0), shape.get("maxItems")
    if low == high:
        count = f", exactly {low}"
    else:
        count = (f", at least {low}" if low else "") + (f", at most {high}" if high is not None else "")
    return f"list of {type_text(held[0], definitions)}{count}"


_WORDS = {"string": "text", "object": "object", "boolean": "true or false"}


#: a bound that no reader needs to know
LARGE = 2**31


def _bounds(shape: Schema) -> str:
    """ "1 to 5", "from 0", "above 0, up to 240", "up to 40 characters"; "" for none that a reader needs to know."""
    if "maxLength" in shape:
        return f"up to {shape['maxLength']} characters"
    low, above, high = (shape.get(name) for name in ("minimum", "exclusiveMinimum", "maximum"))
    start = "" if low is None else _number(low)
    end = "" if high is None or high > LARGE else _number(high)
    if above is not None:
        return f"above {_number(above)}" + (f", up to {end}" if end else "")
    if start and end:
        return f"{start} to {end}"
    return f"from {start}" if start else f"up to {end}" if end else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
