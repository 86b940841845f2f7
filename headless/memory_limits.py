"""Which runs did not fit into the memory of this machine, so that others as large do not have to find out again."""

from __future__ import annotations

import logging
from dataclasses import replace

from headless.generation import GenerationTask
from Wan2GP.parameters import LEAST_MEMORY_PROFILE, LOW_MEMORY_PROFILES

logger = logging.getLogger(__name__)


class MemoryLimits:
    """What ran out of memory since the process began. Written by the accelerator's thread, read by any."""

    def __init__(self) -> None:
        #: model -> pixels of the smallest run that did not fit
        self._too_large: dict[str, int] = {}

    def ran_out(self, task: GenerationTask, *, loading: bool = False) -> None:
        """A run did not fit; `loading`: its model alone did not, so no run does."""
        if task.options.override_profile not in LOW_MEMORY_PROFILES:
            pixels = 0 if loading else pixels_of(task)
            self._too_large[task.model] = min(pixels, self._too_large.get(task.model, pixels))

    def fitted(self, task: GenerationTask) -> GenerationTask:
        """The task, at the profile that takes least where it asks for none and one no larger ran out of memory."""
        least = self._too_large.get(task.model)
        if least is None or task.options.override_profile is not None or pixels_of(task) < least:
            return task
        logger.info("%s runs at memory profile %d: another no larger ran out of memory", task.id, LEAST_MEMORY_PROFILE)
        return replace(task, options=task.options.replace(override_profile=LEAST_MEMORY_PROFILE))


def pixels_of(task: GenerationTask) -> int:
    """Pixels that a run has in memory at once, those of one window; 0 where its size is the model's own."""
    options = task.options
    width, height = options.size or (0, 0)
    frames = options.video_length or 1
    return width * height * min(frames, options.sliding_window_size or frames)
