"""comfy: run a workflow of ComfyUI.

The steps import the HTTP libraries themselves: add_task only needs the declarations, and should start at once.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from headless.options import GenerationOptions, VideoRef, aliases
from source.comfy.workflow import Workflow, check_input, parse_workflow
from source.params.base import UNSUPPORTED, Part, TaskParams
from source.task_registry import Done, TaskContext, task

#: ids are texts in a workflow; front ends also write them as the numbers that they look like
NodeId = Annotated[str, Field(coerce_numbers_to_str=True)]


class MediaInput(Part):
    """A further file for the workflow."""

    url: str = Field(..., description="path or URL")
    node_id: NodeId = Field(..., description="the node that loads it")
    input_field: str = Field("image", description="that node's input")
    kind: Literal["image", "video", "audio"] = Field("image", description="what it is")


class ComfyParams(TaskParams):
    """A workflow and the files that go into it. It has no engine knobs: what varies is written into the workflow."""

    not_knobs: ClassVar[frozenset[str]] = frozenset(aliases(GenerationOptions))
    carried: ClassVar[frozenset[str]] = frozenset(UNSUPPORTED)

    workflow: Annotated[dict[str, Any], BeforeValidator(parse_workflow)] = Field(
        ..., description="the workflow in the API format, as an object or as JSON text"
    )
    video_url: VideoRef | None = Field(None, description="video for the workflow: path or URL")
    video_node_id: NodeId | None = Field(None, description="the node that loads it; needed with video_url")
    video_input_field: str = Field("video", description="that node's input")
    inputs: list[MediaInput] = Field([], description="further files, each with the node that loads it")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if bool(self.video_url) != bool(self.video_node_id):
            raise ValueError("video_url and video_node_id go together; give both or none")
        return self

    @property
    def media(self) -> list[tuple[str, MediaInput]]:
        """Every file with the name of the parameter that asks for it."""
        given = [(f"inputs[{place}]", each) for place, each in enumerate(self.inputs)]
        if self.video_url and self.video_node_id:
            video = MediaInput(
                url=self.video_url, node_id=self.video_node_id, input_field=self.video_input_field, kind="video"
            )
            given.insert(0, ("video_url", video))
        return given


@task("comfy", output="what the workflow saves: a video, else a GIF, an image or a sound")
def comfy(params: ComfyParams, context: TaskContext) -> Done:
    """Run a workflow of ComfyUI, with a video (and other files) of yours put into its loading nodes."""
    from source.comfy.places import refuse_places
    from source.comfy.running import InputFile, run_workflow
    from source.media.places import Folders

    workflow: Workflow = params.workflow
    refuse_places(workflow, Folders.of(context.settings))
    for field, each in params.media:
        where = "video_node_id" if field == "video_url" else f"{field}.node_id"
        check_input(workflow, each.node_id, each.input_field, where)
    inputs = [
        InputFile(context.fetch(each.url, kind=each.kind, field=field), each.node_id, each.input_field)
        for field, each in params.media
    ]
    made = run_workflow(workflow, inputs, context)
    notes = {"notes": list(made.notes)} if made.notes else {}
    return Done(made.files[0], {"prompt_id": made.prompt_id, **notes}, extra=made.files[1:])
