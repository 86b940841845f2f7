"""The samples of LTX-Video and HunyuanVideo, run by one worker as a user runs it, and measured.

Their weights cannot ship: rows of the same ids put tiny random ones in their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from box import Box
from stock_runs import TinyWeights
from tiny_hunyuan import tiny_hunyuan, tiny_hunyuan_custom, tiny_hunyuan_i2v
from tiny_ltx import tiny_ltx

from source.store.sqlite import SqliteStore
from source.store.types import NewTask, Status, Task
from source.task_registry import registry
from Wan2GP.media import probe_video, read_frames

BUILDERS = {
    "ltxv_13B": tiny_ltx,
    "hunyuan": tiny_hunyuan,
    "hunyuan_i2v": tiny_hunyuan_i2v,
    "hunyuan_custom": tiny_hunyuan_custom,
}
#: sample -> model, frames, size and rate of the video that it makes
VIDEOS = {
    "hunyuan": ("hunyuan", 9, (64, 64), 24),
    "hunyuan.custom": ("hunyuan_custom", 9, (64, 64), 24),
    "hunyuan.i2v": ("hunyuan_i2v", 9, (64, 64), 24),
    "ltxv": ("ltxv_13B", 17, (64, 64), 30),
    "ltxv.keyframes": ("ltxv_13B", 25, (96, 64), 30),
}
SAMPLES = frozenset(VIDEOS)


class Floor:
    """What a worker made of the samples."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.box = Box(root, folder)
        TinyWeights(BUILDERS, folder.joinpath).write_rows(folder / "rows", *BUILDERS)
        store = SqliteStore(self.box.database)
        tasks = {name: store.add(self._task(name)) for name in sorted(SAMPLES)}
        self.box.work(FINETUNES=str(folder / "rows"))
        self.rows: Mapping[str, Task] = {name: store.get(task) for name, task in tasks.items()}
        store.close()

    def _task(self, sample: str) -> NewTask:
        kind, params = sample.partition(".")[0], self.box.sample(sample)
        registry().get(kind).parse(params, strict=True)
        return NewTask(task_type=kind, params=params)

    def output(self, sample: str) -> Path:
        row = self.rows[sample]
        assert row.status is Status.COMPLETE and row.output_location, row.error_message
        return self.box.folder / "public" / row.output_location


@pytest.fixture(scope="module")
def floor(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Floor:
    return Floor(root, tmp_path_factory.mktemp("families"))


@pytest.mark.parametrize("sample", VIDEOS)
def test_a_sample_becomes_a_video_of_its_frames_size_and_rate(floor: Floor, sample: str) -> None:
    model, frames, size, fps = VIDEOS[sample]
    made = probe_video(floor.output(sample))
    assert (made.num_frames, (made.width, made.height), made.fps) == (frames, size, Fraction(fps))
    assert (floor.rows[sample].result_data or {})["model"] == model
    pictures = np.stack(list(read_frames(floor.output(sample)))).astype(float)
    assert pictures.std() > 5
