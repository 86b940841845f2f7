"""What debug.py knows of one task: timing, attempts, causes, frames, LoRAs, advice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from source.abbreviation import abbreviated
from source.diagnostics.parameters import loras_in
from source.diagnostics.task import task_view
from source.store.sqlite import SqliteStore
from source.store.types import NewTask, Task


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "tasks.db")
    yield store
    store.close()


def claim(store: SqliteStore) -> Task:
    [task] = store.claim("w", lease_s=60)
    return task


def add(store: SqliteStore, *, dependant_on: tuple[str, ...] = (), **params: Any) -> str:
    return store.add(NewTask(task_type="t2v", params=params, dependant_on=dependant_on))


def fail(store: SqliteStore, message: str, error_class: str) -> str:
    task = claim(store)
    store.fail(task.claim, message, error_class=error_class)
    return task.id


def fan_out(store: SqliteStore, *children: tuple[str, str, Mapping[str, Any]]) -> tuple[Task, list[Task]]:
    """A travel with these children (key, type, params), all of them claimed."""
    store.add(NewTask(task_type="travel_orchestrator", params={}))
    parent = claim(store)
    made = [NewTask.child(parent, *child) for child in children]
    store.fan_out(parent.claim, made, final_child=made[-1].id)
    return parent, store.claim("w", lease_s=60, limit=9)


def test_stages_of_a_run_and_its_steps_are_told(store: SqliteStore) -> None:
    add(store)
    task = claim(store)
    stages = [
        ["preparing", 0.5],
        ["queued", 1],
        ["loading", 2.0],
        ["encoding", 0.25],
        ["denoising", 6],
        ["saving", 0.5],
    ]
    store.progress(task.claim, {"phase": "saving", "step": 1, "total": 1, "stages": stages, "steps_made": 12})
    timing = task_view(store, task.id)["timing"]
    assert [stage["name"] for stage in timing["stages"]] == [name for name, _ in stages]
    assert (timing["waited_s"], timing["loading_s"], timing["steps"], timing["seconds_per_step"]) == (1.0, 2.0, 12, 0.5)
    assert timing["generating_s"] >= 6.75
    store.complete(task.claim, None, result_data={"gpu_seconds": {"denoise": 6.0}})
    timing = task_view(store, task.id)["timing"]
    assert timing["gpu_seconds"] == {"denoise": 6.0}
    assert timing["total_s"] >= timing["queued_s"] >= 0


def test_attempts_that_came_to_nothing_are_lost_time(store: SqliteStore) -> None:
    task_id = add(store)
    store.retry_later(claim(store).claim, "the engine stumbled", error_class="engine", delay_s=0)
    claim(store)
    view = task_view(store, task_id)
    assert [each["end"] for each in view["claims"]] == ["retry", "running"]
    assert view["timing"]["lost_s"] is not None
    assert any("traceback" in hint for hint in view["hints"])


@pytest.mark.parametrize(
    ("error_class", "message", "advice"),
    [
        ("out_of_memory", "CUDA out of memory", "resolution"),
        ("model_unavailable", "t2v: its weights are missing; fetch them", "models fetch"),
        ("bad_input", "the LoRA x.safetensors cannot be used: it is cut off", "LORAS_DIR"),
        ("bad_input", "10.0.0.1 is a machine of a private network; add it to FETCH_ALLOW", "FETCH_ALLOW"),
        ("bad_input", "the server answered 404 for https://h/cat.png; check the URL", "expired"),
        ("bad_input", "resolution: 'x' is no size", "--help TYPE"),
        ("disk_full", "the disk of /scratch is full", "debug.py disk"),
        ("poison", "the worker died 3 times", "die of this task"),
        ("device_lost", "CUDA error", "nvidia-smi"),
        ("internal", "internal error: KeyError", "report"),
    ],
)
def test_each_kind_of_failure_has_its_advice(
    store: SqliteStore, error_class: str, message: str, advice: str
) -> None:  # fmt: skip
    add(store)
    [*_, last] = task_view(store, fail(store, message, error_class))["hints"]
    assert advice in last


def test_a_lease_that_ran_out_is_explained(store: SqliteStore) -> None:
    add(store)
    [task] = store.claim("w", lease_s=0)
    store.rescue()
    view = task_view(store, task.id)
    assert any("lease ran out" in hint for hint in view["hints"])
    assert view["reasons"]


def test_the_task_that_a_failure_began_with_is_named(store: SqliteStore) -> None:
    first = add(store)
    last = add(store, dependant_on=(add(store, dependant_on=(first,)),))
    fail(store, "the file does not exist", "bad_input")
    cause = task_view(store, last)["cause"]
    assert (cause["id"], cause["error_message"]) == (first, "the file does not exist")
    assert task_view(store, first)["cause"] is None


def test_a_sibling_that_failed_is_the_cause_for_the_parent_and_for_what_depended_on_it(store: SqliteStore) -> None:
    store.add(NewTask(task_type="travel_orchestrator", params={}))
    parent = claim(store)
    segment = NewTask.child(parent, "travel_segment:0", "travel_segment", {})
    stitch = NewTask.child(parent, "travel_stitch:0", "travel_stitch", {}, (segment.id,))
    store.fan_out(parent.claim, [segment, stitch], final_child=stitch.id)
    fail(store, "no such image", "bad_input")
    assert task_view(store, parent.id)["cause"]["id"] == segment.id
    assert task_view(store, stitch.id)["cause"]["id"] == segment.id


def test_children_stand_with_their_share_and_the_parents_is_theirs(store: SqliteStore) -> None:
    keys = [("travel_segment:0", "travel_segment", {}), ("travel_segment:1", "travel_segment", {})]
    parent, [first, second] = fan_out(store, *keys)
    store.complete(first.claim, None)
    store.progress(
        second.claim, {"phase": "denoising", "step": 2, "total": 4, "fraction": 0.5, "window": 2, "windows": 2}
    )
    view = task_view(store, parent.id)
    assert [child["share"] for child in view["children"]] == [1.0, 0.75]
    assert view["progress_of_children"] == {
        "total": 2, "share": 0.875, "by_status": {"Complete": 1, "In Progress": 1},
    }  # fmt: skip
    assert view["share"] == 0.875


def test_frames_are_held_against_the_plan(store: SqliteStore) -> None:
    plan = {
        "segment_frames_expanded": [17, 17], "frame_overlap_settings_expanded": [4], "chained": True,
        "num_total_segments_generated": 2, "generation_starts": [0, 1],
    }  # fmt: skip
    parent, rows = fan_out(
        store,
        ("travel_segment:0", "travel_segment", {"segment_index": 0}),
        ("travel_segment:1", "travel_segment", {"segment_index": 1}),
        ("travel_stitch:0", "travel_stitch", plan),
    )
    for row, made in zip(rows, (17, 20, 34), strict=True):
        store.complete(row.claim, None, result_data={"num_frames": made})
    checks = {check["what"]: check for check in task_view(store, parent.id)["frames"]}
    assert [(each["planned"], each["made"], each["agrees"]) for each in checks.values()] == [
        (17, 17, True), (21, 20, False), (34, 34, True),
    ]  # fmt: skip


def test_transitions_and_the_joined_video_are_held_against_the_plan(store: SqliteStore) -> None:
    join = {"context_before": 8, "gap": 13, "context_after": 8}
    parent, rows = fan_out(
        store,
        ("join_clips_segment:0", "join_clips_segment", {"join_index": 0, "join": join}),
        ("join_final_stitch:0", "join_final_stitch", {"total_frames": 100}),
    )
    store.complete(rows[0].claim, None, result_data={"num_frames": 29})
    checks = task_view(store, parent.id)["frames"]
    assert [(each["planned"], each["made"], each["agrees"]) for each in checks] == [(29, 29, True), (100, None, None)]
    assert task_view(store, rows[0].id)["frames"][0]["agrees"] is True


def test_loras_are_found_wherever_they_are_named() -> None:
    params = {
        "activated_loras": ["a.safetensors"],
        "orchestrator_details": {
            "additional_loras": {"https://h/b.safetensors?token=swordfish": 0.8},
            "phase_config": {"phases": [{"loras": [{"url": "https://h/c.safetensors", "multiplier": "1;0"}]}]},
        },
    }
    assert loras_in(params) == [
        {"reference": "a.safetensors", "multiplier": None},
        {"reference": "https://h/b.safetensors?token=***", "multiplier": 0.8},
        {"reference": "https://h/c.safetensors", "multiplier": "1;0"},
    ]


def test_long_parameters_are_cut_short_and_say_so() -> None:
    cut = abbreviated({"prompt": "x" * 900, "frames": list(range(9)), "a": {"b": {"c": {"d": {"e": 1}}}}})
    assert cut["prompt"] == f"{'x' * 200}… (900 characters)"
    assert cut["frames"] == [0, 1, 2, 3, 4, "… 4 more"]
    assert cut["a"]["b"]["c"]["d"] == "… 1 more"
