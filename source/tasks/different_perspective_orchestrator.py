"""different_perspective_orchestrator: a picture of the same scene, seen from elsewhere."""

from __future__ import annotations

from source.params.perspective import DEFAULT_MODEL, PerspectiveParams, PoseParams
from source.planning.perspective import perspective_tasks
from source.task_registry import Spawned, TaskContext, task

_OUTPUT = "a PNG image: the last frame of a video that leads to the other perspective"


@task("different_perspective_orchestrator", output=_OUTPUT, default_model=DEFAULT_MODEL, uses_gpu=False)
def different_perspective_orchestrator(params: PerspectiveParams, context: TaskContext) -> Spawned:
    """A picture from another perspective: one is drawn from words, and a video led to it by pose or depth."""
    from source.perspective import check_perspective, image_model

    model = check_perspective(params, context)
    drawn_by = image_model(params.image_model_name, model, context)
    context.fetch(params.input_image_path, kind="image", field="input_image_path")
    children = perspective_tasks(context.task, params, drawn_by)
    return Spawned(children, children[-1].id)


@task("different_pose", output=_OUTPUT, default_model=DEFAULT_MODEL, uses_gpu=False)
def different_pose(params: PoseParams, context: TaskContext) -> Spawned:
    """The older name of different_perspective_orchestrator, of the time when it knew poses alone."""
    return different_perspective_orchestrator(params, context)
