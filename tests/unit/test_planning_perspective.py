"""The rows of a picture in a different perspective."""

from __future__ import annotations

from typing import Any

import pytest

from headless.generation import ModelInfo
from source.errors import InvalidInput, Unsupported
from source.params.base import parse_params
from source.params.perspective import FinalGenParams, PerspectiveParams
from source.perspective import image_model
from source.planning.perspective import perspective_tasks
from source.store.types import NewTask, Status, Task
from source.task_registry import registry

ROW = {"input_image_path": "a.png", "prompt": "from behind", "resolution": "64x64", "model": "vace", "seed": 7}


def tasks_of(task_id: str = "the-parent", **values: Any) -> tuple[NewTask, ...]:
    given = ROW | values
    row = Task(id=task_id, task_type="x", params=given, status=Status.IN_PROGRESS, created_at="", priority=4)
    return perspective_tasks(row, parse_params(PerspectiveParams, given).params, "t2v")


@pytest.mark.parametrize(("kind", "drawing"), [("pose", "generate_openpose"), ("depth", "generate_depth")])
def test_five_rows_each_after_what_it_needs(kind: str, drawing: str) -> None:
    tasks = tasks_of(perspective_type=kind)
    assert [each.task_type for each in tasks] == [drawing, "wgp", "extract_frame", drawing, "dp_final_gen"]
    user, still, extract, other, final = tasks
    assert (user.dependant_on, still.dependant_on) == ((), ())
    assert extract.dependant_on == (still.id,)
    assert other.dependant_on == (extract.id,)
    assert final.dependant_on == (user.id, extract.id, other.id)
    assert {each.parent_id for each in tasks} == {"the-parent"} and {each.priority for each in tasks} == {4}


def test_every_row_carries_the_real_ids_of_all() -> None:
    tasks = tasks_of()
    named = [each.params["dp_orchestrator_payload"]["task_ids"] for each in tasks]
    assert all(list(each.values()) == [task.id for task in tasks] for each in named)
    assert tasks[2].params["input_video_task_id"] == tasks[1].id
    assert tasks[3].params["input_image_task_id"] == tasks[2].id
    assert tasks[4].params["target_image_task_id"] == tasks[2].id


@pytest.mark.parametrize("kind", ["pose", "depth"])
@pytest.mark.parametrize("seed", [7, -1])
def test_the_same_row_has_the_same_children(kind: str, seed: int) -> None:
    assert tasks_of(perspective_type=kind, seed=seed) == tasks_of(perspective_type=kind, seed=seed)
    assert tasks_of(seed=seed)[0].id != tasks_of("another", seed=seed)[0].id


def test_the_video_has_the_next_seed_and_without_one_each_row_its_own() -> None:
    assert [each.params["seed"] for each in tasks_of(seed=7) if "seed" in each.params] == [7, 8]
    assert [each.params["seed"] for each in tasks_of(seed=2**32 - 1) if "seed" in each.params] == [2**32 - 1, 0]
    first, other = (tasks_of(task_id, seed=-1)[1].params["seed"] for task_id in ("a", "b"))
    assert first != other


@pytest.mark.parametrize("kind", ["pose", "depth"])
def test_every_row_is_one_that_its_type_takes_without_a_word(kind: str) -> None:
    knobs = {"num_inference_steps": 6, "negative_prompt": "blur", "activated_loras": ["a.safetensors"]}
    for each in tasks_of(perspective_type=kind, debug_mode=True, **knobs):
        parsed = registry().get(each.task_type).parse(each.params, strict=True)
        assert not parsed.unknown
    final = parse_params(FinalGenParams, tasks_of(perspective_type=kind, **knobs)[-1].params).params
    assert final.options.num_inference_steps == 6
    assert final.options.activated_loras == ["a.safetensors"]
    assert "num_inference_steps" not in tasks_of(**knobs)[1].params


class Known:
    """Knows models by their name."""

    def __init__(self, *models: ModelInfo) -> None:
        self._models = {model.name: model for model in models}

    def model(self, name: str) -> ModelInfo:
        return self._models[name]


def model(name: str, *required: str) -> ModelInfo:
    return ModelInfo(
        name=name, architecture="x", inputs=frozenset({"text", *required}), required=frozenset(required), fps=16
    )


def test_the_picture_is_drawn_by_the_model_itself_where_words_are_enough_for_it() -> None:
    vace, easy, still = model("vace", "text", "control_video"), model("easy", "text"), model("t2v_2_2", "text")
    context: Any = Known(vace, easy, still)
    assert image_model(None, easy, context) == "easy"
    assert image_model(None, vace, context) == "t2v_2_2"
    assert image_model("easy", vace, context) == "easy"
    with pytest.raises(Unsupported, match="image_model_name: vace draws no picture"):
        image_model("vace", easy, context)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"easing": "sideways"}, "easing"),
        ({"perspective_type": "depth", "easing": "ease_in"}, "easing is for poses"),
        ({"perspective_type": "colour"}, "perspective_type"),
        ({"resolution": None}, "resolution is missing"),
        ({"prompt": " "}, "prompt is missing"),
        ({"output_video_frames": 1}, "output_video_frames"),
    ],
)
def test_what_cannot_be_planned_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        tasks_of(**values)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"target_image_path": "a.png", "target_image_task_id": "x"},
        {"perspective_type": "depth", "start_depth_path": "a.png"},
        {"perspective_type": "depth", "target_image_path": "a.png"},
    ],
)
def test_the_last_step_needs_its_pictures_once_each(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="needs one of"):
        parse_params(FinalGenParams, ROW | values)
