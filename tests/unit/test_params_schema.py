"""One declaration, three readers: the schema of a task type, its help, and what a row is held against."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field
from rich.console import Console

import add_task
from headless.options import GenerationOptions
from source.errors import InvalidInput
from source.parameter_help import rendered_help
from source.params.base import BOOKKEEPING, CONTAINERS, field_names, knob_table
from source.params.schema import DIALECT, parameter_rows, type_text
from source.task_registry import TaskType, registry

KINDS = list(registry())


def sample(root: Path, kind: TaskType) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((root / "samples" / "tasks" / f"{kind.name}.json").read_text())
    return values


def references(shape: Any) -> list[str]:
    if isinstance(shape, dict):
        own = [shape["$ref"]] if isinstance(shape.get("$ref"), str) else []
        return own + [each for value in shape.values() for each in references(value)]
    return [each for value in shape for each in references(value)] if isinstance(shape, list) else []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_schema_lists_every_name_that_a_row_may_hold_and_no_other(kind: TaskType) -> None:
    schema = kind.schema()
    names = {*field_names(kind.params), *knob_table(kind.params, GenerationOptions), *CONTAINERS}
    assert (schema["$schema"], schema["title"], schema["description"]) == (DIALECT, kind.name, kind.help)
    assert set(schema["properties"]) == names
    assert json.loads(json.dumps(schema)) == schema
    for reference in references(schema):
        found = schema
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    own_text = [name for name, shape in schema["properties"].items() if not shape.get("description")]
    assert own_text == []


def test_a_switch_may_be_written_as_true_or_false() -> None:
    shape = registry().get("travel_segment").schema()["properties"]["svi2pro"]
    assert {"type": "boolean"} in shape["anyOf"][0].get("anyOf", shape["anyOf"])
    assert type_text(shape, {}) == "integer 0 to 1"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_sample_is_a_row_of_its_schema(kind: TaskType, root: Path) -> None:
    row = sample(root, kind)
    schema = kind.schema()
    assert kind.parse(row, strict=True).unknown == ()
    for level in (row, *(row[each] for each in CONTAINERS & set(row))):
        for name, value in level.items():
            known = name in schema["properties"] or name in BOOKKEEPING | kind.params.carried
            assert known, name
            assert name not in schema["properties"] or accepts(schema, schema["properties"][name], value), name


def accepts(schema: dict[str, Any], shape: dict[str, Any], value: Any) -> bool:
    """Whether a value is of a shape, by the keywords that say its type."""
    if "$ref" in shape:
        section, name = shape["$ref"].removeprefix("#/").split("/")
        return accepts(schema, schema[section][name], value)
    if "anyOf" in shape:
        return any(accepts(schema, each, value) for each in shape["anyOf"])
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}
    kind = shape.get("type")
    if value is None or kind == "null":
        return value is None and kind == "null"
    return isinstance(kind, list) or (isinstance(value, kinds[kind]) and value in shape.get("enum", [value]))


def test_bounds_defaults_media_and_other_names_are_said() -> None:
    properties = registry().get("i2v_22").schema()["properties"]
    assert properties["num_inference_steps"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 200}
    assert properties["steps"]["$ref"] == "#/properties/num_inference_steps"
    assert properties["model"]["default"] == "i2v_2_2"
    assert (properties["image_start"]["x-media"], properties["video_guide"]["x-media"]) == ("image", "video")


def test_a_name_that_means_something_else_here_is_no_alias() -> None:
    travel = registry().get("travel_orchestrator").schema()["properties"]
    assert not {"steps", "video_length", "num_frames"} & set(travel)
    assert travel["prompt"]["$ref"] == "#/properties/base_prompt"
    segment = registry().get("travel_segment").schema()["properties"]
    assert segment["segment_frames_target"]["$ref"] == "#/properties/video_length"


def test_what_is_needed_may_stand_at_any_level() -> None:
    schema = registry().get("t2v").schema()
    ways = schema["allOf"][0]["anyOf"]
    assert {"required": ["prompt"], "properties": {"prompt": {"not": {"type": "null"}}}} in ways
    assert [way["required"][0] for way in ways if way["required"][0] in CONTAINERS] == [
        "full_orchestrator_payload", "orchestrator_details", "individual_segment_params",
    ]  # fmt: skip


def test_a_new_knob_is_in_schema_and_help_with_no_other_edit() -> None:
    class Extended(GenerationOptions):
        sparkle: float = Field(0.5, le=1, description="how much it sparkles")

    schema = registry().get("t2v").schema(Extended)
    assert schema["properties"]["sparkle"]["description"] == "how much it sparkles"
    assert [row.default for row in parameter_rows(schema) if row.name == "sparkle"] == ["0.5"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_help_shows_every_parameter_once(kind: TaskType) -> None:
    names = [row.name for row in parameter_rows(kind.schema())]
    assert len(names) == len(set(names))
    text = StringIO()
    Console(file=text, width=200).print(rendered_help(kind))
    lines = [line.split(" ")[0] for line in text.getvalue().splitlines()]
    assert set(names) <= set(lines)
    assert kind.help in text.getvalue()


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 5}, "integer 1 to 5"),
        ({"type": "number", "exclusiveMinimum": 0}, "number above 0"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 240}, "number above 0, up to 240"),
        ({"type": "number", "maximum": 0.5}, "number up to 0.5"),
        ({"type": "integer", "minimum": 0, "maximum": 1_000_000}, "integer 0 to 1000000"),
        ({"type": "string", "maxLength": 40}, "text up to 40 characters"),
        ({"type": "array", "items": {"type": "string"}}, "list of text"),
        (
            {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 8},
            "list of text, at least 1, at most 8",
        ),
        (
            {"type": "array", "prefixItems": [{"type": "number"}] * 2, "minItems": 2, "maxItems": 2},
            "list of number, exactly 2",
        ),
        ({"anyOf": [{"enum": ["a", "b"], "type": "string"}, {"type": "null"}]}, "a or b"),
        ({"x-also-read": True, "anyOf": [{"type": "string"}, {"type": "number"}]}, "text"),
    ],
)
def test_types_are_said_in_words(shape: dict[str, Any], text: str) -> None:
    assert type_text(shape, {}) == text


def test_a_misspelt_type_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="t2v"):
        registry().get("t2w")


def test_the_command_prints_a_schema(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["add_task.py", "--schema", "t2v"])
    assert add_task.main() == 0
    assert json.loads(capsys.readouterr().out) == registry().get("t2v").schema()


def test_the_command_explains_itself_or_a_task_type(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, expected in ((["--help"], "--list-types"), (["--help", "travel_stitch"], "crossfade_sharp_amt")):
        monkeypatch.setattr("sys.argv", ["add_task.py", *arguments])
        with pytest.raises(SystemExit) as caught:
            add_task.main()
        assert caught.value.code == 0
        assert expected in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--help", "--schema"])
def test_an_unknown_type_is_bad_input(
    flag: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["add_task.py", flag, "t2w"])
    assert add_task.main() == 1
    assert "Did you mean 't2v'" in capsys.readouterr().err
