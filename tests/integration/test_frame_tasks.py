"""extract_frame, rife_interpolate_images and postprocess_video through a whole worker, on the real engine."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from engine_runs import picture
from join_shop import uneven
from PIL import Image
from travel_shop import Workshop, travel
from web_site import site

from headless.orchestrator import WanOrchestrator
from source.store.types import NewTask, Status, Task
from Wan2GP import wgp
from Wan2GP.media import (
    SOUND_RATE,
    mux_audio,
    probe_image,
    probe_video,
    read_frame,
    read_frames,
    read_image,
    read_sound,
    resize,
    write_image,
    write_video,
)

FRAMES, SIZE, RATE = 13, (96, 64), Fraction(30000, 1001)


@pytest.fixture
def shop(tmp_path: Path):
    """Without RIFE's weights, so that it is quick: what is measured here does not hang on them."""
    workshop = Workshop(tmp_path, WanOrchestrator(checkpoints=tmp_path / "ckpts", device="cpu"))
    yield workshop
    workshop.store.close()
    wgp.release_model()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Path:
    """A film of 13 frames with sound."""
    frames = [resize(frame, SIZE) for frame in read_frames(samples / "bbb_416x240_49f.mp4", 10, 10 + FRAMES)]
    silent = write_video(tmp_path_factory.mktemp("film") / "silent.mp4", frames, fps=RATE, crf=8).path
    return mux_audio(silent, samples / "bbb_320x180_audio.mp4", silent.with_name("film.mp4"))


def completed(shop: Workshop, location: str, kind: str = "somewhere") -> str:
    """A row that was completed with that output."""
    task = shop.store.add(NewTask(task_type=kind, params={}))
    [row] = shop.store.claim("somebody", lease_s=60, limit=1)
    shop.store.complete(row.claim, location)
    return task


def all_of(shop: Workshop, task_type: str, *rows: dict[str, Any]) -> list[Task]:
    """The rows as one worker left them."""
    tasks = [shop.add(task_type, params) for params in rows]
    shop.work()
    return [shop.store.get(task) for task in tasks]


def refused(row: Task, field: str) -> str:
    assert (row.status, row.error_class) == (Status.FAILED, "bad_input")
    message = row.error_message or ""
    assert field in message.partition(" ")[0]
    return message


# ---- extract_frame


@pytest.mark.parametrize("index", [0, 7, 12, -1, -13])
def test_a_frame_is_the_decoded_one_bit_for_bit(shop: Workshop, video: Path, index: int) -> None:
    row = shop.run("extract_frame", {"input_video_path": str(video), "frame_index": index})
    made = shop.video(row)
    assert probe_image(made).format == "png"
    assert np.array_equal(read_image(made), read_frame(video, index))
    assert row.result_data == {"frame_index": index % FRAMES, "width": 96, "height": 64}


def test_a_frame_of_what_another_task_made(shop: Workshop, tmp_path: Path) -> None:
    start, end = (str(write_image(tmp_path / f"{n}.png", picture(n))) for n in (1, 2))
    pictures = {"input_image_path1": start, "input_image_path2": end, "frames": 6}
    first = shop.add("rife_interpolate_images", pictures)
    params = {"input_video_task_id": first, "frame_index": -2}
    task = shop.store.add(NewTask(task_type="extract_frame", params=params, dependant_on=(first,)))
    shop.work()
    frame = read_image(shop.video(shop.store.get(task)))
    assert np.array_equal(frame, read_frame(shop.video(shop.store.get(first)), 4))


def test_a_frame_of_a_url(shop: Workshop, video: Path) -> None:
    with site(video.parent) as address:
        made = completed(shop, f"{address}/film.mp4")
        named = [{"input_video_task_id": made}, {"input_video_path": f"{address}/film.mp4"}]
        rows = all_of(shop, "extract_frame", *({"frame_index": 3} | each for each in named))
    for row in rows:
        assert np.array_equal(read_image(shop.video(row)), read_frame(video, 3))


@pytest.mark.parametrize("index", [0, -1])
def test_a_picture_that_another_task_made_is_a_video_of_one_frame(shop: Workshop, tmp_path: Path, index: int) -> None:
    made = completed(shop, str(write_image(tmp_path / "still.png", picture(4))))
    row = shop.run("extract_frame", {"input_video_task_id": made, "frame_index": index})
    assert np.array_equal(read_image(shop.video(row)), picture(4))


@pytest.mark.parametrize("count", [1, 5])
def test_a_gif_is_a_video_of_all_its_frames(shop: Workshop, tmp_path: Path, count: int) -> None:
    shades = [40 * number for number in range(count)]
    frames = [Image.fromarray(np.full((48, 64), shade, np.uint8)) for shade in shades]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:], duration=100)
    made = completed(shop, str(tmp_path / "moving.gif"))
    named = [{"input_video_path": str(tmp_path / "moving.gif")}, {"input_video_task_id": made}]
    for row in all_of(shop, "extract_frame", *({"frame_index": -1} | each for each in named)):
        assert row.result_data is not None and row.result_data["frame_index"] == count - 1
        assert abs(int(read_image(shop.video(row)).mean()) - shades[-1]) <= 2


@pytest.mark.parametrize("index", [13, -14])
def test_a_frame_that_is_not_there_is_refused_with_those_that_are(shop: Workshop, video: Path, index: int) -> None:
    row = shop.run("extract_frame", {"input_video_path": str(video), "frame_index": index})
    assert "13 frames, 0 to 12" in refused(row, "frame_index")


def test_no_video_and_two_videos_are_refused(shop: Workshop, video: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no video")
    made = completed(shop, str(text))
    both = {"input_video_path": str(video), "input_video_task_id": made}
    none, two, no_video = all_of(shop, "extract_frame", {}, both, {"input_video_task_id": made})
    for row in (none, two):
        assert "give one of input_video_task_id and input_video_path" in (row.error_message or "")
    refused(no_video, "input_video_task_id")


# ---- rife_interpolate_images


@pytest.mark.parametrize("frames", [2, 3, 9, 10, 33])
def test_two_pictures_become_a_video_of_exactly_that_many_frames(shop: Workshop, tmp_path: Path, frames: int) -> None:
    start, end = picture(1), picture(2)
    params = {
        "input_image_path1": str(write_image(tmp_path / "a.png", start)),
        "input_image_path2": str(write_image(tmp_path / "b.png", end)),
        "output_path": "/somewhere/else.mp4", "frames": frames, "fps": 12.5,
    }  # fmt: skip
    row = shop.run("rife_interpolate_images", params)
    made = probe_video(shop.video(row))
    assert (made.num_frames, made.fps, made.width, made.height) == (frames, Fraction(25, 2), 64, 48)
    assert cv2.PSNR(read_frame(made.path, 0), start) > 30
    assert cv2.PSNR(read_frame(made.path, -1), end) > 30
    assert made.path.name == f"{row.id}_interpolated.mp4"
    assert not shop.warnings(row)


def test_a_size_of_its_own_and_the_default_rate(shop: Workshop, tmp_path: Path) -> None:
    paths = [str(write_image(tmp_path / f"{n}.png", picture(n, 65, 49))) for n in (1, 2)]
    pair = {"input_image_path1": paths[0], "input_image_path2": paths[1], "frames": 4}
    rows = all_of(shop, "rife_interpolate_images", pair, pair | {"resolution": "128x80"})
    for row, size in zip(rows, [(64, 48), (128, 80)], strict=True):
        made = probe_video(shop.video(row))
        assert (made.num_frames, made.fps, made.width, made.height) == (4, 16, *size)


@pytest.mark.parametrize(("change", "field"), [({"frames": 1}, "frames"), ({"input_image_path2": "no.png"}, "input")])
def test_what_cannot_be_interpolated_is_refused(shop: Workshop, tmp_path: Path, change: dict, field: str) -> None:
    path = str(write_image(tmp_path / "a.png", picture(1)))
    params = {"input_image_path1": path, "input_image_path2": path, "frames": 5}
    refused(shop.run("rife_interpolate_images", params | change), field)


# ---- postprocess_video


def sound_s(video: Path) -> float:
    with av.open(str(video)) as container:
        track = container.streams.audio[0]
        return float(track.duration * track.time_base)


@pytest.mark.parametrize(("name", "times"), [("rife2", 2), ("rife4", 4)])
def test_frames_come_between_and_sound_and_duration_stay(shop: Workshop, video: Path, name: str, times: int) -> None:
    row = shop.run("postprocess_video", {"input_video_path": str(video), "temporal_upsampling": name})
    made = probe_video(shop.video(row))
    assert (made.num_frames, made.fps) == (times * (FRAMES - 1) + 1, RATE * times)
    assert (made.width, made.height, made.codec, made.has_audio) == (*SIZE, "h264", True)
    seconds = float(made.num_frames / made.fps)
    assert 0 <= float(FRAMES / RATE) - seconds < float(1 / RATE)
    assert sound_s(made.path) == pytest.approx(seconds, abs=1024 / SOUND_RATE)
    for index in range(0, FRAMES, 4):
        assert cv2.PSNR(read_frame(made.path, index * times), read_frame(video, index)) > 30
    before, after = (read_sound(path, rate=16_000) for path in (video, made.path))
    length = min(len(before), len(after))
    assert np.corrcoef(before[:length], after[:length])[0, 1] > 0.95
    assert row.result_data is not None
    assert row.result_data["num_frames"] == made.num_frames
    assert row.result_data["thumbnail_url"].endswith(".jpg")


def test_size_and_grain_of_a_finished_video(shop: Workshop, video: Path) -> None:
    params = {"input_video_path": str(video), "spatial_upsampling": "lanczos1.5", "seed": 5}
    grain = params | {"film_grain_intensity": 0.5}
    plain, *grained = map(shop.video, all_of(shop, "postprocess_video", params, grain, grain))
    info = probe_video(grained[0])
    assert (info.num_frames, info.fps, info.width, info.height) == (FRAMES, RATE, 144, 96)
    noise = read_frame(grained[0], 6).astype(int) - read_frame(plain, 6)
    assert noise.std() > 3
    assert np.array_equal(read_frame(grained[0], 6), read_frame(grained[1], 6))


def test_the_video_may_be_what_the_task_before_made(shop: Workshop, video: Path) -> None:
    made = completed(shop, str(video))
    params = {"temporal_upsampling": "rife2"}
    named = shop.add("postprocess_video", params | {"input_video_task_id": made})
    waiting = shop.store.add(NewTask(task_type="postprocess_video", params=params, dependant_on=(made,)))
    shop.work()
    for task in (named, waiting):
        assert probe_video(shop.video(shop.store.get(task))).num_frames == 25


def test_frames_that_are_not_evenly_spaced_are_shown_by_time(shop: Workshop, tmp_path: Path, video: Path) -> None:
    """Frames 8 to 23 of 49 are missing: the frame before them is shown as long as they were."""
    levels = [40 + 4 * n for n in range(49)]
    even = write_video(tmp_path / "even.mp4", [np.full((64, 96, 3), n, np.uint8) for n in levels], fps=24).path
    holes = uneven(tmp_path / "holes.mp4", mux_audio(even, video, tmp_path / "sound.mp4"))
    assert probe_video(holes).num_frames == 33
    params = {"input_video_path": str(holes), "spatial_upsampling": "lanczos2"}
    made = probe_video(shop.video(shop.run("postprocess_video", params)))
    assert float(made.num_frames / made.fps) == pytest.approx(49 / 24, abs=0.07)
    late = read_frame(made.path, round(made.fps * 2) - 2).mean()
    assert late == pytest.approx(levels[46], abs=8)


def test_an_odd_size_loses_a_row(shop: Workshop, tmp_path: Path) -> None:
    write_video(tmp_path / "odd.mkv", [picture(1, 65, 49)] * 3, fps=12, codec="ffv1")
    params = {"input_video_path": str(tmp_path / "odd.mkv"), "temporal_upsampling": "rife2"}
    made = probe_video(shop.video(shop.run("postprocess_video", params)))
    assert (made.num_frames, made.width, made.height) == (5, 64, 48)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "nothing is to be done"),
        ({"film_grain_saturation": 1.0}, "nothing is to be done"),
        ({"spatial_upsampling": "flashvsr2"}, "needs a model that is not there"),
        ({"spatial_upsampling": "seedvr2"}, "needs a model that is not there"),
        ({"temporal_upsampling": "rife8"}, "use rife2 or rife4"),
        ({"film_grain_intensity": 3}, "film_grain_intensity"),
    ],
)
def test_what_cannot_be_done_is_refused(shop: Workshop, video: Path, asked: dict[str, Any], said: str) -> None:
    row = shop.run("postprocess_video", {"input_video_path": str(video)} | asked)
    assert (row.status, row.error_class) == (Status.FAILED, "bad_input")
    assert said in (row.error_message or "")


def test_a_video_is_needed(shop: Workshop) -> None:
    refused(shop.run("postprocess_video", {"temporal_upsampling": "rife2"}), "input_video_path")


# ---- pieces of a video are not post-processed one by one


@pytest.mark.parametrize(
    ("knob", "value"),
    [("temporal_upsampling", "rife2"), ("spatial_upsampling", "lanczos2"), ("film_grain_intensity", 0.2)],
)
def test_a_travel_is_not_post_processed_piece_by_piece(
    tmp_path: Path, images: list[str], knob: str, value: Any
) -> None:
    shop = Workshop(tmp_path)
    row = shop.run("travel_orchestrator", travel(images, **{knob: value}))
    assert "postprocess_video" in refused(row, knob)
    assert not shop.store.children(row.id)
    shop.store.close()


def test_a_travel_that_asks_for_nothing_is_made(tmp_path: Path, images: list[str]) -> None:
    shop = Workshop(tmp_path)
    off = {"temporal_upsampling": "", "spatial_upsampling": "", "film_grain_intensity": 0}
    assert shop.run("travel_orchestrator", travel(images, **off)).status is Status.COMPLETE
    shop.store.close()
