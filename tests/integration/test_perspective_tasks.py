"""A picture in a different perspective, through a whole worker on tiny models: rows, control video, result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perspective_runs import checkpoints_with_pose, rows_with_depth
from travel_shop import Workshop

from headless.orchestrator import WanOrchestrator
from source.params.base import parse_params
from source.params.perspective import PerspectiveParams
from source.planning.easing import easing
from source.planning.perspective import perspective_tasks
from source.store.types import Status, Task
from Wan2GP import wgp
from Wan2GP.drawing.skeleton import SEEN_FROM, draw_skeletons, from_json, interpolated_people
from Wan2GP.media import Frame, probe_image, probe_video, read_frame, read_frames, read_image, resize, write_image

SIZE = (64, 64)
ROW = {
    "prompt": "a red circle moving right", "model": "tiny_wan_vace", "resolution": "64x64", "num_inference_steps": 1,
    "guidance_scale": 1, "seed": 5,
}  # fmt: skip


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    checkpoints = checkpoints_with_pose(tmp_path / "ckpts")
    engine = WanOrchestrator(checkpoints=checkpoints, definitions=[rows_with_depth(tmp_path)], device="cpu")
    workshop = Workshop(tmp_path, engine, skip_cleanup=True)
    yield workshop
    workshop.store.close()
    wgp.release_model()
    wgp.configure(definitions=[])


@pytest.fixture
def photos(tmp_path: Path, samples: Path) -> tuple[Path, Path]:
    """Somebody, and the same person further to the right."""
    person = resize(read_image(samples / "astronaut.jpg"), (256, 256))
    moved = np.full_like(person, 200)
    moved[:, 60:] = person[:, :-60]
    return write_image(tmp_path / "here.png", person), write_image(tmp_path / "there.png", moved)


def scratch(shop: Workshop, row: Task) -> Path:
    [folder] = (shop.settings.main_output_dir / row.task_type).glob(f"{row.id}-*")
    return folder


def frames_of(path: Path) -> np.ndarray:
    return np.stack(list(read_frames(path)))


def picture_of(photo: Path) -> Frame:
    return resize(read_image(photo), SIZE)


@pytest.mark.parametrize("curve", ["linear", "ease_in"])
def test_the_pose_moves_from_one_picture_to_the_other(shop: Workshop, photos: tuple[Path, Path], curve: str) -> None:
    here, there = photos
    params = {"input_image_path": str(here), "target_image_path": str(there), "easing": curve}
    row = shop.run("dp_final_gen", ROW | params)
    assert row.status is Status.COMPLETE, row.error_message
    guide, mask = (frames_of(scratch(shop, row) / f"perspective_{name}.mkv") for name in ("guide", "mask"))
    assert guide.shape == mask.shape == (17, 64, 64, 3)
    assert np.array_equal(guide[0], picture_of(here))
    assert not mask[0].any() and (mask[1:] == 255).all()
    people = []
    for answer in sorted(scratch(shop, row).glob("engine/*.txt"), key=lambda path: path.stat().st_mtime_ns):
        found, (width, height) = from_json(json.loads(answer.read_text()))
        people.append([each.scaled(64 / width, 64 / height) for each in found])
    for number in range(1, 17):
        share = easing(curve)(number / 16)
        drawn = draw_skeletons(interpolated_people(people[0], people[1], share), SIZE, SEEN_FROM)
        assert np.array_equal(guide[number], drawn)
    nose = [interpolated_people(*people, easing(curve)(n / 16))[0].joints["nose"].x for n in (0, 8, 16)]
    assert nose[2] - nose[0] == pytest.approx(15, abs=3)
    assert nose[1] - nose[0] == pytest.approx(7.5 if curve == "linear" else 3.75, abs=1.5)


def test_the_result_is_the_last_frame_and_the_whole_video_stands_beside_it(
    shop: Workshop, photos: tuple[Path, Path]
) -> None:
    here, there = photos
    params = {"input_image_path": str(here), "target_image_path": str(there), "output_video_frames": 16}
    row = shop.run("dp_final_gen", ROW | params | {"fps_helpers": 10})
    made = shop.video(row)
    assert (probe_image(made).width, probe_image(made).height, made.name) == (64, 64, f"{row.id}_perspective.png")
    assert row.result_data is not None
    assert (row.result_data["num_frames"], row.result_data["fps"]) == (17, 10)
    output, video = (shop.folder / "public" / each for each in row.result_data["outputs"])
    assert output == made
    info = probe_video(video)
    assert (info.num_frames, info.fps, info.width, info.height, info.codec) == (17, 10, 64, 64, "h264")
    [generated] = scratch(shop, row).glob("engine/*.mkv")
    assert np.array_equal(read_image(made), read_frame(generated, -1))
    kept = read_frame(generated, 0).astype(int) - picture_of(here)
    assert np.abs(kept).mean() < np.abs(read_frame(generated, -1).astype(int) - picture_of(here)).mean()


def test_without_the_mask_the_first_frame_is_a_pose_too(shop: Workshop, photos: tuple[Path, Path]) -> None:
    params = {"input_image_path": str(photos[0]), "target_image_path": str(photos[1])}
    row = shop.run("dp_final_gen", ROW | params | {"use_mask_for_first_frame": False})
    assert row.status is Status.COMPLETE, row.error_message
    guide = frames_of(scratch(shop, row) / "perspective_guide.mkv")
    assert (guide[0] == 0).all(axis=-1).mean() > 0.5
    assert not (scratch(shop, row) / "perspective_mask.mkv").exists()


def test_depth_maps_are_interpolated(shop: Workshop, tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 3, 64, axis=0).repeat(3, axis=2)
    near, far = write_image(tmp_path / "near.png", ramp), write_image(tmp_path / "far.png", ramp // 2)
    params = {
        "perspective_type": "depth", "input_image_path": str(near), "start_depth_path": str(near),
        "end_depth_path": str(far), "output_video_frames": 21, "use_mask_for_first_frame": False,
    }  # fmt: skip
    row = shop.run("dp_final_gen", ROW | params)
    assert row.status is Status.COMPLETE, row.error_message
    guide = frames_of(scratch(shop, row) / "perspective_guide.mkv")
    assert len(guide) == 21
    assert np.array_equal(guide[0], ramp) and np.array_equal(guide[-1], ramp // 2)
    levels = guide.mean(axis=(1, 2, 3))
    assert (np.diff(levels) < 0).all()


@pytest.mark.parametrize("kind", ["pose", "depth"])
def test_a_fan_out_that_is_repeated_adds_nothing_and_each_row_runs_once(
    shop: Workshop, photos: tuple[Path, Path], kind: str
) -> None:
    """The worker died after some children were there: the rows are the same ones, whoever adds them."""
    params = ROW | {"perspective_type": kind, "input_image_path": str(photos[0]), "image_model_name": "tiny_wan_t2v"}
    parent = shop.add("different_perspective_orchestrator", params)
    row = shop.store.get(parent)
    children = perspective_tasks(row, parse_params(PerspectiveParams, params).params, "tiny_wan_t2v")
    shop.store.add_many(children[:3])
    shop.work()
    rows = shop.store.children(parent)
    assert sorted(each.id for each in rows) == sorted(each.id for each in children)
    assert all(each.status is Status.COMPLETE for each in rows), [each.error_message for each in rows]
    completions = [event.name for each in (parent, *rows) for event in _events(shop, each)].count("complete")
    assert completions == 6
    final = shop.store.get(children[-1].id)
    assert shop.store.get(parent).output_location == final.output_location
    assert not [warning for each in rows for warning in shop.warnings(each) if "parameter" in warning]
    picture, extracted = (shop.video(shop.store.get(children[n].id)) for n in (1, 2))
    assert np.array_equal(read_image(picture), read_image(extracted))


def _events(shop: Workshop, row: Task | str) -> list[Any]:
    return shop.store.events(row if isinstance(row, str) else row.id)


def failed(row: Task, error_class: str = "bad_input") -> str:
    assert (row.status, row.error_class) == (Status.FAILED, error_class)
    return row.error_message or ""


def test_a_picture_without_people_is_refused_where_poses_are_wanted(shop: Workshop, samples: Path) -> None:
    cat = str(samples / "chelsea.jpg")
    row = shop.run("dp_final_gen", ROW | {"input_image_path": cat, "target_image_path": cat})
    assert failed(row).startswith("input_image_path: shows no person")


def test_where_nobody_is_found_in_the_other_picture_the_pose_fades_and_it_says_so(
    shop: Workshop, photos: tuple[Path, Path], samples: Path
) -> None:
    params = {"input_image_path": str(photos[0]), "target_image_path": str(samples / "chelsea.jpg")}
    row = shop.run("dp_final_gen", ROW | params)
    assert row.status is Status.COMPLETE, row.error_message
    assert any("nobody was found" in warning for warning in shop.warnings(row))
    guide = frames_of(scratch(shop, row) / "perspective_guide.mkv")
    assert guide[8].any() and not guide[16].any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "tiny_wan_i2v"}, "use a VACE model"),
        ({"image_model_name": "tiny_wan_i2v"}, "image_model_name: tiny_wan_i2v draws no picture from text alone"),
        ({"image_model_name": "rife"}, "draws no picture from text alone"),
        ({"temporal_upsampling": "rife2"}, "postprocess_video"),
        ({"input_image_path": "nowhere.png"}, "input_image_path"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_child(
    shop: Workshop, photos: tuple[Path, Path], change: dict[str, Any], said: str
) -> None:
    params = ROW | {"input_image_path": str(photos[0]), "image_model_name": "tiny_wan_t2v"}
    row = shop.run("different_perspective_orchestrator", params | change)
    assert said in failed(row)
    assert not shop.store.children(row.id)


def test_a_model_that_is_not_here_is_named_before_any_child(tmp_path: Path, photos: tuple[Path, Path]) -> None:
    shop = Workshop(tmp_path, WanOrchestrator(checkpoints=tmp_path / "empty", device="cpu"))
    params = ROW | {"perspective_type": "depth", "input_image_path": str(photos[0])}
    tasks = [
        shop.add("different_perspective_orchestrator", params | {"perspective_type": kind})
        for kind in ("depth", "pose")
    ]
    shop.work()
    depth, pose = (shop.store.get(task) for task in tasks)
    assert "depth_anything_v2_vitl" in failed(depth, "model_unavailable")
    assert "pose_joints" in failed(pose, "model_unavailable")
    shop.store.close()
