"""The samples of the image tasks, run by one worker as a user runs it, on tiny random weights, and measured.

The LoRAs of the task types lie in the worker's folder under the names that their addresses stand for; they are made for
the tiny models. Beside the samples, rows that show what a type promises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from box import Box
from PIL import Image
from stock_runs import TinyWeights
from tiny_flux import tiny_flux, tiny_z_image
from tiny_loras import LAYOUTS, factors, linears, write
from tiny_qwen import TINY_QWEN, tiny_transformer

from source.media.composites import GREEN
from source.planning import qwen
from source.store.sqlite import SqliteStore
from source.store.types import NewTask, Status, Task
from source.task_registry import registry
from Wan2GP.media import Frame, probe_image, read_image, write_image

#: all rows run before the first test looks
pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Made:
    """What a row shall make."""

    size: tuple[int, int]
    images: int = 1


MAKES: Mapping[str, Made] = {
    "flux": Made((192, 128), 3),
    "z_image_turbo": Made((192, 128)),
    "z_image_turbo_i2i": Made((192, 128)),
    "qwen_image": Made((192, 128)),
    "qwen_image_2512": Made((192, 128)),
    "qwen_image_hires": Made((192, 128)),
    "qwen_image_edit": Made((192, 128)),
    "qwen_image_style": Made((192, 128)),
    "image_inpaint": Made((64, 64)),
    "annotated_image_edit": Made((64, 64)),
    "wgp": Made((64, 64), 2),
    "standard_wgp_task": Made((64, 64)),
    "single_image": Made((64, 64)),
}
SAMPLES = tuple(MAKES)

TEXT = {"prompt": "a boat", "num_inference_steps": 2, "seed": 1}
#: name -> task type, row, result. {photo} is 240 x 160, {large} 2400 x 1600; their masks are white on the left
ROWS: Mapping[str, tuple[str, dict[str, Any], Made]] = {
    "limited": ("qwen_image", {**TEXT, "resolution": "1600x80"}, Made((1200, 48))),
    "limited in 2512": ("qwen_image_2512", {**TEXT, "resolution": "3200x80"}, Made((2512, 48))),
    "without a limit": ("qwen_image_hires", {**TEXT, "resolution": "1600x80", "hires_steps": 1}, Made((3200, 160))),
    "an image of its own size": ("qwen_image_edit", {**TEXT, "image": "{photo}"}, Made((240, 160))),
    "an edit in two passes": (
        "qwen_image_edit",
        {**TEXT, "image": "{photo}", "resolution": "96x64", "hires_scale": 1.5, "hires_steps": 2},
        Made((144, 96)),
    ),
    "inpainted": (
        "image_inpaint",
        {**TEXT, "image_url": "{photo}", "mask_url": "{mask}", "debug": True},
        Made((240, 160)),
    ),
    "inpainted twice": (
        "image_inpaint",
        {**TEXT, "image_url": "{photo}", "mask_url": "{mask}", "batch_size": 2, "hires_scale": 1.5, "hires_steps": 1},
        Made((352, 240), 2),
    ),
    "annotated": (
        "annotated_image_edit",
        {**TEXT, "image_url": "{large}", "mask_url": "{mask}", "resolution": "96x64", "debug": True},
        Made((96, 64)),
    ),
    "redrawn in its own shape": (
        "z_image_turbo_i2i",
        {"image": "{photo}", "num_inference_steps": 2, "strength": 0.5},
        Made((1248, 832)),
    ),
}  # fmt: skip
EVERY = {name: (name, made) for name, made in MAKES.items()} | {
    name: (task_type, made) for name, (task_type, _, made) in ROWS.items()
}


@dataclass(frozen=True)
class Floor:
    """The finished box, each row, and the pictures that rows speak of."""

    box: Box
    rows: Mapping[str, Task]
    media: Mapping[str, Path]

    def images(self, name: str) -> list[Path]:
        row = self.rows[name]
        assert row.status is Status.COMPLETE, row.error_message
        locations = (row.result_data or {}).get("outputs", [row.output_location])
        assert locations[0] == row.output_location
        return [self.box.folder / "public" / location for location in locations]

    def scratch(self, name: str) -> Path:
        """What the task made on the way, kept because its row says debug."""
        row = self.rows[name]
        [kept] = (self.box.folder / "outputs" / row.task_type).glob(f"{row.id}-{row.claim_number}-*")
        return kept


@pytest.fixture(scope="module")
def floor(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Floor:
    box = Box(root, tmp_path_factory.mktemp("images"))
    media = draw_media(box.folder)
    put_models(box.folder / "finetunes", tmp_path_factory.mktemp)
    put_loras(box.folder / "loras" / "qwen")
    store = SqliteStore(box.database)
    given = {name: (name, box.sample(name)) for name in SAMPLES}
    given |= {name: (task_type, filled(row, media)) for name, (task_type, row, _) in ROWS.items()}
    tasks: dict[str, str] = {}
    for name, (task_type, row) in given.items():
        strict = {each: value for each, value in row.items() if each != "debug"}
        registry().get(task_type).parse(strict, strict=True)
        tasks[name] = store.add(NewTask(task_type=task_type, params=row))
    box.work(timeout_s=500, FINETUNES=str(box.folder / "finetunes"), LORAS_DIR=str(box.folder / "loras"))
    rows = {name: store.get(task) for name, task in tasks.items()}
    store.close()
    return Floor(box, rows, media)


def draw_media(folder: Path) -> dict[str, Path]:
    """Photos of noise, each pixel of which tells where it is from, and a mask."""
    noise = np.random.default_rng(7)
    mask = np.zeros((160, 240, 3), np.uint8)
    mask[:, :120] = 255
    return {
        "photo": write_image(folder / "photo.png", noise.integers(0, 256, (160, 240, 3), np.uint8)),
        "large": write_image(folder / "large.png", noise.integers(0, 256, (1600, 2400, 3), np.uint8)),
        "mask": write_image(folder / "mask.png", mask),
    }


def filled(row: Mapping[str, Any], media: Mapping[str, Path]) -> dict[str, Any]:
    return {
        name: str(media.get(value.strip("{}"), value)) if isinstance(value, str) else value
        for name, value in row.items()
    }


def put_models(rows: Path, folder: Callable[[str], Path]) -> None:
    """The user's own definitions, which lay tiny weights under the real models."""
    weights = TinyWeights({**TINY_QWEN, "flux": tiny_flux, "z_image": tiny_z_image}, folder)
    weights.write_rows(rows, "flux", "z_image", qwen.EDIT, qwen.TEXT_2512)


def put_loras(folder: Path) -> None:
    """The LoRAs of the table, made for the tiny transformer."""
    folder.mkdir(parents=True)
    transformer = tiny_transformer()
    layers = linears(transformer, ("transformer_blocks",))
    files = {each.file for each in vars(qwen).values() if isinstance(each, qwen.HubFile)}
    assert len(files) == 8
    for seed, file in enumerate(sorted(files)):
        write(folder, LAYOUTS["diffusers"](factors(transformer, layers, seed)), file)


def test_every_row_runs_to_its_end(floor: Floor) -> None:
    unfinished = {name: row.error_message for name, row in floor.rows.items() if row.status is not Status.COMPLETE}
    assert unfinished == {}


@pytest.mark.parametrize("name", EVERY)
def test_a_row_makes_its_images_as_png_at_its_size(floor: Floor, name: str) -> None:
    _, wanted = EVERY[name]
    made = [probe_image(file) for file in floor.images(name)]
    assert [(each.format, each.width, each.height) for each in made] == [("png", *wanted.size)] * wanted.images
    assert all(read_image(each.path).std() > 1 for each in made)


@pytest.mark.parametrize("name", [name for name, (_, made) in EVERY.items() if made.images > 1])
def test_no_two_images_of_a_row_are_the_same(floor: Floor, name: str) -> None:
    pictures = [read_image(file) for file in floor.images(name)]
    assert not any(np.array_equal(pictures[0], other) for other in pictures[1:])


def test_the_models_are_the_types_own(floor: Floor) -> None:
    used = {name: (floor.rows[name].result_data or {})["model"] for name in ("qwen_image", "qwen_image_2512", "flux")}
    assert used == {"qwen_image": "qwen_image_edit_20B", "qwen_image_2512": "qwen_image_2512_20B", "flux": "flux"}


def test_a_still_of_a_video_model_is_made_as_one(floor: Floor) -> None:
    """Not as the first frame of its shortest video, which it would note."""
    assert (floor.rows["single_image"].result_data or {})["notes"] == ["seed 42"]


@pytest.mark.parametrize("task_type", qwen.QWEN_TASKS)
def test_the_types_loras_were_merged(floor: Floor, task_type: str) -> None:
    """The engine notes each LoRA that it applied, and to how many weights."""
    row = qwen.QWEN_TASKS[task_type]
    wanted = [row.lightning, *row.further] + ([qwen.STYLE, qwen.SUBJECT] if task_type == "qwen_image_style" else [])
    notes = (floor.rows[task_type].result_data or {})["notes"]
    applied = [note.partition(":")[0] for note in notes if " weights of transformer" in note]
    assert applied == [file.file for file in wanted]


# -- what a mask spares, and what a model is shown


def test_the_sample_of_inpainting_leaves_every_pixel_outside_the_mask(floor: Floor, root: Path) -> None:
    row = floor.box.sample("image_inpaint")
    source, mask = read_image(root / row["image_url"]), read_image(root / row["mask_url"])[..., 0] >= 128
    [made] = map(read_image, floor.images("image_inpaint"))
    assert 0 < mask.sum() < mask.size / 2
    assert np.array_equal(made[~mask], source[~mask])
    assert (made[mask] != source[mask]).any()


def test_the_pixels_of_a_photo_outside_the_mask_are_its_own(floor: Floor) -> None:
    [made], source = map(read_image, floor.images("inpainted")), read_image(floor.media["photo"])
    assert np.array_equal(made[:, 120:], source[:, 120:])
    assert (made[:, :120] != source[:, :120]).any(axis=2).mean() > 0.9


def test_of_several_images_in_two_passes_each_keeps_what_the_mask_spares(floor: Floor) -> None:
    kept = stretched(read_image(floor.media["photo"]), (352, 240))
    for made in map(read_image, floor.images("inpainted twice")):
        assert np.array_equal(made[:, 178:], kept[:, 178:])
        assert (made[:, :174] != kept[:, :174]).any(axis=2).mean() > 0.9


@pytest.mark.parametrize(("name", "media"), [("inpainted", "photo"), ("annotated", "large")])
def test_the_model_was_shown_pure_green_and_else_the_image(floor: Floor, name: str, media: str) -> None:
    """At most 1200 pixels a side: 2400 x 1600 is shown at 1200 x 800."""
    [file] = floor.scratch(name).glob("*composite*")
    shown, source = read_image(file), read_image(floor.media[media])
    size = (min(1200, source.shape[1]), min(800, source.shape[0]))
    green = (shown == GREEN).all(axis=2)
    assert (file.suffix, shown.shape[:2]) == (".png", size[::-1])
    assert green[:, : size[0] // 2 - 4].all() and not green[:, size[0] // 2 + 4 :].any()
    assert np.array_equal(shown[~green], stretched(source, size)[~green])


def stretched(picture: Frame, size: tuple[int, int]) -> Frame:
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def test_nothing_but_what_was_asked_for_is_left(floor: Floor) -> None:
    kept = {floor.scratch(name) for name in ("inpainted", "annotated")}
    outputs = floor.box.folder / "outputs"
    assert {path for path in outputs.glob("*/*") if any(path.rglob("*"))} == kept
