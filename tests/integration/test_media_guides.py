"""Guide and mask videos, context frames, contact sheets."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from source.errors import InvalidInput, InvalidMedia
from source.media.analysis import contact_sheet, debug_video_analysis, difference_profile
from source.media.clips import Clip
from source.media.guides import ContextTreatment, GuidePlan, write_guide, write_mask
from source.predecessor import Predecessor
from Wan2GP.media import Frame, probe_video, read_frames, read_image, write_video

SIZE = (64, 48)


def noise(seed: int, size: tuple[int, int] = SIZE) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def flat(*colour: int) -> Frame:
    return np.full((SIZE[1], SIZE[0], 3), colour, dtype=np.uint8)


def plan(kept: dict[int, Frame], num_frames: int = 9) -> GuidePlan:
    return GuidePlan(num_frames, SIZE, 16, kept)


def test_the_guide_shows_kept_frames_exactly_and_grey_elsewhere(tmp_path: Path) -> None:
    kept = {0: noise(0), 1: noise(1), 8: noise(8)}
    path = write_guide(plan(kept), tmp_path / "guide.mkv")
    frames = list(read_frames(path))
    assert len(frames) == 9
    for index, frame in enumerate(frames):
        assert np.array_equal(frame, kept.get(index, flat(128, 128, 128))), index


def test_the_mask_is_black_where_the_guide_is_kept(tmp_path: Path) -> None:
    path = write_mask(plan({0: noise(0), 3: noise(3), 8: noise(8)}), tmp_path / "mask.mkv")
    values = [np.unique(frame).tolist() for frame in read_frames(path)]
    assert values == [[0] if index in (0, 3, 8) else [255] for index in range(9)]


def test_guide_and_mask_agree_in_length_rate_and_size(tmp_path: Path) -> None:
    made = plan({0: noise(0)}, num_frames=13)
    infos = [probe_video(write(made, tmp_path / f"{write.__name__}.mkv")) for write in (write_guide, write_mask)]
    for info in infos:
        assert (info.num_frames, info.fps, info.width, info.height, info.codec) == (13, Fraction(16), *SIZE, "ffv1")


def test_pictures_of_another_size_are_stretched(tmp_path: Path) -> None:
    picture = np.zeros((96, 256, 3), np.uint8)
    picture[:, 128:] = 255
    frame = next(read_frames(write_guide(plan({0: picture}), tmp_path / "guide.mkv")))
    assert (frame[:, :31] == 0).all() and (frame[:, 33:] == 255).all()


def test_a_plan_cannot_keep_frames_it_does_not_have() -> None:
    with pytest.raises(InvalidInput, match=r"9 frames cannot keep the frames \[-1, 9\]"):
        plan({-1: noise(0), 9: noise(1), 4: noise(2)})


def ramp(path: Path, num_frames: int) -> Path:
    write_video(path, (flat(20 + 4 * i, 100, 200 - 4 * i) for i in range(num_frames)), fps=16, crf=1)
    return path


def test_a_tail_is_the_last_frames_in_order(tmp_path: Path) -> None:
    tail = Predecessor(Clip.open(ramp(tmp_path / "a.mp4", 30))).tail(12, SIZE)
    assert [frame[..., 0].mean() for frame in tail] == pytest.approx([20 + 4 * i for i in range(18, 30)], abs=2)


def test_a_tail_is_stretched_without_its_banner_and_treated(tmp_path: Path) -> None:
    (frame,) = Predecessor(Clip.open(ramp(tmp_path / "a.mp4", 5)), banner_height=8).tail(1, (32, 16))
    treated = ContextTreatment(brightness=0.5).apply(frame)
    assert treated.shape == (16, 32, 3)
    assert treated.mean(axis=(0, 1)) == pytest.approx([36 * 1.5, 150, 255], abs=4)


def test_a_predecessor_that_is_too_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidMedia, match=r"a\.mp4 has 5 frames, but 6 are needed"):
        Predecessor(Clip.open(ramp(tmp_path / "a.mp4", 5))).tail(6, SIZE)


def test_a_neutral_treatment_touches_nothing() -> None:
    frame = noise(1)
    assert ContextTreatment().apply(frame) is frame
    assert ContextTreatment(strength_adjustment=0.5).apply(frame) is frame, "strength never exceeds 1"


@pytest.mark.parametrize(("adjustment", "strength"), [(-0.25, 0.75), (-1.0, 0.0), (-3.0, 0.0)])
def test_strength_mixes_with_grey(adjustment: float, strength: float) -> None:
    out = ContextTreatment(strength_adjustment=adjustment).apply(flat(228, 28, 128))
    expected = [128 + 100 * strength, 128 - 100 * strength, 128]
    assert out[0, 0] == pytest.approx(expected, abs=1)


def test_desaturation_moves_towards_the_frames_own_grey() -> None:
    frame = flat(200, 100, 50)
    grey = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    assert ContextTreatment(desaturate=1.0).apply(frame)[0, 0] == pytest.approx([grey] * 3, abs=1)
    half = [(value + grey) / 2 for value in (200, 100, 50)]
    assert ContextTreatment(desaturate=0.5).apply(frame)[0, 0] == pytest.approx(half, abs=1)


@pytest.mark.parametrize(
    ("adjustment", "expected"), [(0.2, [120, 240, 255]), (-0.5, [50, 100, 120]), (-2.0, [0, 0, 0])]
)
def test_positive_brightness_is_brighter(adjustment: float, expected: list[int]) -> None:
    out = ContextTreatment(brightness=adjustment).apply(flat(100, 200, 240))
    assert out[0, 0].tolist() == expected


def test_analysis_returns_and_logs_the_numbers(samples: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="source.media.analysis"):
        info = debug_video_analysis(samples / "bbb_416x240_49f.mp4")
    assert info.num_frames == 49
    assert "bbb_416x240_49f.mp4: 49 frames, 25 fps, 1.960 s, 416x240" in caplog.text


def test_the_difference_profile_shows_a_repeat_and_a_jump(tmp_path: Path) -> None:
    order = [0, 1, 2, 3, 3, 4, 5, 9, 10, 11]
    write_video(tmp_path / "a.mp4", (flat(20 + 8 * i, 20 + 8 * i, 20 + 8 * i) for i in order), fps=16, crf=1)
    profile = difference_profile(tmp_path / "a.mp4")
    assert len(profile) == 9
    assert profile.argmin() == 3 and profile[3] < 1
    assert profile.argmax() == 6 and profile[6] == pytest.approx(32, abs=3)


def test_a_contact_sheet_shows_first_last_and_labelled_frames(tmp_path: Path) -> None:
    video = ramp(tmp_path / "a.mp4", 41)
    sheet = read_image(contact_sheet(video, tmp_path / "a.png", columns=3, count=5, labels={7: "photo 2"}))
    assert sheet.shape == (44 + 2 * (240 + 28 + 14), 14 + 3 * (320 + 14), 3)
    cells = [sheet[44 + row * 282 + 120, 14 + column * 334 + 160] for row in range(2) for column in range(3)]
    shown = [20 + 4 * index for index in (0, 7, 20, 30, 40)]
    assert [int(cell[0]) for cell in cells] == pytest.approx([*shown, 22], abs=3), "the last cell is empty"
    assert (sheet[42, 14 + 334 + 100] == (255, 190, 92)).all(), "the labelled frame stands out"


def test_a_contact_sheet_of_a_short_video_has_a_cell_for_each_frame(tmp_path: Path) -> None:
    sheet = read_image(contact_sheet(ramp(tmp_path / "a.mp4", 2), tmp_path / "a.png"))
    assert sheet.shape[1] == 14 + 2 * 334


def test_a_contact_sheet_refuses_labels_outside_the_video(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"\[9\]"):
        contact_sheet(ramp(tmp_path / "a.mp4", 5), tmp_path / "a.png", labels={9: "end"})
