"""The Wan family: one resident model, and a run of it window by window."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import islice

import torch

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.control.media import check_control, positioned
from Wan2GP.engine.families import WINDOW, Cancel, Place, Report
from Wan2GP.engine.loading import free_memory
from Wan2GP.engine.lora.merging import LoraSet
from Wan2GP.engine.lora.multipliers import plan_multipliers
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.engine.residency.placement import Placement
from Wan2GP.engine.speed.compiling import keep_compiled
from Wan2GP.engine.wan.architectures import check_architecture, conditions_class
from Wan2GP.engine.wan.conditions import Prompts
from Wan2GP.engine.wan.continuity import colours_matched, with_noise
from Wan2GP.engine.wan.latents import decoded
from Wan2GP.engine.wan.loading import load_parts
from Wan2GP.engine.wan.loop import denoise
from Wan2GP.engine.wan.media import (
    context_of,
    last_frames,
    of_a_still,
    prompt_of,
    read_ahead,
    source_frames,
    spans_of,
)
from Wan2GP.engine.wan.parts import WanParts
from Wan2GP.engine.wan.reading import Windows
from Wan2GP.engine.wan.resume import Resume
from Wan2GP.engine.wan.step_cache import check_step_cache, held_steps
from Wan2GP.engine.wan.steps import Step, plan_steps
from Wan2GP.engine.wan.text import encode_prompts
from Wan2GP.engine.wan.window import Frames, Span


class Wan:
    """One resident Wan model."""

    reads = frozenset(
        {
            "prompt",
            "negative_prompt",
            "seed",
            "batch_size",
            "num_inference_steps",
            "sample_solver",
            "sigmas",
            "flow_shift",
            "guidance_scale",
            "guidance2_scale",
            "guidance3_scale",
            "guidance_phases",
            "switch_threshold",
            "switch_threshold2",
            "model_switch_phase",
            "alt_guidance_scale",
            "audio_guidance_scale",
            "audio_scale",
            "audio_guide",
            "audio_prompt_type",
            "denoising_strength",
            "masking_strength",
            "latent_noise_mask_strength",
            "vid2vid_init_video",
            "vid2vid_init_strength",
            "cfg_star_switch",
            "cfg_zero_step",
            "apg_switch",
            "NAG_scale",
            "NAG_tau",
            "NAG_alpha",
            *(f"{kind}_{part}" for kind in ("slg", "perturbation") for part in ("switch", "layers")),
            *(f"{kind}_{part}_perc" for kind in ("slg", "perturbation") for part in ("start", "end")),
            "activated_loras",
            "loras_multipliers",
            "skip_model_loras",
            *(f"skip_steps_{part}" for part in ("cache_type", "multiplier", "start_step_perc")),
            "image_start",
            "image_end",
            "image_refs",
            "image_refs_relative_size",
            "remove_background_images_ref",
            "frames_positions",
            "video_source",
            "keep_frames_video_source",
            "svi2pro",
            "video_guide",
            "keep_frames_video_guide",
            "video_mask",
            "mask_expand",
            "video_prompt_type",
            "control_net_weight",
            "model_mode",
            "min_frames_if_references",
            "sliding_window_size",
            "sliding_window_overlap",
            "sliding_window_overlap_noise",
            "sliding_window_color_correction_strength",
            "sliding_window_discard_last_frames",
            "multi_prompts_gen_type",
        }
    )

    def __init__(self, definition: ModelDefinition, place: Place, report: Report) -> None:
        """Load the parts; nothing is fetched. Raises ModelUnavailable when a file is missing or does not fit."""
        self._interrupt = False
        self.notes: tuple[str, ...] = ()
        self.remarks: tuple[str, ...] = ()
        report("loading", 0, 1)
        self._compiled_in = place.checkpoints if place.compiled else None
        self._parts = load_parts(definition, place)
        report("loading", 1, 1)

    @staticmethod
    def check(request: GenerationRequest) -> None:
        """Raises InvalidInput or Unsupported for what the model cannot do."""
        check_control(request)
        check_architecture(request)
        positioned(request)
        experts = ("transformer", "transformer_2")[: request.definition.architecture.experts]
        check_step_cache(request)
        steps, _ = plan_steps(request.sampling, experts)
        _schedules(request, steps)
        spans_of(request)

    #: called for a request before its turn
    read_ahead = staticmethod(read_ahead)

    def generate(self, request: GenerationRequest, report: Report, cancel: Cancel) -> Iterator[Frame]:
        """All frames (H, W, 3) uint8 in order, a window at a time, or `batch_size` stills, one run each with seeds
        counted up. A run whose request names a checkpoint goes on where it was interrupted; the folder stays, for a
        run that ended is not yet a file that was delivered."""
        if request.image_output:
            yield from self._stills(request, report, cancel)
            return
        run = _Run(self._parts, request, report, cancel)
        try:
            yield from run.video()
        finally:
            self.remarks = run.remarks

    @property
    def placement(self) -> Placement | None:
        """Where its parts are."""
        return self._parts.placement

    def release(self) -> None:
        """Free host and device memory, but for parts that other models hold; what was compiled is kept on disk."""
        if self._compiled_in is not None:
            keep_compiled(self._compiled_in)
        del self._parts
        free_memory()

    def _stills(self, request: GenerationRequest, report: Report, cancel: Cancel) -> Iterator[Frame]:
        single = of_a_still(request)
        for number in range(request.batch_size):
            folder = request.checkpoint / f"still{number}" if request.checkpoint else None
            numbered = replace(single, seed=request.seed + number, checkpoint=folder)
            run = _Run(self._parts, numbered, report, cancel)
            yield next(iter(run.video()))
            self.remarks = run.remarks


class _Run:
    """One video: its prompts, steps and LoRAs, and its windows one after the other."""

    def __init__(self, parts: WanParts, request: GenerationRequest, report: Report, cancel: Cancel) -> None:
        self._parts, self._request, self._report, self._cancel = parts, request, report, cancel
        self.resume = Resume.of(request)
        self._notes: tuple[str, ...] = ()
        self._steps, self._levels = plan_steps(request.sampling, tuple(parts.experts), parts.boundary_ratio)
        self._held = held_steps(parts, request, self._steps, _schedules(request, self._steps))
        self._embeddings: dict[str, Prompts] = {}

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the user should know about the run so far."""
        held, total = len(self._held), len(self._steps)
        cached = (f"the step cache held {held} of {total} steps",) if held else ()
        return (*self._notes, *cached, *self.resume.notes)

    def video(self) -> Iterator[Frame]:
        """The kept frames of the source, then the new ones; the video so far is what the next window goes on from."""
        request = self._request
        spans = spans_of(request)
        latest: deque[Frame] = deque(maxlen=max(context_of(request, span) for span in spans))
        for frame in source_frames(request):
            latest.append(frame)
            yield frame
        with ExitStack() as stack:
            loras = stack.enter_context(self._loras())
            windows = stack.enter_context(Windows(request, spans))
            for index, span in enumerate(spans):
                frames: Iterable[Frame] | None = self.resume.finished(index)
                if frames is None:
                    before = last_frames(latest, context_of(request, span), request)
                    frames = self._window(index, span, windows, before, loras)
                    frames = self.resume.keeping(index, frames) if len(spans) > 1 else frames
                for frame in frames:
                    latest.append(frame)
                    yield frame

    def _window(self, index: int, span: Span, windows: Windows, prefix: Frames, loras: LoraSet) -> Iterator[Frame]:
        """The new frames of one window, as they are decoded."""
        request, parts = self._request, self._parts
        self._cancel.raise_if_requested()
        self._report(WINDOW, index + 1, total := len(windows))
        prompts = self._prompts(index)
        self._report("encoding", index, total)
        self._cancel.raise_if_requested()
        seed = request.seed + index
        kind = conditions_class(request)
        noise = 0.0 if kind.noise_on_latents else request.windows.overlap_noise
        window = windows.window(index, with_noise(prefix, noise, seed))
        conditions = kind(parts, request, window, prompts)
        self._notes = tuple(dict.fromkeys((*self._notes, *conditions.remarks)))
        self._report("encoding", index + 1, total)
        memory = self.resume.window(index)
        latents = denoise(
            conditions, self._steps, self._levels, seed, loras, memory, self._report, self._cancel, self._held
        )
        self._report("decoding", index, total)
        shared = prefix[len(prefix) - span.overlap :]
        frames = islice(self._decoded(latents), conditions.lead, None)
        frames = colours_matched(frames, shared, request.windows.colour_correction)
        yield from islice(frames, span.overlap, span.overlap + span.new)
        self._report("decoding", index + 1, total)

    def _decoded(self, latents: torch.Tensor) -> Iterator[Frame]:
        """All frames, a few in memory at a time. Raises GenerationCancelled before any latent frame."""
        self._cancel.raise_if_requested()
        with closing(decoded(self._parts, latents)) as parts:
            for part in parts:
                yield from part
                self._cancel.raise_if_requested()

    def _prompts(self, window: int) -> Prompts:
        """The prompt of a window, encoded once."""
        request = self._request
        text = prompt_of(request, window)
        if text not in self._embeddings:
            self._report("encoding", 0, 1)
            positive, negative = encode_prompts(self._parts, [text, request.negative_prompt])
            self._embeddings[text] = Prompts(positive, negative)
        return self._embeddings[text]

    def _loras(self) -> LoraSet:
        loras = LoraSet(
            self._parts.experts,
            self._request.loras.files,
            _schedules(self._request, self._steps),
            expert_of_step=[step.expert for step in self._steps],
        )
        self._notes = loras.notes
        return loras


def _schedules(request: GenerationRequest, steps: tuple[Step, ...]) -> list[tuple[float, ...]]:
    """Each LoRA's multiplier at each step."""
    sampling, loras = request.sampling, request.loras
    names = [file.name for file in loras.files]
    phases = [step.phase for step in steps]
    text = " ".join(loras.multipliers)
    return plan_multipliers(names, text, phases, sampling.guidance_phases, sampling.model_switch_phase)
