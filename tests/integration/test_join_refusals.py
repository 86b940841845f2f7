"""Joins that cannot be: refused with the name of what is wrong, before anything is generated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pytest
from join_shop import (
    alone,
    clicking,
    clip,
    project,
    row_of_clips,
)
from travel_shop import Workshop

from source.store.types import NewTask, Status

REFUSED: dict[str, tuple[int, dict[str, Any], str]] = {
    "one clip": (1, {}, "clip_list"),
    "no clip to loop": (0, {"loop_first_clip": True}, "clip_list"),
    "a gap that replaces more than there is": (2, {"replace_mode": True, "gap_frame_count": 53}, "gap_frame_count"),
    "nothing to generate": (2, {"context_frame_count": 7, "gap_frame_count": 1}, "gap_frame_count"),
    "more settings than joins": (2, {"per_join_settings": [{}, {}]}, "per_join_settings"),
    "a rate for one join": (2, {"per_join_settings": [{"fps": 24}]}, "per_join_settings"),
    "wrong setting of a join": (2, {"per_join_settings": [{"gap_frame_count": "many"}]}, "gap_frame_count"),
    "no context": (2, {"context_frame_count": 0}, "context_frame_count"),
    "model without mask": (2, {"model": "fake_i2v"}, "model"),
    "wrong shape": (2, {"aspect_ratio": "wide"}, "aspect_ratio"),
    "a shape that leaves nothing": (2, {"aspect_ratio": "1000:1"}, "aspect_ratio"),
    "no rate": (2, {"fps": 0}, "fps"),
    "no gap": (2, {"gap_frame_count": 0}, "gap_frame_count"),
    "a song that is missing": (2, {"audio_url": "/nowhere/song.wav"}, "audio_url"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_generated(shop: Workshop, tmp_path: Path, case: str) -> None:
    count, changes, field = REFUSED[case]
    row = shop.run("join_clips_orchestrator", project(row_of_clips(tmp_path, *[20] * count), **changes))
    assert (row.status, row.error_class) == (Status.FAILED, "bad_input")
    assert field in (row.error_message or "")
    assert shop.engine.calls == [] and shop.store.children(row.id) == []


@pytest.mark.parametrize("orchestrated", [True, False])
def test_sound_that_cannot_be_laid_is_refused_before_anything_is_generated(
    shop: Workshop, tmp_path: Path, orchestrated: bool
) -> None:
    clips = [clip(tmp_path / "a.mp4", 20), unsound(tmp_path / "b.mp4")]
    kind, raw = ("join_clips_orchestrator", project(clips)) if orchestrated else ("join_clips", alone(*clips))
    row = shop.run(kind, raw)
    assert (row.status, row.error_class, shop.engine.calls) == (Status.FAILED, "bad_input", [])
    assert (row.error_message or "").startswith("clip_list[1].url" if orchestrated else "ending_video_path")


def unsound(path: Path) -> Path:
    """A clip whose sound is no sound: every packet of it is overwritten."""
    made = clicking(path, 20, [])
    with av.open(str(made)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    data = bytearray(made.read_bytes())
    for place, size in places:
        data[place : place + size] = bytes([0xFF]) * size
    made.write_bytes(data)
    return made


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"start": 10, "stop": 10}, "10 to 10"),
        ({"start": 15, "stop": 10}, "15 to 10"),
        ({"stop": 21}, "0 to 21"),
        ({"path": None}, "task_id"),
        ({"task_id": "other"}, "task_id"),
    ],
)
def test_a_planned_clip_that_cannot_be_names_itself(
    shop: Workshop, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    planned = {"path": str(clip(tmp_path / "clip.mp4", 20)), "stop": 20, "num_frames": 20} | changes
    row = shop.run("join_final_stitch", {"clips": [planned]})
    assert (row.status, row.error_class) == (Status.FAILED, "bad_input")
    assert "clips" in (row.error_message or "") and said in (row.error_message or "")


def test_a_clip_that_was_exchanged_since_the_plan_is_named(shop: Workshop, tmp_path: Path) -> None:
    """Planned with 20 frames; the file has 33 by now."""
    path = str(clip(tmp_path / "clip.mp4", 33))
    row = shop.run("join_final_stitch", {"clips": [{"path": path, "stop": 20, "num_frames": 20}]})
    assert row.status is Status.FAILED
    assert "clips[0]" in (row.error_message or "") and "33 frames" in (row.error_message or "")


def test_a_transition_that_is_missing_is_no_gap_in_the_result(shop: Workshop, tmp_path: Path) -> None:
    path = str(clip(tmp_path / "clip.mp4", 20))
    join = {"context_before": 4, "gap": 9, "context_after": 4}
    row = shop.run("join_final_stitch", {"clips": [{"path": path, "stop": 20, "num_frames": 20}] * 2, "joins": [join]})
    assert "1 transitions" in (row.error_message or "")


def test_a_transition_without_its_number_is_not_taken_for_one(shop: Workshop, tmp_path: Path) -> None:
    path = str(clip(tmp_path / "clip.mp4", 20))
    planned = {"path": path, "stop": 20, "num_frames": 20}
    join = {"context_before": 4, "gap": 9, "context_after": 4}
    numberless = {"model": "fake_vace", "prompt": "x", "join_index": None, "join": join}
    made = shop.add("join_clips_segment", numberless | {"before": planned, "after": planned})
    final = NewTask(
        task_type="join_final_stitch", params={"clips": [planned] * 2, "joins": [join]}, dependant_on=(made,)
    )
    row_id = shop.store.add(final)
    shop.work()
    row = shop.store.get(row_id)
    assert (row.status, row.error_class) == (Status.FAILED, "bad_input")
    assert "dependant_on" in (row.error_message or "")
