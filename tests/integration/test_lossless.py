"""A run for a caller that encodes its frames itself: FFV1 in mkv, every pixel as the model made it."""

from __future__ import annotations

import json
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import grey_video, picture
from tiny_models import tiny_wan_fantasy

from headless.generation import CancelToken, GenerationTask, Progress
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from headless.orchestrator import WanOrchestrator
from Wan2GP import wgp
from Wan2GP.engine.families import Cancel
from Wan2GP.engine.request import parse_request
from Wan2GP.errors import GenerationCancelled
from Wan2GP.media import probe_video, read_frames, read_image, write_image, write_video

START, END = picture(1), picture(2)
SIZE = {"resolution": "64x48", "video_length": 17, "seed": 1}


@pytest.fixture(autouse=True)
def released() -> Iterator[None]:
    yield
    wgp.release_model()
    wgp.configure(definitions=[])


@pytest.fixture
def engine(tmp_path: Path) -> WanOrchestrator:
    return WanOrchestrator(checkpoints=tmp_path / "ckpts", device="cpu")


@pytest.fixture
def kept(tmp_path: Path) -> dict[str, Any]:
    """Start and end image, and a guide of which frames 4 to 8 are kept."""
    guide = tmp_path / "guide.mkv"
    write_video(guide, [picture(20 + index) for index in range(17)], fps=16, codec="ffv1")
    mask = grey_video(tmp_path / "mask.mkv", [255] * 4 + [0] * 5 + [255] * 8)
    start, end = (write_image(tmp_path / f"{name}.png", image) for name, image in (("start", START), ("end", END)))
    return {"image_start": str(start), "image_end": str(end), "video_guide": str(guide), "video_mask": str(mask)}


def made(engine: WanOrchestrator, folder: Path, model: str = "draft", lossless: bool = True, **knobs: Any) -> Path:
    options = GenerationOptions.parse(SIZE | knobs)
    task = GenerationTask(id="t", model=model, options=options, output_dir=folder, lossless=lossless)
    engine.prepare(task)
    (file,) = engine.generate(task, lambda progress: None, CancelToken()).written()
    return file


def frames_of(file: Path) -> np.ndarray:
    return np.stack(list(read_frames(file)))


def drawn(engine: WanOrchestrator, **knobs: Any) -> np.ndarray:
    """What the model in memory makes, before anything is written."""
    model = wgp.wan_model
    request = parse_request(SIZE | knobs, wgp.definitions()["draft"], type(model).reads, Path("loras"))
    return np.stack(list(model.generate(request, lambda *_: None, Cancel(lambda: False))))


def test_every_pixel_is_what_the_model_made(engine: WanOrchestrator, tmp_path: Path, kept: dict[str, Any]) -> None:
    file = made(engine, tmp_path / "out", **kept)
    assert file.suffix == ".mkv"
    info = probe_video(file)
    assert (info.num_frames, info.width, info.height, float(info.fps), info.codec) == (17, 64, 48, 16, "ffv1")
    frames = frames_of(file)
    assert np.array_equal(frames, drawn(engine, **kept))
    given = list(read_frames(kept["video_guide"]))
    assert np.array_equal(frames[0], START) and np.array_equal(frames[-1], END)
    assert all(np.array_equal(frames[index], given[index]) for index in range(4, 9))


def test_a_chain_loses_nothing_from_piece_to_piece(engine: WanOrchestrator, tmp_path: Path) -> None:
    """Five pieces, each going on from the file of the one before: the first frames are still those that were made."""
    start = str(write_image(tmp_path / "start.png", START))
    file = made(engine, tmp_path / "0", image_start=start, image_end=str(write_image(tmp_path / "end.png", END)))
    first = frames_of(file)
    for number in range(1, 5):
        target = str(write_image(tmp_path / f"{number}.png", picture(30 + number)))
        file = made(engine, tmp_path / str(number), video_source=str(file), image_end=target, svi2pro=1)
    frames = frames_of(file)
    assert len(frames) == 17 + 4 * 13
    assert np.array_equal(frames[:17], first)
    assert np.array_equal(frames[-1], read_image(target))


def test_a_run_that_does_not_ask_for_it_gets_mp4(engine: WanOrchestrator, tmp_path: Path, kept: dict[str, Any]) -> None:
    files = [made(engine, tmp_path / str(n), lossless=lossless, **kept) for n, lossless in enumerate((True, False))]
    assert [(file.suffix, probe_video(file).codec) for file in files] == [(".mkv", "ffv1"), (".mp4", "h264")]
    difference = np.abs(frames_of(files[0]).astype(int) - frames_of(files[1]))
    assert 0 < difference.mean() < 6


def test_a_task_after_lossless_ones_of_any_end_gets_mp4_through_the_queue(
    engine: WanOrchestrator, tmp_path: Path, kept: dict[str, Any]
) -> None:
    stop = CancelToken()

    def task(name: str, lossless: bool) -> GenerationTask:
        options = GenerationOptions.parse(SIZE | kept)
        return GenerationTask(id=name, model="draft", options=options, output_dir=tmp_path / name, lossless=lossless)

    def stopping(progress: Progress) -> None:
        if progress.phase == "decoding":
            stop.cancel()

    with HeadlessTaskQueue(engine) as queue:
        runs = [queue.submit(task("whole", True))]
        stopped = queue.submit(task("stopped", True), on_progress=stopping, cancel=stop)
        runs += [queue.submit(task("plain", False)), queue.submit(task("again", True))]
        files = [run.result(timeout=60).output for run in runs]
        assert isinstance(stopped.exception(timeout=60), GenerationCancelled)
    assert [(file.suffix, probe_video(file).codec) for file in files] == [
        (".mkv", "ffv1"), (".mp4", "h264"), (".mkv", "ffv1")
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.glob("stopped/*")) == []


def test_a_video_with_sound_stays_mp4(tmp_path: Path) -> None:
    weights = tiny_wan_fantasy(tmp_path / "weights")
    module = [[str(weights / "fantasy.safetensors")]]
    row = {"model": {"URLs": [], "modules": module, "loras": [], "devices": [], "source": str(weights)}}
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "fantasy.json").write_text(json.dumps(row), encoding="utf-8")
    engine = WanOrchestrator(checkpoints=weights, definitions=[tmp_path / "rows"], device="cpu")
    knobs = {"image_start": str(write_image(tmp_path / "start.png", START)), "audio_guide": tone(tmp_path / "a.wav")}
    file = made(engine, tmp_path / "out", "fantasy", prompt="a ring", num_inference_steps=1, video_length=5, **knobs)
    assert file.suffix == ".mp4"
    info = probe_video(file)
    assert (info.num_frames, info.codec, info.has_audio) == (5, "h264", True)


def tone(path: Path) -> str:
    """A second of 16 kHz sound."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((np.sin(np.arange(16_000) / 20) * 20_000).astype("<i2").tobytes())
    return str(path)
