"""Two runs that would make the same frames have the same key, wherever their media lie."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import grey_video, picture

from Wan2GP.definitions import load_definitions
from Wan2GP.engine.request import parse_request
from Wan2GP.engine.request_key import request_key
from Wan2GP.media import write_image
from Wan2GP.media.digest import content_digest
from Wan2GP.parameters import PARAMETERS

GUIDED: dict[str, Any] = {"prompt": "a kite", "seed": 3, "resolution": "64x48", "video_prompt_type": "V"}


def key(form: int = 1, **values: Any) -> str:
    definition = load_definitions()["vace_1.3B"]
    return request_key(parse_request(GUIDED | values, definition, frozenset(PARAMETERS), Path("loras")), form)


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    return grey_video(tmp_path / "guide.mkv", [0, 60, 120, 180, 240])


def test_the_same_frames_written_again_elsewhere_are_the_same(guide: Path, tmp_path: Path) -> None:
    again = grey_video(tmp_path / "elsewhere.mkv", [0, 60, 120, 180, 240])
    assert content_digest(again) == content_digest(guide)
    assert key(video_guide=again) == key(video_guide=guide)


def test_a_picture_is_the_same_from_a_file_and_from_memory(tmp_path: Path) -> None:
    photo = picture(1)
    assert key(image_refs=[str(write_image(tmp_path / "photo.png", photo))]) == key(image_refs=[photo])


def test_where_the_model_lies_meanwhile_changes_nothing(guide: Path) -> None:
    """A run that is repeated in little memory goes on from the steps that were kept."""
    assert key(video_guide=guide, override_profile=5) == key(video_guide=guide)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"prompt": "a boat"},
        {"form": 2},
        {"image_refs": [np.zeros((48, 64, 3), np.uint8)]},
        {"NAG_scale": 4},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_the_frames_changes_the_key(guide: Path, change: dict[str, Any]) -> None:
    assert key(video_guide=guide, **change) != key(video_guide=guide)


def test_another_content_under_the_same_name_is_another_request(guide: Path, tmp_path: Path) -> None:
    before = key(video_guide=guide)
    shutil.move(grey_video(tmp_path / "other.mkv", [0, 60, 120, 180, 241]), guide)
    assert key(video_guide=guide) != before


def test_a_lora_that_was_trained_again_is_another_request(tmp_path: Path) -> None:
    lora = tmp_path / "style.safetensors"
    lora.write_bytes(b"weights")
    os.utime(lora, (1, 1))
    before = key(activated_loras=[str(lora)])
    assert key(activated_loras=[str(lora)]) == before
    os.utime(lora, (2, 2))
    assert key(activated_loras=[str(lora)]) != before


def test_a_file_that_is_no_media_counts_by_its_bytes(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("one")
    before = content_digest(notes)
    notes.write_text("two")
    assert content_digest(notes) != before
