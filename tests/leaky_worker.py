"""A worker with the fake engine whose tasks say what they should not: python leaky_worker.py, settings as worker.py."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from headless.testing import FakeOrchestrator
from source.errors import EngineError, InvalidInput
from source.params.base import TaskParams
from source.settings import load_settings
from source.startup import Equipment, run_worker
from source.task_registry import Done, TaskContext, TaskRegistry, TaskType
from source.trail import Category, Trail

log = logging.getLogger("source.tasks.leaky")

#: what each task says, beside the worker
SAID = Path("said")


def tell(params: TaskParams, context: TaskContext) -> Done:
    """Log it in every manner, report it as progress, write it into the timeline and the result."""
    said, row = _said(context)
    log.info(said)
    log.warning("%s", said)
    log.info("params %s", dict(row))
    log.debug("params %s", [dict(row)])
    log.info("long %s", "x" * 990 + said)
    try:
        raise ValueError(said)
    except ValueError:
        log.exception("it failed: %s", said)
    logging.getLogger("Wan2GP.engine").error("the engine says %s", said)
    trail = Trail(context.keep)
    trail.warn(Category.CRITICAL, said, given=dict(row), why=said)
    trail.note(Category.FRAME, said, api_key=said, url=said)
    context.report("preparing", 1, 2, said)
    return Done(None, result_data={"told": said, "given": dict(row), "text": [said]})


def fail(params: TaskParams, context: TaskContext) -> Done:
    """Fail at once."""
    raise InvalidInput(_said(context)[0], field="prompt")


def fail_later(params: TaskParams, context: TaskContext) -> Done:
    """Fail in a way that is tried again."""
    raise EngineError(_said(context)[0])


def crash(params: TaskParams, context: TaskContext) -> Done:
    """Fail in a way that nobody foresaw."""
    raise RuntimeError(_said(context)[0])


def draw(params: TaskParams, context: TaskContext) -> Done:
    """A picture, with the record of how it was made."""
    return Done(context.generate("fake_image", params.options).output)


def _said(context: TaskContext) -> tuple[str, dict[str, Any]]:
    return SAID.read_text(encoding="utf-8"), dict(context.task.params)


def main() -> int:
    """Run until stopped."""
    known = TaskRegistry()
    for run in (tell, fail, fail_later, crash):
        known.register(TaskType(run.__name__, TaskParams, run, "A task type of a test.", "nothing", uses_gpu=False))
    known.register(TaskType("draw", TaskParams, draw, "A task type of a test.", "a picture"))
    equipment = Equipment(FakeOrchestrator(), known, lambda store, storage: (store, storage))
    return run_worker(load_settings(), equipment=equipment)


if __name__ == "__main__":
    sys.exit(main())
