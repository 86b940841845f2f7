"""A second model beside the resident one: which of them gives way, and that nothing is refused too late."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from control_runs import moving_square, use_engine
from engine_runs import run_engine
from tiny_models import write_definition
from tiny_vision import tiny_depth

from Wan2GP import wgp
from Wan2GP.engine.beside import Beside
from Wan2GP.engine.families import Place
from Wan2GP.errors import ModelUnavailable, OutOfMemory

DEPTH = "depth_anything_v2_vitl"
RUN: dict[str, Any] = {
    "model_type": "tiny_wan_vace", "prompt": "a red circle moving right", "resolution": "64x64", "video_length": 5,
    "num_inference_steps": 2, "seed": 3, "video_prompt_type": "DV",
}  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_depth(tmp_path_factory.mktemp("weights") / "depth")


@pytest.fixture(autouse=True)
def engine(tmp_path: Path, weights: Path) -> Iterator[None]:
    use_engine(tmp_path / "ckpts", tmp_path / "out")
    wgp.configure(definitions=[write_definition(tmp_path / "rows", DEPTH, "depth_anything_v2", weights)])
    yield
    wgp.release_model()
    wgp.configure(definitions=[])


class Full:
    """Memory that holds no second model until the first has given way. Loading reports, which is where it runs out."""

    def __init__(self, *, first_is_there: bool) -> None:
        self.full, self.gave_way, self._first_is_there = True, 0, first_is_there

    def report(self, phase: str, step: int, total: int) -> None:
        if self.full:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def give_way(self) -> None:
        self.gave_way += 1
        self.full = not self._first_is_there


def test_the_resident_model_gives_way_to_what_finds_no_memory(tmp_path: Path) -> None:
    memory = Full(first_is_there=True)
    beside = Beside(wgp.definitions(), Place(tmp_path, "cpu"), memory.report, memory.give_way)
    with beside.model(DEPTH) as model:
        assert model.notes == ()
    assert memory.gave_way == 1 and beside.used == [DEPTH]


def test_what_finds_no_memory_even_so_is_told_as_that(tmp_path: Path) -> None:
    memory = Full(first_is_there=False)
    beside = Beside(wgp.definitions(), Place(tmp_path, "cpu"), memory.report, memory.give_way)
    with pytest.raises(OutOfMemory, match=r"2\.00 GiB"), beside.model(DEPTH):
        raise AssertionError("there was no memory for it")
    assert memory.gave_way == 1


def test_a_model_that_gave_way_is_there_again_for_its_run(tmp_path: Path) -> None:
    values = RUN | {"video_guide": str(moving_square(tmp_path / "guide.mkv", 5))}
    plain = run_engine(**values)
    resident, loads = wgp.wan_model, []

    def fill(command: str, data: Any, state: dict[str, Any]) -> None:
        if command == "progress" and data[1] == "loading" and data[0][0] == 0:
            loads.append(wgp.transformer_type)
            if len(loads) == 1:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    run = run_engine(fill, **values)
    assert run.returned and np.array_equal(run.frames(), plain.frames())
    assert loads == ["tiny_wan_vace", "", ""], "the depth model, again without the resident one, and that one itself"
    assert wgp.wan_model is not resident and wgp.transformer_type == "tiny_wan_vace"


def test_a_model_of_another_device_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "rows" / "tiny_wan_vace.json").write_text(json.dumps({"model": {"devices": ["cuda"]}}))
    wgp.configure(definitions=[tmp_path / "rows"])
    values = RUN | {"video_guide": str(moving_square(tmp_path / "guide.mkv", 5))}
    with pytest.raises(ModelUnavailable, match="needs a device of kind cuda; this machine offers cpu"):
        wgp.check_generation(**values)
    seen: list[str] = []
    with pytest.raises(ModelUnavailable):
        run_engine(lambda command, data, state: seen.append(command), **values)
    assert seen == []
