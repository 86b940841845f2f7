"""How soon after a cancel the GPU is another task's, with an engine whose phases last, step by step, until somebody
stops them: within a step and 2 seconds. (tests/integration/test_cancel_stages.py looks at what else follows.)"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from worker_floor import DEADLINE_S, Floor

from headless.generation import CancelToken, GenerationOutcome, GenerationTask, OnProgress, Progress
from headless.testing import FakeOrchestrator
from source.storage import LocalStorage, OnSent, OnStop, StagedOutput, unwatched
from source.store.types import Status, Task

STEP_S, ALLOWED_S = 0.3, 2.0
LAST = 400


class Endless(FakeOrchestrator):
    """The first run stays in one phase, step by step."""

    def __init__(self, phase: str) -> None:
        super().__init__()
        self._phase = phase
        self.reached = threading.Event()
        self._pause = threading.Event()

    def stay(self, phase: str, go_on: Callable[[int], object]) -> None:
        if phase != self._phase or self.reached.is_set():
            return
        for step in range(1, LAST):
            go_on(step)
            self.reached.set()
            self._pause.wait(STEP_S)

    def load_model(self, model: str, on_progress: OnProgress, profile: int = -1) -> bool:
        self.stay("loading", lambda step: on_progress(Progress("loading", step, LAST)))
        return super().load_model(model, on_progress, profile)

    def generate(self, task: GenerationTask, on_progress: OnProgress, cancel: CancelToken) -> GenerationOutcome:
        def report(progress: Progress) -> None:
            on_progress(progress)
            self.stay(progress.phase, lambda step: cancel.raise_if_cancelled())

        return super().generate(task, report, cancel)


class SlowStorage(LocalStorage):
    """Sends byte by byte while the engine says that it is to."""

    engine: Endless

    def stage(self, task: Task, path: Path, *, on_sent: OnSent = unwatched, **stop: OnStop) -> StagedOutput:
        self.engine.stay("uploading", lambda step: on_sent(step << 20, LAST << 20))
        return super().stage(task, path, on_sent=on_sent, **stop)


@contextmanager
def busy(folder: Path, phase: str) -> Iterator[tuple[Floor, str, str]]:
    """A worker whose first task stands in `phase`, and the task beside it."""
    engine = Endless(phase)
    floor = Floor(folder, engine)
    storage = SlowStorage(floor.settings)
    storage.engine = engine
    task, neighbour = floor.add(), floor.add(model="fake_i2v", image_start=str(sample()))
    try:
        with floor.working(storage=storage):
            assert engine.reached.wait(DEADLINE_S)
            yield floor, task, neighbour
    finally:
        floor.close()


def sample() -> Path:
    return sorted((Path(__file__).resolve().parents[2] / "samples").rglob("*.png"))[0]


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("phase", ["loading", "encoding", "denoising", "decoding", "saving", "uploading"])
def test_a_cancel_frees_the_gpu_within_a_step_and_two_seconds(tmp_path: Path, phase: str) -> None:
    with busy(tmp_path, phase) as (floor, task, neighbour):
        asked = time.monotonic()
        floor.store.cancel(task)
        floor.store.cancel(task)
        row = floor.wait_for(task, Status.CANCELLED)
        cancelled_s = time.monotonic() - asked
        floor.wait_until(lambda: "started" in floor.event_names(neighbour))
        free_s = time.monotonic() - asked
        print(f"{phase}: cancelled after {cancelled_s:.2f} s, the next generation began after {free_s:.2f} s")
        assert max(cancelled_s, free_s) < STEP_S + ALLOWED_S
        floor.wait_for(neighbour, Status.COMPLETE)
        assert row.output_location is None
        assert [name for name in floor.published() if task in name] == []
        assert floor.event_names(task).count("cancelled") == 1
