"""The samples of video tasks, run by one worker as a user runs them, on models that need no GPU, and measured.

Other modules here run the samples of other parts; each says in `SAMPLES` which.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sample_runs import SampleRuns
from skimage.metrics import structural_similarity

from source.store.types import Status
from Wan2GP.media import Frame, probe_image, probe_video, read_frame, read_frames, read_image, read_sound, resize

#: all samples run before the first test looks
pytestmark = pytest.mark.timeout(900)

#: the sample whose task a sample depends on
AFTER = {"travel_stitch": "travel_segment"}


@dataclass(frozen=True)
class Video:
    """What a sample shall make."""

    frames: int
    size: tuple[int, int]
    fps: Fraction | int = 16
    sound: bool = False


TINY = (64, 64)
SMALL = (192, 128)
BIRD = (320, 180)

MAKES: Mapping[str, Video] = {
    **dict.fromkeys(
        ("generate_video", "t2v", "t2v_22", "i2v", "i2v_22", "vace", "vace_21", "vace_22"), Video(17, TINY)
    ),
    "travel_orchestrator": Video(98, (384, 256)),
    "travel_orchestrator.photos": Video(99, (384, 256)),
    "travel_orchestrator.tiny": Video(43, TINY, 8),
    "travel_orchestrator.unchained": Video(33, SMALL),
    "travel_orchestrator.i2v": Video(33, SMALL),
    "travel_orchestrator.svi": Video(34, SMALL),
    "travel_orchestrator.continue": Video(31 + 17 + 17, SMALL),
    "travel_orchestrator.consolidated": Video(34, SMALL),
    "travel_orchestrator.per_segment": Video(34, SMALL),
    "travel_orchestrator.references": Video(17, TINY),
    "travel_orchestrator.single_image": Video(17, SMALL),
    "travel_orchestrator.structure": Video(34, SMALL),
    "travel_orchestrator.finished": Video(34, (288, 288), sound=True),
    "travel_segment": Video(33, (384, 256)),
    "travel_stitch": Video(33, (384, 256)),
    "individual_travel_segment": Video(33, (384, 256)),
    "individual_travel_segment.i2v": Video(17, SMALL),
    "individual_travel_segment.svi": Video(21, SMALL),
    "travel_guidance": Video(33, (256, 144)),
    "travel_guidance.canny": Video(17, (256, 144)),
    "travel_guidance.raw": Video(17, (256, 144)),
    "upscale_video": Video(50, (384, 216), 25, sound=True),
    "upscale_video.redraw": Video(17, TINY),
    "create_visualization": Video(49, (1442, 582), 25),
    "create_visualization.grid": Video(49, (1090, 858), 25),
    # All frames of the clips, less those replaced, and the gaps between them; 49 frames at 25 fps are 31 at 16.
    "join_clips_segment": Video(31 + 21 + 32, (320, 176), sound=True),
    "join_clips": Video(31 + 21 + 32, (320, 176), sound=True),
    "join_clips_segment.replace": Video(49 + 50, (320, 176), 25, sound=True),
    "join_clips_orchestrator": Video(31 + 21 + 32 + 21 + 31, (320, 176), sound=True),
    "join_clips_orchestrator.replace": Video(31 + 32, (176, 176), sound=True),
    "join_clips_orchestrator.loop": Video(49 + 21 + 49, (320, 176), 25),
    "join_final_stitch": Video(50, BIRD, 25, sound=True),
    "join_reverse": Video(50, BIRD, 25),
    "edit_video_orchestrator": Video(50 - 9 - 5 + 9 + 9, BIRD, 25, sound=True),
    "edit_video_orchestrator.replace": Video(50 - 9 + 9, BIRD, 25, sound=True),
    "inpaint_frames": Video(50, BIRD, 25, sound=True),
    "inpaint_frames.patch": Video(29, (256, 144), 25),
}


#: the samples that this module runs; the last two make a picture, and texts
SAMPLES = frozenset({*MAKES, "wan_2_2_t2i", "enhance_prompts"})


def samples(root: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((root / "samples" / "tasks").glob("*.json"))}


@pytest.fixture(scope="module")
def floor(root: Path, tmp_path_factory: pytest.TempPathFactory) -> SampleRuns:
    """All samples, finished by one worker; the tests below look at them from many sides.

    Without RIFE's weights, which took most of the time; test_travel.py and test_two_workers.py run with them.
    """
    folder = tmp_path_factory.mktemp("samples")
    return SampleRuns(root, folder, SAMPLES, after=AFTER, timeout_s=800, WAN2GP_CACHE=str(folder / "no_weights"))


def test_every_sample_runs_to_its_end(floor: SampleRuns) -> None:
    unfinished = {name: row.error_message for name, row in floor.rows.items() if row.status is not Status.COMPLETE}
    assert unfinished == {}


@pytest.mark.parametrize("sample", MAKES)
def test_a_sample_makes_the_video_that_it_asks_for(floor: SampleRuns, sample: str) -> None:
    wanted, made = MAKES[sample], probe_video(floor.output(sample))
    assert (made.num_frames, made.width, made.height) == (wanted.frames, *wanted.size)
    assert (made.fps, made.has_audio) == (wanted.fps, wanted.sound)


def test_every_sample_that_makes_a_video_is_measured(floor: SampleRuns) -> None:
    made = {name for name, row in floor.rows.items() if (row.output_location or "").endswith(".mp4")}
    assert made == set(MAKES)


@pytest.mark.parametrize("sample", ["travel_orchestrator", "travel_orchestrator.finished", "join_clips_orchestrator"])
def test_a_finished_video_has_a_poster(floor: SampleRuns, sample: str) -> None:
    """The first frame, published beside the video and named in the orchestrator's own result."""
    shown = read_image(floor.box.folder / "public" / str(floor.result(sample).get("thumbnail_url")))
    assert similarity(shown, read_frame(floor.output(sample), 0)) >= 0.9


def test_one_frame_of_a_video_model_is_a_picture(floor: SampleRuns) -> None:
    made = probe_image(floor.output("wan_2_2_t2i"))
    assert (made.width, made.height) == TINY


# -- travels: each picture stands where the plan says


TRAVELS = {
    "travel_orchestrator": 0.9,
    "travel_orchestrator.photos": 0.9,
    "travel_orchestrator.unchained": 0.9,
    "travel_orchestrator.i2v": 0.9,
    "travel_orchestrator.svi": 0.9,
    "travel_orchestrator.continue": 0.9,
    "travel_orchestrator.consolidated": 0.9,
    "travel_orchestrator.per_segment": 0.9,
    "travel_orchestrator.single_image": 0.9,
    "travel_orchestrator.structure": 0.9,
}


@pytest.mark.parametrize("sample", TRAVELS)
def test_each_picture_of_a_travel_is_at_its_anchor(floor: SampleRuns, root: Path, sample: str) -> None:
    video, anchors = floor.output(sample), floor.result(sample)["anchors"]
    images = samples(root)[sample]["orchestrator_details"]["input_image_paths_resolved"]
    assert len(anchors) == len(images)
    for position, image in zip(anchors, images, strict=True):
        shown = read_frame(video, position)
        wanted = resize(read_image(root / image), (shown.shape[1], shown.shape[0]))
        assert similarity(shown, wanted) >= TRAVELS[sample], (image, position)


def test_the_tiny_model_draws_each_picture_at_its_anchor(floor: SampleRuns, root: Path) -> None:
    """In brightness: its decoder turns the red of the dark ground from 13 to 0, which is all that SSIM sees of a flat
    channel."""
    sample = "travel_orchestrator.tiny"
    images = samples(root)[sample]["orchestrator_details"]["input_image_paths_resolved"]
    for position, image in zip(floor.result(sample)["anchors"], images, strict=True):
        shown, wanted = read_frame(floor.output(sample), position), read_image(root / image)
        assert similarity(shown, wanted, brightness=True) >= 0.8, (image, position)
        assert np.abs(middle_of_red(shown) - middle_of_red(wanted)).max() <= 2.5, (image, position)


def test_a_continued_video_begins_the_travel(floor: SampleRuns, root: Path) -> None:
    """Its frames come first, at the travel's size; only those that the first segment shares are faded."""
    source = samples(root)["travel_orchestrator.continue"]["orchestrator_details"]["continue_from_video_resolved_path"]
    made = list(read_frames(floor.output("travel_orchestrator.continue"), 0, 31 - 6))
    for index in (0, 10, 20, 23):
        nearest = round(index * probe_video(root / source).fps / 16)
        assert similarity(made[index], resize(read_frame(root / source, nearest), SMALL)) >= 0.9, index


def middle_of_red(frame: Frame) -> np.ndarray:
    """(y, x) of the middle of what is red."""
    return np.argwhere(frame[..., 0].astype(int) - frame[..., 1] > 100).mean(axis=0)


def similarity(first: Frame, second: Frame, *, brightness: bool = False) -> float:
    """SSIM, the mean of three channels or that of brightness alone."""
    if brightness:
        first, second = (np.asarray(Image.fromarray(frame).convert("L")) for frame in (first, second))
        return float(structural_similarity(first, second))
    return float(structural_similarity(first, second, channel_axis=2))


# -- joins, edits, inpainting: what was given stays


BIRD_CLIP = "samples/bbb_320x180_keyframes.mp4"


def test_inpainting_leaves_all_other_frames_as_they_were(floor: SampleRuns, root: Path) -> None:
    """Frames 20 to 32 of 50 are new. The GOPs 0-9 and 40-49 are the source's, value for value.

    All others were encoded once, the new ones too: what was written as the transition is copied from it.
    """
    source, made = (list(read_frames(path)) for path in (root / BIRD_CLIP, floor.output("inpaint_frames")))
    assert len(made) == len(source) == 50
    assert [k for k in [*range(10), *range(40, 50)] if not np.array_equal(source[k], made[k])] == []
    assert floor.result("inpaint_frames")["copied_frames"] >= 10 + 13 + 10
    kept = [index for index in range(50) if not 20 <= index < 33]
    assert min(similarity(source[index], made[index]) for index in kept) >= 0.93
    assert max(similarity(source[index], made[index]) for index in range(22, 31)) < 1


def test_an_edit_keeps_what_lies_outside_its_portions(floor: SampleRuns, root: Path) -> None:
    """Frames 0-11, 21-31 and 37-49 of 50 stay; nine new ones stand for each portion.

    Before the first fade, over 8-11, and from 40 on, where the last one ends, all is as it was, value for value.
    """
    source, made = (list(read_frames(path)) for path in (root / BIRD_CLIP, floor.output("edit_video_orchestrator")))
    places = [*zip(range(12), range(12), strict=True), *zip(range(21, 32), range(21, 32), strict=True)]
    places += zip(range(37, 50), range(41, 54), strict=True)
    assert min(similarity(source[before], made[after]) for before, after in places) >= 0.93
    untouched = [(before, after) for before, after in places if before < 8 or before >= 40]
    assert len(untouched) == 18
    assert [before for before, after in untouched if not np.array_equal(source[before], made[after])] == []


@pytest.mark.parametrize("sample", ["inpaint_frames", "join_final_stitch"])
def test_sound_stays_in_sync(floor: SampleRuns, root: Path, sample: str) -> None:
    """Within one frame, at the beginning and at the end."""
    for at_s in (0.1, 1.4):
        assert abs(sound_shift(floor.output(sample), root / BIRD_CLIP, at_s, at_s, 0.5)) <= 1 / 25


def test_the_sound_of_a_joined_clip_stands_at_its_pictures(floor: SampleRuns, root: Path) -> None:
    """The clip with sound is the second; it begins after the first clip and the gap, at 16 fps."""
    begins_s = (31 + 21) / 16
    shift = sound_shift(floor.output("join_clips_orchestrator"), root / BIRD_CLIP, begins_s + 0.6, 0.6, 0.8)
    assert abs(shift) <= 1 / 16


def sound_shift(made: Path, source: Path, made_at_s: float, source_at_s: float, length_s: float) -> float:
    """By how many seconds the sound at `made_at_s` lags behind that of the source at `source_at_s`."""
    rate = 8000
    ours = read_sound(made, rate=rate, start_s=made_at_s, stop_s=made_at_s + length_s)
    theirs = read_sound(source, rate=rate, start_s=source_at_s, stop_s=source_at_s + length_s)
    size = min(len(ours), len(theirs))
    ours, theirs = ours[:size] - ours[:size].mean(), theirs[:size] - theirs[:size].mean()
    correlation = np.fft.irfft(np.fft.rfft(ours, 2 * size) * np.conj(np.fft.rfft(theirs, 2 * size)))
    lag = int(np.argmax(correlation))
    return (lag - 2 * size if lag > size else lag) / rate
