"""Tasks that make several files: all are published with the row, or none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worker_floor import Floor

from headless.generation import ModelInfo
from headless.options import GenerationOptions
from headless.orchestrator import WanOrchestrator
from headless.testing import FakeOrchestrator
from source.params.base import TaskParams
from source.store.types import Status, Task
from source.task_registry import Done, TaskContext, registry
from Wan2GP.media import probe_video, read_image

MODELS = [
    ModelInfo(
        name=name, architecture=name, inputs=frozenset({"text", "loras"}), fps=1, required=frozenset({"text"}),
        image_output=stills,
    )
    for name, stills in (("flux", True), ("t2v_2_2", False))
]  # fmt: skip


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    floor = Floor(tmp_path, FakeOrchestrator(MODELS))
    floor.registry = registry()
    yield floor
    floor.close()


def run(floor: Floor, task_type: str, **params: Any) -> Task:
    task = floor.add(task_type, **params)
    assert floor.work() == 0
    return floor.store.get(task)


def pictures(floor: Floor, row: Task) -> list[np.ndarray]:
    return [read_image(floor.settings.public_dir / location) for location in (row.result_data or {})["outputs"]]


def test_flux_returns_every_image_that_video_length_asks_for(floor: Floor) -> None:
    row = run(floor, "flux", prompt="a kite", video_length=4, resolution="64x48", seed=3)
    assert (row.status, row.error_message) == (Status.COMPLETE, None)
    made = pictures(floor, row)
    assert len(made) == 4 and {each.shape for each in made} == {(48, 64, 3)}
    assert all(not np.array_equal(made[0], other) for other in made[1:])
    assert (row.result_data or {})["outputs"][0] == row.output_location
    assert len(floor.published()) == 4
    [call] = floor.engine.calls
    assert (call["batch_size"], call["image_mode"], call["embedded_guidance_scale"]) == (4, 1, 3.0)


def test_one_image_is_no_list(floor: Floor) -> None:
    row = run(floor, "flux", prompt="a kite", embedded_guidance_scale=0)
    assert "outputs" not in (row.result_data or {})
    [call] = floor.engine.calls
    assert (call["batch_size"], call["embedded_guidance_scale"]) == (1, 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"video_length": 17}, "video_length: is the number of images here, at most 16, not 17"),
        ({"video_length": 2, "batch_size": 3}, "video_length: is the number of images here, 2, and batch_size says 3"),
        ({"prompt": ""}, "prompt is missing"),
    ],
)
def test_what_flux_cannot_do_is_refused(floor: Floor, given: dict[str, Any], said: str) -> None:
    row = run(floor, "flux", **({"prompt": "a kite"} | given))
    assert (row.status, row.error_class) == (Status.FAILED, "bad_input")
    assert said in (row.error_message or "")


@pytest.mark.parametrize("task_type", ["single_image", "wan_2_2_t2i"])
def test_one_still_of_a_video_model_is_a_png(floor: Floor, task_type: str) -> None:
    row = run(floor, task_type, prompt="a kite", resolution="64x48")
    assert (row.status, Path(row.output_location or "").suffix) == (Status.COMPLETE, ".png")
    assert read_image(floor.output(row.id)).shape == (48, 64, 3)


@pytest.mark.parametrize("task_type", ["wgp", "standard_wgp_task"])
def test_generic_generation_runs_any_model(floor: Floor, task_type: str) -> None:
    row = run(floor, task_type, model="fake_t2v", prompt="a kite", num_frames=9, resolution="64x48")
    assert probe_video(floor.output(row.id)).num_frames == 9
    assert (row.result_data or {})["model"] == "fake_t2v"


def test_every_video_of_a_task_that_is_repeated_is_returned(tmp_path: Path, root: Path) -> None:
    floor = Floor(tmp_path, WanOrchestrator(checkpoints=tmp_path / "ckpts", device="cpu"))
    floor.registry = registry()
    start = str(root / "samples" / "shapes" / "red_circle_left.png")
    row = run(
        floor, "generate_video", model="draft", prompt="x", image_start=start, video_length=5, repeat_generation=3
    )
    floor.close()
    files = [floor.settings.public_dir / location for location in (row.result_data or {})["outputs"]]
    assert row.output_location == f"files/{files[0].name}"
    assert [probe_video(file).num_frames for file in files] == [5, 5, 5]
    assert len(set(files)) == 3


def several(params: TaskParams, context: TaskContext) -> Done:
    """Two images beside the output, which are from a generation of their own."""
    result = context.generate("flux", GenerationOptions(prompt="a ball", batch_size=3))
    return Done(result.files[0], {"made": 3}, extra=result.files[1:])


def test_a_task_that_lost_its_claim_publishes_none(floor: Floor) -> None:
    def lose(params: TaskParams, context: TaskContext) -> Done:
        done = several(params, context)
        floor.store.fail(context.task.claim, "taken away", error_class="test")
        return done

    floor.registry = type(floor.registry)()
    floor.register("several", lose)
    task = floor.add("several")
    floor.work()
    assert floor.store.get(task).error_message == "taken away"
    assert floor.published() == []


def test_a_file_that_is_missing_publishes_none(floor: Floor) -> None:
    def lack(params: TaskParams, context: TaskContext) -> Done:
        done = several(params, context)
        done.extra[-1].unlink()
        return done

    floor.registry = type(floor.registry)()
    floor.register("several", lack)
    task = floor.add("several")
    floor.work()
    assert floor.store.get(task).status is Status.FAILED
    assert floor.published() == []


def test_an_orchestrator_inherits_the_list_of_its_last_child(floor: Floor) -> None:
    from source.store.types import NewTask, child_id
    from source.task_registry import Spawned

    def spread(params: TaskParams, context: TaskContext) -> Spawned:
        parent = context.task.id
        child = NewTask(task_type="several", params={}, id=child_id(parent, "a:0"), parent_id=parent, child_key="a:0")
        return Spawned((child,), child.id)

    floor.registry = type(floor.registry)()
    floor.register("spread", spread)
    floor.register("several", several)
    parent = floor.add("spread")
    floor.work()
    row = floor.store.get(parent)
    assert row.status is Status.COMPLETE
    assert len(pictures(floor, row)) == 3 and (row.result_data or {})["outputs"][0] == row.output_location
