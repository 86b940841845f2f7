"""One piece of work on its way through the queue: a generation, or a loan of the accelerator."""

from __future__ import annotations

import contextvars
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from headless.accounting import Seconds
from headless.generation import CancelToken, GenerationResult, GenerationTask, OnProgress, Progress

Failure = TypeVar("Failure", bound=Exception)


@dataclass(eq=False)
class QueuedRun:
    """Changed under the queue's lock only."""

    id: str
    #: done on the GPU thread; what it raises ends the future, and so does what the function that it returns returns or
    #: raises on another one
    work: Callable[[QueuedRun], Callable[[], GenerationResult] | None]
    report: OnProgress
    cancel: CancelToken
    submitted_at: float
    #: what it spends of the accelerator's time
    spent: Seconds
    #: what is generated, as it is prepared by now; None for a loan, which needs no preparing
    task: GenerationTask | None = None
    #: whether it can have the accelerator: it was prepared, or needs no preparing
    ready: bool = False
    future: Future[Any] = field(default_factory=Future)
    #: the submitter's context, where log filters find the id of the task
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    stop_asked: bool = False
    settled: bool = False
    _claimed: bool | None = None

    def claim(self) -> bool:
        """Take the future; False when its owner cancelled it. A future may be asked once, so the answer is kept."""
        if self._claimed is None:
            self._claimed = self.future.set_running_or_notify_cancel()
        return self._claimed

    def report_load(self, progress: Progress) -> None:
        """Report, and stop a load that is no longer wanted: loaders ask no token, but they report."""
        self.report(progress)
        self.cancel.raise_if_cancelled()


def without_locals(error: Failure) -> Failure:
    """Free what the frames of a failure hold. They are kept alive by the error and may hold gigabytes of tensors."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    return error
