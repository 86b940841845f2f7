"""Control pictures as tasks of a worker: out of files, and out of what other tasks made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from control_runs import moving_square
from engine_runs import picture
from travel_shop import Workshop

from headless.orchestrator import WanOrchestrator
from source.errors import InvalidInput
from source.store.types import NewTask, Status, Task
from source.task_registry import registry
from Wan2GP import wgp
from Wan2GP.drawing.edges import edge_picture
from Wan2GP.media import probe_video, read_image, write_image, write_video


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    engine = WanOrchestrator(checkpoints=tmp_path / "ckpts", device="cpu")
    workshop = Workshop(tmp_path, engine)
    yield workshop
    workshop.store.close()
    wgp.release_model()


def made(shop: Workshop, row: Task) -> Path:
    assert row.status is Status.COMPLETE and row.output_location, row.error_message
    return shop.settings.public_dir / row.output_location


def test_a_task_draws_what_another_task_drew(shop: Workshop, tmp_path: Path) -> None:
    """Edges of edges: each step reads the file that the one before it published."""
    image = write_image(tmp_path / "image.png", picture(4, 51, 39))
    first = shop.add("generate_canny", {"image": str(image)})
    second = shop.store.add(
        NewTask(task_type="generate_canny", params={"input_image_task_id": first}, dependant_on=(first,))
    )
    shop.work()
    rows = [shop.store.get(task) for task in (first, second)]
    edges = [read_image(made(shop, row)) for row in rows]
    assert np.array_equal(edges[0], edge_picture(read_image(image)))
    assert np.array_equal(edges[1], edge_picture(edges[0]))
    assert made(shop, rows[0]).name == f"{first}_canny.png"
    data = dict(rows[0].result_data or {})
    assert data.pop("gpu_seconds")
    assert data == {"model": "canny", "width": 51, "height": 39}


def test_a_video_of_another_task_becomes_its_motion(shop: Workshop, tmp_path: Path) -> None:
    clip = moving_square(tmp_path / "clip.mkv", 7, fps=12)
    first = shop.add("generate_scribble", {"video": str(clip)})
    params = {"input_video_task_id": first, "resolution": "48x32"}
    second = shop.store.add(NewTask(task_type="generate_flow", params=params, dependant_on=(first,)))
    shop.work()
    infos = [probe_video(made(shop, shop.store.get(task))) for task in (first, second)]
    assert [(i.num_frames, i.width, i.height, i.fps) for i in infos] == [(7, 96, 64, 12), (7, 48, 32, 12)]
    data = dict(shop.store.get(second).result_data or {})
    assert data.pop("gpu_seconds")
    assert data == {"model": "flow", "width": 48, "height": 32, "num_frames": 7, "fps": 12.0}


@pytest.mark.parametrize(
    ("task_type", "params", "message"),
    [
        ("generate_canny", {}, "input_image_path is missing; give one of"),
        ("generate_flow", {"image": "IMAGE"}, "input_video_path is missing"),
        ("generate_canny", {"image": "IMAGE", "video": "VIDEO"}, "both say what is drawn"),
    ],
)
def test_nothing_to_draw_and_too_much_are_refused_when_the_row_is_read(task_type, params, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        registry().get(task_type).parse(params)


@pytest.mark.parametrize(
    ("task_type", "params", "field"),
    [
        ("generate_canny", {"input_image_path": "VIDEO"}, "input_image_path: "),
        ("generate_canny", {"input_video_path": "IMAGE"}, "input_video_path: "),
        ("generate_canny", {"input_image_task_id": "of-nobody"}, "input_image_task_id: there is no task of-nobody"),
    ],
)
def test_what_cannot_be_drawn_fails_and_names_the_field(
    shop: Workshop, tmp_path: Path, task_type, params, field
) -> None:
    files = {
        "IMAGE": str(write_image(tmp_path / "image.png", picture(1))),
        "VIDEO": str(write_video(tmp_path / "clip.mkv", [picture(1)] * 3, fps=12, codec="ffv1").path),
    }
    row = shop.run(task_type, {name: files.get(value, value) for name, value in params.items()})
    assert row.status is Status.FAILED and (row.error_message or "").startswith(field), row.error_message


@pytest.mark.parametrize(("task_type", "model"), [("openpose", "pose"), ("generate_depth", "depth_anything_v2_vitl")])
def test_missing_weights_fail_the_task_with_the_command_that_fetches_them(
    shop: Workshop, tmp_path: Path, task_type: str, model: str
) -> None:
    image = write_image(tmp_path / "image.png", picture(1))
    row = shop.run(task_type, {"input_image_path": str(image)})
    assert row.status is Status.FAILED and row.error_class == "model_unavailable"
    assert f"python -m Wan2GP.models fetch {model} --ckpts" in (row.error_message or "")


def test_a_letter_whose_model_is_missing_fails_the_generation_before_it_begins(shop: Workshop, tmp_path: Path) -> None:
    clip = moving_square(tmp_path / "clip.mkv", 5)
    asked = {
        "model": "tiny_wan_vace", "prompt": "a red circle", "video_guide": str(clip), "video_prompt_type": "PV",
        "resolution": "64x64", "video_length": 5,
    }  # fmt: skip
    row = shop.run("vace", asked)
    assert row.status is Status.FAILED and row.error_class == "model_unavailable"
    assert "'PV' asks for pose" in (row.error_message or "")
    assert "python -m Wan2GP.models fetch pose --ckpts" in (row.error_message or "")
    assert wgp.transformer_type == "", "no model was loaded for it"
