"""`WanOrchestrator`: the one door to the engine. Typed options become keyword arguments here and nowhere else."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from PIL import Image

from headless.compute import check_attention, check_quantization
from headless.engine_run import EngineRun, typed_error
from headless.generation import (
    CancelToken,
    GenerationOutcome,
    GenerationTask,
    ModelInfo,
    OnProgress,
    Prepared,
    Progress,
)
from headless.inputs import check_inputs, generation_size, profile_of
from Wan2GP.architecture import with_svi
from Wan2GP.definitions import DEFAULTS_DIR, Definitions, load_definitions
from Wan2GP.engine.interpolation.rife_weights import weights_path
from Wan2GP.engine.residency.budgets import CACHE_BYTES, Budgets
from Wan2GP.errors import InvalidInput, ModelUnavailable, OutOfMemory
from Wan2GP.layout import lora_file_name, weight_files
from Wan2GP.media import read_image, resize
from Wan2GP.parameters import LOW_MEMORY_PROFILES

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

#: images that must have the generation's exact size
_SIZED = frozenset({"image_start", "image_end"})
#: engines that draw by RIFE when its weights are there
_BY_RIFE = frozenset({"draft", "rife"})
MAX_SEED = 2**32 - 1


class Engine(Protocol):
    """What is used of the `Wan2GP.wgp` module."""

    wan_model: Any
    #: the id of the model in memory; "" when there is none
    transformer_type: str
    #: whether it takes little of the accelerator though it may fit
    low_memory: bool

    def configure(self, **settings: Any) -> None: ...
    #: None: it prepares nothing, and reads in its run what it is given
    def prepare_generation(self, **keywords: Any) -> Any: ...
    def generate_video(self, **keywords: Any) -> Any: ...
    def load_models(
        self, model_type: str, override_profile: int, *, report: Callable[[str, int, int], None]
    ) -> Any: ...
    def release_model(self) -> Any: ...
    def abort_generation(self, state: dict[str, Any]) -> None: ...
    def memory_report(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class MemoryPlan:
    """How much of the machine models and caches may take (docs/memory.md). None leaves it to the machine."""

    #: 1-5; -1 is chosen by what fits
    profile: int = -1
    #: weights on the accelerator, and in host memory, of all models together
    gpu_gb: float | None = None
    ram_gb: float | None = None
    #: embeddings and latents that were computed before
    cache_mb: int = CACHE_BYTES >> 20

    def budgets(self) -> Budgets:
        """In bytes."""
        gpu, ram = (None if gb is None else int(gb * 2**30) for gb in (self.gpu_gb, self.ram_gb))
        return Budgets(gpu, ram, self.cache_mb << 20)


@dataclass(frozen=True)
class SpeedPlan:
    """What makes Wan models fast (docs/speed.md)."""

    #: "auto" measures the kernels of attention that are installed, or the name of one
    attention: str = "auto"
    #: whether blocks of transformers are compiled
    compiled: bool = False
    #: "bf16", or "fp8": 8 bits where that is faster
    quantization: str = "bf16"
    #: bits of the VAE's numbers, 32 or 16; and whether its convolutions keep channels last
    vae_precision: int = 32
    vae_channels_last: bool = False


def built_in_engine() -> Engine:
    """Our own engine; importing it does not import torch."""
    from Wan2GP import wgp

    return cast(Engine, wgp)


class WanOrchestrator:
    """Implements `headless.generation.Orchestrator` on the engine in `Wan2GP/`.

    checkpoints   folder of model weights
    loras         folder of LoRA files, one folder a family inside: where the models' own LoRAs are
    definitions   further folders of model definitions, read after the shipped ones
    device        "cuda" or "cpu"; None takes the accelerator when there is one
    memory        how much of the machine models and caches may take; None leaves it to the engine
    speed         what makes models fast; None is what loses nothing
    engine        gives the engine's module at first use, so that a worker starts fast
    clock         answers seconds and never goes back; steps are timed with it
    """

    def __init__(
        self,
        *,
        checkpoints: Path,
        loras: Path = Path("loras"),
        definitions: Sequence[Path] = (),
        device: str | None = None,
        memory: MemoryPlan | None = None,
        speed: SpeedPlan | None = None,
        engine: Callable[[], Engine] = built_in_engine,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checkpoints = checkpoints
        self._loras = loras
        self._definition_dirs = tuple(definitions)
        self._definitions: Definitions = load_definitions(definitions)
        self._device = checked_device(device) if device else machine_device()
        self._memory = memory or MemoryPlan()
        self._speed = speed or SpeedPlan()
        check_attention(self._speed.attention, self._device)
        check_quantization(self._speed.quantization, self._device)
        self._import_engine = engine
        self._clock = clock
        self._engine: Engine | None = None

    # ---- what is known without the engine

    @property
    def current_model(self) -> str | None:
        return self._engine.transformer_type or None if self._engine is not None else None

    def models(self) -> list[ModelInfo]:
        return [self.describe(name) for name in self._definitions]

    def describe(self, model: str) -> ModelInfo:
        definition = self._definitions[model]
        architecture = definition.architecture
        if definition.settings.get("svi2pro"):
            architecture = with_svi(architecture)
        return ModelInfo.of(
            definition.id, definition.architecture_name, architecture,
            has_prompt=bool(definition.settings.get("prompt")),
            unavailable=self._definitions.unavailable(definition.id, self._checkpoints, self._device.partition(":")[0]),
        )  # fmt: skip

    def weight_files(self, model: str) -> tuple[Path, ...]:
        """Also the user's own definition of the model, and the LoRAs that it always applies."""
        definition = self._definitions[model]
        own = (definition.origin,) if definition.origin.parent != DEFAULTS_DIR else ()
        folder = self._loras / definition.architecture.lora_folder
        always = (folder / lora_file_name(url) for url in definition.model.get("loras", ()))
        files = (*own, *weight_files(definition, self._checkpoints), *(path for path in always if path.is_file()))
        rife = weights_path(self._checkpoints)
        return (*files, rife) if definition.architecture.engine in _BY_RIFE and rife.is_file() else files

    def prepare(self, task: GenerationTask) -> GenerationTask:
        model = self.describe(task.model)
        if model.unavailable is not None:
            raise ModelUnavailable(model.unavailable)
        check_inputs(task, model)
        engine, keywords = self._ready_engine(), _typed(lambda: self._keywords(task, model))
        request = _typed(lambda: engine.prepare_generation(model_type=model.name, **keywords))
        if request is not None:
            keywords["plugin_data"] = {**keywords["plugin_data"], "prepared": request}
        return replace(task, prepared=Prepared(keywords, getattr(request, "num_bytes", 0)))

    # ---- the model

    def load_model(self, model: str, on_progress: OnProgress, profile: int = -1) -> bool:
        engine, name = self._ready_engine(), self._definitions[model].id
        low_memory = (profile if profile > 0 else self._memory.profile) in LOW_MEMORY_PROFILES
        if self.current_model == name and engine.low_memory == low_memory:
            return False
        if (unavailable := self.describe(name).unavailable) is not None:
            raise ModelUnavailable(unavailable)
        read = False

        def report(phase: str, step: int, total: int) -> None:
            nonlocal read
            read = True
            on_progress(Progress(phase, step, total, name))

        self._guarded(lambda: engine.load_models(name, profile, report=report))
        return read

    def unload_model(self) -> None:
        """Free the memory of all models; what is left is collected, so that the next model starts clean."""
        if self._engine is not None:
            self._engine.release_model()
            gc.collect()

    def _ready_engine(self) -> Engine:
        if self._engine is None:
            engine = self._import_engine()
            engine.configure(
                checkpoints=self._checkpoints,
                loras=self._loras,
                definitions=self._definition_dirs,
                device=self._device,
                profile=self._memory.profile,
                budgets=self._memory.budgets(),
                **asdict(self._speed),
            )
            self._engine = engine  # last: another thread may ask for it
        return self._engine

    def memory_report(self) -> Mapping[str, Any]:
        """What is in memory, and how often a model, a part, an embedding or latents were found there."""
        return self._engine.memory_report() if self._engine is not None else {}

    # ---- the run

    def generate(self, task: GenerationTask, on_progress: OnProgress, cancel: CancelToken) -> GenerationOutcome:
        name = self._definitions[task.model].id
        self.load_model(name, on_progress, profile_of(task))
        engine = self._ready_engine()
        engine.configure(save_path=task.output_dir)
        run = EngineRun(name, task.options.activated_loras or (), on_progress, self._clock)
        keywords = self._keywords(task, self.describe(name)) if task.prepared is None else task.prepared.content
        run.notes.append(f"seed {keywords['seed']}")
        run.arm(lambda: engine.abort_generation(run.state))
        cancel.on_cancel(run.interrupt)
        accelerator = _Accelerator(self._device)
        try:
            self._guarded(lambda: self._call(engine, task, name, run, keywords))
            cancel.raise_if_cancelled()
        except BaseException:
            run.abandon()
            raise
        memory = accelerator.peak_memory_bytes()
        return GenerationOutcome((), tuple(run.notes), memory, keywords["seed"], run.beside, run.saved)

    def _call(self, engine: Engine, task: GenerationTask, model: str, run: EngineRun, keywords: dict[str, Any]) -> None:
        record = {"id": task.id, "params": {}, "repeats": 1, "prompt": keywords.get("prompt", "")}
        try:
            engine.generate_video(task=record, send_cmd=run.receive, state=run.state, model_type=model, **keywords)
        finally:
            run.over()
        run.raise_error()

    def _keywords(self, task: GenerationTask, model: ModelInfo) -> dict[str, Any]:
        """The engine's keyword arguments: the knobs asked for, images as PIL RGB, and a seed where none is given."""
        size = generation_size(task.options, model)
        keywords = task.options.to_engine()
        for name, kind in task.options.media().items():
            if kind == "image":
                keywords[name] = _opened(keywords[name], size if name in _SIZED else None)
        if keywords.get("seed", -1) < 0:
            keywords["seed"] = _drawn_seed(task)
        ours: dict[str, Any] = {"save_later": True} | ({"lossless": True} if task.lossless else {})
        if task.watcher is not None:
            ours["watcher"] = task.watcher
        if task.checkpoint_dir is not None:
            ours |= {"checkpoint": task.checkpoint_dir, "checkpoint_interval_s": task.checkpoint_interval_s}
        return keywords | {"plugin_data": ours}

    def _guarded(self, work: Callable[[], Value]) -> Value:
        """Run the engine; running out of memory unloads the model."""
        try:
            return _typed(work)
        except OutOfMemory as error:
            failure = error
        self.unload_model()
        raise failure


def _typed(work: Callable[[], Value]) -> Value:
    """Running out of memory and losing the device become errors of ours, others stay as they are.

    Raised outside the handler: nothing may hold the frames of the failure, for they hold the memory to be freed.
    """
    try:
        return work()
    except (RuntimeError, MemoryError, OutOfMemory) as error:
        failure = typed_error(error)
        if failure is None:
            raise
        logger.warning("the engine failed", exc_info=error)
    raise failure


def _drawn_seed(task: GenerationTask) -> int:
    """A seed by chance; a run that may be taken up draws the same one each time."""
    if task.checkpoint_dir is None:
        return random.SystemRandom().randrange(MAX_SEED + 1)
    return random.Random(str(task.checkpoint_dir)).randrange(MAX_SEED + 1)


class _Accelerator:
    """The peak of device memory during one run; 0 without an accelerator."""

    def __init__(self, device: str) -> None:
        # the engine imported torch already if it works with it
        torch: Any = sys.modules.get("torch") if device.startswith("cuda") else None
        self._memory = torch.cuda if torch is not None else None
        if self._memory is not None:
            self._memory.reset_peak_memory_stats()

    def peak_memory_bytes(self) -> int:
        return int(self._memory.max_memory_allocated()) if self._memory is not None else 0


def _opened(files: str | list[str], size: tuple[int, int] | None) -> Image.Image | list[Image.Image]:
    """PIL RGB images, resized to `size` = (width, height) when one is given."""
    if isinstance(files, list):
        return [_open(file, size) for file in files]
    return _open(files, size)


def _open(file: str, size: tuple[int, int] | None) -> Image.Image:
    frame = read_image(file)
    return Image.fromarray(resize(frame, size) if size is not None else frame)


def machine_device() -> str:
    """ "cuda" when this machine has an accelerator that the installed torch can use, else "cpu"."""
    return "cuda" if accelerators() else "cpu"


def checked_device(device: str) -> str:
    """`device` when this machine has it. Raises InvalidInput that says which ones it has."""
    present = ["cpu", *(["cuda"] if accelerators() else []), *(f"cuda:{index}" for index in range(accelerators()))]
    if device not in present:
        raise InvalidInput(f"this machine has no {device!r}; it has {', '.join(present)}", field="device")
    return device


def accelerators() -> int:
    """How many accelerators torch could use. Asks the driver, not torch: importing torch takes seconds."""
    if "+cpu" in metadata.version("torch"):
        return 0
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    found = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if found else 0
