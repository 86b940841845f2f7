"""The image task types through a whole worker: what reaches the engine of each row, and what comes out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lora_site import put_lora
from PIL import Image
from worker_floor import Floor

from headless.generation import ModelInfo
from headless.options import GenerationOptions, knob
from headless.testing import FakeOrchestrator
from source.media.composites import GREEN
from source.planning.qwen import (
    ANNOTATION,
    INPAINTING,
    LIGHTNING_4,
    LIGHTNING_2512,
    LIGHTNING_EDIT,
    QWEN_TASKS,
    SCENE,
    STYLE,
    SUBJECT,
    HubFile,
)
from source.store.types import Status, Task
from source.task_registry import registry
from Wan2GP.media import Frame, read_image, write_image

TEXT = frozenset({"text", "loras"})
CHANGES = TEXT | {"control_video", "mask", "references"}
EVERY_LORA = (LIGHTNING_EDIT, LIGHTNING_4, LIGHTNING_2512, INPAINTING, ANNOTATION, STYLE, SUBJECT, SCENE)


def model(name: str, inputs: frozenset[str], lora_folder: str = "qwen") -> ModelInfo:
    return ModelInfo(
        name=name, architecture=name, inputs=inputs, required=frozenset({"text"}), fps=1, image_output=True,
        lora_folder=lora_folder,
    )  # fmt: skip


MODELS = [
    model("qwen_image_edit_20B", CHANGES),
    model("qwen_image_2512_20B", TEXT),
    model("z_image", TEXT | {"image_start"}, "z_image"),
    model("kontext", TEXT | {"references"}),
]


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    """A worker that keeps what tasks make on the way, with every LoRA of the table at hand."""
    for file in EVERY_LORA:
        put_lora(tmp_path / "loras" / "qwen" / file.file)
    floor = Floor(tmp_path, FakeOrchestrator(MODELS), loras_dir=tmp_path / "loras", skip_cleanup=True)
    floor.registry = registry()
    yield floor
    floor.close()


def run(floor: Floor, task_type: str, **params: Any) -> Task:
    task = floor.add(task_type, **params)
    assert floor.work() == 0
    return floor.store.get(task)


def called(floor: Floor, task_type: str, **params: Any) -> dict[str, Any]:
    """The engine's keyword arguments of a row that completes."""
    row = run(floor, task_type, **params)
    assert (row.status, row.error_message) == (Status.COMPLETE, None)
    return floor.engine.calls[-1]


def made(floor: Floor) -> Frame:
    """The output of the only task."""
    [row] = floor.store.tasks()
    return read_image(floor.output(row.id))


def picture(path: Path, size: tuple[int, int] = (96, 64), seed: int = 0) -> str:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return str(write_image(path, noise))


def mask(path: Path, size: tuple[int, int], box: tuple[int, int, int, int]) -> str:
    """White in `box` = (left, top, right, bottom), black elsewhere."""
    drawn = np.zeros((size[1], size[0], 3), np.uint8)
    drawn[box[1] : box[3], box[0] : box[2]] = 255
    return str(write_image(path, drawn))


def loras(call: dict[str, Any]) -> dict[str, str]:
    paths, tokens = call.get("activated_loras", []), call.get("loras_multipliers", "").split()
    return dict(zip([Path(path).name for path in paths], tokens, strict=True))


# -- what reaches the engine


TWELVE = {"num_inference_steps": 12, "guidance_scale": 1}
SECOND_PASS = {"hires_scale": 1.5, "hires_steps": 4, "hires_denoise": 0.4}

OPTIONS: list[tuple[str, dict[str, Any], dict[str, Any], dict[HubFile, str]]] = [
    (
        "qwen_image_edit",
        {"image": "{picture}", "prompt": "a hat"},
        {**TWELVE, "resolution": "96x64", "video_prompt_type": "KI", "prompt": "a hat"},
        {LIGHTNING_EDIT: "0.85"},
    ),
    (
        "qwen_image_edit",
        {"image_url": "{picture}", "resolution": "2400x1600", **SECOND_PASS},
        {**TWELVE, **SECOND_PASS, "prompt": " ", "resolution": "1200x800"},
        {LIGHTNING_EDIT: "0.85;0"},
    ),
    (
        "image_inpaint",
        {"image_url": "{picture}", "mask_url": "{mask}"},
        {**TWELVE, "prompt": " ", "resolution": "96x64", "video_prompt_type": "KI"},
        {LIGHTNING_EDIT: "0.75", INPAINTING: "1"},
    ),
    (
        "annotated_image_edit",
        {"image_url": "{picture}", "mask_url": "{mask}", "prompt": "here"},
        {**TWELVE, "resolution": "96x64", "video_prompt_type": "KI"},
        {LIGHTNING_EDIT: "0.75", ANNOTATION: "1"},
    ),
    (
        "qwen_image_style",
        {
            "style_reference_image": "{picture}", "style_reference_strength": 0.9, "scene_reference_strength": 0.5,
            "prompt": "a lake",
        },
        {**TWELVE, "prompt": "In the style of the image, a lake", "resolution": "96x64"},
        {LIGHTNING_EDIT: "0.85", STYLE: "0.9", SCENE: "0.5"},
    ),
    (
        "qwen_image_style",
        {"subject_reference_image": "{picture}", "subject_strength": 1, "subject_description": "cup"},
        {"prompt": "Make an image of this cup:", "video_prompt_type": "KI"},
        {LIGHTNING_EDIT: "0.85", SUBJECT: "1"},
    ),
    (
        "qwen_image_hires",
        {"prompt": "a fern", "resolution": "96x64"},
        {"num_inference_steps": 10, "guidance_scale": 1, "hires_scale": 2, "resolution": "96x64"},
        {LIGHTNING_EDIT: "0.45;0.45"},
    ),
    (
        "qwen_image",
        {"prompt": "a boat", "resolution": "1600x160"},
        {"num_inference_steps": 4, "guidance_scale": 3.5, "resolution": "1200x120", "video_prompt_type": ""},
        {LIGHTNING_4: "1"},
    ),
    (
        "qwen_image_2512",
        {"prompt": "a sign", "resolution": "3200x160"},
        {"num_inference_steps": 4, "guidance_scale": 4, "resolution": "2512x125", "video_prompt_type": ""},
        {LIGHTNING_2512: "1"},
    ),
    (
        "z_image_turbo",
        {"prompt": "a tower"},
        {"num_inference_steps": 8, "guidance_scale": 0, "resolution": "1024x1024", "video_prompt_type": ""},
        {},
    ),
    (
        "z_image_turbo",
        {"prompt": "a tower", "steps": 5, "resolution": "96x64"},
        {"num_inference_steps": 5, "guidance_scale": 0, "resolution": "96x64"},
        {},
    ),
    (
        "z_image_turbo_i2i",
        {"image_url": "{picture}", "strength": 0.4},
        {
            "num_inference_steps": 12, "guidance_scale": 0, "denoising_strength": 0.4, "prompt": " ",
            "resolution": "1248x832", "image_start": "{picture}",
        },
        {},
    ),
    (
        "z_image_turbo_i2i",
        {"image": "{picture}", "image_size": {"width": 128, "height": 96}, "prompt": "a cat"},
        {"denoising_strength": 0.7, "resolution": "128x96", "prompt": "a cat"},
        {},
    ),
    (
        "z_image_turbo_i2i",
        {"image": "{picture}", "image_size": "auto", "resolution": "64x64", "denoise_strength": 0.5},
        {"denoising_strength": 0.5, "resolution": "1248x832"},
        {},
    ),
    ("z_image_turbo_i2i", {"image": "{picture}", "resolution": "64x64"}, {"resolution": "1248x832"}, {}),
    (
        "z_image_turbo_i2i",
        {"image": "{picture}", "resolution": "64x64", "image_size": "custom"},
        {"resolution": "64x64"},
        {},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("task_type", "row", "wanted", "files"), OPTIONS)
def test_a_row_reaches_the_engine_as_its_type_says(
    floor: Floor, tmp_path: Path, task_type: str, row: dict[str, Any], wanted: dict[str, Any], files: dict[HubFile, str]
) -> None:
    media = {
        "picture": picture(tmp_path / "photo.png"),
        "mask": mask(tmp_path / "mask.png", (96, 64), (20, 10, 60, 40)),
    }

    def filled(values: dict[str, Any]) -> dict[str, Any]:
        return {name: media.get(str(value).strip("{}"), value) for name, value in values.items()}

    call = called(floor, task_type, seed=3, **filled(row))
    assert {name: call[name] for name in wanted} == filled(wanted)
    assert (call["image_mode"], call["video_length"], call["seed"]) == (1, 1, 3)
    assert loras(call) == {file.file: token for file, token in files.items()}
    if task_type in QWEN_TASKS:
        assert call["system_prompt"].startswith("You ")
    assert ("image_guide" in call) == (task_type in QWEN_TASKS and call["video_prompt_type"] == "KI")


def test_the_rows_own_role_and_loras_reach_the_engine(floor: Floor, tmp_path: Path) -> None:
    put_lora(tmp_path / "loras" / "qwen" / "mine.safetensors")
    call = called(
        floor, "qwen_image", prompt="a boat", resolution="64x64", system_prompt="You paint.", hires_scale=2,
        additional_loras={"mine.safetensors": 0.3}, lightning_lora_strength_phase_2=0.5,
    )  # fmt: skip
    assert call["system_prompt"] == "You paint."
    assert loras(call) == {LIGHTNING_4.file: "1;0.5", "mine.safetensors": "0.3"}
    assert made(floor).shape == (128, 128, 3)


class WithATwinkle(GenerationOptions):
    """An engine with one knob more."""

    twinkle: int | None = knob("how much it twinkles")


@pytest.mark.parametrize(
    ("task_type", "row"),
    [
        ("qwen_image", {"prompt": "x"}),
        ("z_image_turbo", {"prompt": "x"}),
        ("z_image_turbo_i2i", {"image": "{picture}"}),
        ("image_inpaint", {"image_url": "{picture}", "mask_url": "{picture}"}),
    ],
)
def test_a_knob_that_no_type_knows_reaches_the_engine(
    floor: Floor, tmp_path: Path, task_type: str, row: dict[str, Any]
) -> None:
    photo = picture(tmp_path / "photo.png")
    task = floor.add(task_type, twinkle=5, **{name: value.format(picture=photo) for name, value in row.items()})
    assert floor.work(WithATwinkle) == 0
    assert floor.store.get(task).status is Status.COMPLETE, floor.store.get(task).error_message
    assert floor.engine.calls[0]["twinkle"] == 5


# -- pictures


def test_a_style_and_a_subject_of_one_picture_show_it_once(floor: Floor, tmp_path: Path) -> None:
    photo = picture(tmp_path / "a.png")
    call = called(floor, "qwen_image_style", style_reference_image=photo, subject_reference_image=photo, prompt="x")
    assert (call["image_guide"], "image_refs" in call) == (photo, False)
    call = called(floor, "qwen_image_style", style_reference_image="", subject_reference_image=photo, prompt="x")
    assert call["image_guide"] == photo


def test_references_of_the_row_are_shown_beside_the_picture(floor: Floor, tmp_path: Path) -> None:
    first, second = picture(tmp_path / "a.png"), picture(tmp_path / "b.png", seed=1)
    call = called(floor, "qwen_image_edit", image=first, image_refs=[second], prompt="x")
    assert (call["image_guide"], call["image_refs"]) == (first, [second])


def test_a_resolution_that_a_redrawn_image_does_not_follow_is_noted(floor: Floor, tmp_path: Path) -> None:
    photo = picture(tmp_path / "a.png")
    row = run(floor, "z_image_turbo_i2i", image=photo, resolution="64x64")
    assert "resolution 64x64 was not used: give it as image_size" in (row.result_data or {})["notes"]
    row = run(floor, "z_image_turbo_i2i", image=photo, resolution="64x64", image_size="custom")
    assert (row.result_data or {})["notes"] == ["seed 0"]


def test_a_model_without_a_control_image_is_given_references(floor: Floor, tmp_path: Path) -> None:
    first, second = picture(tmp_path / "a.png"), picture(tmp_path / "b.png", seed=1)
    call = called(floor, "qwen_image_edit", image=first, image_refs=[second], model="kontext", prompt="x")
    assert (call["image_refs"], "image_guide" in call) == ([first, second], False)


def test_a_model_that_sees_no_picture_is_refused(floor: Floor, tmp_path: Path) -> None:
    photo = picture(tmp_path / "a.png")
    row = run(floor, "qwen_image_edit", image=photo, model="qwen_image_2512_20B", prompt="x")
    assert (row.status, row.error_class) == (Status.FAILED, "bad_input")
    assert (row.error_message or "").startswith("model: qwen_image_2512_20B changes no picture")


@pytest.mark.parametrize(
    ("task_type", "row", "field"),
    [
        ("qwen_image_edit", {"image": "nowhere.png"}, "image"),
        ("image_inpaint", {"image_url": "nowhere.png", "mask_url": "{picture}"}, "image_url"),
        ("image_inpaint", {"image_url": "{picture}", "mask_url": "nowhere.png"}, "mask_url"),
        ("qwen_image_style", {"style_reference_image": "nowhere.png"}, "style_reference_image"),
        ("z_image_turbo_i2i", {"image": "nowhere.png"}, "image"),
    ],
)
def test_a_picture_that_is_not_there_fails_the_task(
    floor: Floor, tmp_path: Path, task_type: str, row: dict[str, str], field: str
) -> None:
    photo = picture(tmp_path / "a.png")
    failed = run(floor, task_type, **{name: value.format(picture=photo) for name, value in row.items()})
    assert (failed.status, failed.error_class) == (Status.FAILED, "bad_input")
    assert (failed.error_message or "").startswith(f"{field}: ")
    assert floor.engine.calls == []


@pytest.mark.parametrize(
    ("task_type", "field"), [("qwen_image_edit", "resolution"), ("z_image_turbo_i2i", "image_size")]
)
def test_a_picture_whose_own_shape_no_model_draws_needs_a_size(
    floor: Floor, tmp_path: Path, task_type: str, field: str
) -> None:
    strip = picture(tmp_path / "strip.png", (2000, 20))
    failed = run(floor, task_type, image=strip)
    assert (failed.status, failed.error_class) == (Status.FAILED, "bad_input")
    assert (failed.error_message or "").startswith(f"{field}: is missing, and the image's own s")
    assert "2000x20" in (failed.error_message or "")
    assert called(floor, task_type, image=strip, **{field: "96x64"})["resolution"] == "96x64"


def test_a_picture_is_fetched_from_a_site_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lora_site import serving

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    floor = Floor(tmp_path, FakeOrchestrator(MODELS))
    floor.registry = registry()
    photo = Path(picture(tmp_path / "photo.png"))
    with serving() as site:
        row = run(floor, "z_image_turbo_i2i", image_url=site.add("/photo.png", photo.read_bytes()), prompt="a cat")
    floor.close()
    assert (row.status, row.error_message) == (Status.COMPLETE, None)
    assert floor.leftovers() == []


# -- masks


def test_the_model_is_shown_the_image_with_the_mask_in_pure_green(floor: Floor, tmp_path: Path) -> None:
    size, box = (96, 64), (20, 10, 60, 40)
    photo = picture(tmp_path / "photo.png", size)
    call = called(
        floor, "annotated_image_edit", image_url=photo, mask_url=mask(tmp_path / "m.png", size, box), prompt="x"
    )
    shown, source = read_image(call["image_guide"]), read_image(photo)
    white = np.zeros((64, 96), bool)
    white[box[1] : box[3], box[0] : box[2]] = True
    assert Path(call["image_guide"]).suffix == ".png"
    assert (shown[white] == GREEN).all()
    assert np.array_equal(shown[~white], source[~white])


def test_a_large_image_is_shown_at_1200_pixels(floor: Floor, tmp_path: Path) -> None:
    size = (2400, 1500)
    photo = picture(tmp_path / "photo.png", size)
    call = called(
        floor, "image_inpaint", image_url=photo, mask_url=mask(tmp_path / "m.png", (240, 150), (80, 50, 160, 100))
    )
    shown = read_image(call["image_guide"])
    assert (shown.shape, call["resolution"]) == ((750, 1200, 3), "1200x750")
    green = (shown == GREEN).all(axis=2)
    assert green[255:495, 405:795].all() and not green[:245].any() and not green[:, :395].any()
    small = np.asarray(Image.fromarray(read_image(photo)).resize((1200, 750), Image.Resampling.LANCZOS))
    assert np.array_equal(shown[~green], small[~green])
    # The result is floored to the model's block of pixels: 1200 x 736.
    assert made(floor).shape == (736, 1200, 3)


@pytest.mark.parametrize("images", [1, 3])
def test_inpainting_leaves_every_other_pixel_as_it_was(floor: Floor, tmp_path: Path, images: int) -> None:
    size, box = (96, 64), (20, 10, 60, 40)
    photo = picture(tmp_path / "photo.png", size)
    row = run(
        floor, "image_inpaint", image_url=photo, mask_url=mask(tmp_path / "m.png", size, box), batch_size=images, seed=1
    )
    files = (row.result_data or {}).get("outputs", [row.output_location])
    assert len(files) == images
    source, white = read_image(photo), np.zeros((64, 96), bool)
    white[box[1] : box[3], box[0] : box[2]] = True
    for number, file in enumerate(files):
        drawn = read_image(floor.settings.public_dir / file)
        assert np.array_equal(drawn[~white], source[~white]), number
        assert (drawn[white] != source[white]).any(axis=1).mean() > 0.9, number


def test_a_second_pass_keeps_the_pixels_of_the_original_not_of_what_the_model_was_shown(
    floor: Floor, tmp_path: Path
) -> None:
    """2400 x 1600 is shown at 1200 x 800; a result twice as large has the original's own pixels."""
    size = (2400, 1600)
    photo = picture(tmp_path / "photo.png", size)
    mask_url = mask(tmp_path / "m.png", size, (0, 0, 1200, 1600))
    call = called(floor, "image_inpaint", image_url=photo, mask_url=mask_url, hires_scale=2)
    assert call["resolution"] == "1200x800"
    result = made(floor)
    assert result.shape == (1600, 2400, 3)
    assert np.array_equal(result[:, 1200:], read_image(photo)[:, 1200:])


def test_an_image_that_is_asked_for_in_another_shape_is_shown_in_that_shape(floor: Floor, tmp_path: Path) -> None:
    photo = picture(tmp_path / "photo.png", (96, 64))
    white = mask(tmp_path / "m.png", (96, 64), (0, 0, 48, 64))
    call = called(floor, "image_inpaint", image_url=photo, mask_url=white, resolution="64x64")
    assert read_image(call["image_guide"]).shape == (64, 64, 3)
    stretched = np.asarray(Image.fromarray(read_image(photo)).resize((64, 64), Image.Resampling.LANCZOS))
    assert np.array_equal(made(floor)[:, 33:], stretched[:, 33:])


def test_a_mask_that_marks_nothing_is_refused(floor: Floor, tmp_path: Path) -> None:
    photo = picture(tmp_path / "photo.png")
    row = run(floor, "image_inpaint", image_url=photo, mask_url=mask(tmp_path / "m.png", (96, 64), (0, 0, 0, 0)))
    assert (row.status, row.error_class) == (Status.FAILED, "bad_input")
    assert (row.error_message or "").startswith("mask_url: marks nothing")


# -- LoRAs that a type means


@pytest.mark.parametrize(
    ("task_type", "row", "file"),
    [
        ("image_inpaint", {"image_url": "{photo}", "mask_url": "{photo}"}, INPAINTING),
        ("annotated_image_edit", {"image_url": "{photo}", "mask_url": "{photo}", "prompt": "x"}, ANNOTATION),
        ("qwen_image_style", {"style_reference_image": "{photo}", "style_reference_strength": 1}, STYLE),
        ("qwen_image", {"prompt": "x"}, LIGHTNING_4),
    ],
)
def test_a_task_does_not_run_without_the_lora_that_it_means(
    floor: Floor, tmp_path: Path, task_type: str, row: dict[str, str], file: HubFile
) -> None:
    """The file at hand is damaged, so that nothing need be downloaded to see it."""
    (tmp_path / "loras" / "qwen" / file.file).write_bytes(b"<html>" + bytes(1000))
    photo = picture(tmp_path / "photo.png")
    failed = run(floor, task_type, **{name: str(value).format(photo=photo) for name, value in row.items()})
    assert (failed.status, failed.error_class) == (Status.FAILED, "bad_input")
    assert file.file in (failed.error_message or "")
    assert floor.engine.calls == []
