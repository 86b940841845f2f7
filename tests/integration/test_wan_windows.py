"""Long videos window by window, videos that go on, videos that begin from a video, and stills."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from engine_runs import grey_video, picture
from wan_runs import Tiny, tiny_models

from Wan2GP.engine.families import Cancel
from Wan2GP.engine.wan.continuity import colour_matched, with_noise
from Wan2GP.engine.wan.latents import encode, to_tensor
from Wan2GP.engine.wan.media import spans_of, window_of
from Wan2GP.engine.wan.vace import control_media
from Wan2GP.errors import InvalidInput
from Wan2GP.media import write_video

#: three windows of 17 frames that share 5
LONG = {"video_length": 41, "sliding_window_size": 17, "sliding_window_overlap": 5, "num_inference_steps": 2}
SIZE = {"width": 64, "height": 64}
START, END = picture(1, **SIZE), picture(2, **SIZE)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_models(tmp_path_factory)


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    """Of latents, against their own spread. A random decoder shows too little of them to compare frames."""
    return float(10 * torch.log10(other.square().mean() / (one - other).square().mean().clamp_min(1e-12)))


def clip(path: Path, count: int, seed: int = 20) -> tuple[str, np.ndarray]:
    """A lossless video of smooth pictures, and its frames."""
    frames = np.stack([picture(seed + number // 4, **SIZE) for number in range(count)])
    write_video(path, list(frames), fps=16, codec="ffv1")
    return str(path), frames


def encoded(model: Tiny, frames: np.ndarray) -> torch.Tensor:
    """The latents of frames."""
    return encode(model.parts, to_tensor(frames))


@contextmanager
def decoding(model: Tiny) -> Iterator[list[torch.Tensor]]:
    """The latents of each window that is decoded while the block runs."""
    found: list[torch.Tensor] = []
    config, shape = model.parts.vae.config, (1, -1, 1, 1, 1)
    mean, spread = (torch.tensor(each).view(shape) for each in (config.latents_mean, config.latents_std))
    hook = model.parts.vae.post_quant_conv.register_forward_pre_hook(
        lambda module, args: found.append((args[0] - mean) / spread)
    )
    try:
        yield found
    finally:
        hook.remove()


# ---- windows


@pytest.mark.parametrize(
    ("architecture", "values"),
    [
        ("t2v", {}),
        ("t2v", {"sliding_window_discard_last_frames": 4}),
        ("t2v_2_2", {"sliding_window_overlap": 9}),
        ("i2v", {"image_start": START}),
        ("i2v", {"image_start": START, "video_length": 49}),
        ("flf2v_720p", {"image_start": START, "image_end": END}),
        ("vace_1.3B", {}),
        ("vace_1.3B", {"sliding_window_overlap_noise": 20, "sliding_window_color_correction_strength": 1}),
        ("ti2v_2_2", {}),
    ],
)
def test_several_windows_make_exactly_the_frames_asked_for(tiny, architecture, values):
    frames = tiny(architecture).frames(**LONG | values)
    assert frames.shape == ((LONG | values)["video_length"], 64, 64, 3)


def test_a_window_is_a_run_of_its_own(tiny):
    """The first window of a long video is what a short video of that length would be, with the same seed."""
    model = tiny("t2v")
    assert np.array_equal(model.frames(**LONG)[:17], model.frames(**LONG | {"video_length": 17}))


def test_the_prefix_of_a_text_model_stands_in_its_latents(tiny, tmp_path: Path):
    model = tiny("t2v")
    source, frames = clip(tmp_path / "source.mkv", 9)
    latents = model.latents(video_source=source, video_length=17, sliding_window_overlap=5)
    kept = encoded(model, frames[-5:])
    assert torch.allclose(latents[:, :, :2], kept, atol=1e-5)
    assert not torch.allclose(latents[:, :, 2:4], kept, atol=0.5)


def test_the_prefix_of_vace_is_kept_by_its_control(tiny):
    request = tiny("vace_1.3B").request(**LONG)
    prefix = np.stack([START] * 5)
    video, drawn = control_media(window_of(request, 1, spans_of(request)[1], 3, prefix))
    assert drawn[0, 0].mean(dim=(1, 2)).tolist() == [0] * 5 + [1] * 12
    assert torch.allclose(video[0, :, 4].permute(1, 2, 0), torch.from_numpy(START) / 127.5 - 1)
    assert not video[:, :, 5:].any()


def test_the_prefix_of_an_image_model_is_marked_as_given(tiny):
    model = tiny("i2v")
    seen: list[torch.Tensor] = []
    hook = model.parts.transformer.register_forward_pre_hook(
        lambda module, args, named: seen.append(named["hidden_states"][:, 16:20]), with_kwargs=True
    )
    model.frames(**LONG, image_start=START, guidance_scale=1.0)
    hook.remove()
    assert len(seen) == 3 * 2
    for given in seen:
        assert given.amax(dim=(3, 4))[0].tolist() == [[1] + [0] * (given.shape[2] - 1)] * 4


def test_one_end_image_belongs_to_the_last_window_and_of_several_each_has_its_own(tiny):
    def ends(*images: np.ndarray) -> list[int | None]:
        request = tiny("i2v").request(**LONG, image_start=START, image_end=list(images))
        spans = spans_of(request)
        found = [window_of(request, n, span, len(spans), np.zeros((0, 64, 64, 3), np.uint8)).image_end
                 for n, span in enumerate(spans)]  # fmt: skip
        return [
            None if end is None else next(n for n, i in enumerate(images) if np.array_equal(i, end)) for end in found
        ]

    first, second, third = (picture(number, **SIZE) for number in (5, 6, 7))
    assert ends(first) == [None, None, 0]
    assert ends(first, second, third) == [0, 1, 2]
    assert ends(first, second) == [0, 1, 1]


@pytest.mark.parametrize("length", [29, 33, 37, 41, 45])
def test_an_end_image_is_the_last_frame_of_the_video(tiny, length):
    """The last window ends with the video, so nothing is cut off after the image."""
    from Wan2GP.engine.wan.media import spans_of

    last = spans_of(tiny("i2v").request(**LONG | {"video_length": length}, image_start=START))[-1]
    assert last.overlap + last.new == last.frames


def test_an_end_image_changes_the_last_window_alone(tiny):
    model = tiny("i2v")
    plain = model.frames(**LONG, image_start=START)
    ended = model.frames(**LONG, image_start=START, image_end=END)
    assert np.array_equal(plain[:33], ended[:33])
    assert not np.array_equal(plain[33:], ended[33:])


def test_prompts_by_line_or_paragraph_go_to_their_windows(tiny):
    model = tiny("t2v")
    one, two = "a red circle", "a blue square moving left"
    both = model.frames(**LONG, prompt=f"{one}\n{two}", multi_prompts_gen_type="W")
    only_one = model.frames(**LONG, prompt=one)
    assert np.array_equal(both[:17], only_one[:17])
    assert not np.array_equal(both[17:], only_one[17:])
    assert np.array_equal(both, model.frames(**LONG, prompt=f"{one}\n{two}\n{two}", multi_prompts_gen_type="W"))
    assert np.array_equal(both, model.frames(**LONG, prompt=f"{one}\n \n{two}", multi_prompts_gen_type="PW"))
    assert not np.array_equal(both, model.frames(**LONG, prompt=f"{one}\n{two}", multi_prompts_gen_type="FG"))


def test_the_overlap_is_what_the_model_allows_and_windows_must_advance(tiny):
    model = tiny("i2v")
    assert model.request(**LONG | {"sliding_window_overlap": 9}, image_start=START).windows.overlap == 1
    assert tiny("t2v").request(**LONG | {"sliding_window_overlap": 0}).windows.overlap == 1
    changed = ("sliding_window_overlap changed from 9 to 1, the nearest that tiny can do",)
    assert model.request(**LONG | {"sliding_window_overlap": 9}, image_start=START).notes == changed
    assert not model.request(**LONG | {"sliding_window_overlap": 1}, image_start=START).notes
    assert not model.request(sliding_window_overlap=9, image_start=START).notes, "one window shares nothing"
    with pytest.raises(InvalidInput, match="sliding_window_size"):
        tiny("t2v").request(**LONG | {"sliding_window_overlap": 17})


# ---- continuity


def test_overlap_noise_is_seeded_and_as_strong_as_asked():
    frames = np.full((4, 32, 32, 3), 128, np.uint8)
    noisy = with_noise(frames, 0.1, seed=3)
    assert np.array_equal(noisy, with_noise(frames, 0.1, seed=3))
    assert not np.array_equal(noisy, with_noise(frames, 0.1, seed=4))
    assert (noisy / 127.5 - 1).std() == pytest.approx(0.1, rel=0.03)
    assert with_noise(frames, 0.0, seed=3) is frames


def test_overlap_noise_changes_later_windows_alone(tiny):
    model = tiny("vace_1.3B")
    plain, noisy = model.frames(**LONG), model.frames(**LONG, sliding_window_overlap_noise=100)
    assert np.array_equal(plain[:17], noisy[:17]) and not np.array_equal(plain[17:], noisy[17:])
    assert np.array_equal(noisy, model.frames(**LONG, sliding_window_overlap_noise=100))


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_colours_are_moved_to_those_of_the_window_before(strength):
    shared = np.stack([picture(3, **SIZE)] * 5)
    tinted = (shared.astype(np.float32) * [0.8, 0.9, 0.7] + [20, 0, 10]).clip(0, 255).astype(np.uint8)
    frames = np.concatenate([tinted, tinted[:3]])
    found = colour_matched(frames, shared, strength)

    def lab(pictures: np.ndarray) -> np.ndarray:
        return np.concatenate([cv2.cvtColor(each.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for each in pictures])

    gaps = [np.abs(lab(each).mean(axis=(0, 1)) - lab(shared).mean(axis=(0, 1))).max() for each in (frames, found[5:])]
    assert gaps[0] > 5
    assert gaps[1] == pytest.approx((1 - strength) * gaps[0], abs=1.0)
    spreads = [lab(each).std(axis=(0, 1)) for each in (shared, found[5:])]
    if strength == 1:
        assert spreads[1] == pytest.approx(spreads[0], rel=0.1)


def test_colour_correction_reaches_the_windows_after_the_first(tiny):
    model = tiny("vace_1.3B")
    plain = model.frames(**LONG)
    corrected = model.frames(**LONG, sliding_window_color_correction_strength=1)
    assert np.array_equal(plain[:17], corrected[:17])
    assert not np.array_equal(plain[17:], corrected[17:])


# ---- a video that goes on


@pytest.mark.parametrize(
    ("architecture", "keep", "kept", "overlap"),
    [("t2v", "", 13, 5), ("t2v", "9", 9, 5), ("vace_1.3B", "-4", 9, 5), ("i2v", "6", 6, 1), ("t2v", "3", 3, 3),
     ("ti2v_2_2", "", 13, 1)],
)  # fmt: skip
@pytest.mark.parametrize("length", [17, 33])
def test_a_video_goes_on_from_what_is_kept_of_its_source(tiny, tmp_path, architecture, keep, kept, overlap, length):
    source, frames = clip(tmp_path / "source.mkv", 13)
    values = LONG | {"video_source": source, "keep_frames_video_source": keep, "video_length": length}
    found = tiny(architecture).frames(**values)
    assert len(found) == kept + length - overlap
    assert np.array_equal(found[:kept], frames[:kept])
    assert tiny(architecture).request(**values).total_frames == len(found)


@pytest.mark.parametrize(("length", "overlap"), [(17, 17), (17, 20), (5, 9)])
def test_a_length_that_is_all_overlap_adds_nothing_and_is_refused(tiny, tmp_path: Path, length, overlap):
    source, _ = clip(tmp_path / "source.mkv", 24)
    with pytest.raises(InvalidInput, match="nothing to add") as caught:
        tiny("t2v").request(video_source=source, video_length=length, sliding_window_overlap=overlap)
    assert caught.value.field == "sliding_window_overlap"


def test_a_long_source_is_streamed(tiny, tmp_path: Path):
    """Of the frames that are kept, no more are in memory than the first window goes on from."""
    source = tmp_path / "long.mkv"
    write_video(source, (START for _ in range(600)), fps=16, codec="ffv1")
    model = tiny("t2v")
    frames = model.model.generate(model.request(video_source=str(source)), lambda *_: None, Cancel(bool))
    tracemalloc.start()
    count = sum(1 for _ in itertools.islice(frames, 600))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    frames.close()
    assert count == 600
    assert peak < 100 * START.nbytes


# ---- a video that begins from a video


def test_a_strength_runs_the_last_part_of_the_schedule_from_the_video(tiny, tmp_path: Path):
    model = tiny("t2v")
    source, _ = clip(tmp_path / "guide.mkv", 17)
    values = {"video_guide": source, "video_prompt_type": "GV", "num_inference_steps": 10, "guidance_scale": 1.0}
    with model.watched() as whole:
        model.latents(**values)
    with model.watched() as part:
        model.latents(**values, denoising_strength=0.4)
    assert [call.timestep for call in part] == [call.timestep for call in whole][-4:]
    with model.watched() as without_g:
        model.latents(num_inference_steps=10, guidance_scale=1.0, denoising_strength=0.4)
    assert len(without_g) == 10


def test_the_less_is_denoised_the_closer_the_result_is_to_the_video(tiny, tmp_path: Path):
    model = tiny("t2v")
    source, frames = clip(tmp_path / "guide.mkv", 17)
    best = encoded(model, frames)
    values = {"video_guide": source, "video_prompt_type": "GV", "num_inference_steps": 20, "sample_solver": "euler"}
    found = [psnr(model.latents(**values, denoising_strength=strength), best) for strength in (1.0, 0.5, 0.2, 0.0)]
    assert found == sorted(found)
    assert found[0] < 5 and found[-1] > 35


def test_the_first_latents_mix_the_given_video_and_noise_as_asked(tiny, tmp_path: Path):
    model = tiny("t2v")
    source, frames = clip(tmp_path / "init.mkv", 17)
    clean = encoded(model, frames)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))
    for strength in (0.0, 0.3, 1.0):
        seen: list[torch.Tensor] = []
        hook = model.parts.transformer.register_forward_pre_hook(
            lambda module, args, named, seen=seen: seen.append(named["hidden_states"]), with_kwargs=True
        )
        model.latents(vid2vid_init_video=source, vid2vid_init_strength=strength)
        hook.remove()
        assert torch.allclose(seen[0], strength * noise + (1 - strength) * clean, atol=1e-5)


def half_mask(path: Path, count: int) -> str:
    """White, to be drawn, in the right half."""
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[:, 32:] = 255
    write_video(path, [frame] * count, fps=16, codec="ffv1")
    return str(path)


@pytest.mark.parametrize("architecture", ["t2v", "t2v_2_2", "vace_1.3B"])
def test_what_the_mask_keeps_of_the_first_video_stays(tiny, tmp_path: Path, architecture):
    model = tiny(architecture)
    source, frames = clip(tmp_path / "init.mkv", 17)
    values: dict[str, Any] = {
        "vid2vid_init_video": source,
        "vid2vid_init_strength": 1.0,
        "video_mask": half_mask(tmp_path / "mask.mkv", 17),
        "video_prompt_type": "A",
        "image_refs": [START] if architecture == "vace_1.3B" else None,
    }
    if architecture == "vace_1.3B":
        values["video_prompt_type"] = "AI"
    best = encoded(model, frames)
    kept, free = (model.latents(**values, latent_noise_mask_strength=strength) for strength in (1.0, 0.0))
    assert torch.allclose(kept[..., :4], best[..., :4], atol=1e-4)
    assert (kept[..., 4:] - best[..., 4:]).abs().mean() > 0.1
    assert (free[..., :4] - best[..., :4]).abs().mean() > 0.1


def test_a_masked_redraw_keeps_the_rest_of_the_guide(tiny, tmp_path: Path):
    model = tiny("t2v")
    source, frames = clip(tmp_path / "guide.mkv", 17)
    mask = half_mask(tmp_path / "mask.mkv", 17)
    values = {"video_guide": source, "video_mask": mask, "video_prompt_type": "GVA", "num_inference_steps": 6}
    best = encoded(model, frames)
    found, loose = model.latents(**values), model.latents(**values, masking_strength=0.5)
    assert psnr(found[..., :4], best[..., :4]) > 80
    assert psnr(found[..., 4:], best[..., 4:]) < 10
    assert psnr(loose[..., :4], best[..., :4]) < 20


def test_a_masked_redraw_of_several_windows_keeps_the_mask_in_each(tiny, tmp_path: Path):
    model = tiny("t2v")
    source, frames = clip(tmp_path / "guide.mkv", 29)
    mask = half_mask(tmp_path / "mask.mkv", 29)
    values = {"video_length": 29, "video_guide": source, "video_mask": mask, "video_prompt_type": "GVA"}
    with decoding(model) as windows:
        model.frames(**LONG | values)
    assert len(windows) == 2
    for latents, first in zip(windows, (0, 12), strict=True):
        best = encoded(model, frames[first : first + 17])
        assert psnr(latents[:, :, 2:, :, :4], best[:, :, 2:, :, :4]) > 80
        assert psnr(latents[:, :, 2:, :, 4:], best[:, :, 2:, :, 4:]) < 10


def test_t_lets_a_redraw_begin_with_the_first_new_frame(tiny, tmp_path: Path):
    guide = str(grey_video(tmp_path / "guide.mkv", [10 * n for n in range(1, 18)], **SIZE))
    source, frames = clip(tmp_path / "source.mkv", 9)
    request = tiny("t2v").request(
        video_guide=guide, video_prompt_type="GVT", video_source=source, sliding_window_overlap=5
    )
    window = window_of(request, 0, spans_of(request)[0], 1, frames[-5:])
    assert window.initial.mean(axis=(1, 2, 3)).tolist()[4:9] == [10, 10, 20, 30, 40]


# ---- stills


def test_a_batch_of_stills_counts_the_seed_up(tiny):
    model = tiny("t2v")
    three = model.frames(image_mode=1, batch_size=3, seed=7)
    assert three.shape == (3, 64, 64, 3)
    for number in range(3):
        assert np.array_equal(three[number : number + 1], model.frames(image_mode=1, seed=7 + number))


@pytest.mark.parametrize(
    ("asked", "letters", "made"), [(1, "I", 1), (9, "I", 9), (9, "", 1), (1009, "", 9), (1001, "I", 1), (11, "I", 9)]
)
def test_a_still_is_the_first_of_as_many_frames_as_asked_for(tiny, asked, letters, made):
    model = tiny("vace_1.3B")
    values = {"image_mode": 1, "min_frames_if_references": asked, "video_prompt_type": letters}
    values["image_refs"] = [START] if letters else None
    seen: list[int] = []
    hook = model.parts.transformer.register_forward_pre_hook(
        lambda module, args, named: seen.append(named["hidden_states"].shape[2]), with_kwargs=True
    )
    still = model.frames(**values)
    hook.remove()
    assert still.shape == (1, 64, 64, 3)
    assert set(seen) == {(made - 1) // 4 + 1 + len(letters)}
