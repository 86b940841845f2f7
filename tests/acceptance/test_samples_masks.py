"""The samples of masks and prompts, run by one worker as a user runs it, on tiny random weights, and measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_runs import SampleRuns
from tiny_enhancers import tiny_florence2, tiny_llama
from tiny_sam2 import tiny_sam2

from source.store.types import Status
from Wan2GP.media import probe_video, read_frames, read_image

pytestmark = pytest.mark.timeout(300)

SAMPLES = frozenset({"create_mask", "create_mask.person", "enhance_prompt"})


@pytest.fixture(scope="module")
def floor(root: Path, tmp_path_factory: pytest.TempPathFactory) -> SampleRuns:
    """The samples, finished by one worker whose definitions lead to tiny weights."""
    folder = tmp_path_factory.mktemp("samples")
    rows = folder / "finetunes"
    rows.mkdir()
    for name, source in tiny_sources(folder / "tiny").items():
        tiny: dict[str, Any] = {"model": {"source": str(source), "devices": []}}
        (rows / f"{name}.json").write_text(json.dumps(tiny))
    return SampleRuns(root, folder, SAMPLES, timeout_s=280, FINETUNES=str(rows))


def tiny_sources(folder: Path) -> dict[str, Path]:
    """Model -> a folder of tiny weights in its place."""
    return {
        "sam2_hiera_large": tiny_sam2(folder / "sam2"),
        "llama3_2_3b": tiny_llama(folder / "llama", 1),
        "florence2_large": tiny_florence2(folder / "florence2"),
    }


def test_every_sample_runs_to_its_end(floor: SampleRuns) -> None:
    unfinished = {name: row.error_message for name, row in floor.rows.items() if row.status is not Status.COMPLETE}
    assert unfinished == {}


def test_a_mask_has_the_frames_the_size_and_the_rate_of_its_video(floor: SampleRuns, root: Path) -> None:
    shown, made = probe_video(root / "samples" / "bbb_320x180_audio.mp4"), probe_video(floor.output("create_mask"))
    assert (made.num_frames, made.width, made.height, made.fps) == (shown.num_frames, 320, 180, shown.fps)
    masks = np.stack([frame[..., 0] for frame in read_frames(floor.output("create_mask"))])
    assert 0.02 < (masks > 127).mean() < 0.98
    assert ((masks > 8) & (masks < 247)).any(), "the edge fades"


def test_a_person_is_found_without_clicks(floor: SampleRuns, root: Path) -> None:
    mask = read_image(floor.output("create_mask.person"))
    assert mask.shape == read_image(root / "samples" / "astronaut.jpg").shape
    assert mask[100, 230].min() == 255 and mask[400, 120].min() == 255, "her face and her sleeve"
    assert mask[60, 430].max() == 0 and mask[200, 30].max() == 0, "the shuttle and the flag"


def test_a_prompt_is_written(floor: SampleRuns) -> None:
    """By random weights: that it is one, not that it is good."""
    found = floor.result("enhance_prompt")
    assert found["enhanced"] and found["prompt"] == floor.output("enhance_prompt").read_text(encoding="utf-8")
