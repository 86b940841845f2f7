"""What a Wan model is shown is read before its turn: the run makes the same frames, and reads no file any more."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import Run, grey_video, picture, run_engine
from tiny_models import tiny_wan_vace, write_definition

from Wan2GP import wgp
from Wan2GP.engine import ahead
from Wan2GP.engine.ahead import Ahead
from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.wan.media import spans_of, window_of
from Wan2GP.engine.wan.reading import Windows
from Wan2GP.engine.wan.window import Window
from Wan2GP.errors import InvalidMedia
from Wan2GP.media import read_image, write_image

CLIP: dict[str, Any] = {
    "model_type": "tiny", "prompt": "a red circle", "resolution": "64x48", "num_inference_steps": 1,
    "video_length": 17, "seed": 5, "sliding_window_overlap": 5,
}  # fmt: skip
FILES = ("video_guide", "video_mask", "video_source", "vid2vid_init_video")
GIVEN: dict[str, dict[str, Any]] = {
    "a control video": {"video_guide": "guide.mkv", "video_mask": "mask.mkv", "video_prompt_type": "VA"},
    "pictures": {"image_refs": ["a.png", "b.png"], "frames_positions": "9", "video_prompt_type": "FI"},
    "windows": {"video_guide": "guide.mkv", "video_prompt_type": "V", "video_length": 25, "sliding_window_size": 17},
    "a video to go on from": {"video_source": "guide.mkv", "image_prompt_type": "VL"},
    "a video to redraw": {"vid2vid_init_video": "guide.mkv", "vid2vid_init_strength": 0.7},
    "a still": {"image_mode": 1, "batch_size": 2, "image_refs": ["a.png"], "video_prompt_type": "I"},
}


@pytest.fixture(scope="module", autouse=True)
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tiny")
    models = write_definition(folder / "models", "tiny", "vace_1.3B", tiny_wan_vace(folder / "weights"))
    wgp.configure(checkpoints=folder, definitions=[models], save_path=folder / "out", device="cpu")
    yield folder
    wgp.release_model()
    wgp.configure(definitions=[])


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    grey_video(folder / "guide.mkv", [10 * number for number in range(1, 18)])
    grey_video(folder / "mask.mkv", [255, 0] * 9)
    for seed, name in enumerate("ab"):
        write_image(folder / f"{name}.png", picture(seed))
    return folder


def asked(media: Path, given: str, tmp_path: Path) -> dict[str, Any]:
    def at(value: Any) -> Any:
        return [str(media / each) for each in value] if isinstance(value, list) else str(media / value)

    values = {name: at(value) if name in (*FILES, "image_refs") else value for name, value in GIVEN[given].items()}
    checkpoint = {"checkpoint": tmp_path / "kept", "checkpoint_interval_s": 0, "lossless": True}
    return CLIP | values | {"plugin_data": checkpoint}


def frames(run: Run) -> list[np.ndarray]:
    assert not run.data("error"), run.data("error")
    stills = [file for file in run.files if file.suffix == ".png"]
    return [read_image(file) for file in stills] or [run.frames()]


QUICK = "a control video"
EACH = [QUICK, *(pytest.param(given, marks=pytest.mark.slow) for given in GIVEN if given != QUICK)]


@pytest.mark.parametrize("given", EACH)
def test_a_prepared_run_makes_the_same_frames_without_its_files(given: str, media: Path, tmp_path: Path) -> None:
    values = asked(media, given, tmp_path)
    plain = run_engine(**values)
    shutil.rmtree(tmp_path / "kept")
    prepared = wgp.prepare_generation(**values)
    assert prepared.ahead is not None and 0 < prepared.ahead.num_bytes <= prepared.num_bytes
    if given != "windows" and given != "a still":  # those read more when they come to it
        shutil.rmtree(media)
    again = run_engine(**values | {"plugin_data": {"prepared": prepared}})
    assert all(np.array_equal(one, other) for one, other in zip(frames(plain), frames(again), strict=True))


@pytest.mark.slow
def test_a_run_that_is_prepared_goes_on_where_one_that_was_not_stopped(media: Path, tmp_path: Path) -> None:
    """Its request has the same key, by digests that were taken before."""
    values = asked(media, "windows", tmp_path)
    whole = run_engine(**values)
    again = run_engine(**values | {"plugin_data": {"prepared": wgp.prepare_generation(**values)}})
    assert any("was there already" in note for note in again.data("info"))
    assert np.array_equal(whole.frames(), again.frames())


def test_the_next_window_is_read_on_another_thread_while_one_is_made(media: Path, tmp_path: Path) -> None:
    request = wgp.prepare_generation(**asked(media, "windows", tmp_path))
    begun, read_by = threading.Event(), dict[int, str]()

    def read(request: GenerationRequest, index: int, *rest: Any) -> Window:
        read_by[index] = threading.current_thread().name
        if index:
            begun.set()
        return window_of(request, index, *rest)

    with Windows(request, spans := spans_of(request), read) as windows:
        before = np.zeros((5, 48, 64, 3), np.uint8)
        windows.window(0, before)
        assert begun.wait(20), "before anybody asked for it"
        found, wanted = windows.window(1, before), window_of(request, 1, spans[1], 2, before)
    assert (list(read_by), read_by[0], read_by[1][:7]) == ([0, 1], "MainThread", "windows")
    assert all(np.array_equal(getattr(found, name), getattr(wanted, name)) for name in ("guide", "mask", "prefix"))


def test_what_takes_too_much_memory_is_left_to_the_run() -> None:
    read: list[str] = []
    kept = Ahead()
    kept.keep("all", ahead.MOST_BYTES - 1, lambda: read.append("all"))
    kept.keep("more", 2, lambda: read.append("more"))
    assert (read, kept.take("more"), kept.num_bytes) == (["all"], None, ahead.MOST_BYTES - 1)


def test_a_file_that_cannot_be_read_is_refused_before_its_turn(media: Path, tmp_path: Path) -> None:
    values = asked(media, QUICK, tmp_path)
    (media / "guide.mkv").write_bytes(b"no video")
    with pytest.raises(InvalidMedia):
        wgp.prepare_generation(**values)
