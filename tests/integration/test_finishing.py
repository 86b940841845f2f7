"""Steps between frames, size and grain on the way into the file: for every model, for videos and for stills."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from engine_runs import Run, picture, run_engine
from test_lossless import tone
from tiny_models import tiny_wan_fantasy

from Wan2GP import wgp
from Wan2GP.definitions import load_definitions
from Wan2GP.engine.families import Cancel
from Wan2GP.engine.finishing import Finishing
from Wan2GP.engine.interpolation.between import OpticalFlow, Steps
from Wan2GP.engine.request import parse_request
from Wan2GP.errors import EngineError, InvalidInput, Unsupported
from Wan2GP.media import Frame, probe_video, read_image, resize
from Wan2GP.post_processing import PostProcessing

START, END = picture(1), picture(2)
DRAFT = {
    "model_type": "draft", "image_start": START, "image_end": END, "resolution": "64x48", "video_length": 9,
    "seed": 42, "plugin_data": {"lossless": True},
}  # fmt: skip
TINY = {
    "model_type": "tiny_wan_t2v", "prompt": "a red circle moving right", "resolution": "64x64", "video_length": 17,
    "num_inference_steps": 2, "seed": 3,
}  # fmt: skip
GRAIN = {"film_grain_intensity": 0.4, "film_grain_saturation": 0.8}


@pytest.fixture(autouse=True)
def engine(tmp_path: Path) -> Iterator[None]:
    wgp.configure(checkpoints=tmp_path / "ckpts", definitions=[], save_path=tmp_path / "out", device="cpu")
    wgp.image_save_path = str(tmp_path / "out")
    yield
    wgp.release_model()
    wgp.configure(definitions=[])


def frames_of(**values: Any) -> np.ndarray:
    return run_engine(**DRAFT | values).frames()


# ---- steps between frames


@pytest.mark.parametrize(("name", "times"), [("rife2", 2), ("rife4", 4)])
def test_every_frame_stays_and_others_come_between(name: str, times: int) -> None:
    plain = frames_of()
    run = run_engine(**DRAFT, temporal_upsampling=name)
    found, info = run.frames(), probe_video(run.files[0])
    assert len(found) == times * 8 + 1
    assert np.array_equal(found[::times], plain)
    assert info.fps == 16 * times
    between = found[times // 2 :: times]
    for drawn, before, after in zip(between, plain, plain[1:], strict=False):
        assert not np.array_equal(drawn, before) and not np.array_equal(drawn, after)


def test_a_model_of_the_wan_family_makes_twice_the_frames_at_twice_the_rate() -> None:
    run = run_engine(**TINY, temporal_upsampling="rife2")
    info = probe_video(run.files[0])
    assert (info.num_frames, info.fps, info.width, info.height) == (33, 32, 64, 64)
    assert abs(info.num_frames / info.fps - 17 / 16) < 1 / 16
    assert not [note for note in run.data("info") if "ignored" in note]
    assert any(note.startswith("rife draws motion by optical flow") for note in run.data("info"))
    assert [data[0] for data in run.data("progress") if data[1] == "saving"][16] == (17, 17)


def test_the_sound_of_a_run_stays_within_a_frame(tmp_path: Path) -> None:
    weights = tiny_wan_fantasy(tmp_path / "weights")
    module = [[str(weights / "fantasy.safetensors")]]
    row = {"model": {"URLs": [], "modules": module, "loras": [], "devices": [], "source": str(weights)}}
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "fantasy.json").write_text(json.dumps(row), encoding="utf-8")
    wgp.configure(definitions=[tmp_path / "rows"], checkpoints=weights)
    run = run_engine(
        model_type="fantasy", image_start=START, audio_guide=tone(tmp_path / "a.wav"), prompt="a ring",
        resolution="64x48", video_length=9, num_inference_steps=1, temporal_upsampling="rife2",
        spatial_upsampling="lanczos2", **GRAIN,
    )  # fmt: skip
    info = probe_video(run.files[0])
    assert (info.num_frames, info.fps, info.width, info.height, info.has_audio) == (17, 46, 128, 96, True)
    with av.open(str(run.files[0])) as container:
        sound = container.streams.audio[0]
        seconds = float(sound.duration * sound.time_base)
    assert abs(seconds - 17 / 46) < 1 / 23 + 1024 / 16_000


def test_a_video_that_is_continued_is_finished_as_a_whole(tmp_path: Path) -> None:
    first = run_engine(**DRAFT).files[0]
    go_on = DRAFT | {"image_start": None, "video_source": str(first), "image_end": START, "video_length": 5}
    plain = run_engine(**go_on).frames()
    found = run_engine(**go_on, temporal_upsampling="rife2").frames()
    assert len(plain) == 13
    assert np.array_equal(found[::2], plain)


def test_at_a_cut_nothing_is_drawn_between_and_it_says_where(samples: Path) -> None:
    coffee, rocket = (resize(read_image(samples / f"{name}.jpg"), (208, 112)) for name in ("coffee", "rocket"))
    cut = [coffee, coffee, rocket, rocket]
    finish = Finishing(PostProcessing(times=2), Steps(OpticalFlow()))
    found = list(finish.frames(cut, request_for(4, resolution="208x112"), lambda *_: None, Cancel(lambda: False)))
    assert [np.array_equal(found[3], frame) for frame in (cut[1], cut[2])] == [True, False]
    assert finish.remarks == ("the scene changes at frame 4: nothing was drawn in between",)
    assert np.array_equal(found[4], cut[2])


# ---- size and grain


@pytest.mark.parametrize(
    ("name", "size"), [("lanczos1.5", (96, 80)), ("lanczos2", (128, 96)), ("lanczos4", (256, 192))]
)
def test_pictures_are_enlarged_by_lanczos(name: str, size: tuple[int, int]) -> None:
    plain, found = frames_of(), frames_of(spatial_upsampling=name)
    assert found.shape == (9, size[1], size[0], 3)
    assert all(np.array_equal(large, resize(small, size)) for large, small in zip(found, plain, strict=True))


def test_grain_lies_on_what_was_made_and_follows_from_the_seed() -> None:
    plain, found, again = frames_of(), frames_of(**GRAIN), frames_of(**GRAIN)
    noise = found.astype(int) - plain
    assert np.array_equal(found, again)
    assert 2 < noise.std() < 0.4 * 32
    assert abs(noise.mean()) < 0.2
    assert not np.array_equal(noise[0], noise[1])
    assert not np.array_equal(frames_of(**GRAIN, seed=43), found)


def test_everything_at_once_with_grain_last() -> None:
    """Grain is as fine as the pixels of the result, and on the frames between too."""
    values = {"temporal_upsampling": "rife2", "spatial_upsampling": "lanczos2"}
    plain, found = frames_of(**values), frames_of(**values, **GRAIN)
    assert found.shape == plain.shape == (17, 96, 128, 3)
    noise = found.astype(float) - plain
    assert noise.std(axis=(1, 2, 3)).min() > 2
    neighbours = np.corrcoef(noise[:, :, :-1].ravel(), noise[:, :, 1:].ravel())[0, 1]
    assert abs(neighbours) < 0.05


def test_stills_are_enlarged_and_grained_each_its_own_way() -> None:
    values = TINY | {"image_mode": 1, "batch_size": 2}
    plain = run_engine(**values)
    run = run_engine(**values, spatial_upsampling="lanczos2", temporal_upsampling="rife2", **GRAIN)
    assert len(run.files) == 2 and all(file.suffix == ".png" for file in run.files)
    assert "temporal_upsampling has no effect on stills: nothing lies between them" in run.data("info")
    noise = [
        read_image(found).astype(int) - resize(read_image(made), (128, 128))
        for made, found in zip(plain.files, run.files, strict=True)
    ]
    assert all(each.shape == (128, 128, 3) and each.std() > 1 for each in noise)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05


def test_a_video_with_loss_is_finished_too() -> None:
    run = run_engine(**DRAFT | {"plugin_data": None}, spatial_upsampling="lanczos1.5", temporal_upsampling="rife4")
    info = probe_video(run.files[0])
    assert (info.codec, info.num_frames, info.width, info.height, info.fps) == ("h264", 33, 96, 80, 64)


# ---- counts, cancel, memory


def request_for(num_frames: int, **values: Any):
    values = {"image_start": START, "resolution": "64x48", "video_length": num_frames, "seed": 1} | values
    definition = load_definitions()["rife"]
    return parse_request(values, definition, frozenset({"image_start", "seed"}), Path("loras"))


@pytest.mark.parametrize("made", [3, 5])
def test_a_model_that_makes_another_number_is_a_failure(made: int) -> None:
    finish = Finishing(PostProcessing(times=2, grain=0.1), Steps(OpticalFlow()))
    frames = finish.frames([START] * made, request_for(4), lambda *_: None, Cancel(lambda: False))
    with pytest.raises(EngineError, match=f"made {made} frames where 4 were asked for"):
        list(frames)


def test_two_frames_are_in_memory_at_most() -> None:
    taken = 0

    def model() -> Iterator[Frame]:
        nonlocal taken
        for number in range(50):
            taken += 1
            yield START + np.uint8(number)

    finish = Finishing(
        PostProcessing.of({"temporal_upsampling": "rife4", "spatial_upsampling": "lanczos2"}), Steps(OpticalFlow())
    )
    for number, _ in enumerate(finish.frames(model(), request_for(50), lambda *_: None, Cancel(lambda: False))):
        assert taken <= number // 4 + 2
    assert taken == 50


def test_cancel_while_finishing_leaves_no_file_and_no_trace(tmp_path: Path) -> None:
    def stop(command, data, state):
        if command == "progress" and data[1] == "saving" and data[0] == (3, 9):
            state["gen"]["abort"] = True

    run = run_engine(stop, **DRAFT, temporal_upsampling="rife4", **GRAIN)
    assert run.returned and run.files == [] and run.data("error") == []
    assert list((tmp_path / "out").iterdir()) == []
    assert len(frames_of()) == 9


class Died(BaseException):
    """Stands for the death of the process: nothing in the engine answers it."""


def test_a_run_that_is_taken_up_again_ends_as_one_that_was_not_interrupted(tmp_path: Path) -> None:
    def die(command: str, data: Any, state: dict[str, Any]) -> None:
        if command == "progress" and data[1] == "denoising" and data[0] == (2, 3):
            raise Died

    short = TINY | GRAIN | {"video_length": 5, "num_inference_steps": 3, "temporal_upsampling": "rife2"}
    kept = {"lossless": True, "checkpoint": tmp_path / "kept", "checkpoint_interval_s": 0}
    whole = run_engine(**short, plugin_data={"lossless": True}).frames()
    with pytest.raises(Died):
        run_engine(die, **short, plugin_data=kept)
    again = run_engine(**short, plugin_data=kept)
    steps = [data[0][0] for data in again.data("progress") if data[1] == "denoising"]
    assert steps[0] >= 1 and steps[-1] == 3
    assert len(again.frames()) == 9
    assert np.array_equal(again.frames(), whole)


def test_a_call_with_repeats_grains_each_by_its_own_seed() -> None:
    run = run_engine(**DRAFT, **GRAIN, repeat_generation=2)
    first, second = (Run(True, [file]).frames() for file in run.files)
    assert not np.array_equal(first, second)


# ---- what is refused, what is noted


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("spatial_upsampling", "vae2", Unsupported),
        ("spatial_upsampling", "flashvsr2", Unsupported),
        ("spatial_upsampling", "seedvr2", Unsupported),
        ("spatial_upsampling", "lanczos9", InvalidInput),
        ("temporal_upsampling", "rife3", Unsupported),
        ("film_grain_intensity", 2, InvalidInput),
    ],
)
@pytest.mark.parametrize("values", [DRAFT, TINY])
def test_it_is_refused_before_the_model_is_loaded(values: dict, name: str, value: Any, kind: type) -> None:
    with pytest.raises(kind) as caught:
        wgp.check_generation(**values, **{name: value})
    assert caught.value.field == name
    assert wgp.wan_model is None


def test_a_result_too_large_is_refused() -> None:
    with pytest.raises(InvalidInput, match="spatial_upsampling: would make 16384x"):
        wgp.check_generation(**DRAFT | {"resolution": "4096x2048"}, spatial_upsampling="lanczos4")


def test_grain_without_grain_is_noted() -> None:
    notes = wgp.check_generation(**DRAFT, film_grain_saturation=0.9)
    assert "film_grain_saturation has no effect without film_grain_intensity" in notes
    assert not [note for note in wgp.check_generation(**DRAFT, **GRAIN) if "film_grain" in note]


def test_a_model_that_answers_in_words_ignores_it_and_says_so() -> None:
    definition = load_definitions()["qwen2_5_vl_7b"]
    request = parse_request({"prompt": "x", **GRAIN}, definition, frozenset({"prompt", "image_refs"}), Path("loras"))
    assert "ignored by qwen2_5_vl_7b: film_grain_intensity, film_grain_saturation" in request.notes
