"""The samples of masks and prompts, run by one worker as a user runs it, on tiny random weights, and measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from box import Box
from tiny_enhancers import tiny_florence2, tiny_llama
from tiny_sam2 import tiny_sam2

from source.store.sqlite import SqliteStore
from source.store.types import NewTask, Status, Task
from source.task_registry import registry
from Wan2GP.media import probe_video, read_frames, read_image

pytestmark = pytest.mark.timeout(300)

SAMPLES = frozenset({"create_mask", "create_mask.person", "enhance_prompt"})


@dataclass(frozen=True)
class Floor:
    """The finished box, and each sample's row."""

    box: Box
    rows: Mapping[str, Task]

    def file(self, sample: str) -> Path:
        row = self.rows[sample]
        assert row.status is Status.COMPLETE and row.output_location, row.error_message
        return self.box.folder / "public" / row.output_location


@pytest.fixture(scope="module")
def floor(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Floor:
    """The samples, finished by one worker whose definitions lead to tiny weights."""
    box = Box(root, tmp_path_factory.mktemp("samples"))
    store = SqliteStore(box.database)
    tasks = {}
    for name in sorted(SAMPLES):
        params = box.sample(name)
        registry().get(name.partition(".")[0]).parse(params, strict=True)
        tasks[name] = store.add(NewTask(task_type=name.partition(".")[0], params=params))
    rows = box.folder / "finetunes"
    rows.mkdir()
    for name, source in tiny_sources(box.folder / "tiny").items():
        tiny: dict[str, Any] = {"model": {"source": str(source), "devices": []}}
        (rows / f"{name}.json").write_text(json.dumps(tiny))
    box.work(timeout_s=280, FINETUNES=str(rows))
    found = {name: store.get(task) for name, task in tasks.items()}
    store.close()
    return Floor(box, found)


def tiny_sources(folder: Path) -> dict[str, Path]:
    """Model -> a folder of tiny weights in its place."""
    return {
        "sam2_hiera_large": tiny_sam2(folder / "sam2"),
        "llama3_2_3b": tiny_llama(folder / "llama", 1),
        "florence2_large": tiny_florence2(folder / "florence2"),
    }


def test_every_sample_runs_to_its_end(floor: Floor) -> None:
    unfinished = {name: row.error_message for name, row in floor.rows.items() if row.status is not Status.COMPLETE}
    assert unfinished == {}


def test_a_mask_has_the_frames_the_size_and_the_rate_of_its_video(floor: Floor, root: Path) -> None:
    shown, made = probe_video(root / "samples" / "bbb_320x180_audio.mp4"), probe_video(floor.file("create_mask"))
    assert (made.num_frames, made.width, made.height, made.fps) == (shown.num_frames, 320, 180, shown.fps)
    masks = np.stack([frame[..., 0] for frame in read_frames(floor.file("create_mask"))])
    assert 0.02 < (masks > 127).mean() < 0.98
    assert ((masks > 8) & (masks < 247)).any(), "the edge fades"


def test_a_person_is_found_without_clicks(floor: Floor, root: Path) -> None:
    mask = read_image(floor.file("create_mask.person"))
    assert mask.shape == read_image(root / "samples" / "astronaut.jpg").shape
    assert mask[100, 230].min() == 255 and mask[400, 120].min() == 255, "her face and her sleeve"
    assert mask[60, 430].max() == 0 and mask[200, 30].max() == 0, "the shuttle and the flag"


def test_a_prompt_is_written(floor: Floor) -> None:
    """By random weights: that it is one, not that it is good."""
    found = floor.rows["enhance_prompt"].result_data or {}
    assert found["enhanced"] and found["prompt"] == floor.file("enhance_prompt").read_text(encoding="utf-8")
