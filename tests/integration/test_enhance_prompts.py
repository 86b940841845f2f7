"""enhance_prompts through the whole worker: with the shipped fake, with engines that fail, without the real model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import write_definition
from tiny_vision import tiny_qwen_vl
from worker_floor import Floor

from headless.generation import GenerationTask, ModelInfo
from headless.orchestrator import WanOrchestrator
from headless.testing import FakeOrchestrator, Gate
from source.planning.prompts import Picture, Shot, prompts_task
from source.prompting import BORDER, enhanced_prompt
from source.store.types import Status, Task
from source.task_registry import Dependency, registry
from Wan2GP import wgp
from Wan2GP.errors import EngineError, NoOutput, OutOfMemory
from Wan2GP.media import read_image, write_image, write_video

RED, BLUE = (220, 30, 20), (20, 40, 210)


class Mute(FakeOrchestrator):
    """A model whose every answer is the same."""

    answer = ' "" '

    def _write_text(self, task: GenerationTask, model: ModelInfo) -> Path:
        path = super()._write_text(task, model)
        path.write_text(self.answer, encoding="utf-8")
        return path


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    made = Floor(tmp_path)
    yield made
    made.close()


@pytest.fixture
def pictures(tmp_path: Path) -> list[dict[str, str]]:
    """A red picture and a blue one."""
    found = []
    for name, colour in (("red", RED), ("blue", BLUE)):
        found.append({"path": str(write_image(tmp_path / f"{name}.png", np.full((48, 64, 3), colour, np.uint8)))})
    return found


def shot(prompt: str, pictures: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    return {"prompt": prompt, "num_frames": 33, "fps": 16, "pictures": pictures} | changes


def run(floor: Floor, **params: Any) -> Task:
    task = floor.add("enhance_prompts", **{"model": "fake_vlm"} | params)
    assert floor.worker(registry=registry()).run(until_idle=True) == 0
    return floor.store.get(task)


def result(row: Task) -> dict[str, Any]:
    assert row.status is Status.COMPLETE, row.error_message
    assert row.output_location is None and row.result_data is not None
    return dict(row.result_data)


def warnings(floor: Floor, row: Task) -> list[str]:
    return [event.detail or "" for event in floor.store.events(row.id) if event.name == "warning"]


def test_each_shot_gets_the_models_prompt_and_the_model_is_loaded_once(floor: Floor, pictures) -> None:
    shots = [shot("a fox", pictures, index=2), shot("", pictures[:1]), shot("a cat", pictures, index=5)]
    row = run(floor, shots=shots)
    found = result(row)
    assert found["indices"] == [2, 1, 5] and found["notes"] == [] and warnings(floor, row) == []
    assert [prompt.startswith("1 pictures.") for prompt in found["prompts"]] == [True] * 3
    assert found["prompts"][0].endswith("a fox") and found["prompts"][2].endswith("a cat")
    assert floor.engine.loads == ["fake_vlm"]
    assert enhanced_prompt([Dependency(row, lambda: None)], 5) == found["prompts"][2]


def test_the_model_is_shown_red_as_red_with_a_green_border_at_the_start_and_a_red_one_at_the_end(
    floor: Floor, pictures
) -> None:
    row = run(floor, shots=[shot("a fox", pictures)], debug=True)
    (call,) = floor.engine.calls
    (file,) = call["image_refs"]
    shown = read_image(file)
    assert shown.shape == (48 + 2 * BORDER, 2 * (64 + 2 * BORDER), 3)
    assert np.abs(shown[30, 40].astype(int) - RED).max() == 0 and np.abs(shown[30, -40].astype(int) - BLUE).max() == 0
    assert shown[30, 2].argmax() == 1 and shown[30, -2].argmax() == 0
    assert "exactly three sentences" in call["prompt"] and "2.1 seconds" in call["prompt"]
    assert result(row)["prompts"][0].endswith("a fox")


def test_a_join_shows_its_four_frames_in_the_order_of_time(floor: Floor, tmp_path: Path) -> None:
    frames = [np.full((32, 48, 3), (40 * number, 0, 250 - 40 * number), np.uint8) for number in range(6)]
    video = str(write_video(tmp_path / "a.mkv", frames, fps=8, codec="ffv1").path)
    wanted = [0, 4, 1, -1]
    row = run(floor, kind="join", debug=True, shots=[shot("", [{"path": video, "frame": each} for each in wanted])])
    assert result(row)["prompts"][0].startswith("4 pictures.")
    shown = [read_image(file)[16, 24].astype(int) for file in floor.engine.calls[0]["image_refs"]]
    for pixel, number in zip(shown, (0, 4, 1, 5), strict=True):
        assert np.abs(pixel - frames[number][16, 24]).max() <= 3
    assert "at most 50 words" in floor.engine.calls[0]["prompt"]


def test_nothing_of_the_users_pictures_is_left_behind(floor: Floor, pictures, tmp_path: Path) -> None:
    before = {path for path in tmp_path.rglob("*.png")}
    result(run(floor, shots=[shot("a fox", pictures)]))
    assert floor.published() == [] and floor.leftovers() == []
    assert {path for path in tmp_path.rglob("*") if path.suffix in (".png", ".jpg", ".txt")} == before


@pytest.mark.parametrize(
    "error", [OutOfMemory("out of memory"), EngineError("it broke"), NoOutput(), ValueError("a bug of a library")]
)
def test_a_shot_that_the_model_fails_on_keeps_its_prompt_and_the_others_do_not_suffer(floor, pictures, error) -> None:
    for _ in range(2 if isinstance(error, OutOfMemory) else 1):  # that is tried once more in place
        floor.engine.fail_next(error)
    row = run(floor, shots=[shot(" a fox ", pictures), shot("a cat", pictures)])
    found = result(row)
    assert found["prompts"][0] == "a fox" and found["prompts"][1].startswith("1 pictures.")
    assert found["notes"] == [f"0: kept 'a fox': {error}"]
    (warning,) = warnings(floor, row)
    assert "prompts were not enhanced" in warning and str(error) in warning
    assert row.attempts == 0


def test_why_a_prompt_was_kept_is_told_without_secrets(floor: Floor, pictures) -> None:
    floor.engine.fail_next(EngineError("https://h/model?token=swordfish is gone"))
    row = run(floor, shots=[shot("a fox", pictures)])
    (note,) = result(row)["notes"]
    assert "is gone" in note and "swordfish" not in f"{note} {warnings(floor, row)}"


def test_an_empty_answer_becomes_the_users_prompt_or_a_transition(tmp_path: Path, pictures) -> None:
    floor = Floor(tmp_path, Mute())
    found = result(run(floor, shots=[shot("a fox", pictures), shot(" ", pictures)]))
    floor.close()
    assert found["prompts"] == ["a fox", "cinematic transition"]
    assert [note.partition(": kept")[0] for note in found["notes"]] == ["0", "1"]
    assert all("empty answer" in note for note in found["notes"])


def test_without_the_real_models_weights_every_prompt_is_kept_and_the_cure_is_named(tmp_path: Path, pictures) -> None:
    floor = Floor(tmp_path, WanOrchestrator(checkpoints=tmp_path / "ckpts", device="cpu"))
    row = run(floor, shots=[shot("a fox", pictures), shot("", pictures)], model=None)
    found, noted = result(row), warnings(floor, row)
    floor.close()
    assert found["prompts"] == ["a fox", "cinematic transition"] and found["model"] == "qwen2_5_vl_7b"
    assert len(found["notes"]) == 2 and "models fetch qwen2_5_vl_7b" in found["notes"][0]
    assert len(noted) == 1 and "shots 2" in noted[0]


def test_a_real_model_of_random_weights_answers_through_the_worker(tmp_path: Path, pictures) -> None:
    rows = write_definition(tmp_path / "rows", "tiny_vl", "qwen2_5_vl", tiny_qwen_vl(tmp_path / "vl", 1))
    floor = Floor(tmp_path, WanOrchestrator(checkpoints=tmp_path / "ckpts", definitions=[rows], device="cpu"))
    try:
        shots = [shot("a fox", pictures), shot("a fox", pictures), shot("a fox", pictures[::-1])]
        found = result(run(floor, shots=shots, model="tiny_vl"))
        loads = floor.queue.statistics().model_loads
    finally:
        floor.close()
        wgp.release_model()
    assert found["notes"] == [] and loads == 1
    assert found["prompts"][0] == found["prompts"][1] != found["prompts"][2]


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"model": "fake_t2v"}, "fake_t2v writes no text about pictures"),
        ({"model": "fake_vlmm"}, "fake_vlm"),
        ({"shots": []}, "shots"),
        ({"shots": [{"num_frames": 9, "pictures": [{"path": "absent.png"}]}]}, "shots[0].pictures[0]"),
        ({"shots": [{"num_frames": 9, "pictures": [{"path": "a.png"}] * 3}]}, "takes up to 2, not 3"),
    ],
)
def test_a_row_that_cannot_be_meant_fails_and_says_why(floor: Floor, pictures, params, reason) -> None:
    row = run(floor, **{"shots": [shot("a fox", pictures)]} | params)
    assert row.status is Status.FAILED and row.error_class == "bad_input"
    assert reason in (row.error_message or "")


def test_a_cancelled_task_is_cancelled_and_not_taken_for_a_failure_of_the_model(tmp_path: Path, pictures) -> None:
    gate = Gate()
    floor = Floor(tmp_path, FakeOrchestrator(gate=gate))
    task = floor.add("enhance_prompts", model="fake_vlm", shots=[shot("a fox", pictures)])
    with floor.working(registry=registry()):
        gate.wait_until_held()
        floor.store.cancel(task)
        row = floor.wait_for(task, Status.CANCELLED)
    floor.close()
    assert row.result_data is None


def test_the_child_of_a_travel_ignores_what_is_its_parents_own(floor: Floor, pictures) -> None:
    """A child carries all of its parent's parameters: knobs and features of a travel are no business of this one."""
    details = {
        "model_name": "fake_vace", "steps": 900, "prompt": "another", "enhance_prompt": True, "use_svi": True,
        "structure_videos": [{"path": "x.mp4"}], "parsed_resolution_wh": "64x48", "segment_frames_expanded": [33],
    }  # fmt: skip
    parent = floor.store.get(floor.add("nothing", orchestrator_details=details))
    shared = {"orchestrator_run_id": "run", "fps_helpers": 16, "parsed_resolution_wh": "64x48"}
    wanted = [Shot("a fox", 33, 16, tuple(Picture(each["path"]) for each in pictures))]
    child = prompts_task(
        parent, shared | {"orchestrator_details": details}, kind="travel", shots=wanted, model="fake_vlm"
    )
    row = run(floor, **json.loads(json.dumps(dict(child.params))))
    assert result(row)["prompts"][0].endswith("a fox")
    assert floor.engine.loads == ["fake_vlm"]
    assert set(floor.engine.calls[0]) <= {"prompt", "image_refs"}
    assert not [event for event in floor.store.events(row.id) if "unknown" in event.name]


def test_the_sample_runs(floor: Floor, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    sample = json.loads((root / "samples" / "tasks" / "enhance_prompts.json").read_text())
    found = result(run(floor, **sample))
    assert [prompt.startswith("1 pictures.") for prompt in found["prompts"]] == [True, True]
