"""The table of Qwen-Image's tasks: what their rows become, LoRA by LoRA and clause by clause."""

from __future__ import annotations

from typing import Any

import pytest

from headless.options import GenerationOptions
from source.errors import InvalidInput
from source.params.base import parse_params
from source.params.images import ASPECTS, QwenParams
from source.planning.qwen import (
    INPAINTING,
    LIGHTNING_EDIT,
    QWEN_TASKS,
    SCENE,
    STYLE,
    SUBJECT,
    Consistency,
    planned,
    strengths_of,
)
from source.task_registry import registry

EDIT = QWEN_TASKS["qwen_image_edit"]
MINE = "mine.safetensors"


def params(**row: Any) -> QwenParams:
    return parse_params(QwenParams, row).params


def loras(options: GenerationOptions) -> dict[str, str]:
    """File -> multiplier."""
    names = [name.rpartition("/")[2] for name in options.activated_loras or ()]
    tokens = (options.loras_multipliers or "").split()
    assert len(names) == len(tokens)
    return dict(zip(names, tokens, strict=True))


@pytest.mark.parametrize("task_type", QWEN_TASKS)
def test_what_a_type_says_of_its_defaults_is_what_an_empty_row_gets(task_type: str) -> None:
    row = QWEN_TASKS[task_type]
    given = planned(row, params(), shown=None if row.size else (640, 480)).to_engine()
    told = dict(row.defaults)
    strengths = told.pop("lightning_lora_strength_phase_1"), told.pop("lightning_lora_strength_phase_2")
    assert strengths == strengths_of(row, params())
    assert told == {name: given[name] for name in told}
    assert registry().get(task_type).defaults == row.defaults


# -- LoRAs


def test_one_pass_has_plain_multipliers_and_two_have_one_each() -> None:
    assert loras(planned(EDIT, params())) == {LIGHTNING_EDIT.file: "0.85"}
    assert loras(planned(EDIT, params(hires_scale=2))) == {LIGHTNING_EDIT.file: "0.85;0"}
    assert loras(planned(EDIT, params(hires_scale=1))) == {LIGHTNING_EDIT.file: "0.85"}
    inpaint = QWEN_TASKS["image_inpaint"]
    assert loras(planned(inpaint, params())) == {LIGHTNING_EDIT.file: "0.75", INPAINTING.file: "1"}
    assert loras(planned(inpaint, params(hires_scale=1.5))) == {LIGHTNING_EDIT.file: "0.75;0", INPAINTING.file: "1;1"}


@pytest.mark.parametrize(
    ("task_type", "one", "two"),
    [
        ("qwen_image_edit", "0.85", "0.85;0"),
        ("image_inpaint", "0.75", "0.75;0"),
        ("annotated_image_edit", "0.75", "0.75;0"),
        ("qwen_image_style", "0.85", "0.85;0"),
        ("qwen_image_hires", None, "0.45;0.45"),
        ("qwen_image", "1", "1;1"),
        ("qwen_image_2512", "1", "1;1"),
    ],
)
def test_the_strength_of_lightning_in_each_pass(task_type: str, one: str | None, two: str) -> None:
    row = QWEN_TASKS[task_type]
    assert loras(planned(row, params(hires_scale=2)))[row.lightning.file] == two
    assert loras(planned(row, params()))[row.lightning.file] == (one or two)


@pytest.mark.parametrize(
    ("given", "strengths"),
    [
        ({}, (0.85, 0.0)),
        ({"lightning_lora_strength": 0.5}, (0.5, 0.5)),
        ({"lightning_lora_strength_phase_1": 0.5}, (0.5, 0.0)),
        ({"lightning_lora_strength_phase_2": 0.3}, (0.85, 0.3)),
        ({"lightning_lora_strength": 0.5, "lightning_lora_strength_phase_2": 0}, (0.5, 0)),
        ({"lightning_lora_strength": 0}, (0, 0)),
    ],
)
def test_a_strength_of_one_pass_beats_that_of_both(given: dict[str, float], strengths: tuple[float, float]) -> None:
    assert strengths_of(EDIT, params(**given)) == strengths


def test_a_lora_that_is_off_is_not_asked_for() -> None:
    assert planned(EDIT, params(lightning_lora_strength=0)).activated_loras is None
    off_in_the_only_pass = params(lightning_lora_strength_phase_1=0, lightning_lora_strength_phase_2=1)
    assert planned(EDIT, off_in_the_only_pass).activated_loras is None


def test_the_rows_own_loras_come_after_and_keep_their_multipliers() -> None:
    row = params(
        lora_names=[MINE], lora_multipliers=[0.4], additional_loras={"https://a.b/two.safetensors": "0.2;0.1"},
        loras=[{"path": "three.safetensors", "scale": 0.7}], hires_scale=2,
    )  # fmt: skip
    assert list(loras(planned(EDIT, row)).items()) == [
        (LIGHTNING_EDIT.file, "0.85;0"), (MINE, "0.4"), ("two.safetensors", "0.2;0.1"), ("three.safetensors", "0.7"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", [LIGHTNING_EDIT.file, LIGHTNING_EDIT.address, f"/loras/{LIGHTNING_EDIT.file}"])
def test_a_lora_that_the_row_names_itself_is_there_once_at_the_rows_strength(name: str) -> None:
    row = params(activated_loras=[name, MINE], loras_multipliers="0.3 1", hires_scale=2)
    assert loras(planned(EDIT, row)) == {LIGHTNING_EDIT.file: "0.3", MINE: "1"}


def test_files_are_addresses_of_their_repositories() -> None:
    assert INPAINTING.address == (
        "https://huggingface.co/ostris/qwen_image_edit_inpainting/resolve/main/qwen_image_edit_inpainting.safetensors"
    )


# -- what else a type adds


def test_what_the_row_says_wins_over_the_types_own() -> None:
    row = params(
        prompt="a cat", steps=20, guidance_scale=3, system_prompt="You are a painter.", resolution="640x480",
        video_prompt_type="I",
    )  # fmt: skip
    made = planned(EDIT, row, shown=(100, 100))
    assert (made.num_inference_steps, made.guidance_scale, made.system_prompt) == (20, 3, "You are a painter.")
    assert (made.resolution, made.video_prompt_type, made.prompt) == ("640x480", "I", "a cat")


def test_a_prompt_that_is_missing_is_a_space() -> None:
    assert planned(EDIT, params()).prompt == planned(EDIT, params(prompt="")).prompt == " "


@pytest.mark.parametrize(
    ("task_type", "asked", "made"),
    [
        ("qwen_image_edit", "1920x1080", "1200x675"),
        ("image_inpaint", "1024x2048", "600x1200"),
        ("qwen_image", "1600x1600", "1200x1200"),
        ("qwen_image_2512", "2512x2512", "2512x2512"),
        ("qwen_image_2512", "4096x2048", "2512x1256"),
        ("qwen_image_hires", "2048x2048", "2048x2048"),
        ("qwen_image_edit", "4032x3024", "1200x900"),
        ("qwen_image", "50000x30010", "1200x720"),
        ("qwen_image", None, "1024x1024"),
        ("qwen_image_2512", None, "1024x1024"),
        ("qwen_image_edit", None, "1200x800"),
    ],
)
def test_sizes_are_limited_by_type(task_type: str, asked: str | None, made: str) -> None:
    shown = (2400, 1600) if "edit" in task_type else None
    assert planned(QWEN_TASKS[task_type], params(resolution=asked), shown=shown).resolution == made


@pytest.mark.parametrize("task_type", QWEN_TASKS)
def test_each_type_reads_the_prompt_in_a_role_of_its_own(task_type: str) -> None:
    role = QWEN_TASKS[task_type].role or Consistency(style=1).role
    assert role.startswith("You ") and role.endswith(".")
    assert planned(QWEN_TASKS[task_type], params(), role=role).system_prompt == role


# -- style


@pytest.mark.parametrize(
    ("keeps", "prompt"),
    [
        (Consistency(), "a lake"),
        (Consistency(style=1), "In the style of the image, a lake"),
        (Consistency(subject=1, subject_description="red cup"), "Make an image of this red cup: a lake"),
        (Consistency(subject=1), "a lake"),
        (Consistency(subject_description="red cup", in_this_scene=True), "a lake"),
        (
            Consistency(subject=1, subject_description="red cup", in_this_scene=True),
            "Make an image of this red cup in this scene: a lake",
        ),
        (
            Consistency(style=0.1, subject=0.1, subject_description="red cup", in_this_scene=True),
            "In the style of the image, make an image of this red cup in this scene: a lake",
        ),
        (Consistency(scene=1), "a lake"),
    ],
)
def test_the_prompt_says_what_the_picture_is_for(keeps: Consistency, prompt: str) -> None:
    assert keeps.prompt(" a lake ") == prompt


def test_clauses_stand_alone_where_there_is_no_prompt() -> None:
    assert Consistency(style=1).prompt("") == "In the style of the image,"
    assert Consistency().prompt("") == " "


@pytest.mark.parametrize(
    ("keeps", "named"),
    [
        (Consistency(style=1), "expert in style consistency"),
        (Consistency(style=1, scene=1), "expert in style and scene consistency"),
        (Consistency(style=1, subject=1, scene=1), "expert in style, subject and scene consistency"),
        (Consistency(), "careful image editor"),
    ],
)
def test_the_role_names_what_is_kept(keeps: Consistency, named: str) -> None:
    assert named in keeps.role


def test_what_is_kept_brings_its_lora_at_its_strength() -> None:
    keeps = Consistency(style=1.1, scene=0.4)
    for scale, tokens in ((None, ("0.85", "1.1", "0.4")), (2, ("0.85;0", "1.1;1.1", "0.4;0.4"))):
        found = loras(planned(EDIT, params(hires_scale=scale), loras=keeps.loras))
        assert found == dict(zip((LIGHTNING_EDIT.file, STYLE.file, SCENE.file), tokens, strict=True))
        assert SUBJECT.file not in found


# -- rows that cannot be used


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("qwen_image_edit", {"prompt": "x"}, "image"),
    ("qwen_image_edit", {"image": " ", "prompt": "x"}, "image"),
    ("image_inpaint", {"image_url": "a.png"}, "mask_url"),
    ("image_inpaint", {"mask_url": "a.png"}, "image_url"),
    ("annotated_image_edit", {"image_url": "a.png", "mask_url": "b.png"}, "prompt"),
    ("annotated_image_edit", {"image_url": "a.png", "prompt": "x"}, "mask_url"),
    ("qwen_image_style", {"prompt": "x"}, "style_reference_image"),
    (
        "qwen_image_style",
        {"style_reference_image": "a.png", "subject_reference_image": "b.png"},
        "subject_reference_image",
    ),
    ("qwen_image_style", {"style_reference_image": "a.png", "subject_strength": -1}, "subject_strength"),
    ("qwen_image_hires", {"prompt": "x"}, "resolution"),
    ("qwen_image_hires", {"prompt": "x", "resolution": "5:4"}, "resolution"),
    ("qwen_image_hires", {"prompt": "x", "aspect_ratio": "5:4"}, "aspect_ratio"),
    ("qwen_image_hires", {"resolution": "1:1"}, "prompt"),
    ("qwen_image_hires", {"prompt": "x", "resolution": "5000x5000"}, "resolution"),
    ("qwen_image_edit", {"image": "a.png", "parsed_resolution_wh": "large"}, "parsed_resolution_wh"),
    ("qwen_image_edit", {"image": "a.png", "resolution": 1200}, "resolution"),
    ("qwen_image", {}, "prompt"),
    ("qwen_image_2512", {"prompt": " "}, "prompt"),
    ("qwen_image", {"prompt": "x", "model": "qwen_image_20B"}, "model"),
    ("qwen_image_2512", {"prompt": "x", "model": "qwen_image_20B"}, "model"),
    ("qwen_image_style", {"style_reference_image": "a.png", "model": "flux"}, "model"),
    ("z_image_turbo", {"prompt": "x", "model": "flux"}, "model"),
    ("z_image_turbo_i2i", {"image": "a.png", "model": "flux"}, "model"),
    ("z_image_turbo", {}, "prompt"),
    ("z_image_turbo_i2i", {"prompt": "x"}, "image"),
    ("z_image_turbo_i2i", {"image": "a.png", "image_size": "square_hd"}, "image_size"),
    ("z_image_turbo_i2i", {"image": "a.png", "image_size": "9000x9000", "resolution": "64x64"}, "image_size"),
    ("z_image_turbo_i2i", {"image": "a.png", "image_size": {"width": 512}}, "image_size"),
    ("qwen_image_edit", {"image": "a.png", "lightning_lora_strenght": 1}, "lightning_lora_strenght"),
    ("qwen_image_edit", {"image": "a.png", "lightning_lora_strength": 11}, "lightning_lora_strength"),
    ("image_inpaint", {"image_url": "a.png", "mask_url": "b.png", "image_guide": "c.png"}, "image_guide"),
]  # fmt: skip


@pytest.mark.parametrize(("task_type", "row", "field"), REFUSED)
def test_add_task_names_the_field_at_fault(task_type: str, row: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput, match=rf"(^|; ){field}\b|{field} is missing"):
        registry().get(task_type).parse(row, strict=True)


@pytest.mark.parametrize("task_type", ["qwen_image", "qwen_image_2512", "z_image_turbo"])
def test_a_worker_runs_the_types_own_model_and_warns(task_type: str, caplog: pytest.LogCaptureFixture) -> None:
    kind = registry().get(task_type)
    parsed = kind.parse({"prompt": "x", "model": "flux"})
    assert parsed.params.model == kind.default_model
    assert f"{task_type} always runs {kind.default_model}, not flux" in caplog.text


def test_the_types_own_model_may_be_called_by_its_older_name(caplog: pytest.LogCaptureFixture) -> None:
    kind = registry().get("z_image_turbo_i2i")
    for strict in (True, False):
        row = {"image": "a.png", "model_name": "z_image_img2img"}
        assert kind.parse(row, strict=strict).params.model == "z_image"
    assert not caplog.text


@pytest.mark.parametrize("task_type", ["qwen_image_edit", "image_inpaint", "annotated_image_edit", "qwen_image_hires"])
def test_the_model_of_other_types_is_the_rows(task_type: str) -> None:
    row = {"prompt": "x", "image": "a.png", "mask_url": "b.png", "resolution": "64x64", "model": "flux_dev_kontext"}
    assert registry().get(task_type).parse(row).params.model == "flux_dev_kontext"


@pytest.mark.parametrize(("aspect", "size"), ASPECTS.items())
@pytest.mark.parametrize("name", ["resolution", "aspect_ratio"])
def test_an_aspect_stands_for_a_size(name: str, aspect: str, size: str) -> None:
    parsed = registry().get("qwen_image_hires").parse({"prompt": "x", name: aspect}, strict=True).params
    assert planned(QWEN_TASKS["qwen_image_hires"], parsed).resolution == size
