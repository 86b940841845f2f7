"""Canny, scribble, flow and pose as models: a control picture for each frame, and one for an image."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from control_runs import moving_square, pose_checkpoints, square, use_engine
from engine_runs import Run, picture, run_engine

from Wan2GP import wgp
from Wan2GP.drawing.edges import edge_picture
from Wan2GP.drawing.motion import flow_picture, motion
from Wan2GP.drawing.skeleton import COLOURS, draw_skeletons, from_json
from Wan2GP.errors import InvalidInput, ModelUnavailable, Unsupported
from Wan2GP.media import probe_video, read_frames, read_image, write_image, write_video

SIZE = (96, 64)
LOSSLESS = {"plugin_data": {"lossless": True}}


@pytest.fixture(autouse=True)
def engine(tmp_path: Path) -> Iterator[None]:
    use_engine(tmp_path / "ckpts", tmp_path / "out")
    yield
    wgp.release_model()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return moving_square(tmp_path / "clip.mkv", 9)


def drawn(model: str, clip: Path, frames: int = 9, **values: Any) -> Run:
    asked = {"video_guide": str(clip), "video_length": frames, "resolution": "96x64", "force_fps": "control"}
    return run_engine(model_type=model, **LOSSLESS | asked | values)


def still(model: str, image: Path, resolution: str = "96x64", **values: Any) -> np.ndarray:
    run = run_engine(model_type=model, image_mode=1, image_guide=str(image), resolution=resolution, **values)
    return read_image(run.files[-1])


@pytest.mark.parametrize("model", ["canny", "scribble", "flow"])
def test_frames_rate_and_size_are_those_asked_for(model: str, clip: Path) -> None:
    whole = probe_video(drawn(model, clip).files[-1])
    assert (whole.num_frames, whole.width, whole.height, whole.fps) == (9, 96, 64, 12)
    part = probe_video(drawn(model, clip, 4, resolution="51x39", force_fps="20", plugin_data=None).files[-1])
    assert (part.num_frames, part.width, part.height, part.fps) == (4, 50, 38, 20), "a video has even sides"
    assert part.path.suffix == ".mp4"


def test_edges_are_those_of_the_frame(clip: Path, tmp_path: Path) -> None:
    frames = list(read_frames(clip))
    assert np.array_equal(drawn("canny", clip).frames(), [edge_picture(frame) for frame in frames])
    image = write_image(tmp_path / "image.png", square(30, 20))
    edges = still("canny", image)
    assert np.unique(edges).tolist() == [0, 255]
    near = cv2.rectangle(np.zeros((64, 96), np.uint8), (30, 20), (53, 43), 255, 5)
    near[20:44, 30:54] = 255
    assert not edges[near == 0].any() and edges[20:44, 28:33].max(axis=1).min() == 255


def test_a_scribble_has_broad_outlines_and_leaves_out_what_is_fine(tmp_path: Path) -> None:
    frame = np.full((240, 320, 3), 60, np.uint8)
    cv2.circle(frame, (160, 120), 70, (220, 210, 200), -1)
    cv2.rectangle(frame, (20, 20), (24, 24), (250, 250, 250), -1)
    shown = still("scribble", write_image(tmp_path / "image.png", frame), "320x240")
    assert np.unique(shown).tolist() == [0, 255]
    away = np.abs(np.hypot(*(np.argwhere(shown[..., 0]) - (120, 160)).T) - 70)
    assert away.max() < 5 and len(away) > 2 * np.pi * 70 * 1.5, "a whole circle, broader than a pixel"
    thin = still("canny", write_image(tmp_path / "again.png", frame), "320x240")
    assert thin[15:30, 15:30].any(), "the edge model draws the dot"


@pytest.mark.parametrize(("right", "down", "strong"), [(3, 0, 0), (0, 3, (0, 1)), (-1, 0, 2)])
def test_the_colour_of_the_flow_is_the_direction_of_the_square(tmp_path: Path, right: int, down: int, strong) -> None:
    frames = [square(40 + right * k, 20 + down * k) for k in range(3)]
    clip = write_video(tmp_path / "clip.mkv", frames, fps=12, codec="ffv1").path
    shown = drawn("flow", clip, 3).frames()[-1]
    inner = np.median(shown[26 + 2 * down : 38 + 2 * down, 46 + 2 * right : 58 + 2 * right].reshape(-1, 3), axis=0)
    channels = strong if isinstance(strong, tuple) else (strong,)
    assert all(inner[channel] > 225 for channel in channels)
    assert inner[[channel for channel in range(3) if channel not in channels]].min() < 200


def test_picture_k_of_the_flow_shows_how_frame_k_came_from_the_one_before(clip: Path) -> None:
    frames, shown = list(read_frames(clip)), drawn("flow", clip).frames()
    for k in range(1, 9):
        assert np.array_equal(shown[k], flow_picture(motion(frames[k - 1], frames[k]))), k
    assert np.array_equal(shown[0], shown[1])
    alone = drawn("flow", clip, 1).frames()
    assert len(alone) == 1 and (alone == 255).all(), "one frame does not move"


def test_a_still_keeps_odd_sides(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.png", picture(3, 51, 39))
    assert still("canny", image, "51x39").shape == (39, 51, 3)


@pytest.mark.parametrize(
    ("model", "values", "error", "field"),
    [
        ("canny", {"video_length": 10}, InvalidInput, "video_length"),
        ("canny", {"video_guide": None}, InvalidInput, "video_guide"),
        ("canny", {"image_mode": 1}, InvalidInput, "video_guide"),
        ("canny", {"image_mode": 1, "video_guide": None}, InvalidInput, "image_guide"),
        ("canny", {"video_guide": None, "image_guide": "IMAGE"}, InvalidInput, "image_guide"),
        (
            "canny",
            {"image_mode": 1, "video_guide": None, "image_guide": "IMAGE", "batch_size": 2},
            Unsupported,
            "batch",
        ),
        ("canny", {"video_prompt_type": "PV"}, Unsupported, "video_prompt_type"),
        ("canny", {"video_mask": "IMAGE"}, Unsupported, "video_mask"),
        ("flow", {"image_mode": 1, "video_guide": None, "image_guide": "IMAGE"}, Unsupported, "image_mode"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(clip, tmp_path: Path, model, values, error, field) -> None:
    write_image(tmp_path / "image.png", picture(1))
    given = {name: str(tmp_path / "image.png") if value == "IMAGE" else value for name, value in values.items()}
    asked = {"video_guide": str(clip), "video_length": 9, "resolution": "96x64"}
    with pytest.raises(error, match=field):
        wgp.check_generation(model_type=model, **asked | given)


def test_a_cancelled_run_stops_at_the_next_frame_and_leaves_no_file(clip: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def stop(command: str, data: Any, state: dict[str, Any]) -> None:
        if command == "progress" and data[1] == "decoding" and data[0][0] == 3:
            seen.append(data[0][0])
            wgp.abort_generation(state)

    asked = {"video_guide": str(clip), "video_length": 9, "resolution": "96x64"}
    run = run_engine(stop, model_type="canny", **asked)
    assert seen == [3] and run.files == []
    assert not any(path.is_file() for path in (tmp_path / "out").rglob("*"))
    steps = [data[0] for data in run.data("progress") if data[1] == "decoding"]
    assert steps == [(1, 9), (2, 9), (3, 9)]


@pytest.mark.parametrize("model", ["canny", "flow"])
def test_drawing_holds_a_few_frames_however_long_the_video_is(model: str, tmp_path: Path) -> None:
    def peak(count: int) -> int:
        noise = np.random.default_rng(0).integers(0, 256, (192, 320, 3), dtype=np.uint8)
        frames = (np.roll(noise, k, axis=1) for k in range(count))
        clip = write_video(tmp_path / f"{count}.mkv", frames, fps=12, codec="ffv1").path
        tracemalloc.start()
        drawn(model, clip, count, resolution="320x192")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(4)
    assert peak(24) < peak(6) + 8 * 192 * 320 * 3


# ---- pose


def test_missing_weights_are_told_with_the_command_before_anything_is_loaded(samples: Path) -> None:
    asked = {"image_mode": 1, "image_guide": str(samples / "astronaut.jpg"), "resolution": "512x512"}
    for model in ("pose", "pose_joints"):
        with pytest.raises(ModelUnavailable, match=rf"python -m Wan2GP.models fetch {model} --ckpts"):
            wgp.check_generation(model_type=model, **asked)


def test_damaged_weights_are_refused(tmp_path: Path, samples: Path) -> None:
    source, folder = pose_checkpoints() / "pose", tmp_path / "ckpts" / "pose"
    folder.mkdir(parents=True)
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelUnavailable, match=r"pose_detection.tflite is not the file of mediapipe.*fetch pose"):
        still("pose", samples / "astronaut.jpg", "512x512")


@pytest.fixture
def pose(tmp_path: Path) -> None:
    use_engine(pose_checkpoints(), tmp_path / "out")


def joints(image: Path) -> dict[str, tuple[float, float, float]]:
    run = run_engine(model_type="pose_joints", image_guide=str(image))
    told = json.loads(run.files[-1].read_text(encoding="utf-8"))
    assert len(told["people"]) == 1 and (told["width"], told["height"]) == (512, 512)
    return {name: tuple(joint) for name, joint in told["people"][0]["joints"].items()}


@pytest.mark.usefixtures("pose")
@pytest.mark.parametrize("name", ["astronaut.jpg", "camera.jpg"])
def test_joints_are_where_a_hand_labelled_them(samples: Path, name: str) -> None:
    labels = json.loads((samples / "joints.json").read_text())[name]
    found = joints(samples / name)
    for joint, tolerance in labels["tolerance_px"].items():
        x, y, confidence = found[joint]
        assert np.hypot(x - labels[joint][0], y - labels[joint][1]) <= tolerance, joint
        assert confidence > 0.9


@pytest.mark.usefixtures("pose")
def test_what_is_drawn_are_the_joints_that_are_told(samples: Path) -> None:
    run = run_engine(model_type="pose_joints", image_guide=str(samples / "astronaut.jpg"))
    people, size = from_json(json.loads(run.files[-1].read_text(encoding="utf-8")))
    shown = still("pose", samples / "astronaut.jpg", "512x512", video_prompt_type="PV")
    assert (shown != draw_skeletons(people, size)).any(axis=2).mean() < 1e-3, "told to a thousandth of a pixel"
    nose = people[0].joints["nose"]
    assert tuple(shown[int(nose.y), int(nose.x)]) == COLOURS["nose"]
    half = still("pose", samples / "astronaut.jpg", "256x256")
    assert tuple(half[int(nose.y / 2), int(nose.x / 2)]) == COLOURS["nose"]


@pytest.mark.usefixtures("pose")
def test_two_people_are_found_and_a_cup_of_coffee_is_nobody(samples: Path, tmp_path: Path) -> None:
    both = np.hstack([read_image(samples / name) for name in ("astronaut.jpg", "camera.jpg")])
    run = run_engine(model_type="pose_joints", image_guide=str(write_image(tmp_path / "both.png", both)))
    people, size = from_json(json.loads(run.files[-1].read_text(encoding="utf-8")))
    noses = sorted((each.joints["nose"].x, each.joints["nose"].y) for each in people)
    assert size == (1024, 512) and len(noses) == 2
    for (x, y), (expected_x, expected_y) in zip(noses, ((225, 117), (512 + 248, 162)), strict=True):
        assert np.hypot(x - expected_x, y - expected_y) < 20
    assert not still("pose", samples / "coffee.jpg", "600x400").any()


@pytest.mark.usefixtures("pose")
def test_each_frame_of_a_video_has_its_own_pose(samples: Path, tmp_path: Path) -> None:
    astronaut, camera, nobody = (read_image(samples / name) for name in ("astronaut.jpg", "camera.jpg", "coffee.jpg"))
    frames = [astronaut, cv2.resize(nobody, (512, 512)), camera, astronaut]
    clip = write_video(tmp_path / "clip.mkv", frames, fps=12, codec="ffv1").path
    shown = drawn("pose", clip, 4, resolution="512x512").frames()
    assert not shown[1].any() and np.array_equal(shown[0], shown[3])
    for k, name in ((0, "astronaut.jpg"), (2, "camera.jpg")):
        assert np.array_equal(shown[k], still("pose", samples / name, "512x512"))
