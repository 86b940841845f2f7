"""travel_orchestrator: plan a travel between images and fan out its segments and their stitch."""

from __future__ import annotations

from headless.generation import ModelInfo
from source.errors import Unsupported
from source.params.travel import TravelParams
from source.planning.travel import plan_travel
from source.task_registry import Done, Spawned, TaskContext, task

#: what a model must take for each kind of travel
NEEDS = {"vace": ("control_video", "mask"), "i2v": ("image_start",)}


@task("travel_orchestrator", uses_gpu=False)
def travel_orchestrator(params: TravelParams, context: TaskContext) -> Done | Spawned:
    """Travel between images: one generated segment from each image to the next, stitched to one video."""
    if params.num_segments <= 0:
        return Done(None, {"message": "no segments were asked for"})
    assert params.model is not None
    model = context.model(params.model)
    check_model(model, params.model_type)
    for index, image in enumerate(params.input_image_paths_resolved):
        context.fetch(image, kind="image", field=f"input_image_paths_resolved[{index}]")
    plan = plan_travel(params, context.task, min_frames=model.min_frames, step=model.frame_step)
    return Spawned(plan.children, plan.final_child)


def check_model(model: ModelInfo, model_type: str) -> None:
    """Raises Unsupported when the model cannot do this kind of travel."""
    needed = NEEDS[model_type]
    if not model.takes(*needed):
        raise Unsupported(
            f"{model.name} cannot make a travel of model_type {model_type!r}: it takes "
            f"{', '.join(sorted(model.inputs))}, but {' and '.join(needed)} are needed",
            field="model_name",
        )
