"""Drawn structure guidance, measured: which source frame stands where, which way it moves, where its edges are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from structure_videos import inner_colour, moving, number, numbered, numbered_video, texture

from source.errors import InvalidInput
from source.media.guides import GuidePlan, write_guide, write_mask
from source.media.structure import contrasted, fitted, flow_picture, guided_frames, motion, structure_frames
from source.params.structure_guidance import StructureGuidanceConfig
from source.planning.guidance import GuidanceTimeline, SourceVideo, StructureClip, plan_guidance
from Wan2GP.media import Frame, VideoIndex, index_video, read_frames, write_video

SIZE = (64, 48)
GREY = np.full((48, 64, 3), 128, np.uint8)


class Scene:
    """Videos on a timeline, ready to be drawn."""

    def __init__(self, paths: Sequence[Path], videos: Sequence[dict[str, Any]], total: int, **fields: Any) -> None:
        listed = [{"path": str(path)} | video for path, video in zip(paths, videos, strict=True)]
        self.config = StructureGuidanceConfig.from_params({"structure_guidance": {"videos": listed} | fields})
        self.sources: dict[int, VideoIndex] = {index: index_video(path) for index, path in enumerate(paths)}
        files = {index: SourceVideo(each.info.num_frames, each.info.fps) for index, each in self.sources.items()}
        self.timeline: GuidanceTimeline = plan_guidance(self.config, files, total, Fraction(16))

    def draw(self, size: tuple[int, int] = SIZE, **part: Any) -> list[Frame]:
        if self.config.preprocessing == "depth":  # the source itself stands for its depth
            offset, count = part.get("offset", 0), part.get("num_frames", self.timeline.total_frames)
            part["depth"] = guided_frames(self.timeline, self.sources, size, offset, count)
        return list(structure_frames(self.timeline, self.sources, self.config, size, **part))


def test_every_frame_of_a_composite_comes_from_its_source_frame(tmp_path: Path) -> None:
    """Two files, three ranges, both treatments, black where nothing lies."""
    first, second = numbered_video(tmp_path / "a.mkv", 60), numbered_video(tmp_path / "b.mkv", 20, fps=24, first=101)
    videos = [
        {"start_frame": 2, "end_frame": 12},
        {"start_frame": 14, "end_frame": 34, "treatment": "clip"},
        {"start_frame": 34, "end_frame": 36, "source_start_frame": 50, "source_end_frame": 53},
    ]
    scene = Scene([first, second, first], videos, 40, preprocessing="none")
    numbers = [number(frame) for frame in scene.draw()]
    stretched = [1 + int(k * 59 / 10) for k in range(10)]
    once = [101 + -(-k * 3 // 2) for k in range(13)]
    assert once[-1] == 119, "the next one would be frame 20 of 20"
    assert numbers == [0, 0, *stretched, 0, 0, *once, *once[:7], 51, 52, 0, 0, 0, 0]


@pytest.mark.parametrize("preprocessing", ["none", "flow", "canny", "depth"])
def test_a_slice_drawn_alone_equals_those_frames_of_the_whole(samples: Path, preprocessing: str) -> None:
    clip = {"start_frame": 3, "end_frame": 9, "treatment": "clip", "source_start_frame": 44}
    videos = [clip, {"start_frame": 10, "end_frame": 16}]
    scene = Scene([samples / "bbb_416x240_49f.mp4"] * 2, videos, 18, preprocessing=preprocessing, depth_contrast=1.5)
    whole = scene.draw((128, 80))
    assert len(whole) == 18
    for offset, count in ((0, 5), (5, 8), (7, 1), (11, 7)):
        part = scene.draw((128, 80), offset=offset, num_frames=count)
        assert len(part) == count
        for index, frame in enumerate(part):
            assert np.array_equal(frame, whole[offset + index]), (offset, index)


@pytest.mark.parametrize(("preprocessing", "level"), [("none", 0), ("canny", 0), ("flow", 128), ("depth", 128)])
def test_frames_that_nothing_guides_are_neutral(tmp_path: Path, preprocessing: str, level: int) -> None:
    video = numbered_video(tmp_path / "a.mkv", 3)
    drawn = Scene([video], [{"start_frame": 1, "end_frame": 2}], 3, preprocessing=preprocessing).draw()
    assert [np.unique(drawn[index]).tolist() for index in (0, 2)] == [[level], [level]]
    assert np.unique(drawn[1]).tolist() != [level]


def test_other_aspect_ratios_are_cropped_around_the_centre_and_nearly_equal_ones_stretched() -> None:
    wide = np.zeros((48, 128, 3), np.uint8)
    wide[:, 32:96] = (200, 100, 50)
    assert np.array_equal(fitted(wide, SIZE), np.full((48, 64, 3), (200, 100, 50), np.uint8))
    near = np.zeros((480, 644, 3), np.uint8)
    near[:, :8] = near[:, -8:] = 255
    assert fitted(near, SIZE)[0, [0, -1]].min() > 150, "644x480 is 4:3 but for 0.008: nothing is cut off"
    assert fitted(wide, (7, 31)).shape == (31, 7, 3)


#: the wheel of Baker et al. 2007: red to the right, yellow down, blue-green to the left, violet up
DIRECTIONS: dict[tuple[int, int], Callable[[int, int, int], bool]] = {
    (4, 0): lambda r, g, b: r == 255 and abs(g - b) < 8 and g < 160,
    (-4, 0): lambda r, g, b: b == 255 and r < g < 255 and r < 160,
    (0, 4): lambda r, g, b: r == 255 and g > 230 and b < 160,
    (0, -4): lambda r, g, b: b == 255 and g < 160 and g < r < 220,
}


@pytest.mark.parametrize("step", DIRECTIONS)
def test_the_colour_of_the_flow_is_the_direction_of_the_motion(tmp_path: Path, step: tuple[int, int]) -> None:
    drawn = Scene([moving(tmp_path / "a.mkv", *step)], [{}], 3).draw((160, 96))
    for frame in drawn:
        assert DIRECTIONS[step](*inner_colour(frame)), inner_colour(frame)


def test_the_flow_is_measured_and_its_strength_multiplies_it(tmp_path: Path) -> None:
    """The same motion has the same colour in every picture: nothing is normalised by a picture's own largest motion."""
    first, second = (np.roll(texture(), shift, axis=1) for shift in (0, 3))
    assert np.median(motion(first, second)[20:-20, 20:-20].reshape(-1, 2), axis=0) == pytest.approx([3, 0], abs=0.1)
    video = moving(tmp_path / "a.mkv", 2, 0)
    full = np.hypot(96, 160) / 32
    for strength in (0.0, 0.5, 1.0, 2.0):
        colour = inner_colour(Scene([video], [{}], 3, strength=strength).draw((160, 96))[0])
        assert colour == pytest.approx((255, *[255 * (1 - 2 * strength / full)] * 2), abs=6)
    beyond = inner_colour(Scene([video], [{}], 3, strength=5).draw((160, 96))[0])
    assert beyond == pytest.approx((191, 0, 0), abs=6), "darker beyond the full colour"


def test_a_frame_that_is_repeated_does_not_move() -> None:
    still = texture()
    assert (flow_picture(motion(still, still)) == 255).all()
    assert (flow_picture(motion(still, still.copy())) > 250).all()


def test_edges_lie_where_the_sources_are(tmp_path: Path) -> None:
    picture = np.full((96, 160, 3), 30, np.uint8)
    picture[30:70, 50:120] = (200, 180, 220)
    video = write_video(tmp_path / "a.mkv", [picture] * 2, fps=16, codec="ffv1").path
    near = np.zeros((96, 160), np.uint8)
    cv2.rectangle(near, (50, 30), (119, 69), 255, 5)
    for intensity, white in ((1.0, 255), (0.5, 128), (2.0, 255)):
        edges = Scene([video], [{}], 1, preprocessing="canny", canny_intensity=intensity).draw((160, 96))[0]
        assert np.unique(edges).tolist() == [0, white]
        assert not edges[near == 0].any(), "none elsewhere"
        sides = edges[30:70, 48:53].max(axis=1), edges[30:70, 117:122].max(axis=1)
        assert all((side == white).mean() > 0.9 for side in sides)


def test_depth_has_its_contrast_around_mid_grey() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    assert contrasted(ramp, 1) is ramp
    assert (contrasted(ramp, 0) == 128).all()
    steep = contrasted(ramp, 3)[0, :, 0]
    assert steep[[0, 64, 85, 100, 128, 170, 255]].tolist() == [0, 0, 0, 45, 129, 255, 255]


def test_missing_depth_maps_are_refused_by_their_frame(tmp_path: Path) -> None:
    scene = Scene([numbered_video(tmp_path / "a.mkv", 3)], [{"start_frame": 1}], 4, preprocessing="depth")
    drawn = structure_frames(scene.timeline, scene.sources, scene.config, SIZE, depth=iter([numbered(1)]))
    with pytest.raises(InvalidInput, match="frame 2"):
        list(drawn)


def test_drawing_holds_a_few_frames_however_long_the_result_is(tmp_path: Path) -> None:
    def peak(total: int) -> int:
        scene = Scene([numbered_video(tmp_path / f"{total}.mkv", 40)], [{"treatment": "clip"}], total)
        tracemalloc.start()
        for _ in structure_frames(scene.timeline, scene.sources, scene.config, (320, 192)):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    short, long = peak(10), peak(60)
    assert long < short * 1.2, (short, long)


# ---- in the guide of a segment


def test_a_guide_frame_shows_the_timelines_frame_and_not_the_next_one_left(tmp_path: Path) -> None:
    """BUG 26 of the predecessor: guidance was used up in order, so that kept frames shifted it."""
    clip = StructureClip(numbered_video(tmp_path / "structure.mkv", 40, first=0), offset=5)
    kept = {0: GREY, 3: GREY, 8: GREY}
    plan = GuidePlan(9, SIZE, 16, kept, clip)
    frames = list(read_frames(write_guide(plan, tmp_path / "guide.mkv")))
    assert len(frames) == 9
    for index, frame in enumerate(frames):
        if index in kept:
            assert np.array_equal(frame, GREY), index
        else:
            assert np.array_equal(frame, numbered(5 + index)), index
    mask = [int(frame.mean()) for frame in read_frames(write_mask(plan, tmp_path / "mask.mkv"))]
    assert mask == [0 if index in kept else 255 for index in range(9)]


def test_after_the_end_of_its_guidance_a_guide_is_grey(tmp_path: Path) -> None:
    for offset, shown in ((2, 1), (3, 0), (70, 0)):
        clip = StructureClip(numbered_video(tmp_path / f"{offset}.mkv", 3), offset)
        frames = list(read_frames(write_guide(GuidePlan(3, SIZE, 16, {}, clip), tmp_path / f"guide{offset}.mkv")))
        assert [np.array_equal(frame, GREY) for frame in frames] == [False] * shown + [True] * (3 - shown)


def test_red_stays_red_from_the_source_to_the_guide(tmp_path: Path) -> None:
    """BUG 26 of the predecessor: RGB guidance among BGR frames."""
    red = np.full((48, 64, 3), (220, 30, 40), np.uint8)
    video = write_video(tmp_path / "a.mp4", [red] * 3, fps=16, crf=1).path
    drawn = Scene([video], [{}], 3, preprocessing="none").draw()
    structure = write_video(tmp_path / "structure.mp4", drawn, fps=16, crf=12).path
    guide = write_guide(GuidePlan(3, SIZE, 16, {0: red}, StructureClip(structure, 0)), tmp_path / "guide.mkv")
    for frame in read_frames(guide):
        assert frame.mean(axis=(0, 1)) == pytest.approx([220, 30, 40], abs=4)
