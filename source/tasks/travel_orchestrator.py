"""travel_orchestrator: plan a travel between images and fan out its segments and their stitch."""

from __future__ import annotations

from contextlib import suppress

from headless.generation import ModelInfo
from source.errors import ModelUnavailable, Unsupported
from source.params.travel import TravelParams
from source.planning.svi import check_phases
from source.planning.travel import TravelPlan, plan_travel
from source.predecessor import continued_frames
from source.segments import check_model
from source.task_registry import Done, Spawned, TaskContext, task
from source.trail import Category
from source.upscaling import check_upscale


@task("travel_orchestrator", output="an MP4 video: that of its last child", uses_gpu=False)
def travel_orchestrator(params: TravelParams, context: TaskContext) -> Done | Spawned:
    """Travel between images: one generated segment from each image to the next, stitched to one video."""
    from headless.inputs import generation_size

    if params.num_segments <= 0:
        return Done(None, {"message": "no segments were asked for"})
    assert params.model is not None
    model = context.model(params.model)
    check_model(model, params)
    _check_phases(model, params)
    _check_end_images(model, params)
    _check_helpers(params, context)
    _check_media(params, context)
    plan = plan_travel(
        params, context.task, min_frames=model.min_frames, step=model.frame_step,
        continued=continued_frames(params, context), size=generation_size(params.options, model),
    )  # fmt: skip
    _note(plan, context)
    _note_ignored(params, context)
    return Spawned(plan.children, plan.final_child)


def _check_helpers(params: TravelParams, context: TaskContext) -> None:
    """Raises UnknownModel and Unsupported for models beside the travel's own. One that writes prompts may be missing on
    this machine: then the user's prompts are kept."""
    if params.upscaled and params.upscale_model_name:
        check_upscale(context, params.upscale_model_name)
    if params.enhance_prompt:
        with suppress(ModelUnavailable):
            context.model(params.enhance_prompt_model)


def _check_phases(model: ModelInfo, params: TravelParams) -> None:
    """Raises Unsupported for phases of single segments that SVI cannot run."""
    for phases in params.phase_configs_expanded if params.mode == "svi" else ():
        if phases:
            check_phases(phases.lora.to_options(params.options), model.architecture)


def _check_end_images(model: ModelInfo, params: TravelParams) -> None:
    """Raises Unsupported when segments end with images that the model does not take."""
    ends = len(params.input_image_paths_resolved) > 1 or params.continue_from_video_resolved_path
    if params.mode != "vace" and ends and not model.takes("image_end"):
        raise Unsupported(f"{model.name} takes no end image, so it cannot travel to one", field="model_name")


def _check_media(params: TravelParams, context: TaskContext) -> None:
    """Fetch what the travel names: a file that is not there is no discovery for its last task."""
    for index, image in enumerate(params.input_image_paths_resolved):
        context.fetch(image, kind="image", field=f"input_image_paths_resolved[{index}]")
    for index, reference in enumerate(params.vace_image_refs_to_prepare_by_worker):
        context.fetch(reference.original_path, kind="image", field=f"vace_image_refs_to_prepare_by_worker[{index}]")
    if params.audio_url:
        context.fetch(params.audio_url, kind="audio", field="audio_url")


def _note(plan: TravelPlan, context: TaskContext) -> None:
    for segment in plan.frames.segments:
        context.trail.note(
            Category.SEGMENT, "planned", segment=segment.index, sources=segment.sources, start=segment.start,
            generated=segment.generated, context=segment.context, kept=segment.output,
        )  # fmt: skip
    context.trail.note(
        Category.STITCH, "planned", total_frames=plan.frames.total_frames, overlaps=plan.frames.overlaps,
        continued=plan.frames.continued, anchors=plan.frames.anchors,
    )  # fmt: skip


def _note_ignored(params: TravelParams, context: TaskContext) -> None:
    """What the row asks for and nothing will do, as warnings in its timeline."""
    if params.upscale_factor > 1 and not params.upscaled:
        context.trail.warn(
            Category.STITCH,
            "upscale_factor does nothing without upscale_model_name",
            upscale_factor=params.upscale_factor,
        )
    for number, reference in enumerate(params.vace_image_refs_to_prepare_by_worker):
        if reference.segment_idx_for_naming >= params.num_segments:
            context.trail.warn(
                Category.SEGMENT, f"vace_image_refs_to_prepare_by_worker[{number}] is for a segment that there is not",
                segment=reference.segment_idx_for_naming, segments=params.num_segments,
            )  # fmt: skip
