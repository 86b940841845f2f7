"""The image tasks of Qwen-Image as data: what each asks of the model, and with which LoRAs. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from headless.options import MIN_SIDE, GenerationOptions
from source.errors import InvalidInput
from source.params.images import QwenParams, QwenStyleParams
from source.params.lora import LoRAConfig, multiplier_text
from source.planning.image_sizes import Size, capped, size_text

#: strength in the first pass and in the second
Strengths = tuple[float, float]

EDIT, TEXT_2512 = "qwen_image_edit_20B", "qwen_image_2512_20B"
#: the longer side of a result, before a second pass
USUAL_SIDE = 1200


@dataclass(frozen=True)
class HubFile:
    """A file of a repository on Hugging Face."""

    repository: str
    file: str

    @property
    def address(self) -> str:
        """Where it is fetched from; the worker's folder of LoRAs keeps it under its name."""
        return f"https://huggingface.co/{self.repository}/resolve/main/{self.file}"


LIGHTNING_EDIT = HubFile("lightx2v/Qwen-Image-Lightning", "Qwen-Image-Edit-Lightning-8steps-V1.0-bf16.safetensors")
LIGHTNING_4 = HubFile("lightx2v/Qwen-Image-Lightning", "Qwen-Image-Lightning-4steps-V2.0-bf16.safetensors")
LIGHTNING_2512 = HubFile("lightx2v/Qwen-Image-2512-Lightning", "Qwen-Image-2512-Lightning-4steps-V1.0-bf16.safetensors")
INPAINTING = HubFile("ostris/qwen_image_edit_inpainting", "qwen_image_edit_inpainting.safetensors")
ANNOTATION = HubFile("peteromallet/random_junk", "in_scene_pure_squares_flipped_450_lr_000006700.safetensors")
STYLE = HubFile("peteromallet/ad_motion_loras", "style_transfer_qwen_edit_2_000011250.safetensors")
SUBJECT = HubFile("peteromallet/mystery_models", "in_subject_qwen_edit_2_000006750.safetensors")
SCENE = HubFile("peteromallet/random_junk", "in_scene_different_object_000010500.safetensors")


@dataclass(frozen=True, kw_only=True)
class QwenTask:
    """One task type."""

    help: str
    model: str = EDIT
    steps: int = 12
    guidance: float = 1.0
    lightning: HubFile = LIGHTNING_EDIT
    #: of the lightning LoRA
    strengths: Strengths = (0.85, 0.0)
    #: at full strength in both passes: what the task means hangs on them
    further: tuple[HubFile, ...] = ()
    #: the longer side of the first pass at most; None: no limit
    most: int | None = USUAL_SIDE
    #: where the row gives none; None: that of the picture which is changed
    size: Size | None = None
    #: sides of the result by those of the first pass
    hires_scale: float | None = None
    #: the role in which the prompt is read
    role: str

    @property
    def defaults(self) -> dict[str, float | str]:
        """What a row that says nothing gets, by the names of a row."""
        first, second = self.strengths
        size = {} if self.size is None else {"resolution": size_text(self.size)}
        hires = {} if self.hires_scale is None else {"hires_scale": self.hires_scale}
        return {
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "lightning_lora_strength_phase_1": first,
            "lightning_lora_strength_phase_2": second,
            **size,
            **hires,
        }


QWEN_TASKS = {
    "qwen_image_edit": QwenTask(
        help="Change an image as the prompt says (Qwen-Image Edit).",
        role="You are a careful image editor: you change what the instruction asks for and leave all else as it is.",
    ),
    "image_inpaint": QwenTask(
        help="Draw the white of a mask anew, as the prompt says; the pixels elsewhere are the image's own.",
        strengths=(0.75, 0.0),
        further=(INPAINTING,),
        role="You are an inpainter: you fill the pure green areas of the picture with what the instruction describes, "
        "in keeping with the light, the perspective and the grain around them.",
    ),
    "annotated_image_edit": QwenTask(
        help="Change an image as the prompt says at the places that a mask marks.",
        strengths=(0.75, 0.0),
        further=(ANNOTATION,),
        role="You interpret annotations: green marks show where in the picture the instruction applies, and none of "
        "them is left in your result.",
    ),
    "qwen_image_style": QwenTask(
        help="A new image in the style of one, with the subject or in the scene of one (Qwen-Image Edit).",
        role="",
    ),
    "qwen_image_hires": QwenTask(
        help="Text to image in two passes with Qwen-Image: the second draws the details at a larger size.",
        steps=10,
        strengths=(0.45, 0.45),
        most=None,
        hires_scale=2.0,
        role="You are a professional image generator: you compose detailed, coherent pictures of what is described.",
    ),
    "qwen_image": QwenTask(
        help="Text to image in four steps with Qwen-Image.",
        steps=4,
        guidance=3.5,
        lightning=LIGHTNING_4,
        strengths=(1.0, 1.0),
        size=(1024, 1024),
        role="You are a professional image generator: you compose detailed, coherent pictures of what is described.",
    ),
    "qwen_image_2512": QwenTask(
        help="Text to image in four steps with Qwen-Image 2512, up to 2512 pixels a side.",
        model=TEXT_2512,
        steps=4,
        guidance=4.0,
        lightning=LIGHTNING_2512,
        strengths=(1.0, 1.0),
        most=2512,
        size=(1024, 1024),
        role="You are an expert in rendering text in pictures: every word that is asked for stands there, legible and "
        "spelled right.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """How much of its pictures a style task shall keep."""

    style: float = 0.0
    subject: float = 0.0
    scene: float = 0.0
    subject_description: str = ""
    in_this_scene: bool = False

    @classmethod
    def of(cls, params: QwenStyleParams) -> Self:
        """What a row asks for."""
        return cls(
            style=params.style_reference_strength,
            subject=params.subject_strength,
            scene=params.scene_reference_strength,
            subject_description=params.subject_description.strip(),
            in_this_scene=params.in_this_scene,
        )

    @property
    def loras(self) -> Iterable[tuple[HubFile, Strengths]]:
        """Those of what is kept, at their strengths in both passes."""
        for file, strength in ((STYLE, self.style), (SUBJECT, self.subject), (SCENE, self.scene)):
            yield file, (strength, strength)

    @property
    def role(self) -> str:
        """The role in which the prompt is read, by what is kept."""
        kept = [name for name in ("style", "subject", "scene") if getattr(self, name) > 0]
        if not kept:
            return QWEN_TASKS["qwen_image_edit"].role
        listed = " and ".join([", ".join(kept[:-1]), kept[-1]] if kept[1:] else kept)
        return (
            f"You are an expert in {listed} consistency: you make a new picture and keep the {listed} of the one that "
            "you are shown."
        )

    def prompt(self, text: str) -> str:
        """The user's prompt after clauses that say what the picture is for."""
        clauses = ["In the style of the image,"] if self.style > 0 else []
        if self.subject > 0 and self.subject_description:
            scene = " in this scene" if self.in_this_scene else ""
            clauses.append(f"{'make' if clauses else 'Make'} an image of this {self.subject_description}{scene}:")
        return " ".join([*clauses, text.strip()]).strip() or " "


def planned(
    row: QwenTask,
    params: QwenParams,
    *,
    shown: Size | None = None,
    prompt: str | None = None,
    role: str | None = None,
    loras: Iterable[tuple[HubFile, Strengths]] = (),
) -> GenerationOptions:
    """A row's options with what its task type adds: where the row says nothing, or, for the limit of its size, anyway.

    `shown` is the (width, height) of the picture which is changed: the result's, unless the row has a `resolution`.
    `prompt`, `role` and `loras` are what the row's other parameters make of it. Raises InvalidInput for a size that no
    model makes.
    """
    options = params.options
    size = _limited(row, params.size, shown)
    scale = options.hires_scale or row.hires_scale
    usual = {
        "num_inference_steps": row.steps,
        "guidance_scale": row.guidance,
        "video_prompt_type": "KI" if shown else "",
        "system_prompt": role or row.role,
        "image_mode": 1,
        "hires_scale": scale,
        "resolution": size_text(size) if size else None,
    }
    given = {name: value for name, value in usual.items() if value is not None} | options.to_engine()
    merged = options.parse(given | {"video_length": 1, "prompt": prompt or options.prompt or " "})
    further = ((file, (1.0, 1.0)) for file in row.further)
    own = [(row.lightning, strengths_of(row, params)), *further, *loras]
    return with_loras(merged, own, passes=2 if scale and scale > 1 else 1)


def _limited(row: QwenTask, asked: Size | None, shown: Size | None) -> Size | None:
    size = asked or shown or row.size
    if size is None:
        return None
    limited = capped(size, row.most) if row.most else size
    if not asked and min(limited) < MIN_SIDE:
        raise InvalidInput(
            f"is missing, and the image's own size ({size_text(size)}, scaled to {size_text(limited)}) is too small: "
            f"both sides must be at least {MIN_SIDE} pixels; give one",
            field="resolution",
        )
    return limited


def strengths_of(row: QwenTask, params: QwenParams) -> Strengths:
    """Of the lightning LoRA: a number for one pass beats that for both, and the task type's own stands for neither."""
    both = params.lightning_lora_strength
    usual = row.strengths if both is None else (both, both)
    first, second = params.lightning_lora_strength_phase_1, params.lightning_lora_strength_phase_2
    return (usual[0] if first is None else first, usual[1] if second is None else second)


def with_loras(
    options: GenerationOptions, loras: Iterable[tuple[HubFile, Strengths]], *, passes: int
) -> GenerationOptions:
    """These LoRAs before those of the options: "p1;p2" for two passes, else p1 alone.

    One that is off throughout is left out, and one that the options name themselves (by its file) stays as it is there.
    """
    given = LoRAConfig.from_options(options)
    named = {entry.key for entry in given.entries}
    wanted = ((file.address, strengths[:passes]) for file, strengths in loras)
    pairs = ((address, ";".join(map(multiplier_text, each))) for address, each in wanted if any(each))
    own = LoRAConfig.from_pairs(pairs, "activated_loras")
    entries = tuple(entry for entry in own.entries if entry.key not in named)
    return LoRAConfig((*entries, *given.entries), given.preset).to_options(options) if entries else options
