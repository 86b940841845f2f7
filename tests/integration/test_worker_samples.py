"""What a worker's heartbeats tell of how it is doing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker_floor import Floor

from source.store.types import Status


def rested(values: Mapping[str, Any]) -> bool:
    """It has worked and does not any more."""
    return bool(values["model_loads"]) and not values["tasks_running"]


def test_a_worker_says_how_it_is_doing_with_each_heartbeat(tmp_path: Path) -> None:
    floor = Floor(tmp_path, heartbeat_s=0.2, lease_s=5)
    task = floor.add()
    with floor.working() as worker:
        floor.wait_for(task, Status.COMPLETE)
        floor.wait_until(lambda: any(rested(each.values) for each in floor.store.samples()))
    *_, last = floor.store.samples()
    assert last.worker_id == worker.worker_id
    assert last.values["rss"] > 10_000_000 and last.values["cpu_percent"] >= 0
    assert last.values["tasks_running"] == 0 and last.values["lanes"] == {"prepare": 0, "gpu": 0, "finish": 0}
    assert last.values["model_loads"] == 1
    assert last.values["gpu_utilization"] is None and last.values["gpu_memory_used"] is None
    assert sum(last.values["gpu_seconds"].values()) > 0
    assert set(last.values["gpu_seconds"]) >= {"load", "idle_no_task"}
    floor.close()


def test_heartbeats_that_others_cause_bring_no_sample(tmp_path: Path) -> None:
    floor = Floor(tmp_path, heartbeat_s=200, lease_s=600)
    with floor.working():
        tasks = [floor.add("nothing") for _ in range(5)]
        for task in tasks:
            floor.wait_for(task, Status.COMPLETE)
    assert len(floor.store.samples()) == 1
    floor.close()
