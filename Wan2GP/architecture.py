"""What can be declared of an architecture: what its models take and give. No torch.

Letters are those of `image_prompt_type` (T text, S start, V a video goes on, E end, L the last video) and of
`video_prompt_type` (V a control video, G redrawn from it, U as it is, P O D S L C E M processed, A mask, N inverted,
X Y W Z the outside of the mask, I K F references).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from Wan2GP.schedules import SOLVERS


@dataclass(frozen=True, kw_only=True)
class WindowRule:
    """Sliding windows: how many frames one has, and how many it may share with the one before."""

    size: int = 129
    overlap_min: int = 1
    overlap_max: int = 97
    overlap_step: int = 4
    overlap_default: int = 5


#: frames of one latent frame, which a video made with `svi2pro` shares with the one that it goes on from
SVI_OVERLAP = 4
#: the shortest video that has such a latent frame: its first latent frame is one frame alone
SVI_LEAST_CONTEXT = 1 + SVI_OVERLAP
_ONE_LATENT_FRAME = WindowRule(
    overlap_min=SVI_OVERLAP, overlap_max=SVI_OVERLAP, overlap_step=0, overlap_default=SVI_OVERLAP
)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What every model of one architecture takes and gives."""

    #: among text, image_start, image_end, control_video, mask, references, video_source, audio, loras
    inputs: frozenset[str]
    fps: int = 16
    #: a valid length is `frame_step * k + 1` and at least `min_frames`
    frame_step: int = 4
    min_frames: int = 5
    #: both sides are multiples of this
    pixel_block: int = 16
    image_output: bool = False
    #: makes videos, and stills too
    image_too: bool = False
    #: most guidance phases
    phases: int = 3
    vace: bool = False
    i2v: bool = False
    #: display name of the family
    family: str = "Wan"
    needs_weights: bool = True
    #: the engine's implementation (a key of `engine.families.FAMILIES`); None: not in this version
    engine: str | None = None
    #: transformers: one, or one for high and one for low noise
    experts: int = 1
    #: folder of its LoRAs inside the folder of LoRAs
    lora_folder: str = "wan"
    #: None: no sliding windows
    windows: WindowRule | None = None
    #: samplers it has, the default first
    solvers: tuple[str, ...] = SOLVERS
    #: letters of image_prompt_type that it knows
    image_prompt_letters: str = ""
    #: letters of video_prompt_type that it knows
    control: str = ""
    #: moves to a sound track
    audio: bool = False
    #: the letter of video_prompt_type whose control pictures it draws; empty: it draws none
    draws: str = ""
    #: answers with text instead of pictures
    text_output: bool = False
    #: makes masks: of what "prompts" (clicks and boxes) select, or of "people"; empty: makes none
    mask_of: str = ""
    #: goes on from a video by an anchor image and that video's last latent frame (SVI 2 Pro), when `svi2pro` is 1
    svi: bool = False
    #: goes on that way whether asked to or not
    svi_always: bool = False
    #: what its folder must hold (of one in transformers' format: besides weights); empty: it is in diffusers' format
    folder_files: tuple[str, ...] = ()
    #: what a row must name among its `parts`: models that it is put together of
    needed_parts: tuple[str, ...] = ()
    #: values of model_mode; empty: has none
    model_modes: tuple[int, ...] = ()
    #: the model whose folder holds the parts (text encoder, VAE, …) that a file of the transformer alone lacks
    parts_from: str | None = None

    @property
    def draws_from_text(self) -> bool:
        """Whether it makes pictures that follow a prompt."""
        return "text" in self.inputs and not self.text_output


def with_svi(architecture: Architecture) -> Architecture:
    """What an architecture takes when `svi2pro` is 1: an anchor as its reference, and four frames as the overlap."""
    return replace(
        architecture,
        inputs=architecture.inputs | {"references"},
        control="".join(sorted({*architecture.control, "I"})),
        windows=_ONE_LATENT_FRAME,
    )
