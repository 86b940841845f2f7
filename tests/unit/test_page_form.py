"""The form of a task type: every row that it is filled with comes back as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from page_site import SentForm

from headless.options import GenerationOptions
from source.page.access import Session
from source.page.context import _TEMPLATES
from source.page.form.controls import controls_of, problems
from source.page.form.fields import Field, Kind, fields_of
from source.page.form.rows import REST, checked, params_of, tree_from, tree_of
from source.page.form.secrets import restored
from source.page.form.sections import SECTIONS, USUAL, sections_of
from source.params.base import CONTAINERS
from source.redaction import redact_values
from source.task_registry import TaskType, registry

KINDS = {kind.name: kind for kind in registry()}
FIELDS = {name: fields_of(kind.schema(), kind.defaults) for name, kind in KINDS.items()}
SAMPLES = sorted((Path(__file__).parents[2] / "samples" / "tasks").glob("*.json"))


def html_of(kind: TaskType, tree: dict[str, Any], faults: dict[str, str] | None = None) -> str:
    """The page of a form."""
    controls, left = controls_of(FIELDS[kind.name], tree, faults or {})
    wrong = problems(controls)
    return _TEMPLATES.get_template("new_task.html").render(
        kind=kind, sections=sections_of(kind.params, controls), problems=wrong, problem=left.pop("", ""),
        autofocus=wrong[0].path if wrong else "", rest=tree.get(REST, ""), rest_problem=left.pop(REST, ""),
        row_values={}, row_problems=left, before="", most_mb=1, models=[], session=Session("", "", 0.0), path="/new",
        may_write=False, has_token=False, database="", request=None,
    )  # fmt: skip


def sent_back(kind: TaskType, params: dict[str, Any]) -> Any:
    """What comes of a row that a browser is shown and sends back."""
    form = SentForm(html_of(kind, tree_of(FIELDS[kind.name], params)))
    said = params_of(FIELDS[kind.name], tree_from(form.pairs))
    assert said.faults == {}
    return said.params


def as_text(value: Any) -> str:
    """Tells 1, 1.0 and true apart."""
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_comes_back_as_it_was_and_passes_the_strict_check(path: Path) -> None:
    kind = KINDS[path.name.split(".")[0]]
    row = json.loads(path.read_text())
    assert as_text(sent_back(kind, row)) == as_text(row)
    assert checked(kind.name, FIELDS[kind.name], tree_of(FIELDS[kind.name], row)).faults == {}


def test_what_people_set_most_has_a_control_of_its_own_in_every_sample() -> None:
    as_json = controls = 0
    for path in SAMPLES:
        row = json.loads(path.read_text())
        tree = tree_of(FIELDS[path.name.split(".")[0]], row)
        flat = json.dumps({name: value for name, value in tree.items() if name != REST})
        as_json += flat.count('"_json"')
        controls += sum(len(level) for level in (tree, *(tree.get(name, {}) for name in CONTAINERS)))
    assert as_json <= 0.03 * controls


texts = st.text(max_size=12) | st.sampled_from(
    ["", " ", "1", "[1]", "null", "a\nb", "a\r\nb", "\n x", "<b>&amp;'\"", "\ud800", "\x00"]
)
numbers = (
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, 1, -0.0, 10**25, True, False])
)
values = st.recursive(
    st.none() | numbers | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["path", "url", "phases", "loras", "0", "_json", "x.y"]) | texts, inner, max_size=3
        )
    ),
    max_leaves=6,
)


@st.composite
def rows(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A task type, and a row that names what it knows and what it does not, at several levels."""
    name = draw(st.sampled_from(sorted(KINDS)))
    known = sorted(KINDS[name].schema()["properties"])
    level = st.dictionaries(st.sampled_from(known) | texts, values, max_size=4)
    inner = draw(st.dictionaries(st.sampled_from(sorted(CONTAINERS)), level | values, max_size=2))
    return name, draw(level) | inner


@example(row=("travel_stitch", {"slg_switch": -1}))
@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(row=rows())
def test_any_row_comes_back_as_it_was(row: tuple[str, dict[str, Any]]) -> None:
    name, params = row
    assert as_text(sent_back(KINDS[name], params)) == as_text(params)


@pytest.mark.parametrize("name", ["travel_orchestrator", "vace", "comfy", "join_clips"])
def test_an_empty_form_says_nothing(name: str) -> None:
    assert sent_back(KINDS[name], {}) == {}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_parameter_has_one_field_and_every_control_a_label_and_a_help(name: str) -> None:
    kind = KINDS[name]
    form = SentForm(html_of(kind, {}))
    fields = FIELDS[name]
    accepted = [each for field in fields for each in field.names]
    assert sorted(accepted) == sorted(set(kind.schema()["properties"]) - CONTAINERS)
    for control in form.inputs:
        assert "id" not in control or control["id"] in form.labelled or control["type"] == "search", control
        for described in control.get("aria-describedby", "").split():
            assert described in form.ids
    titled = [
        each.field.name
        for section in sections_of(kind.params, controls_of(fields, {}, {})[0])
        for each in section.controls
    ]
    assert sorted(titled) == sorted(field.name for field in fields)


def test_every_knob_of_the_engine_has_its_section() -> None:
    named = [name for names in SECTIONS.values() for name in names]
    assert len(named) == len(set(named))
    assert set(GenerationOptions.model_fields) <= set(named)
    everything = {field.name for fields in FIELDS.values() for field in fields}
    assert set(named) | set(USUAL) <= everything


def flat(fields: tuple[Field, ...], prefix: str = "") -> Iterator[tuple[str, Field]]:
    for field in fields:
        yield f"{prefix}{field.name}", field
        yield from flat(field.of, f"{prefix}{field.name}.") if field.kind is Kind.GROUP else ()


def test_controls_are_the_ones_that_suit() -> None:
    found = dict(flat(FIELDS["travel_orchestrator"]))
    assert found["seed_base"].kind is Kind.INTEGER
    assert (found["guidance_scale"].kind, found["guidance_scale"].low, found["guidance_scale"].high) == (
        Kind.NUMBER,
        0,
        30,
    )
    assert (found["model_type"].kind, found["model_type"].choices) == (Kind.CHOICE, ("vace", "i2v"))
    assert (found["chain_segments"].kind, found["svi2pro"].kind) == (Kind.FLAG, Kind.SWITCH)
    images = found["input_image_paths_resolved"]
    assert (images.kind, images.media, images.of[0].kind, images.of[0].media) == (
        Kind.LIST,
        "image",
        Kind.MEDIA,
        "image",
    )
    assert [each.kind for each in found["base_prompts_expanded"].of] == [Kind.LONG]
    assert found["segment_frames_expanded"].kind is Kind.NUMBERS
    assert found["frame_overlap_expanded"].kind is Kind.SOME_NUMBERS
    videos = found["structure_guidance.videos"]
    assert (videos.kind, videos.of[0].kind) == (Kind.LIST, Kind.GROUP)
    assert dict(flat(videos.of[0].of))["path"].media == "video"


@pytest.mark.parametrize(
    ("type_", "written", "where", "said"),
    [
        ("vace", {"prompt": "a cat", "seed": "abc"}, "seed", "not a whole number"),
        ("vace", {"prompt": "a cat", "video_length": "0"}, "video_length", "greater than or equal to 1"),
        ("vace", {}, "prompt", "needed"),
        ("vace", {"prompt": "a cat", "sigmas": "1, x"}, "sigmas", "not a number"),
        ("vace", {"prompt": "a cat", "additional_loras": "{"}, "additional_loras", "not valid JSON"),
        ("vace", {"prompt": "a cat", "_rest": "[1]"}, "_rest", "JSON object"),
        ("vace", {"prompt": "a cat", "_rest": '{"promt": "x"}'}, "", "promt: there is no parameter of that name"),
        (
            "vace",
            {"prompt": "a cat", "phase_config.phases.0._item": "1", "phase_config.phases.0.guidance_scale": "99"},
            "phase_config.phases.0.guidance_scale",
            "less than or equal to 30",
        ),
        (
            "travel_orchestrator",
            {"segment_frames_expanded": "17, 17", "frame_overlap_expanded": "4", "model": "draft"}
            | {f"input_image_paths_resolved.{place}": "a.png" for place in range(2)},
            "input_image_paths_resolved",
            "2 segments need 3",
        ),
        ("travel_orchestrator", {"orchestrator_details.seed": "-7"}, "orchestrator_details.seed", "greater than"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_at_its_field(type_: str, written: dict[str, str], where: str, said: str) -> None:
    found = checked(type_, FIELDS[type_], tree_from(written.items()))
    assert said in found.faults[where], found.faults
    controls, left = controls_of(FIELDS[type_], tree_from(written.items()), found.faults)
    assert where in {each.path for each in problems(controls)} | set(left)


def test_several_wrong_values_are_all_said() -> None:
    written = {"prompt": "x", "video_length": "0", "guidance_scale": "31", "num_inference_steps": "0"}
    faults = checked("vace", FIELDS["vace"], tree_from(written.items())).faults
    assert set(faults) == {"video_length", "guidance_scale", "num_inference_steps"}


SECRET = "https://models.example/detail.safetensors?token=planted-secret-0123456789"


def test_a_secret_of_the_row_before_is_not_shown_and_kept_where_it_is_not_changed() -> None:
    row = {
        "prompt": "a cat",
        "activated_loras": ["a.safetensors", SECRET, "b.safetensors"],
        "additional_loras": {SECRET: 0.5, "c.safetensors": 1.0},
        "orchestrator_details": {"image_url": SECRET, "my_api_token": "planted-secret-0123456789"},
    }
    fields = FIELDS["vace"]
    tree = tree_of(fields, redact_values(row))
    html = html_of(KINDS["vace"], tree)
    assert "planted-secret" not in html and html.count("***") >= 4
    pairs = [(name, "another cat" if name == "prompt" else text) for name, text in SentForm(html).pairs]
    without_first = [(name, text) for name, text in pairs if name != "activated_loras.0"]
    changed = params_of(fields, tree_from(without_first)).params
    assert restored(changed, row) == row | {"prompt": "another cat", "activated_loras": [SECRET, "b.safetensors"]}


def test_what_is_written_around_a_hidden_secret_is_refused_at_its_field() -> None:
    row = {"prompt": "a cat", "image_start": SECRET}
    shown = redact_values(SECRET)
    sent = tree_from({"prompt": "a cat", "image_start": shown.replace("detail", "other")}.items())
    said = checked("vace", FIELDS["vace"], sent, row)
    assert "is not shown" in said.faults["image_start"]
    sent = tree_from({"prompt": "a cat *** meow", "image_start": shown, "seed": SECRET}.items())
    assert "planted" not in str(checked("vace", FIELDS["vace"], sent, row).faults)
    sent = tree_from({"prompt": "a cat *** meow", "image_start": shown}.items())
    assert checked("vace", FIELDS["vace"], sent, row).params == {"prompt": "a cat *** meow", "image_start": SECRET}
