"""What the models that ship draw: measured by their pixels, on seeds and (some) prompts that training never saw."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.tiny_wan.judge import judge
from training.tiny_wan.measure import MEASURES, Case, cases, drawn, largest_jump, psnr, ssim, summary
from training.tiny_wan.shapes import ALL_PROMPTS, HELD_OUT, TRAINED, draw_scene, render
from Wan2GP import wgp
from Wan2GP.media import write_video

WEIGHTS = Path(wgp.__file__).parent / "tiny_wan"
FIRST_SEED = 2_000_000


@pytest.fixture(autouse=True)
def plain_engine() -> Any:
    wgp.configure(definitions=[], device="cpu")
    yield
    wgp.release_model()


def chosen(count: int) -> list[Case]:
    """Cases spread over the prompts, those that were never trained first."""
    every = list(cases(len(ALL_PROMPTS), FIRST_SEED))
    unseen = [case for case in every if case.words in HELD_OUT]
    seen = [case for case in every if case.words not in HELD_OUT]
    return [*unseen[: count // 2], *seen[:: max(1, len(seen) // (count - count // 2))][: count - count // 2]]


def measured(variant: str, count: int, folder: Path) -> dict[str, Any]:
    return summary([MEASURES[variant](case, folder)[0] for case in chosen(count)])


def test_the_judge_reads_every_prompt_off_true_clips() -> None:
    for number, words in enumerate(ALL_PROMPTS):
        clip = render(draw_scene(np.random.default_rng(number), words))
        seen = judge(np.round(clip * 255).astype(np.uint8))
        assert (seen.colour, seen.shape, seen.direction) == words


def test_the_judge_sees_nothing_in_noise_and_in_an_empty_picture() -> None:
    assert judge(np.full((17, 64, 64, 3), 12, np.uint8)).colour is None
    noise = np.random.default_rng(0).integers(0, 256, (17, 64, 64, 3), dtype=np.uint8)
    assert judge(noise).direction is None


def test_twelve_prompts_were_never_trained() -> None:
    assert len(HELD_OUT) == 12
    assert not set(HELD_OUT) & set(TRAINED)


def test_the_weights_fit_into_twenty_megabytes() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 20e6


def test_text_to_video_draws_what_the_prompt_says(tmp_path: Path) -> None:
    found = measured("t2v", 12, tmp_path)
    assert found["colour"] >= 0.9
    assert found["direction"] >= 0.9
    assert found["shape"] >= 0.75
    assert found["first_frame_gap_db"]["mean"] <= 2


def test_image_to_video_begins_with_the_image_and_moves_as_told(tmp_path: Path) -> None:
    found = measured("i2v", 8, tmp_path)
    assert found["first_frame_ssim"]["worst"] >= 0.9
    assert found["direction"] >= 0.75
    assert found["colour"] >= 0.9


def test_an_end_image_is_reached(tmp_path: Path) -> None:
    case = chosen(2)[0]
    frames = drawn("tiny_wan_i2v", case, tmp_path, image_start=case.truth[0], image_end=case.truth[-1])
    assert ssim(frames[0], case.truth[0]) >= 0.9
    assert ssim(frames[-1], case.truth[-1]) >= 0.85


def test_vace_keeps_what_the_mask_keeps_and_goes_on_evenly(tmp_path: Path) -> None:
    found = measured("vace", 8, tmp_path)
    assert found["kept_psnr_db"]["mean"] >= 26
    assert found["jump"]["worst"] <= 8


def test_vace_ignores_a_guide_under_a_white_mask(tmp_path: Path) -> None:
    """The negative control: with nothing kept, the frames of the guide are not in the result."""
    case = chosen(2)[0]
    mask = np.full_like(case.truth, 255)
    write_video(tmp_path / "mask.mp4", mask, fps=16)
    grey = np.full_like(case.truth, 128)
    write_video(tmp_path / "guide.mp4", grey, fps=16)
    control = {"video_guide": tmp_path / "guide.mp4", "video_mask": tmp_path / "mask.mp4"}
    frames = drawn("tiny_wan_vace", case, tmp_path, video_prompt_type="VMA", **control)
    assert psnr(frames[0], case.truth[0]) < 26


def test_a_clip_takes_at_most_six_seconds(tmp_path: Path) -> None:
    case = chosen(2)[0]
    drawn("tiny_wan_t2v", case, tmp_path)
    began = time.process_time()
    drawn("tiny_wan_t2v", case, tmp_path)
    assert time.process_time() - began <= 6 * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "holds"),
    [
        ("t2v", lambda found: min(found["colour"], found["direction"]) >= 0.9 and found["shape"] >= 0.75),
        ("i2v", lambda found: found["first_frame_ssim"]["mean"] >= 0.9 and found["direction"] >= 0.9),
        ("vace", lambda found: found["kept_psnr_db"]["mean"] >= 26 and found["jump"]["worst"] <= 8),
    ],
)
def test_the_promises_hold_over_many_prompts(
    variant: str, holds: Callable[[dict[str, Any]], bool], tmp_path: Path
) -> None:
    found = measured(variant, 24, tmp_path)
    assert holds(found), found


def test_the_largest_jump_is_that_of_the_centroid() -> None:
    frames = np.zeros((3, 64, 64, 3), np.uint8)
    for index, left in enumerate((10, 12, 30)):
        frames[index, 20:30, left : left + 10] = 255
    assert largest_jump(frames) == pytest.approx(18)
