"""The shipped fake engine with misfortunes: errors that it raises, and deaths, where a prompt asks for them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

from headless.generation import CancelToken, GenerationOutcome, GenerationTask, OnProgress, Progress
from headless.options import GenerationOptions
from headless.testing import FakeOrchestrator
from source.chaos.points import Trap
from source.chaos.tasks import MISFORTUNE
from source.errors import DeviceLost, EngineError, InvalidInput, OutOfMemory, Transient
from Wan2GP.media import Frame

#: misfortune -> the error that the run ends with
MISFORTUNES: dict[str, Callable[[], BaseException]] = {
    "out_of_memory": lambda: OutOfMemory("chaos: out of memory"),
    "transient": lambda: Transient("chaos: a passing fault"),
    "engine": lambda: EngineError("chaos: the engine failed"),
    "device_lost": lambda: DeviceLost("chaos: the device is lost"),
    "bad_input": lambda: InvalidInput("chaos: never works", field="misfortune"),
}
#: kills every worker that runs it
POISON = "poison"
#: error classes with which a task of that misfortune may end
ENDS_AS = {
    "bad_input": frozenset({"bad_input"}),
    POISON: frozenset({"poison"}),
    "out_of_memory": frozenset({"out_of_memory"}),
    "engine": frozenset({"engine"}),
    "transient": frozenset({"transient"}),
}
_POINTS = {"denoising": "step", "decoding": "decode"}


class UnluckyEngine(FakeOrchestrator):
    """`met` hears of each misfortune before it happens: the id of the task, and which."""

    def __init__(self, trap: Trap, met: Callable[[str, str], None], *, steps: int, step_s: float) -> None:
        super().__init__(steps=steps, step_s=step_s)
        self._trap = trap
        self._met = met

    def load_model(self, model: str, on_progress: OnProgress, profile: int = -1) -> bool:
        self._trap.passing("load")
        return super().load_model(model, on_progress, profile)

    def generate(self, task: GenerationTask, on_progress: OnProgress, cancel: CancelToken) -> GenerationOutcome:
        prompt = task.options.prompt or ""
        if prompt.startswith(MISFORTUNE):
            self._prepare(task.id, prompt.removeprefix(MISFORTUNE))

        def report(progress: Progress) -> None:
            on_progress(progress)
            if progress.phase in _POINTS:
                self._trap.passing(_POINTS[progress.phase])

        try:
            outcome = super().generate(task, report, cancel)
        finally:
            self._failures["generate"].clear()  # a run that was cancelled first leaves none to the next
        self._trap.passing("written")
        return outcome

    def _drawn(self, options: GenerationOptions, size: tuple[int, int], num_frames: int) -> Iterator[Frame]:
        for frame in super()._drawn(options, size, num_frames):
            self._trap.passing("write")
            yield frame

    def _prepare(self, task_id: str, misfortune: str) -> None:
        self._met(task_id, misfortune)
        if misfortune == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        self.fail_next(MISFORTUNES[misfortune]())
