"""The keyword arguments of the generation call, parsed once into typed values. No torch here."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from Wan2GP.architecture import SVI_LEAST_CONTEXT, SVI_OVERLAP, with_svi
from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine import given
from Wan2GP.engine.ahead import Ahead
from Wan2GP.engine.honoured import ignored, refuse_unusable, without_effect
from Wan2GP.engine.lora.request import LoraRequest, parse_loras
from Wan2GP.engine.measures import frames_of_a_still, length_of, rate_of, size_of
from Wan2GP.engine.numbers import Numbers
from Wan2GP.engine.sampling import Sampling, parse_sampling
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.frame_numbers import keep_from_source, listed_frames, positions
from Wan2GP.media import Frame, probe_video
from Wan2GP.parameters import PARAMETERS, PLUMBING, asked
from Wan2GP.previews import Watcher

__all__ = ["Frame", "GenerationRequest", "Windows", "parse_request"]

#: seeds drawn at random are below this, so that they can be read and typed
MAX_RANDOM_SEED = 1_000_000_000
#: seconds between two kept states where the caller does not say
CHECKPOINT_INTERVAL_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Windows:
    """How a video longer than one window is made."""

    size: int
    #: frames shared with the window before; within what the model allows
    overlap: int
    discard: int
    #: noise level (0-1) put on the overlap
    overlap_noise: float
    #: 0-1: how far the colours of a window are moved to those of the window before
    colour_correction: float


@dataclass(frozen=True, kw_only=True)
class ControlMedia:
    """A control video or image and its mask, as they were given; and what drew others from them."""

    video_guide: Path | None
    video_mask: Path | None
    image_guide: Frame | None
    image_mask: Frame | None
    #: the `model` objects of those that drew
    drawn_by: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """What one run shall make. Sizes and lengths already obey the model's rules."""

    definition: ModelDefinition
    prompt: str
    negative_prompt: str
    width: int
    height: int
    #: frames that the model makes; `total_frames` are in the result
    num_frames: int
    fps: float
    #: 0 or more
    seed: int
    #: how often to run; further runs draw a new seed
    repeats: int
    sampling: Sampling
    windows: Windows
    #: stills instead of a video, `batch_size` of them
    image_output: bool
    batch_size: int
    #: frames generated for a still; the first is the result
    frames_of_a_still: int
    image_start: Frame | None
    #: one for each window; the last window has the last one
    image_ends: tuple[Frame, ...]
    references: tuple[Frame, ...]
    #: 1-based frames where the first references stand in the video
    positions: tuple[int, ...]
    #: size of a reference in percent of the picture
    reference_size: float
    video_source: Path | None
    #: frames of the source that are kept, from its beginning; they begin the result
    kept_source_frames: int
    #: go on from a video by its last latent frame, with the first reference (at most one) as the anchor
    svi: bool
    video_guide: Path | None
    #: 0-based control frames that are used; None: all
    guide_frames: frozenset[int] | None
    video_mask: Path | None
    mask_expand: int
    #: control image and its mask of an image model: white is drawn, black is kept
    image_guide: Frame | None
    image_mask: Frame | None
    #: what the control media above were drawn from; None: they are as they were given
    drawn_from: ControlMedia | None = None
    video_prompt_type: str
    control_net_weight: float
    #: share (0-1) of the steps after which what the mask keeps is put back
    masking_strength: float
    initial_video: Path | None
    #: share of noise in the first latents of `initial_video`; None: what the first step's noise level says
    initial_noise: float | None
    audio_guide: Path | None
    audio_scale: float
    model_mode: int
    loras: LoraRequest
    #: where the run keeps what it needs to go on after the process died; None: nowhere. The caller removes it
    checkpoint: Path | None
    #: shortest time between two kept states; 0 keeps each
    checkpoint_interval_s: float
    #: write a video as FFV1 in mkv
    lossless: bool
    #: who is shown what it looks like so far
    watcher: Watcher | None = field(default=None, repr=False, compare=False)
    #: return before the files are written: `gen["unsaved"]` holds what to call for each
    save_later: bool
    #: every setting as it applies, for the record of the file
    settings: Mapping[str, Any]
    #: what the caller should know: values that were changed, options that are ignored
    notes: tuple[str, ...] = ()
    #: what was read for it before its turn came; None: nothing
    ahead: Ahead | None = field(default=None, repr=False, compare=False)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height

    @property
    def control_media(self) -> ControlMedia:
        """The control media as the caller gave them."""
        given_media = (self.video_guide, self.video_mask, self.image_guide, self.image_mask)
        names = ("video_guide", "video_mask", "image_guide", "image_mask")
        return self.drawn_from or ControlMedia(**dict(zip(names, given_media, strict=True)))

    @property
    def pictures(self) -> tuple[Frame, ...]:
        """All pictures that it was given."""
        found = (self.image_start, *self.image_ends, *self.references, self.image_guide, self.image_mask)
        return tuple(each for each in found if each is not None)

    @property
    def num_bytes(self) -> int:
        """What its pictures, and what was read ahead, take of memory; `settings` have the pictures once more."""
        return 2 * sum(picture.nbytes for picture in self.pictures) + (self.ahead.num_bytes if self.ahead else 0)

    @property
    def image_end(self) -> Frame | None:
        """The last frame, for a model that makes the video in one run. Raises Unsupported when there are several."""
        if len(self.image_ends) > 1:
            raise Unsupported(f"takes one image, not {len(self.image_ends)}", field="image_end")
        return self.image_ends[0] if self.image_ends else None

    @property
    def guide_start(self) -> int:
        """The frame of the result at which control videos begin: its first, or with letter T its first new one."""
        return self.kept_source_frames if "T" in self.video_prompt_type else 0

    @property
    def total_frames(self) -> int:
        """Frames of the result: those kept of `video_source`, and the new ones; the overlap counts once."""
        if not self.kept_source_frames:
            return self.num_frames
        return self.kept_source_frames + self.num_frames - min(self.windows.overlap, self.kept_source_frames)

    def repeated(self, number: int) -> GenerationRequest:
        """The same request with a new random seed, for its run of that number."""
        folder = self.checkpoint / f"repeat{number}" if self.checkpoint else None
        return replace(self, seed=_seed(-1, folder), checkpoint=folder)


def parse_request(
    values: Mapping[str, Any], definition: ModelDefinition, reads: frozenset[str], loras_root: Path
) -> GenerationRequest:
    """Defaults < the model's settings < those of a recognised acceleration LoRA < what the caller asked for.

    `reads` names the parameters that the model's family uses. Raises Unsupported for content that it does not, and
    InvalidInput for values that cannot be used; other unused parameters become a note.
    """
    wanted = (asked(values) | asked(definition.settings)) - PLUMBING
    svi = _goes_on_by_svi(values, definition)
    definition = replace(definition, architecture=with_svi(definition.architecture)) if svi else definition
    refuse_unusable(wanted, definition, reads)
    given_values = {name: value for name, value in values.items() if name in PARAMETERS and value is not None}
    loras = parse_loras(given_values, definition, loras_root)
    # Without windows a video goes on from the last frame of another alone.
    shared = {} if definition.architecture.windows else {"sliding_window_overlap": 1}
    shared_by_svi = {"sliding_window_overlap": SVI_OVERLAP, "svi2pro": 1} if svi else {}
    settings = _defaults() | shared | definition.settings | shared_by_svi | loras.settings | given_values
    # Levels that the family does not run do not count its steps either.
    numbers = Numbers(settings if "sigmas" in reads else settings | {"sigmas": ()})
    _refuse_inpainting(numbers, settings, reads)
    _refuse_the_last_video(settings)
    image_output = numbers.whole("image_mode", 0, 2) > 0 or definition.architecture.image_output
    idle = ignored(wanted, definition, reads if image_output else reads - {"batch_size"})
    request = _request(settings, numbers, definition, loras, image_output, svi, (*loras.notes, *idle))
    _check_continued(request)
    return replace(
        request, notes=(*request.notes, *_overlap_changed(request, given_values), *without_effect(request, reads))
    )


def _request(
    settings: dict[str, Any],
    numbers: Numbers,
    definition: ModelDefinition,
    loras: LoraRequest,
    image_output: bool,
    svi: bool,
    notes: tuple[str, ...],
) -> GenerationRequest:
    width, height = size_of(settings["resolution"], definition, image_output)
    length, changed = (1, ()) if image_output else length_of(numbers.whole("video_length", 1), definition)
    guide = given.path(settings["video_guide"], "video_guide")
    source = given.path(settings["video_source"], "video_source")
    initial = given.path(settings["vid2vid_init_video"], "vid2vid_init_video")
    kept = settings["plugin_data"] or {}
    checkpoint = given.path(kept.get("checkpoint"), "plugin_data")
    letters = str(settings["video_prompt_type"])
    windows = _windows(numbers, definition)
    kept_frames = _kept(source, str(settings["keep_frames_video_source"]))
    return GenerationRequest(
        definition=definition,
        prompt=str(settings["prompt"]),
        negative_prompt=str(settings["negative_prompt"]),
        width=width,
        height=height,
        num_frames=length,
        fps=rate_of(settings, definition),
        seed=_seed(numbers.whole("seed", -1, 2**63 - 1), checkpoint),
        repeats=numbers.whole("repeat_generation", 1, 25),
        sampling=_sampling(numbers, settings, definition, loras, _begins_from_media(settings, definition, letters)),
        windows=windows,
        image_output=image_output,
        batch_size=numbers.whole("batch_size", 1, 64) if image_output else 1,
        frames_of_a_still=frames_of_a_still(numbers, letters, definition) if image_output else 1,
        image_start=given.picture(settings["image_start"], "image_start"),
        image_ends=given.pictures(settings["image_end"], "image_end"),
        references=given.pictures(settings["image_refs"], "image_refs"),
        positions=_positions(settings["frames_positions"], letters, length, kept_frames, windows.overlap),
        reference_size=numbers.real("image_refs_relative_size", 1, 100),
        video_source=source,
        kept_source_frames=kept_frames,
        svi=svi,
        video_guide=guide,
        guide_frames=_guide_frames(guide, str(settings["keep_frames_video_guide"])),
        video_mask=given.path(settings["video_mask"], "video_mask"),
        mask_expand=numbers.whole("mask_expand", -200, 200),
        image_guide=given.picture(settings["image_guide"], "image_guide"),
        image_mask=given.picture(settings["image_mask"], "image_mask"),
        video_prompt_type=letters,
        control_net_weight=numbers.real("control_net_weight", 0, 10),
        masking_strength=_masking_strength(numbers, initial),
        initial_video=initial,
        initial_noise=numbers.real("vid2vid_init_strength", 0, 1) if initial else None,
        audio_guide=given.path(settings["audio_guide"], "audio_guide"),
        audio_scale=numbers.real("audio_scale", 0, 100),
        model_mode=given.mode(settings["model_mode"], "model_mode"),
        loras=loras,
        checkpoint=checkpoint,
        checkpoint_interval_s=float(kept.get("checkpoint_interval_s", CHECKPOINT_INTERVAL_S)),
        lossless=bool(kept.get("lossless")),
        save_later=bool(kept.get("save_later")),
        watcher=kept.get("watcher"),
        settings={name: value for name, value in settings.items() if name not in PLUMBING},
        notes=(*changed, *notes),
    )


def _goes_on_by_svi(values: Mapping[str, Any], definition: ModelDefinition) -> bool:
    """Whether the call, or the model, goes on from a video by SVI 2 Pro. Raises Unsupported where it cannot."""
    given_value = values.get("svi2pro")
    value = definition.settings.get("svi2pro", 0) if given_value is None else given_value
    wanted, architecture = Numbers({"svi2pro": value}).switch("svi2pro"), definition.architecture
    if wanted and not architecture.svi:
        raise Unsupported(
            f"{definition.id} cannot go on from a video by SVI 2 Pro; use an image-to-video model, or leave it at 0",
            field="svi2pro",
        )
    return wanted or architecture.svi_always


def _begins_from_media(settings: Mapping[str, Any], definition: ModelDefinition, letters: str) -> bool:
    """Whether a run begins from a video or an image, some noise on it, instead of noise alone."""
    redrawn = settings["vid2vid_init_video"] or (settings["video_guide"] and "G" in letters)
    image = settings["image_guide"] is not None or settings["image_start"] is not None
    return bool(redrawn) or (definition.architecture.image_output and image)


def _sampling(
    numbers: Numbers, settings: Mapping[str, Any], definition: ModelDefinition, loras: LoraRequest, from_video: bool
) -> Sampling:
    """Without a video to begin from, the whole schedule is run whatever denoising_strength says."""
    solver = str(settings["sample_solver"] or "")
    found = parse_sampling(numbers, solver, loras.wan_schedule, definition.architecture)
    return found if from_video else replace(found, denoising_strength=1.0)


def _windows(numbers: Numbers, definition: ModelDefinition) -> Windows:
    rule, overlap = definition.architecture.windows, numbers.whole("sliding_window_overlap", 0)
    return Windows(
        size=numbers.whole("sliding_window_size", 1),
        overlap=overlap if rule is None else min(max(overlap, rule.overlap_min), rule.overlap_max),
        discard=numbers.whole("sliding_window_discard_last_frames", 0),
        overlap_noise=numbers.real("sliding_window_overlap_noise", 0, 1000) / 1000,
        colour_correction=numbers.real("sliding_window_color_correction_strength", 0, 1),
    )


def _masking_strength(numbers: Numbers, initial: Path | None) -> float:
    """`latent_noise_mask_strength` is the name of the same thing for a run that begins from `vid2vid_init_video`."""
    return numbers.real("latent_noise_mask_strength" if initial else "masking_strength", 0, 1)


def _kept(source: Path | None, text: str) -> int:
    return keep_from_source(text, probe_video(source).num_frames) if source else 0


def _positions(text: Any, letters: str, length: int, kept: int, overlap: int) -> tuple[int, ...]:
    """Counted from the first frame of the result; with letter T from the first new one."""
    new = length - min(overlap, kept)
    return positions(text, new if "T" in letters else kept + new) if "F" in letters else ()


def _guide_frames(guide: Path | None, text: str) -> frozenset[int] | None:
    return listed_frames(text, probe_video(guide).num_frames) if guide and text.strip() else None


def _check_continued(request: GenerationRequest) -> None:
    """Raises InvalidInput for a video that cannot be gone on from, or that nothing would be added to."""
    kept = request.kept_source_frames
    if not kept or request.image_output:
        return
    if request.image_start is not None:
        raise InvalidInput("video_source is where the video begins; give one of the two", field="image_start")
    if request.total_frames <= kept:
        raise InvalidInput(
            f"of {request.num_frames} frames, {request.windows.overlap} shared with video_source leave nothing to add",
            field="sliding_window_overlap",
        )
    if request.svi and kept < SVI_LEAST_CONTEXT:
        raise InvalidInput(f"SVI goes on from {SVI_LEAST_CONTEXT} frames or more, not {kept}", field="video_source")


def _overlap_changed(request: GenerationRequest, given_values: Mapping[str, Any]) -> tuple[str, ...]:
    """A note where the overlap acts and is not the one that the caller wrote."""
    name, used = "sliding_window_overlap", request.windows.overlap
    wanted = given_values.get(name, used)
    acts = request.kept_source_frames or request.num_frames > request.windows.size
    if not acts or int(wanted) == used:
        return ()
    return (f"{name} changed from {wanted} to {used}, the nearest that {request.definition.id} can do",)


def _refuse_inpainting(numbers: Numbers, settings: Mapping[str, Any], reads: frozenset[str]) -> None:
    if numbers.whole("image_mode", 0, 2) < 2:
        return
    if "image_mask" not in reads:
        raise Unsupported("2, image inpainting, is not there in this version; use 0 or 1", field="image_mode")
    if settings["image_mask"] is None:
        raise InvalidInput("is missing: image_mode 2 draws the white of a mask", field="image_mask")


def _refuse_the_last_video(settings: Mapping[str, Any]) -> None:
    if "L" in str(settings["image_prompt_type"]) and not settings["video_source"]:
        raise Unsupported(
            "L, the last video made, is not looked for in this version; give it as video_source",
            field="image_prompt_type",
        )


def _defaults() -> dict[str, Any]:
    return {name: parameter.default for name, parameter in PARAMETERS.items()}


def _seed(seed: int, checkpoint: Path | None) -> int:
    """A seed by chance where none was asked for; a run that can be taken up draws the same one again."""
    if seed >= 0:
        return seed
    if checkpoint is None:
        return _random_seed()
    return int.from_bytes(hashlib.sha256(str(checkpoint).encode()).digest()[:8], "big") % MAX_RANDOM_SEED


def _random_seed() -> int:
    return secrets.randbelow(MAX_RANDOM_SEED)
