"""What a vision-language model is asked, what is made of its answers, and the row that asks."""

from __future__ import annotations

import json

import numpy as np
import pytest

from source.planning.prompts import FALLBACK, Picture, Shot, cleaned, instruction, kept_prompt, prompts_task
from source.prompting import BORDER, LONGEST_SIDE, enhanced_prompt, read_picture, side_by_side
from source.store.types import Status, Task
from source.task_registry import Dependency
from Wan2GP.media import write_image, write_video

START, END = Picture("a.png"), Picture("b.mp4", -1)


def row(**changes: object) -> Task:
    values = {"id": "5b1f0d3e-0c56-4a8e-9a53-9f6f4f6d5c11", "task_type": "travel_orchestrator", "params": {}}
    return Task(**values | {"status": Status.IN_PROGRESS, "created_at": "2026-01-01T00:00:00.000Z"} | changes)


def test_a_pair_is_asked_for_three_sentences_with_its_duration_and_the_users_prompt() -> None:
    text = instruction("travel", Shot("a fox\n runs", 33, 16, (START, END)))
    for part in (
        "side by side",
        "green border, is the start",
        "red border, is the end",
        "2.1 seconds",
        "exactly three",
    ):
        assert part in text
    assert text.splitlines()[-1].endswith("a fox runs")


def test_a_single_picture_and_a_join_are_asked_differently_and_an_empty_prompt_gets_an_idea() -> None:
    single = instruction("travel", Shot(" ", 17, 16, (START,)))
    join = instruction("join", Shot("", 53, 16, (START, END, START, END)))
    assert "first frame" in single and "side by side" not in single
    assert "at most 50 words" in join and "order of time" in join and "three sentences" not in join
    assert single.splitlines()[-1] == join.splitlines()[-1] and "camera" in single.splitlines()[-1]


@pytest.mark.parametrize(
    ("answer", "prompt"),
    [
        ("A fox runs.", "A fox runs."),
        ('  "A fox\n\nruns."  ', "A fox runs."),
        ('Prompt: "A fox runs."', "A fox runs."),
        ("**Enhanced prompt:** A fox runs.", "A fox runs."),
        ("Here is the prompt for the video:\n\u201cA fox runs.\u201d", "A fox runs."),
        ('A fox says "run" twice.', 'A fox says "run" twice.'),
        ("Sure! Here is the prompt: A fox runs.", "A fox runs."),
        ("Of course the fox runs.", "Of course the fox runs."),
        ("The fox's tail: red.", "The fox's tail: red."),
        ("A sign reads the answer: stop.", "A sign reads the answer: stop."),
        ("A screen with output: 42 glows.", "A screen with output: 42 glows."),
        ('A sign says "stop"', 'A sign says "stop"'),
        ("\u201cStop\u201d says a sign.", "\u201cStop\u201d says a sign."),
        ('"" ', ""),
        ("Prompt:", ""),
    ],
)
def test_an_answer_is_cleaned_of_what_is_no_prompt(answer: str, prompt: str) -> None:
    assert cleaned(answer) == prompt


def test_a_shot_without_a_prompt_falls_back_to_a_transition() -> None:
    assert [kept_prompt(Shot(text, 17, 16, (START,))) for text in (" a fox ", " ")] == ["a fox", FALLBACK]
    assert FALLBACK == "cinematic transition"


def test_the_row_is_a_child_that_carries_what_all_children_carry_and_each_shots_number() -> None:
    shots = [Shot("one", 17, 16, (START, END), index=3), Shot("two", 17, 16, (START,))]
    asked = prompts_task(row(), {"orchestrator_run_id": "run"}, kind="travel", shots=shots, model="fake_vlm")
    assert (asked.child_key, asked.task_type, asked.parent_id) == ("enhance_prompts:0", "enhance_prompts", row().id)
    assert asked.id == prompts_task(row(), {}, kind="travel", shots=shots, model="other").id
    params = json.loads(json.dumps(asked.params))
    assert (params["orchestrator_run_id"], params["model_name"]) == ("run", "fake_vlm")
    assert [shot["index"] for shot in params["shots"]] == [3, 1]
    assert params["shots"][0]["pictures"] == [{"path": "a.png", "frame": None}, {"path": "b.mp4", "frame": -1}]


def test_a_child_reads_its_own_prompt_back_and_none_that_was_not_asked_for() -> None:
    data = {"indices": [3, 1], "prompts": ["three", "one"], "notes": []}
    found = [
        Dependency(row(task_type="travel_segment"), lambda: None),
        Dependency(row(task_type="enhance_prompts", result_data=data), lambda: None),
    ]
    assert [enhanced_prompt(found, index) for index in (0, 1, 3)] == [None, "one", "three"]
    assert enhanced_prompt(found[:1], 1) is None


def test_a_pair_stands_side_by_side_start_in_green_end_in_red() -> None:
    start, end = np.full((40, 60, 3), 10, np.uint8), np.full((80, 60, 3), 200, np.uint8)
    shown = side_by_side(start, end)
    assert shown.shape == (40 + 2 * BORDER, 60 + 30 + 4 * BORDER, 3)
    assert BORDER == 6
    left, right = shown[20, BORDER - 1], shown[20, -BORDER]
    assert left.argmax() == 1 and right.argmax() == 0
    assert shown[20, BORDER].tolist() == [10, 10, 10] and shown[20, -BORDER - 1].tolist() == [200, 200, 200]


def test_pictures_are_read_as_rgb_and_never_larger_than_needed(tmp_path) -> None:
    red = np.zeros((100, 2000, 3), np.uint8)
    red[..., 0] = 220
    assert read_picture(write_image(tmp_path / "a.png", red), None).shape == (38, LONGEST_SIDE, 3)
    frames = [np.full((32, 48, 3), level, np.uint8) for level in (0, 100, 200)]
    video = write_video(tmp_path / "b.mkv", frames, fps=8, codec="ffv1").path
    assert [round(read_picture(video, frame).mean() / 100) for frame in (0, 1, -1)] == [0, 1, 2]
