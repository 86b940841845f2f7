"""The samples of LTX-Video and HunyuanVideo, run by one worker as a user runs it, and measured.

Their weights cannot ship: rows of the same ids put tiny random ones in their place.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from sample_runs import SampleRuns
from stock_runs import TinyWeights
from tiny_hunyuan import tiny_hunyuan, tiny_hunyuan_custom, tiny_hunyuan_i2v
from tiny_ltx import tiny_ltx

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


@pytest.fixture(scope="module")
def floor(root: Path, tmp_path_factory: pytest.TempPathFactory) -> SampleRuns:
    folder = tmp_path_factory.mktemp("families")
    TinyWeights(BUILDERS, folder.joinpath).write_rows(folder / "rows", *BUILDERS)
    return SampleRuns(root, folder, SAMPLES, FINETUNES=str(folder / "rows"))


@pytest.mark.parametrize("sample", VIDEOS)
def test_a_sample_becomes_a_video_of_its_frames_size_and_rate(floor: SampleRuns, sample: str) -> None:
    model, frames, size, fps = VIDEOS[sample]
    made = probe_video(floor.output(sample))
    assert (made.num_frames, (made.width, made.height), made.fps) == (frames, size, Fraction(fps))
    assert (floor.rows[sample].result_data or {})["model"] == model
    pictures = np.stack(list(read_frames(floor.output(sample)))).astype(float)
    assert pictures.std() > 5
