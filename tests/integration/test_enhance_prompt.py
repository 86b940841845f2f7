"""enhance_prompt, and generations with an enhanced prompt, through a whole worker on tiny weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_runs import picture
from tiny_enhancers import parrot_llama, tiny_florence2, tiny_llama
from tiny_models import write_definition
from worker_floor import Floor

from headless.orchestrator import WanOrchestrator
from source.store.types import Status, Task
from source.task_registry import registry
from Wan2GP import wgp
from Wan2GP.media import write_image

SENTENCE = "a red circle moving right"
ENHANCERS = {
    "pair": {"writer": "tiny_llama", "captioner": "tiny_florence2"},
    "parrot": {"writer": "parrot_llama", "captioner": "tiny_florence2"},
    "mute": {"writer": "mute_llama"},
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weights")
    write_definition(root / "rows", "tiny_llama", "llama3", tiny_llama(root / "llama", 1))
    write_definition(root / "rows", "tiny_florence2", "florence2", tiny_florence2(root / "florence2"))
    write_definition(root / "rows", "parrot_llama", "llama3", parrot_llama(root / "parrot", SENTENCE))
    write_definition(root / "rows", "mute_llama", "llama3", parrot_llama(root / "mute", ""))
    for name, parts in ENHANCERS.items():
        model = {"name": name, "architecture": "prompt_enhancer", "parts": parts}
        (root / "rows" / f"{name}.json").write_text(json.dumps({"model": model}))
    return root / "rows"


@pytest.fixture
def floor(tmp_path: Path, rows: Path) -> Iterator[Floor]:
    made = Floor(tmp_path, WanOrchestrator(checkpoints=tmp_path / "ckpts", definitions=[rows], device="cpu"))
    yield made
    made.close()
    wgp.release_model()


def run(floor: Floor, task_type: str = "enhance_prompt", **params: Any) -> Task:
    task = floor.add(task_type, **params)
    assert floor.worker(registry=registry()).run(until_idle=True) == 0
    return floor.store.get(task)


def result(row: Task) -> dict[str, Any]:
    assert row.status is Status.COMPLETE, row.error_message
    return dict(row.result_data or {})


def test_the_prompt_is_a_text_file_and_stands_in_the_result(floor: Floor, tmp_path: Path) -> None:
    shown = str(write_image(tmp_path / "shown.png", picture(1)))
    row = run(floor, model="pair", prompt="a fox", images=[shown])
    found = result(row)
    assert found["enhanced"] and found["model"] == "pair" and found["prompt"] != "a fox"
    file = floor.output(row.id)
    assert file.suffix == ".txt" and file.read_text(encoding="utf-8") == found["prompt"]
    alone = result(run(floor, model="pair", prompt="a fox"))["prompt"]
    still = result(run(floor, model="pair", prompt="a fox", output="image"))["prompt"]
    seen = result(run(floor, model="pair", image=shown))["prompt"]
    assert len({found["prompt"], alone, still, seen}) == 4, "each is asked for in another way"


def test_a_model_without_words_leaves_the_prompt_and_the_timeline_says_so(floor: Floor) -> None:
    row = run(floor, model="mute", prompt="a fox")
    found = result(row)
    assert (found["prompt"], found["enhanced"]) == ("a fox", False)
    assert any("as it was given" in note for note in found["notes"])
    assert [event for event in floor.store.events(row.id) if event.name == "warning"]


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"model": "pair"}, "prompt: is missing"),
        ({"model": "draft", "prompt": "a fox"}, "draft writes no prompts"),
        ({"model": "pair", "prompt": "a fox", "prompt_enhancer": "I"}, "image_refs: is missing"),
        ({"model": "pair", "prompt": "a fox", "images": ["absent.png"]}, "images[0]"),
        ({"model": "pair", "images": ["a.png"] * 5}, "images"),
    ],
)
def test_a_row_that_cannot_be_meant_fails_and_says_why(floor: Floor, params: dict[str, Any], reason: str) -> None:
    row = run(floor, **params)
    assert row.status is Status.FAILED and reason in (row.error_message or ""), row.error_message


def test_without_its_weights_the_row_fails_with_the_commands_that_fetch_them(floor: Floor) -> None:
    row = run(floor, prompt="a fox")
    assert row.status is Status.FAILED and row.error_class == "model_unavailable"
    for part in ("llama3_2_3b", "florence2_large"):
        assert f"Wan2GP.models fetch {part}" in (row.error_message or "")


def test_any_generation_can_have_its_prompt_enhanced(floor: Floor) -> None:
    small = {"video_length": 5, "num_inference_steps": 2, "resolution": "64x64"}
    knobs = {"prompt_enhancer": "T", "prompt_enhancer_model": "parrot"}
    row = run(floor, "generate_video", model="tiny_wan_t2v", prompt="a fox", **small, **knobs)
    assert f"prompt enhanced: {SENTENCE}" in result(row)["notes"]
    refused = run(floor, "generate_video", model="tiny_wan_t2v", prompt="a fox", **small, prompt_enhancer="T")
    assert refused.status is Status.FAILED and refused.error_class == "model_unavailable"
