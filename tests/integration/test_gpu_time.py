"""Where the GPU's time went, as a worker tells it."""

from __future__ import annotations

import threading
from pathlib import Path

from rich.console import Console
from worker_floor import DEADLINE_S, Floor

from headless.options import GenerationOptions
from source.diagnostics.workers import rendered_workers, workers_view
from source.params.base import TaskParams
from source.store.types import Status
from source.task_registry import Done, TaskContext


class Clock:
    """The queue's seconds; they move only when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_idle_while_a_claimed_task_is_prepared_is_told_from_idle_without_any(tmp_path: Path) -> None:
    clock, preparing, go = Clock(), threading.Event(), threading.Event()
    floor = Floor(tmp_path, clock=clock, heartbeat_s=0.1)

    def slow_to_prepare(params: TaskParams, context: TaskContext) -> Done:
        preparing.set()
        assert go.wait(DEADLINE_S)
        return Done(context.generate("fake_t2v", GenerationOptions(prompt="a ball")).output)

    floor.register("slow_to_prepare", slow_to_prepare, uses_gpu=True)
    with floor.working():
        clock.now += 5
        floor.wait_until(lambda: booked(floor, "idle_no_task") == 5)
        task = floor.add("slow_to_prepare")
        assert preparing.wait(DEADLINE_S)
        clock.now += 7
        go.set()
        floor.wait_for(task, Status.COMPLETE)
        floor.wait_until(lambda: not floor.claimed())
        floor.wait_until(lambda: booked(floor, "idle_waiting") == 7)
        clock.now += 4
        floor.wait_until(lambda: booked(floor, "idle_no_task") == 9)
    [worker] = workers_view(floor.store.workers(), floor.store.now())
    assert worker["gpu_seconds"] == dict.fromkeys(worker["gpu_seconds"], 0) | {"idle_no_task": 9, "idle_waiting": 7}
    floor.close()


def booked(floor: Floor, activity: str) -> float | None:
    """What the worker's row says."""
    told = [worker.metadata.get("gpu_seconds", {}) for worker in floor.store.workers()]
    return told[0].get(activity) if told else None


def test_people_see_how_busy_a_gpu_is(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    seconds = {"denoise": 30.0, "idle_no_task": 9.0, "idle_waiting": 1.0}
    floor.store.heartbeat("w", [], lease_s=60, metadata={"gpu_seconds": seconds})
    floor.store.heartbeat("older", [], lease_s=60)
    console = Console(width=120)
    with console.capture() as shown:
        console.print(rendered_workers(workers_view(floor.store.workers(), floor.store.now())))
    assert "75 %" in shown.get()
    floor.close()
