"""The runs that wait for the accelerator, and which of them are prepared ahead."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import replace

from headless.generation import GenerationTask
from headless.queued_run import QueuedRun

#: Two runs are prepared: the next one, whatever it takes of memory, and one more (for where runs are short) while what
#: is prepared takes at most this.
MOST_BYTES = 512 * 1024**2


class Line:
    """Larger priorities first, then those that came first. Used under the lock of its queue."""

    def __init__(self) -> None:
        self._sequence = itertools.count()
        self._heap: list[tuple[int, int, QueuedRun]] = []
        #: those of the heap that were prepared
        self._prepared: list[QueuedRun] = []

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first(self) -> QueuedRun | None:
        """The run that is next."""
        return self._heap[0][2] if self._heap else None

    @property
    def ready(self) -> bool:
        """Whether there is a next run, and it can have the accelerator."""
        return self.first is not None and self.first.ready

    def add(self, run: QueuedRun, priority: int) -> None:
        """Append a run behind those of its priority."""
        heapq.heappush(self._heap, (-priority, next(self._sequence), run))

    def take(self) -> QueuedRun:
        """Take the next run out."""
        run = heapq.heappop(self._heap)[2]
        self._prepared = [other for other in self._prepared if other is not run]
        return run

    def remove(self, run: QueuedRun) -> bool:
        """Take a run out; False when it does not wait."""
        left = [entry for entry in self._heap if entry[2] is not run]
        found = len(left) < len(self._heap)
        heapq.heapify(left)
        self._heap = left
        self._prepared = [other for other in self._prepared if other is not run]
        return found

    def clear(self) -> list[QueuedRun]:
        """Take all out, in their order."""
        runs, self._heap, self._prepared = [entry[2] for entry in sorted(self._heap)], [], []
        return runs

    def to_prepare(self) -> QueuedRun | None:
        """The first run that is to be prepared now. Those that others went ahead of lose what was prepared for them, so
        that what waits in memory is bounded whatever comes."""
        ahead = [entry[2] for entry in (*self._heap[:1], *sorted(self._heap[1:3])[:1])]
        wanted = next((run for run in ahead if not run.ready), None)
        if wanted is None:
            return None
        for run in [run for run in self._prepared if run not in ahead]:
            self._forget(run)
        if sum(map(_bytes, self._prepared)) > MOST_BYTES:
            if wanted is not ahead[0]:
                return None
            self._forget(ahead[-1])
        return wanted

    def prepared(self, run: QueuedRun, task: GenerationTask | None) -> None:
        """A run that waits is ready."""
        run.task, run.ready = task, True
        self._prepared.append(run)

    def _forget(self, run: QueuedRun) -> None:
        self._prepared.remove(run)
        if run.task is not None:
            run.task, run.ready = replace(run.task, prepared=None), False


def _bytes(run: QueuedRun) -> int:
    return run.task.prepared.num_bytes if run.task is not None and run.task.prepared is not None else 0
