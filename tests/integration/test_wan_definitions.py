"""Every definition of the Wan family, with tiny weights of its architecture, through the call to a file."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import picture, run_engine
from stock_runs import NO_FILES, definitions_of
from tiny_models import TINY_WAN

from Wan2GP import wgp
from Wan2GP.definitions import load_definitions
from Wan2GP.engine.wan.architectures import CONDITIONS
from Wan2GP.media import probe_video, write_video

WAN = definitions_of("wan")
#: shapes of a block of 32 pixels too
SIZE = {"width": 64, "height": 32}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def of(architecture: str) -> Path:
        builder = TINY_WAN[architecture].__name__
        if builder not in made:
            made[builder] = TINY_WAN[architecture](tmp_path_factory.mktemp(builder))
        return made[builder]

    return of


@pytest.fixture
def resident(weights, tmp_path: Path):
    """Puts the tiny model of a definition's architecture under the definition."""

    def make(name: str) -> None:
        definition = load_definitions()[name]
        folder = weights(definition.architecture_name)
        model: dict[str, Any] = NO_FILES | {"source": str(folder)}
        if (folder / "fantasy.safetensors").is_file():
            model["modules"] = [[str(folder / "fantasy.safetensors")]]
        (tmp_path / "rows").mkdir()
        (tmp_path / "rows" / f"{name}.json").write_text(json.dumps({"model": model}), encoding="utf-8")
        rows = [tmp_path / "rows"]
        wgp.configure(checkpoints=folder, definitions=rows, save_path=tmp_path / "out", device="cpu")

    yield make
    wgp.release_model()
    wgp.configure(definitions=[])


def inputs(name: str, folder: Path) -> dict[str, Any]:
    """What the model cannot do without, and the media that it is made for."""
    architecture = load_definitions()[name].architecture
    found: dict[str, Any] = {}
    if architecture.i2v:
        found["image_start"] = picture(1, **SIZE)
    if "image_end" in architecture.inputs:
        found["image_end"] = picture(2, **SIZE)
    if architecture.audio:
        found["audio_guide"] = tone(folder / "voice.wav")
    if architecture.model_modes:
        found["model_mode"] = architecture.model_modes[0]
    if architecture.vace or name.startswith("recam"):
        found["video_guide"] = clip(folder / "guide.mkv")
    if name.startswith("phantom"):
        found |= {"image_refs": [picture(3, **SIZE)], "video_prompt_type": "I"}
    return found


def clip(path: Path) -> str:
    write_video(path, [picture(number, **SIZE) for number in range(17)], fps=16, codec="ffv1")
    return str(path)


def tone(path: Path) -> str:
    samples = (np.sin(np.arange(16_000) / 20) * 20_000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.tobytes())
    return str(path)


@pytest.mark.parametrize("name", WAN)
def test_a_definition_makes_its_video_and_makes_it_again(resident, tmp_path: Path, name):
    resident(name)
    architecture = wgp.definitions()[name].architecture
    values = {
        "model_type": name,
        "prompt": "a red circle moving right",
        "resolution": f"{SIZE['width']}x{SIZE['height']}",
        "video_length": architecture.min_frames,
        "num_inference_steps": 3,
        "seed": 5,
        **inputs(name, tmp_path),
    }
    first, again = run_engine(**values), run_engine(**values)
    assert first.returned and first.data("error") == []
    info = probe_video(first.files[0])
    assert (info.num_frames, info.width, info.height) == (architecture.min_frames, SIZE["width"], SIZE["height"])
    assert float(info.fps) == architecture.fps
    assert first.frames().std() > 1
    assert first.files != again.files
    assert np.array_equal(first.frames(), again.frames())


def test_there_are_tiny_weights_of_every_architecture_and_an_implementation():
    assert set(TINY_WAN) == set(CONDITIONS) == {load_definitions()[name].architecture_name for name in WAN}
