"""After memory ran out: the run in little memory, what is as large after it, and the usual profile for what is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from headless.generation import GenerationTask
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from headless.testing import FakeOrchestrator
from Wan2GP.errors import OutOfMemory
from Wan2GP.parameters import LEAST_MEMORY_PROFILE

Asked = Callable[..., GenerationTask]


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    def make(name: str, frames: int | None = 5, model: str = "fake_t2v", **knobs: object) -> GenerationTask:
        values: dict[str, object] = {"prompt": "a kite", "resolution": "32x32", "video_length": frames}
        return GenerationTask(
            id=name, model=model, options=GenerationOptions.parse(values | knobs), output_dir=tmp_path / name
        )

    return make


class Queue:
    """A queue with a fake engine, one run after the other."""

    def __init__(self) -> None:
        self.engine = FakeOrchestrator()
        self._queue = HeadlessTaskQueue(self.engine)

    def __enter__(self) -> Queue:
        self._queue.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.stop()

    def run(self, task: GenerationTask) -> list[int | None]:
        """The profiles at which it ran."""
        before = len(self.engine.tasks)
        less = replace(task, options=task.options.replace(override_profile=LEAST_MEMORY_PROFILE))
        self._queue.submit(task, on_out_of_memory=lambda _: less).result(timeout=20)
        return [each.options.override_profile for each in self.engine.tasks[before:]]


def test_what_is_as_large_as_a_run_that_did_not_fit_begins_in_little_memory(asked: Asked) -> None:
    with Queue() as queue:
        queue.engine.fail_next(OutOfMemory("out of memory"))
        assert queue.run(asked("large", 9)) == [None, LEAST_MEMORY_PROFILE]
        assert queue.run(asked("as large", 9)) == [LEAST_MEMORY_PROFILE]
        assert queue.run(asked("larger", 5, resolution="64x64")) == [LEAST_MEMORY_PROFILE]
        assert queue.engine.loads == ["fake_t2v"] * 2, "it stays as it is for them"
        assert queue.run(asked("in windows", 17, sliding_window_size=5)) == [None]
        assert queue.run(asked("another model", 9, model="fake_image")) == [None]


def test_what_is_smaller_gets_the_usual_profile_back(asked: Asked) -> None:
    with Queue() as queue:
        queue.engine.fail_next(OutOfMemory("out of memory"))
        queue.run(asked("large", 9))
        assert queue.engine.low_memory
        assert queue.run(asked("small", 5)) == [None]
        assert not queue.engine.low_memory and len(queue.engine.loads) == 3
        assert queue.run(asked("small too", 5)) == [None] and len(queue.engine.loads) == 3


def test_a_model_that_could_not_be_loaded_is_loaded_in_little_memory_from_then_on(asked: Asked) -> None:
    with Queue() as queue:
        queue.engine.fail_next_load(OutOfMemory("out of memory"))
        assert queue.run(asked("first")) == [LEAST_MEMORY_PROFILE]
        assert queue.run(asked("smaller", 1)) == [LEAST_MEMORY_PROFILE]


def test_a_profile_that_a_run_asks_for_is_its_own(asked: Asked) -> None:
    with Queue() as queue:
        queue.engine.fail_next(OutOfMemory("out of memory"))
        queue.run(asked("large", 9))
        assert queue.run(asked("with a profile", 9, override_profile=1)) == [1]
        assert queue.run(asked("in little memory", 5, override_profile=4)) == [4]
        assert queue.run(asked("usual", 5)) == [None]
