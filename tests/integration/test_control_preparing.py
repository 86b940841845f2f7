"""A control video drawn by the letters of a generation: what the model is given, and what it makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from control_runs import moving_square, pose_checkpoints, use_engine
from engine_runs import Run, picture, run_engine
from tiny_models import write_definition
from tiny_vision import tiny_depth

from Wan2GP import wgp
from Wan2GP.drawing.edges import edge_picture, scribble_picture
from Wan2GP.engine.beside import Beside
from Wan2GP.engine.control.media import GREY, drawn_mask, guide_frames
from Wan2GP.engine.families import Cancel, Place
from Wan2GP.engine.preparing import prepared
from Wan2GP.engine.request import GenerationRequest, parse_request
from Wan2GP.engine.request_key import request_key
from Wan2GP.engine.wan.media import spans_of, window_of
from Wan2GP.engine.wan.model import Wan
from Wan2GP.errors import GenerationCancelled, ModelUnavailable
from Wan2GP.media import read_frames, read_image, resize, write_video

SIZE, FRAMES = (64, 64), 7
RUN: dict[str, Any] = {
    "model_type": "tiny_wan_vace", "prompt": "a red circle moving right", "resolution": "64x64", "video_length": 5,
    "num_inference_steps": 2, "seed": 3,
}  # fmt: skip


@pytest.fixture(autouse=True)
def engine(tmp_path: Path) -> Iterator[None]:
    use_engine(tmp_path / "ckpts", tmp_path / "out")
    yield
    wgp.release_model()
    wgp.configure(definitions=[])


@pytest.fixture
def guide(tmp_path: Path) -> str:
    """Seven frames, larger than the result, that have nothing in common."""
    frames = [picture(number, 96, 80) for number in range(FRAMES)]
    return str(write_video(tmp_path / "guide.mkv", frames, fps=16, codec="ffv1").path)


@pytest.fixture
def mask(tmp_path: Path) -> str:
    """White, where the model draws, on the left half."""
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[:, :32] = 255
    return str(write_video(tmp_path / "mask.mkv", [frame] * FRAMES, fps=16, codec="ffv1").path)


def beside(folder: Path, **reports: Any) -> Beside:
    report = reports.get("report", lambda *_: None)
    return Beside(wgp.definitions(), Place(folder, "cpu"), report, wgp.release_model)


def request_of(**values: Any) -> GenerationRequest:
    return parse_request(RUN | values, wgp.definitions()["tiny_wan_vace"], Wan.reads, Path("loras"))


def given(request: GenerationRequest, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The control frames and the mask as the model reads them."""
    with prepared(request, beside(folder / "ckpts"), Cancel(lambda: False), folder / "out") as ready:
        assert ready.video_guide is not None and ready.settings == request.settings
        return guide_frames(ready, 0, FRAMES), drawn_mask(ready, 0, FRAMES)


def sized(guide: str) -> list[np.ndarray]:
    return [resize(frame, SIZE) for frame in read_frames(guide)]


def grey(frame: np.ndarray) -> np.ndarray:
    return np.repeat(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


DRAWN = {"E": edge_picture, "S": scribble_picture, "C": grey}


@pytest.mark.parametrize("letter", DRAWN)
def test_each_frame_is_drawn_at_the_size_of_the_result(guide: str, tmp_path: Path, letter: str) -> None:
    shown, drawn = given(request_of(video_guide=guide, video_prompt_type=f"V{letter}"), tmp_path)
    assert np.array_equal(shown, [DRAWN[letter](frame) for frame in sized(guide)])
    assert drawn.min() == 1
    assert not list((tmp_path / "out").iterdir()), "what was drawn goes with the run"


def test_outside_the_mask_the_video_is_kept_exactly(guide: str, mask: str, tmp_path: Path) -> None:
    values = {"video_guide": guide, "video_mask": mask}
    for letters, left in (("EVA", True), ("EVNA", False)):
        shown, drawn = given(request_of(**values, video_prompt_type=letters), tmp_path)
        edges = np.array([edge_picture(frame) for frame in sized(guide)])
        whole = np.array(sized(guide))
        area = drawn.astype(bool)
        assert area[:, :, :32].all() == left and area[:, :, 32:].all() != left
        assert np.array_equal(shown[area], edges[area]) and np.array_equal(shown[~area], whole[~area])
    grown = given(request_of(**values, video_prompt_type="EVA", mask_expand=4), tmp_path)[1]
    assert grown[:, :, :36].all() and not grown[:, :, 36:].any()


@pytest.mark.parametrize(("letter", "draw"), [("W", scribble_picture), ("X", lambda frame: np.full_like(frame, GREY))])
def test_what_a_letter_shows_outside_the_mask_is_control_too(guide, mask, tmp_path: Path, letter, draw) -> None:
    values = {"video_guide": guide, "video_mask": mask}
    for letters, inside in ((f"EVA{letter}", edge_picture), (f"VA{letter}", lambda frame: frame)):
        shown, drawn = given(request_of(**values, video_prompt_type=letters), tmp_path)
        assert drawn.min() == 1, "all of it is drawn over"
        for frame, whole in zip(shown, sized(guide), strict=True):
            assert np.array_equal(frame[:, :32], inside(whole)[:, :32])
            assert np.array_equal(frame[:, 32:], draw(whole)[:, 32:])


def test_depth_and_motion_are_drawn_by_their_models(guide: str, mask: str, tmp_path: Path) -> None:
    weights = tiny_depth(tmp_path / "depth")
    rows = write_definition(tmp_path / "rows", "depth_anything_v2_vitl", "depth_anything_v2", weights)
    wgp.configure(definitions=[rows])
    values = {"video_guide": guide, "video_mask": mask}
    both = given(request_of(**values, video_prompt_type="LVYA"), tmp_path)[0]
    alone = {"resolution": "64x64", "video_length": FRAMES, "plugin_data": {"lossless": True}, "video_guide": guide}
    flow = run_engine(model_type="flow", **alone).frames()
    depth = run_engine(model_type="depth_anything_v2_vitl", **alone).frames()
    assert np.array_equal(both[:, :, :32], flow[:, :, :32])
    assert np.array_equal(both[:, :, 32:], depth[:, :, 32:])
    assert flow.std() > 1 and depth.std() > 1


def test_no_more_of_a_long_video_is_drawn_than_the_result_can_show(tmp_path: Path) -> None:
    clip = moving_square(tmp_path / "long.mkv", 60, right=1)
    counted: list[int] = []
    aside = beside(tmp_path, report=lambda phase, step, total: counted.append(total))
    request = request_of(video_guide=str(clip), video_prompt_type="EV")
    with prepared(request, aside, Cancel(lambda: False), tmp_path / "out") as ready:
        assert ready.video_guide is not None
        assert 5 <= len(list(read_frames(ready.video_guide))) == counted[-1] <= 5 + 5 + 5


@pytest.mark.parametrize(
    "values",
    [
        {"video_length": 29, "sliding_window_size": 17},
        {"video_length": 31, "sliding_window_size": 21, "sliding_window_discard_last_frames": 4},
        {"video_length": 17, "keep_frames_video_guide": "2:4 -1 9"},
        {"video_length": 17, "video_source": "SOURCE", "sliding_window_overlap": 5},
        {"video_length": 17, "video_source": "SOURCE", "sliding_window_overlap": 5, "video_prompt_type": "ETV"},
        {"image_mode": 1, "min_frames_if_references": 9},
    ],
)
def test_every_window_sees_what_it_would_see_of_a_video_drawn_whole(tmp_path: Path, values: dict[str, Any]) -> None:
    clip = moving_square(tmp_path / "long.mkv", 60, right=1)
    edges = (edge_picture(resize(frame, SIZE)) for frame in read_frames(clip))
    whole = str(write_video(tmp_path / "whole.mkv", edges, fps=16, codec="ffv1").path)
    source = str(moving_square(tmp_path / "source.mkv", 12))
    asked = {"video_prompt_type": "EV"} | values | ({"video_source": source} if "video_source" in values else {})
    by_hand = request_of(**asked | {"video_guide": whole, "video_prompt_type": asked["video_prompt_type"][1:]})
    lettered = request_of(**asked, video_guide=str(clip))
    with prepared(lettered, beside(tmp_path), Cancel(lambda: False), tmp_path / "out") as ready:
        spans = spans_of(of_a_still(by_hand))
        assert spans == spans_of(of_a_still(ready))
        for index, span in enumerate(spans):
            seen, wanted = (
                window_of(of_a_still(each), index, span, len(spans), np.zeros((0, 64, 64, 3), np.uint8))
                for each in (ready, by_hand)
            )
            assert np.array_equal(seen.guide, wanted.guide) and np.array_equal(seen.mask, wanted.mask)
            assert wanted.guide is not None and wanted.guide.any()


def of_a_still(request: GenerationRequest) -> GenerationRequest:
    """What the model makes for one still: so many frames, of which the first counts."""
    return replace(request, num_frames=request.frames_of_a_still) if request.image_output else request


def test_a_control_image_is_drawn_too(tmp_path: Path) -> None:
    """Of a model that takes one and knows the letter."""
    image, area = picture(1, 96, 80), np.zeros((64, 64, 3), np.uint8)
    area[:32] = 255
    request = request_of(video_prompt_type="EVA", image_mode=1)
    asked = replace(request, image_guide=image, image_mask=area)
    whole = resize(image, SIZE)
    with prepared(asked, beside(tmp_path), Cancel(lambda: False), tmp_path / "out") as ready:
        assert ready.image_guide is not None and ready.image_mask is area
        assert np.array_equal(ready.image_guide[:32], edge_picture(whole)[:32])
        assert np.array_equal(ready.image_guide[32:], whole[32:])


# ---- in a run of the tiny VACE


def made(**values: Any) -> Run:
    run = run_engine(**RUN | values)
    assert run.returned and not run.data("error")
    return run


def drawn_by_hand(model: str, guide: str, checkpoints: Path, tmp_path: Path) -> str:
    use_engine(checkpoints, tmp_path / "out")
    lossless = {"plugin_data": {"lossless": True}}
    return str(run_engine(model_type=model, video_guide=guide, resolution="64x64", video_length=7, **lossless).files[0])


def test_a_run_with_a_letter_equals_one_that_is_given_the_drawn_video(guide: str, tmp_path: Path) -> None:
    by_hand = drawn_by_hand("canny", guide, tmp_path / "ckpts", tmp_path)
    lettered = made(video_guide=guide, video_prompt_type="EV").frames()
    assert np.array_equal(made(video_guide=guide, video_prompt_type="VE").frames(), lettered)
    assert np.array_equal(made(video_guide=by_hand, video_prompt_type="V").frames(), lettered)
    assert not np.array_equal(made(video_guide=guide, video_prompt_type="V").frames(), lettered)


def test_a_run_follows_the_poses_of_its_control_video(samples: Path, tmp_path: Path) -> None:
    checkpoints = pose_checkpoints()
    frames = [resize(read_image(samples / name), (256, 256)) for name in ("astronaut.jpg", "camera.jpg")]
    clip = str(write_video(tmp_path / "people.mkv", frames * 3 + frames[:1], fps=16, codec="ffv1").path)
    by_hand = drawn_by_hand("pose", clip, checkpoints, tmp_path)
    assert all(frame.any() for frame in read_frames(by_hand))
    lettered = made(video_guide=clip, video_prompt_type="PV").frames()
    assert np.array_equal(made(video_guide=by_hand, video_prompt_type="V").frames(), lettered)


def test_missing_weights_are_told_before_anything_is_loaded(guide: str) -> None:
    asked = RUN | {"video_guide": guide, "video_prompt_type": "PV"}
    with pytest.raises(ModelUnavailable, match=r"'PV' asks for pose, .*python -m Wan2GP.models fetch pose --ckpts"):
        wgp.check_generation(**asked)
    with pytest.raises(ModelUnavailable, match="fetch pose"):
        run_engine(**asked)
    assert wgp.wan_model is None and wgp.transformer_type == ""


def test_a_run_can_be_cancelled_while_its_control_video_is_drawn(guide: str, tmp_path: Path) -> None:
    seen: list[Any] = []

    def stop(command: str, data: Any, state: dict[str, Any]) -> None:
        if command == "progress":
            seen.append((data[1], *data[0]))
            if data[1] == "encoding" and data[0][0] == 2:
                wgp.abort_generation(state)

    run = run_engine(stop, **RUN, video_guide=guide, video_prompt_type="SV")
    assert run.returned and run.files == []
    assert seen == [("encoding", 1, 7), ("encoding", 2, 7)]
    assert wgp.wan_model is None, "the model was not loaded for it"
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(GenerationCancelled):
        given_cancelled(guide, tmp_path)


def given_cancelled(guide: str, tmp_path: Path) -> None:
    request = request_of(video_guide=guide, video_prompt_type="EV")
    with prepared(request, beside(tmp_path), Cancel(lambda: True), tmp_path / "out"):
        raise AssertionError("it was cancelled before")


# ---- taken up again


class Died(BaseException):
    """Stands for the death of the process: nothing in the engine answers it."""


def test_an_interrupted_run_is_taken_up_although_its_control_video_lies_elsewhere(guide: str, tmp_path: Path) -> None:
    asked = {"video_guide": guide, "video_prompt_type": "EV", "num_inference_steps": 4}
    kept = {"plugin_data": {"checkpoint": tmp_path / "kept", "checkpoint_interval_s": 0}}

    def die(command: str, data: Any, state: dict[str, Any]) -> None:
        if command == "progress" and data[1] == "denoising" and data[0][0] == 3:
            raise Died

    with pytest.raises(Died):
        run_engine(die, **RUN | asked | kept)
    again = run_engine(**RUN | asked | kept)
    steps = [data[0][0] for data in again.data("progress") if data[1] == "denoising"]
    assert steps == [3, 4], "what step 3 made was not kept when it was reported"
    assert any("went on after step" in note for note in again.data("info"))
    assert np.array_equal(again.frames(), made(**asked).frames())


def test_the_key_of_a_run_knows_the_given_video_its_letters_and_what_draws_it(guide: str, tmp_path: Path) -> None:
    def key(**values: Any) -> str:
        request = request_of(**{"video_guide": guide, "video_prompt_type": "EV"} | values)
        with prepared(request, beside(tmp_path), Cancel(lambda: False), tmp_path / "out") as ready:
            assert ready.video_guide != request.video_guide
            return request_key(ready)

    other = str(moving_square(tmp_path / "other.mkv", 7))
    copy = tmp_path / "copy.mkv"
    copy.write_bytes(Path(guide).read_bytes())
    assert key() == key() == key(video_guide=str(copy))
    assert len({key(), key(video_prompt_type="SV"), key(video_guide=other)}) == 3
