"""Qwen-Image: images of a text; Edit and Edit-Plus: images of pictures and of what is to be changed of them.

Each can draw the white of a mask alone, and go over its picture a second time at a larger size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

from diffusers import QwenImagePipeline

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.families import Cancel, Place, Report
from Wan2GP.engine.loading import free_memory
from Wan2GP.engine.qwen.latents import encode
from Wan2GP.engine.qwen.loop import Conditions
from Wan2GP.engine.qwen.pictures import SEEN_AREA, VAE_AREA, given_pictures, guide_of, shown
from Wan2GP.engine.qwen.requests import (
    MOST_PICTURES,
    USUAL_PICTURES,
    check_common,
    check_pictures,
    check_text,
    plan_of,
)
from Wan2GP.engine.qwen.run import Run
from Wan2GP.engine.qwen.text import MOST_TOKENS, Chat, Reader, about_a_picture, about_pictures, about_words
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.engine.residency.placement import Placement
from Wan2GP.engine.stock.loading import load_pipeline
from Wan2GP.engine.stock.loras import lora_set
from Wan2GP.engine.stock.running import Stepping, running
from Wan2GP.engine.stock.still import READS
from Wan2GP.errors import ModelUnavailable


class QwenImage:
    """Text to image."""

    reads: ClassVar[frozenset[str]] = READS | {
        "negative_prompt",
        "system_prompt",
        "guidance_scale",
        "sample_solver",
        "sigmas",
        "image_guide",
        "image_mask",
        "mask_expand",
        "denoising_strength",
        "video_prompt_type",
        "video_guide_outpainting",
        "model_mode",
    }
    #: pixels of a picture for the vision encoder
    seen_area: ClassVar[int] = VAE_AREA
    #: the pictures that the text encoder is shown
    most_pictures: ClassVar[int] = 0

    def __init__(self, definition: ModelDefinition, place: Place, report: Report) -> None:
        """Load; nothing is fetched. Raises ModelUnavailable, also for weights of Qwen-Image-Layered."""
        self._interrupt = False
        self.notes: tuple[str, ...] = ()
        self.remarks: tuple[str, ...] = ()
        report("loading", 0, 1)
        # The pipeline for text has the parts that all of them share; theirs adds a processor that needs torchvision.
        self._pipeline: Any = load_pipeline(QwenImagePipeline, definition, place)
        _require_known(definition, self._pipeline.transformer.config)
        self._reader = Reader(self._pipeline, self.chat(), definition.id)
        report("loading", 1, 1)

    @staticmethod
    def chat() -> Chat:
        """The form of its prompts about pictures; other prompts have that of Qwen-Image."""
        return about_words()

    @classmethod
    def check(cls, request: GenerationRequest) -> None:
        """Raises InvalidInput or Unsupported for what the model cannot do."""
        check_common(request)
        if cls.most_pictures:
            check_pictures(request, cls.most_pictures)
        else:
            check_text(request)

    def generate(self, request: GenerationRequest, report: Report, cancel: Cancel) -> Iterator[Frame]:
        """`batch_size` stills (H, W, 3) uint8, the seeds counted up; of a request with `hires_scale`, larger."""
        cancel.raise_if_requested()
        plan, count = plan_of(request), request.batch_size
        each = len(plan.phases)
        multipliers = [schedule * count for schedule in plan.multipliers(request)]
        with lora_set(self._pipeline, request, multipliers) as loras, running(self._pipeline):
            self.remarks = (*loras.notes, *_remarks(request))
            report("encoding", 0, 1)
            conditions = self.conditions(request)
            report("encoding", 1, 1)
            for number in range(count):
                stepping = Stepping(
                    each * count, loras, report, cancel, first=each * number, watcher=request.watcher
                )  # fmt: skip
                run = Run(self._pipeline, replace(request, seed=request.seed + number), plan, conditions, stepping)
                yield run.still()
                report("decoding", 1, 1)

    @property
    def placement(self) -> Placement | None:
        """Where its parts are."""
        found: Placement | None = self._pipeline.placement
        return found

    def release(self) -> None:
        """Free host and device memory, but for parts that other models hold."""
        self._pipeline = self._reader = None
        free_memory()

    def conditions(self, request: GenerationRequest) -> Conditions:
        """Prompts and pictures, encoded."""
        pictures = shown(request, self.seen_area) if self.most_pictures else ()
        role = str(request.settings["system_prompt"])
        seen, guidance = [each.seen for each in pictures], request.sampling.guidance_scale
        positive = self._reader.read(request.prompt, role, seen)
        if positive.cut:
            self.remarks += (f"the prompt is longer than {MOST_TOKENS} tokens; the model reads its beginning",)
        negative = None
        if guidance > 1:
            negative = self._reader.read(request.negative_prompt, role, seen).states
        references = tuple(encode(self._pipeline, each.encoded) for each in pictures)
        return Conditions(positive.states, negative, guidance, references)


class QwenImageEdit(QwenImage):
    """One picture, the control image or a reference, and what is to be changed of it; or a text alone."""

    reads = QwenImage.reads | {"image_refs", "remove_background_images_ref"}
    most_pictures = 1

    @staticmethod
    def chat() -> Chat:
        """The form of its prompts."""
        return about_a_picture()


class QwenImageEditPlus(QwenImageEdit):
    """Several pictures, numbered in their order: "Picture 1" is the control image, or else the first reference."""

    seen_area = SEEN_AREA
    most_pictures = MOST_PICTURES

    @staticmethod
    def chat() -> Chat:
        """The form of its prompts."""
        return about_pictures()


def _require_known(definition: ModelDefinition, config: Any) -> None:
    """Raises ModelUnavailable for a transformer of the same class that takes what is not given here."""
    for name, what in (
        ("use_layer3d_rope", "a Qwen-Image-Layered model, whose pictures are layers"),
        ("use_additional_t_cond", "a Qwen-Image-Layered model, whose pictures are layers"),
        ("guidance_embeds", "a model that is told its guidance scale"),
    ):
        if config.get(name):
            raise ModelUnavailable(f"{definition.id}: its transformer is that of {what}; this version cannot run it")


def _remarks(request: GenerationRequest) -> Iterator[str]:
    """What the user should know about what a request asks for."""
    pictures = len(given_pictures(request))
    if pictures > USUAL_PICTURES:
        yield f"{pictures} pictures: the published models were made for up to {USUAL_PICTURES}"
    if request.image_mask is None:
        if request.settings["denoising_strength"] != 1:
            yield "denoising_strength has no effect without image_mask"
        return
    height, width = guide_of(request).shape[:2]
    plan = plan_of(request)
    size = plan.hires.size if plan.hires else request.size
    if (width, height) != size:
        yield f"image_guide is {width}x{height}; what the mask keeps is kept at {size[0]}x{size[1]}"
