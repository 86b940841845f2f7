"""The sound of joined videos: it stays with its pictures, whatever its rate and length."""

from __future__ import annotations

from pathlib import Path

import pytest
from join_shop import (
    clicking,
    clicks,
    clip,
    flashes,
    length,
    loudness,
    project,
)
from travel_shop import Workshop

from Wan2GP.media import probe_video


@pytest.mark.parametrize(("replace", "gap"), [(False, 9), (True, 9)])
def test_clicks_stay_with_their_flashes(shop: Workshop, tmp_path: Path, replace: bool, gap: int) -> None:
    clips = [clicking(tmp_path / f"{i}.mp4", 64, [12, 40]) for i in range(3)]
    row = shop.run("join_clips_orchestrator", project(clips, replace_mode=replace, gap_frame_count=gap))
    video = shop.video(row)
    seen, heard = flashes(video), clicks(video)
    assert len(seen) == len(heard) == 6
    assert max(abs(a - b) for a, b in zip(seen, heard, strict=True)) < 1
    assert probe_video(video).num_frames == 192 + (0 if replace else 18)


def test_sound_of_another_rate_or_length_and_none_stays_in_step(shop: Workshop, tmp_path: Path) -> None:
    """23.976 -> 16 fps; one channel at 44.1 kHz that ends early, none at all, and one that goes on after its pictures.

    A flash lasts three frames of the file, so that every rate shows it.
    """
    film = 24000 / 1001
    clips = [
        clicking(tmp_path / "a.mp4", 72, [12, 13, 14, 48, 49, 50], fps=film, rate=44_100, sound_s=2.3),
        clip(tmp_path / "b.mp4", 48, fps=film),
        clicking(tmp_path / "c.mp4", 72, [24, 25, 26], fps=film, rate=44_100, sound_s=5),
    ]
    video = shop.video(shop.run("join_clips_orchestrator", project(clips)))
    seen = flashes(video)
    first_seen = [number for number in seen if number - 1 not in seen and not 48 + 9 <= number < 48 + 9 + 32]
    heard = clicks(video)
    assert length(video) == 48 + 9 + 32 + 9 + 48
    assert first_seen == [8, 32, 98 + 16]
    assert len(heard) == 3
    assert max(abs(a - b) for a, b in zip(first_seen, heard, strict=True)) < 1
    assert loudness(video, 48 + 10, 97) < 0.002, "a clip without sound is silent"


def tones(folder: Path) -> list[Path]:
    return [clicking(folder / f"{i}.mp4", 48, [], tone=440 + 220 * i) for i in range(2)]


def test_an_inserted_gap_is_silent(shop: Workshop, tmp_path: Path) -> None:
    video = shop.video(shop.run("join_clips_orchestrator", project(tones(tmp_path), gap_frame_count=17)))
    assert loudness(video, 5, 40) > 0.06
    assert loudness(video, 50, 63) < 0.002


def test_frames_that_are_replaced_keep_their_sound(shop: Workshop, tmp_path: Path) -> None:
    changes = {"gap_frame_count": 17, "replace_mode": True}
    video = shop.video(shop.run("join_clips_orchestrator", project(tones(tmp_path), **changes)))
    assert loudness(video, 41, 47) > 0.06 and loudness(video, 49, 55) > 0.06


def test_a_song_replaces_the_sound_of_all_clips(shop: Workshop, tmp_path: Path) -> None:
    clips = [clicking(tmp_path / f"{i}.mp4", 32, [10]) for i in range(2)]
    song = clicking(tmp_path / "song.mp4", 64, [3, 30]).with_suffix(".wav")
    video = shop.video(shop.run("join_clips_orchestrator", project(clips, audio_url=str(song))))
    assert [round(click) for click in clicks(video)] == [3, 30]
    assert flashes(video) == [10, 32 + 9 + 10]
