"""The seam between the call and the models: what every family offers, and where each one lives. No torch here."""

from __future__ import annotations

import gc
import importlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.errors import GenerationCancelled

#: phase (loading, encoding, denoising, decoding or saving), step, total
Report = Callable[[str, int, int], None]
#: reported in place of a phase when a window of a long video begins: its number, counted from 1, and how many there are
WINDOW = "window"


def _memory_of_its_own() -> Any:
    from Wan2GP.engine.residency.memory import Memory

    return Memory()


@dataclass(frozen=True)
class Place:
    """Where a model is loaded from and runs."""

    checkpoints: Path
    #: "cpu", "cuda" or "cuda:N"
    device: str
    #: the memory profile (`Wan2GP.memory_profiles`); -1 is the automatic one
    profile: int = -1
    #: the `Memory` of the engine that loads it
    memory: Any = field(default_factory=_memory_of_its_own, compare=False, repr=False)
    #: "auto", or a kernel of attention by its name (`Wan2GP.engine.speed.attention`)
    attention: str = "auto"
    #: whether blocks of transformers are compiled
    compiled: bool = False
    #: whether transformers compute in 8 bits where that is faster (`Wan2GP.engine.speed.fp8`)
    fp8: bool = False
    #: bits (32 or 16) of the numbers of Wan's VAE, and whether its convolutions keep channels last
    vae_bits: int = 32
    vae_channels_last: bool = False


class Cancel:
    """Whether a run shall stop, asked before each step and between stages."""

    def __init__(self, requested: Callable[[], bool]) -> None:
        self._requested = requested

    def raise_if_requested(self) -> None:
        """Raises GenerationCancelled."""
        if self._requested():
            raise GenerationCancelled()


class Model(Protocol):
    """A model in memory. One run at a time.

    One that has a `placement` (`engine.residency.placement`) can stand by while others run.
    """

    #: set from another thread to stop the run; cleared by the call when a run begins
    _interrupt: bool
    #: what the user should know about how it was loaded
    notes: tuple[str, ...]
    #: what the user should know about the latest run; complete once all its frames were taken
    remarks: tuple[str, ...]

    def generate(self, request: GenerationRequest, report: Report, cancel: Cancel) -> Iterable[Frame] | str:
        """The request's frames in order: exactly `num_frames` of a video, or `batch_size` stills. Or a text, which is
        never empty, where the architecture says so.

        Raises GenerationCancelled as soon as `cancel` says so, without decoding; the next run is not affected.
        """

    def release(self) -> None:
        """Give back all memory. The model is of no use afterwards."""


class Family(Protocol):
    """How the models of a family are checked and loaded. Its class is the callable that loads.

    It may have a static `read_ahead(request, ahead)` that puts into `ahead` what its models will read of the request's
    media; called on another thread than the accelerator's.
    """

    #: parameters that the family uses; others are refused (content) or noted as ignored (settings)
    reads: frozenset[str]

    def __call__(self, definition: ModelDefinition, place: Place, report: Report) -> Model:
        """Load. Raises ModelUnavailable or OutOfMemory."""

    def check(self, request: GenerationRequest) -> None:
        """Raises InvalidInput for a request that cannot be met. Needs no model in memory."""


#: name (as in `Architecture.engine`) -> module and class
FAMILIES = {
    "canny": ("Wan2GP.engine.control.models", "Canny"),
    "captioner": ("Wan2GP.engine.language.captioning", "Captioner"),
    "depth": ("Wan2GP.engine.control.depth", "Depth"),
    "draft": ("Wan2GP.engine.interpolation.draft", "Draft"),
    "flow": ("Wan2GP.engine.control.models", "Flow"),
    "flux": ("Wan2GP.engine.stock.flux", "Flux"),
    "flux_kontext": ("Wan2GP.engine.stock.flux", "FluxKontext"),
    "hunyuan": ("Wan2GP.engine.stock.hunyuan", "Hunyuan"),
    "hunyuan_custom": ("Wan2GP.engine.stock.hunyuan_custom", "HunyuanCustom"),
    "hunyuan_i2v": ("Wan2GP.engine.stock.hunyuan", "HunyuanImage"),
    "language": ("Wan2GP.engine.language.llama", "Language"),
    "ltx": ("Wan2GP.engine.stock.ltx", "LTX"),
    "person_mask": ("Wan2GP.engine.masks.person", "PersonMask"),
    "pose": ("Wan2GP.engine.control.pose", "Pose"),
    "pose_joints": ("Wan2GP.engine.control.pose", "PoseJoints"),
    "scribble": ("Wan2GP.engine.control.models", "Scribble"),
    "prompt_enhancer": ("Wan2GP.engine.language.prompt_enhancer", "PromptEnhancer"),
    "qwen_image": ("Wan2GP.engine.qwen.model", "QwenImage"),
    "qwen_image_edit": ("Wan2GP.engine.qwen.model", "QwenImageEdit"),
    "qwen_image_edit_plus": ("Wan2GP.engine.qwen.model", "QwenImageEditPlus"),
    "sam2": ("Wan2GP.engine.masks.sam2", "Sam2"),
    "rife": ("Wan2GP.engine.interpolation.model", "FrameInterpolation"),
    "vision_language": ("Wan2GP.engine.language.vision", "VisionLanguage"),
    "wan": ("Wan2GP.engine.wan.model", "Wan"),
    "z_image": ("Wan2GP.engine.stock.z_image", "ZImage"),
}


#: held while a family is imported and while a model is loaded: the libraries behind them import parts of themselves as
#: late as that, and of two threads that do so one may see half a module
importing = threading.RLock()
_imported: dict[str, Family] = {}


def family(name: str) -> Family:
    """The family of that name; its module is imported now and not before. Any thread may ask."""
    if name not in _imported:
        module, attribute = FAMILIES[name]
        with importing, _no_collection():
            _imported[name] = getattr(importlib.import_module(module), attribute)
    return _imported[name]


@contextmanager
def _no_collection() -> Iterator[None]:
    """Torch and diffusers are a million objects that stay: looking for garbage among them while they come takes a sixth
    of the time of the import."""
    wanted = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if wanted:
            gc.enable()
