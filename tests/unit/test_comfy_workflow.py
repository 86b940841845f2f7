"""Workflows of ComfyUI: their form, and what is read from ComfyUI's answers about them."""

from __future__ import annotations

from typing import Any

import pytest

from source.comfy.running import distinct_names
from source.comfy.workflow import SavedFile, failure, refusal, saved_files, titled, with_input
from source.task_registry import registry
from source.tasks.comfy import ComfyParams

FLOW = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 7, "model": ["4", 0]}, "_meta": {"title": "Paint"}},
    "4": {"class_type": "LoadModel", "inputs": {}},
}


def listed(*names: str, folder: str = "output", subfolder: str = "") -> list[dict[str, str]]:
    return [{"filename": name, "subfolder": subfolder, "type": folder} for name in names]


def test_an_input_is_changed_in_a_copy() -> None:
    changed = with_input(FLOW, "3", "seed", "8")
    assert changed["3"]["inputs"] == {"seed": "8", "model": ["4", 0]}
    assert FLOW["3"]["inputs"]["seed"] == 7


def test_nodes_are_named_by_title_or_type() -> None:
    assert [titled(FLOW, node) for node in ("3", "4", "9")] == ["3 (Paint)", "4 (LoadModel)", "9"]


def test_videos_come_first_whatever_they_are_listed_as() -> None:
    outputs = {
        "1": {"images": listed("a.png", "b.mp4")},
        "2": {"gifs": listed("c.gif", subfolder="x"), "videos": listed("d.mkv")},
        "3": {"audio": listed("e.flac"), "text": ["said"]},
    }
    found = saved_files({"outputs": outputs})
    assert [each.filename for each in found] == ["b.mp4", "d.mkv", "c.gif", "a.png", "e.flac"]
    assert (found[2].node_id, found[2].subfolder) == ("2", "x")


def test_previews_count_only_where_nothing_was_saved() -> None:
    preview = {"images": listed("p.png", folder="temp")}
    assert [each.filename for each in saved_files({"outputs": {"1": preview}})] == ["p.png"]
    both = {"1": preview, "2": {"images": listed("s.png")}}
    assert [each.filename for each in saved_files({"outputs": both})] == ["s.png"]


def test_answers_of_another_form_hold_no_files() -> None:
    odd: list[Any] = [
        {},
        {"outputs": []},
        {"outputs": {"1": None}},
        {"outputs": {"1": {"images": [None, {"filename": 3}]}}},
    ]
    assert [saved_files(each) for each in odd] == [[]] * 4


def test_names_are_made_safe_and_distinct() -> None:
    names = ("clip.mp4", "../../clip.mp4", "CLIP.mp4", "a/b<c>.png")
    saved = [SavedFile("1", "images", name, "", "output") for name in names]
    assert distinct_names(saved) == ["clip.mp4", "clip_2.mp4", "CLIP_3.mp4", "bc.png"]


def test_a_failure_names_the_node_and_what_it_said() -> None:
    data = {"node_id": "3", "exception_type": "torch.OutOfMemoryError", "exception_message": "no room "}
    entry = {"status": {"status_str": "error", "messages": [["execution_start", {}], ["execution_error", data]]}}
    assert failure(FLOW, entry) == ("torch.OutOfMemoryError", "node 3 (Paint) failed: torch.OutOfMemoryError: no room")
    stopped = {"status": {"status_str": "error", "messages": [["execution_interrupted", {"node_id": "4"}]]}}
    assert failure(FLOW, stopped) == ("interrupted", "it was interrupted at node 4 (LoadModel)")
    assert failure(FLOW, {"status": {"status_str": "error"}}) == ("error", "it failed; the log of ComfyUI says why")
    assert failure(FLOW, {"status": {"status_str": "success"}}) is None


def test_a_refusal_names_every_node_and_input() -> None:
    missing = {"message": "Required input is missing", "details": "steps", "extra_info": {"input_name": "steps"}}
    answer = {
        "error": {"message": "Prompt outputs failed validation", "details": ""},
        "node_errors": {"3": {"errors": [missing]}, "4": {"errors": [{"message": "Exception", "details": "odd"}]}},
    }
    assert refusal(FLOW, answer) == (
        "Prompt outputs failed validation; node 3 (Paint), input 'steps': Required input is missing: steps; "
        "node 4 (LoadModel): Exception: odd"
    )
    assert refusal(FLOW, {}) == "no reason was given"


@pytest.mark.parametrize("node_id", ["12", 12])
def test_a_node_may_be_named_by_text_or_number(node_id: str | int) -> None:
    row = {
        "workflow": {"12": {"class_type": "LoadVideo", "inputs": {"file": ""}}},
        "video_url": "a.mp4", "video_node_id": node_id, "video_input_field": "file",
        "inputs": [{"url": "b.png", "node_id": node_id}],
    }  # fmt: skip
    params = registry().get("comfy").parse(row, strict=True).params
    assert isinstance(params, ComfyParams)
    assert [each.node_id for _, each in params.media] == ["12", "12"]
