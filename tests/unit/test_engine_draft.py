"""The draft model: which frames stay, exactly, and how many come out. Frames are looked at before they are encoded."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from engine_runs import grey_video, picture

from Wan2GP.definitions import load_definitions
from Wan2GP.engine.families import Cancel, Place
from Wan2GP.engine.interpolation.draft import Draft
from Wan2GP.engine.preparing import check_preparing
from Wan2GP.engine.request import parse_request
from Wan2GP.errors import GenerationCancelled, InvalidInput, Unsupported
from Wan2GP.media import read_frames, resize, write_video

NEVER = Cancel(lambda: False)
SIZE = (64, 48)
START, END = picture(1), picture(2)


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    return Draft(load_definitions()["draft"], Place(tmp_path / "ckpts", "cpu"), lambda *_: None)


def request_for(**values):
    values.setdefault("resolution", "64x48")
    definitions = load_definitions()
    request = parse_request(values, definitions["draft"], Draft.reads, Path("loras"))
    Draft.check(request)
    check_preparing(request, definitions, lambda model: None)
    return request


def drawn(draft: Draft, cancel: Cancel = NEVER, **values) -> list[np.ndarray]:
    return list(draft.generate(request_for(**values), lambda *_: None, cancel))


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    """Nine frames in slow motion, each different, lossless."""
    moving = resize(picture(3), (80, 48))
    frames = [np.ascontiguousarray(moving[:, shift : shift + 64]) for shift in range(9)]
    write_video(tmp_path / "guide.mkv", frames, fps=16, codec="ffv1")
    return tmp_path / "guide.mkv"


@pytest.mark.parametrize("num_frames", [5, 9, 13, 29, 49, 81, 121])
def test_the_count_is_exact_and_the_ends_are_the_images(draft, num_frames):
    frames = drawn(draft, image_start=START, image_end=END, video_length=num_frames)
    assert len(frames) == num_frames
    assert np.array_equal(frames[0], START) and np.array_equal(frames[-1], END)
    assert all(frame.shape == (48, 64, 3) and frame.dtype == np.uint8 for frame in frames)
    assert not any(np.array_equal(a, b) for a, b in pairwise(frames))


def test_guide_frames_under_a_black_mask_stay_bit_for_bit(draft, guide, tmp_path):
    levels = [0, 0, 255, 255, 0, 255, 255, 255, 0]
    mask = grey_video(tmp_path / "mask.mkv", levels)
    frames = drawn(draft, video_guide=str(guide), video_mask=str(mask), video_length=9)
    given = list(read_frames(guide))
    kept = [index for index, level in enumerate(levels) if level == 0]
    assert len(frames) == 9
    assert all(np.array_equal(frames[index], given[index]) for index in kept)
    assert not np.array_equal(frames[6], given[4]) and not np.array_equal(frames[6], given[8])


@pytest.mark.parametrize("letters", ["", "VM", "VA", "UVA"])
def test_letters_of_old_and_new_mean_the_same(draft, guide, tmp_path, letters):
    mask = grey_video(tmp_path / "mask.mkv", [0] + [255] * 8)
    frames = drawn(draft, video_guide=str(guide), video_mask=str(mask), video_prompt_type=letters, video_length=9)
    first = next(iter(read_frames(guide)))
    assert all(np.array_equal(frame, first) for frame in frames)


def test_the_letter_n_inverts_the_mask(draft, guide, tmp_path):
    mask = grey_video(tmp_path / "mask.mkv", [0] * 8 + [255])
    frames = drawn(draft, video_guide=str(guide), video_mask=str(mask), video_prompt_type="NVA", video_length=9)
    assert all(np.array_equal(frame, list(read_frames(guide))[8]) for frame in frames)


def test_before_the_first_and_after_the_last_kept_frame_it_holds(draft, guide, tmp_path):
    mask = grey_video(tmp_path / "mask.mkv", [255, 255, 0, 255, 0, 255, 255, 255, 255])
    frames = drawn(draft, video_guide=str(guide), video_mask=str(mask), video_length=13)
    given = list(read_frames(guide))
    assert len(frames) == 13
    assert all(np.array_equal(frame, given[2]) for frame in frames[:3])
    assert all(np.array_equal(frame, given[4]) for frame in frames[4:])


def test_images_override_the_guide_at_the_ends(draft, guide, tmp_path):
    mask = grey_video(tmp_path / "mask.mkv", [0] * 9)
    frames = drawn(
        draft, video_guide=str(guide), video_mask=str(mask), image_start=START, image_end=END, video_length=9
    )
    given = list(read_frames(guide))
    assert np.array_equal(frames[0], START) and np.array_equal(frames[8], END)
    assert all(np.array_equal(frames[index], given[index]) for index in range(1, 8))


def test_a_start_image_alone_is_held(draft):
    assert all(np.array_equal(frame, START) for frame in drawn(draft, image_start=START, video_length=9))


def test_images_of_another_size_are_resized(draft, samples):
    frames = drawn(draft, image_start=str(samples / "coffee.jpg"), video_length=5, resolution="100x60")
    assert frames[0].shape == (48, 96, 3)


# ---- a video that goes on


@pytest.mark.parametrize(
    ("values", "overlap"),
    [
        ({}, 1),
        ({"sliding_window_overlap": 4}, 4),
        ({"sliding_window_overlap": 0}, 0),
        ({"svi2pro": 1}, 4),
        ({"svi2pro": 1, "sliding_window_overlap": 2}, 4),
        ({"svi2pro": 1, "image_refs": [START], "video_prompt_type": "I", "image_prompt_type": "SVE"}, 4),
    ],
)
@pytest.mark.parametrize("num_frames", [5, 17, 29])
@pytest.mark.parametrize("end", [None, END])
def test_a_video_goes_on_from_its_last_frame_and_stays_as_it_is(draft, guide, values, overlap, num_frames, end):
    frames = drawn(draft, video_source=str(guide), video_length=num_frames, image_end=end, **values)
    source = list(read_frames(guide))
    assert len(frames) == 9 + num_frames - overlap
    assert all(np.array_equal(frame, given) for frame, given in zip(frames[:9], source, strict=True))
    assert np.array_equal(frames[-1], source[-1] if end is None else end)
    if end is not None and len(frames) > 11:
        assert not np.array_equal(frames[9], source[-1]), "it is on its way at once"


@pytest.mark.parametrize(("keep", "kept"), [("4", 4), ("-2", 7)])
def test_it_goes_on_from_what_is_kept(draft, guide, keep, kept):
    frames = drawn(draft, video_source=str(guide), keep_frames_video_source=keep, video_length=9)
    assert len(frames) == kept + 8
    assert all(np.array_equal(frame, list(read_frames(guide))[kept - 1]) for frame in frames[kept - 1 :])


def test_a_guide_counts_from_the_first_frame_of_the_result(draft, guide, tmp_path):
    source = tmp_path / "source.mkv"
    write_video(source, [START] * 4, fps=16, codec="ffv1")
    mask = grey_video(tmp_path / "mask.mkv", [0] * 9)
    control = {"video_guide": str(guide), "video_mask": str(mask), "video_length": 13, "image_end": END}
    given = list(read_frames(guide))
    frames = drawn(draft, video_source=str(source), **control)
    assert len(frames) == 4 + 12
    assert all(np.array_equal(frame, START) for frame in frames[:4])
    assert all(np.array_equal(frames[index], given[index]) for index in range(4, 9))
    frames = drawn(draft, video_source=str(source), video_prompt_type="VAT", **control)
    assert all(np.array_equal(frames[4 + index], given[index]) for index in range(9))
    assert np.array_equal(frames[-1], END)


def test_an_anchor_does_nothing_and_is_named(guide):
    request = request_for(video_source=str(guide), svi2pro=1, image_refs=[START], video_length=9)
    assert any("no use for an anchor" in note for note in request.notes)
    assert not request_for(video_source=str(guide), svi2pro=1, video_length=9).notes


def test_a_long_source_is_streamed(draft, tmp_path):
    """Frames come one by one: the first of 2,000 is there before the second is read."""
    source = tmp_path / "long.mkv"
    write_video(source, (START for _ in range(2000)), fps=16, codec="ffv1")
    frames = draft.generate(request_for(video_source=str(source), video_length=5), lambda *_: None, NEVER)
    tracemalloc.start()
    count = sum(1 for _ in frames)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2004
    assert peak < 100 * START.nbytes


# ---- what is refused


def test_text_alone_is_refused_with_what_it_needs():
    with pytest.raises(Unsupported, match="image_start, image_end, or video_guide with video_mask"):
        request_for(prompt="a cat")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"video_guide": "guide", "video_prompt_type": "V"}, "video_guide"),
        ({"video_mask": "mask", "image_start": START}, "video_mask"),
        ({"video_guide": "guide", "video_mask": "mask", "video_prompt_type": "PVA"}, "video_prompt_type"),
        ({"video_guide": "guide", "video_mask": "short"}, "video_mask"),
        ({"image_start": START, "image_mode": 1}, "image_mode"),
        ({"image_start": START, "video_source": "guide"}, "image_start"),
        ({"video_source": "guide", "sliding_window_overlap": 9}, "sliding_window_overlap"),
        ({"image_start": START, "image_refs": [END]}, "image_refs"),
        ({"image_start": START, "vid2vid_init_video": "guide"}, "vid2vid_init_video"),
    ],
)
def test_what_it_cannot_honour_is_refused_by_name(guide, tmp_path, values, field):
    files = {
        "guide": str(guide),
        "mask": str(grey_video(tmp_path / "mask.mkv", [0] * 9)),
        "short": str(grey_video(tmp_path / "short.mkv", [0] * 3)),
    }
    values = {
        name: files[value] if isinstance(value, str) and value in files else value for name, value in values.items()
    }
    with pytest.raises(InvalidInput) as caught:
        request_for(video_length=9, **values)
    assert caught.value.field == field


def test_a_mask_without_a_black_frame_is_refused(draft, guide, tmp_path):
    mask = grey_video(tmp_path / "mask.mkv", [255] * 9)
    with pytest.raises(InvalidInput, match="no frame is black"):
        drawn(draft, video_guide=str(guide), video_mask=str(mask), video_length=9)


def test_without_rifes_weights_it_says_how_to_get_them(draft):
    (note,) = draft.notes
    assert "optical flow" in note and "fetch rife" in note


def test_cancel_stops_it_between_frames(draft):
    stopped: list[bool] = []
    frames = draft.generate(
        request_for(image_start=START, image_end=END, video_length=81), lambda *_: None, Cancel(lambda: bool(stopped))
    )
    next(frames)
    stopped.append(True)
    with pytest.raises(GenerationCancelled):
        next(frames)


def test_the_same_call_gives_the_same_frames(draft):
    first, again = (drawn(draft, image_start=START, image_end=END, video_length=29) for _ in range(2))
    assert np.array_equal(first, again)


def test_it_says_where_it_dissolved_between_different_scenes(draft, samples: Path):
    photos = {"image_start": str(samples / "coffee.jpg"), "image_end": str(samples / "rocket.jpg")}
    drawn(draft, **photos, resolution="208x112", video_length=49)
    assert draft.remarks == ("frames 1-47: the pictures show different scenes; dissolved",)
    drawn(draft, image_start=START, image_end=START, video_length=9)
    assert draft.remarks == ()


def test_neighbouring_kept_frames_need_no_remark(draft, tmp_path):
    guide = tmp_path / "scenes.mkv"
    write_video(guide, [picture(seed) for seed in range(5)], fps=16, codec="ffv1")
    mask = grey_video(tmp_path / "mask.mkv", [0] * 5)
    drawn(draft, video_guide=str(guide), video_mask=str(mask), video_length=5)
    assert draft.remarks == ()
