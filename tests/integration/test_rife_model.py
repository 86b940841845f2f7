"""RIFE as a model: exact counts between two pictures and over a video, and how near its frames are to the true ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from engine_runs import picture, run_engine
from fetched import fetched_rife

from headless.generation import CancelToken, GenerationTask
from headless.options import GenerationOptions
from headless.orchestrator import WanOrchestrator
from Wan2GP import wgp
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.media import probe_video, read_frames, read_image, resize, write_image, write_video

START, END = picture(1), picture(2)
PAIR = {"model_type": "rife", "image_start": START, "image_end": END, "resolution": "64x48"}
LOSSLESS = {"plugin_data": {"lossless": True}}


@pytest.fixture(autouse=True)
def engine(tmp_path: Path) -> Iterator[None]:
    """Without weights: what is asserted of counts and places does not hang on them."""
    wgp.configure(checkpoints=tmp_path / "ckpts", definitions=[], save_path=tmp_path / "out", device="cpu")
    yield
    wgp.release_model()


@pytest.fixture
def weights(root: Path) -> None:
    fetched_rife()
    wgp.configure(checkpoints=root / "ckpts")


def sliding(path: Path, count: int) -> Path:
    """A lossless video of a picture that slides by a pixel a frame."""
    wide = picture(3, 64 + count)
    write_video(path, (wide[:, n : n + 64] for n in range(count)), fps=12, codec="ffv1")
    return path


@pytest.mark.parametrize("frames", range(2, 34))
def test_between_two_pictures_the_count_is_exact_and_the_ends_are_they(frames: int) -> None:
    found = run_engine(**PAIR, **LOSSLESS, video_length=frames).frames()
    assert len(found) == frames
    assert np.array_equal(found[0], START) and np.array_equal(found[-1], END)


def test_it_says_how_it_draws_without_weights() -> None:
    run = run_engine(**PAIR, video_length=4)
    assert any("optical flow" in note and "fetch rife" in note for note in run.data("info"))
    assert [data for data in run.data("progress") if data[1] == "decoding"][-1][0] == (4, 4)


def test_pictures_of_different_scenes_are_dissolved_and_it_says_so(samples: Path) -> None:
    photos = {"image_start": str(samples / "coffee.jpg"), "image_end": str(samples / "rocket.jpg")}
    run = run_engine(**PAIR | photos, video_length=6)
    assert "frames 1-4: the pictures show different scenes; dissolved" in run.data("info")


@pytest.mark.parametrize(("there", "wanted"), [(9, 17), (9, 33), (9, 9), (9, 5), (9, 2), (9, 1), (5, 12), (1, 1)])
def test_over_a_video_the_count_is_exact_and_frames_on_a_given_one_are_it(
    tmp_path: Path, there: int, wanted: int
) -> None:
    guide = sliding(tmp_path / "guide.mkv", there)
    run = run_engine(
        model_type="rife", video_guide=str(guide), resolution="64x48", video_length=wanted, force_fps="control",
        **LOSSLESS,
    )  # fmt: skip
    given, found = list(read_frames(guide)), run.frames()
    assert len(found) == wanted
    assert probe_video(run.files[0]).fps == 12
    steps = max(wanted - 1, 1)
    exact = [number for number in range(wanted) if number * (there - 1) % steps == 0]
    assert all(np.array_equal(found[n], given[n * (there - 1) // steps]) for n in exact)
    assert exact[0] == 0 and exact[-1] == wanted - 1


def test_at_a_cut_nothing_is_mixed(tmp_path: Path, samples: Path) -> None:
    coffee, rocket = (resize(read_image(samples / f"{name}.jpg"), (216, 112)) for name in ("coffee", "rocket"))
    scenes = [coffee[:, :208], coffee[:, 4:212], rocket[:, :208], rocket[:, :208]]
    write_video(tmp_path / "cut.mkv", scenes, fps=12, codec="ffv1")
    values = {"model_type": "rife", "video_guide": str(tmp_path / "cut.mkv"), "resolution": "208x112"}
    found = run_engine(**values, **LOSSLESS, video_length=7).frames()
    assert np.array_equal(found[3], scenes[1])
    assert not np.array_equal(found[1], scenes[0]) and not np.array_equal(found[1], scenes[1])


def test_an_odd_side_loses_a_row_and_nothing_is_stretched(tmp_path: Path) -> None:
    write_video(tmp_path / "odd.mkv", [picture(4, 63, 47)] * 3, fps=12, codec="ffv1")
    values = {"model_type": "rife", "video_guide": str(tmp_path / "odd.mkv"), "resolution": "63x47"}
    found = run_engine(**values, **LOSSLESS, video_length=3).frames()
    assert np.array_equal(found[0], picture(4, 63, 47)[:46, :62])


@pytest.mark.parametrize("model", ["rife", "flow"])
def test_held_out_frames_are_nearer_than_a_dissolve_or_a_repeat(
    model: str, samples: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Every second frame of a film is left out and drawn anew."""
    if model == "rife":
        request.getfixturevalue("weights")
    truth = list(read_frames(samples / "bbb_416x240_49f.mp4", 8, 17))
    write_video(tmp_path / "half.mkv", truth[::2], fps=12, codec="ffv1")
    found = run_engine(
        model_type="rife", video_guide=str(tmp_path / "half.mkv"), resolution="416x240", video_length=9, **LOSSLESS
    ).frames()
    held_out = range(1, 9, 2)
    drawn = np.mean([cv2.PSNR(found[n], truth[n]) for n in held_out])
    middles = [cv2.addWeighted(truth[n - 1], 0.5, truth[n + 1], 0.5, 0) for n in held_out]
    dissolved = np.mean([cv2.PSNR(middle, truth[n]) for middle, n in zip(middles, held_out, strict=True)])
    repeated = np.mean([cv2.PSNR(truth[n - 1], truth[n]) for n in held_out])
    assert drawn > dissolved + 4
    assert dissolved > repeated


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"image_end": None}, "image_end"),
        ({"image_start": None}, "image_start"),
        ({"video_length": 1}, "video_length"),
        ({"image_mode": 1}, "image_mode"),
        ({"video_prompt_type": "VD"}, "video_prompt_type"),
        ({"video_guide": "guide"}, "image_start"),
        ({"video_guide": "one", "image_start": None, "image_end": None}, "video_guide"),
        ({"image_refs": [START]}, "image_refs"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(tmp_path: Path, values: dict, field: str) -> None:
    guides = {"guide": str(sliding(tmp_path / "g.mkv", 5)), "one": str(sliding(tmp_path / "o.mkv", 1))}
    values = values | ({"video_guide": guides[values["video_guide"]]} if "video_guide" in values else {})
    with pytest.raises((InvalidInput, Unsupported)) as caught:
        wgp.check_generation(**PAIR | {"video_length": 5} | values)
    assert caught.value.field == field


def test_cancel_stops_it_and_leaves_no_file(tmp_path: Path) -> None:
    def stop(command, data, state):
        if command == "progress" and data[0] == (3, 33):
            state["gen"]["abort"] = True

    run = run_engine(stop, **PAIR, video_length=33)
    assert run.returned and run.files == []
    assert list((tmp_path / "out").iterdir()) == []


def test_it_runs_through_the_queue_as_any_model_does(tmp_path: Path) -> None:
    pictures = {name: str(write_image(tmp_path / f"{name}.png", image)) for name, image in (("a", START), ("b", END))}
    options = GenerationOptions(
        image_start=pictures["a"], image_end=pictures["b"], resolution="64x48", video_length=6, force_fps="10"
    )
    engine = WanOrchestrator(checkpoints=tmp_path / "ckpts", device="cpu")
    task = GenerationTask(id="t", model="rife", options=options, output_dir=tmp_path / "out")
    engine.prepare(task)
    (file,) = engine.generate(task, lambda progress: None, CancelToken()).written()
    made = probe_video(file)
    assert (made.num_frames, made.fps, made.width, made.height) == (6, 10, 64, 48)
