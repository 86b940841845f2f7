"""`UpstreamOrchestrator`: an upstream checkout behind the seam of our own engine."""

from __future__ import annotations

import base64
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from headless.bridge.environment import child_variables, with_ffmpeg
from headless.bridge.failures import EndedUnasked, Stuck, reported
from headless.bridge.keywords import Settings, check_options, settings_of
from headless.bridge.models import CheckoutModels
from headless.bridge.process import CheckoutProcess, Message, ignore_line
from headless.checkout import inspect_wan_dir
from headless.engine_run import EngineRun
from headless.generation import CancelToken, GenerationOutcome, GenerationTask, ModelInfo, OnProgress, Progress
from headless.inputs import check_inputs, generation_size, profile_of
from Wan2GP.errors import DeviceLost, EngineError, NoOutput, OutOfMemory, WanError
from Wan2GP.media import read_image, resize, write_image
from Wan2GP.previews import Preview, Watcher

logger = logging.getLogger(__name__)

#: images that must have the generation's exact size: a checkout takes the size of its result from them
_SIZED = ("image_start", "image_end")
#: the largest seed that every version takes
MAX_SEED = 999_999_999


@dataclass(frozen=True)
class Patience:
    """Seconds after which a checkout's process is ended, and a new one started."""

    #: without a line of output while it is imported, or a model is loaded
    silence_s: float = 900.0
    #: for a run that was told to stop
    stopping_s: float = 30.0
    #: for giving its memory back
    release_s: float = 60.0


class UpstreamOrchestrator:
    """Implements `headless.generation.Orchestrator` on a Wan2GP checkout, which runs in an interpreter of its own.

    wan_dir      the checkout; nothing in it is changed by us
    python       its interpreter; None takes that of its own environment, or ours when it has none
    environment  the variables that the interpreter starts with
    device       "cuda", "cuda:1" …; None leaves it to the checkout
    tools        a folder in which our ffmpeg gets its plain name, for a checkout that finds none on PATH
    settings     how the checkout uses the machine, by the names of its own globals (attention_mode, compile, profile …)
    clock        answers seconds and never goes back; steps are timed with it
    """

    def __init__(
        self, wan_dir: Path, *, environment: Mapping[str, str], python: Path | None = None, device: str | None = None,
        tools: Path | None = None, settings: Mapping[str, Any] = MappingProxyType({}), patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.checkout = inspect_wan_dir(wan_dir)
        self._models = CheckoutModels(self.checkout)
        self._python = python or self.checkout.python
        self._variables = child_variables(environment, device)
        if tools is not None:
            self._variables["PATH"] = with_ffmpeg(self._variables.get("PATH", ""), tools)
        self._configuration = settings
        self._patience = patience or Patience()
        self._clock = clock
        self._process: CheckoutProcess | None = None
        #: parameters of its generation function; None until it was asked
        self._parameters: tuple[str, ...] | None = None
        self._defaults: dict[str, Mapping[str, Any]] = {}
        self._model = ""
        #: whether the device was lost since a run went well
        self._lost = False

    # ---- life

    def start(self) -> None:
        """Import the checkout, so that what is wrong with it is said before any task is claimed. Raises WanError."""
        self._ready(ignore_line)

    def close(self) -> None:
        """End its interpreter."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- what is known without the interpreter

    @property
    def current_model(self) -> str | None:
        process = self._process
        return self._model or None if process is not None and process.alive else None

    def models(self) -> list[ModelInfo]:
        return self._models.infos()

    def describe(self, model: str) -> ModelInfo:
        return self._models[model].info

    def weight_files(self, model: str) -> tuple[Path, ...]:
        return self._models.weight_files(model)

    def prepare(self, task: GenerationTask) -> GenerationTask:
        """What can be told without the interpreter, which may be at work for another task."""
        check_inputs(task, self.describe(task.model))
        if self._parameters is not None:
            check_options(task.options, self._parameters)
        return task

    # ---- the model

    def load_model(self, model: str, on_progress: OnProgress, profile: int = -1) -> bool:
        name = self.describe(model).name

        def heard(line: str) -> None:
            try:
                on_progress(Progress("loading", text=line))
            except BaseException:
                self._end()  # a load cannot be interrupted
                raise

        process = self._ready(heard)
        order = {"do": "load", "model": name, "profile": profile}
        with self._guarded():
            answer = process.ask(order, on_line=heard, patience_s=self._patience.silence_s)
        self._model = str(answer["model"])
        return bool(answer["switched"])

    def unload_model(self) -> None:
        """Free the model's memory. What the checkout keeps all the same goes with its interpreter."""
        process, self._model = self._process, ""
        if process is None or not process.alive:
            return
        try:
            process.ask({"do": "release"}, patience_s=self._patience.release_s)
        except WanError as error:
            logger.warning("the checkout gave its memory not back (%s); its process is ended", error)
            self._end()

    def memory_report(self) -> Mapping[str, Any]:
        """The model at work; what else a checkout keeps is its own business."""
        return {"model": self._model} if self.current_model else {}

    # ---- the run

    def generate(self, task: GenerationTask, on_progress: OnProgress, cancel: CancelToken) -> GenerationOutcome:
        model = self.describe(task.model)
        self.load_model(model.name, on_progress, profile_of(task))
        settings = self._settings(task, model)
        run = EngineRun(model.name, task.options.activated_loras or (), on_progress, self._clock)
        answer = self._run(task, model, settings, run, cancel)
        self._model, self._lost = str(answer["model"]), False
        seed = int(settings.values["seed"])
        notes = (*settings.notes, *_no_lossless(task, answer), *run.notes, f"seed {seed}")
        files = tuple(Path(file) for file in answer["files"])
        if not files:
            said = "; ".join(run.notes) or "nothing"
            raise NoOutput(f"the checkout ended without an error and without a file; what it said: {said}")
        return GenerationOutcome(files, notes, int(answer["peak_memory_bytes"]), seed)

    def _run(
        self, task: GenerationTask, model: ModelInfo, settings: Settings, run: EngineRun, cancel: CancelToken
    ) -> Message:
        process, raised = self._ready(ignore_line), list[WanError]()

        def hear(event: str, data: Any, window: tuple[int, int]) -> None:
            run.state["gen"].update(window_no=window[0], total_windows=window[1])
            if event == "preview" and task.watcher is not None:
                _show(task.watcher, *data)
                return
            try:
                run.receive(event, data)
            except WanError as error:  # of who listens to the progress: the run is not wanted any more
                raised.append(error)
                process.interrupt()

        order = {
            "do": "generate", "task": task.id, "model": model.name, "output_dir": str(task.output_dir.resolve()),
            "settings": dict(settings.values), "images": list(settings.images), "lossless": task.lossless,
            "watched": task.watcher is not None,
        }  # fmt: skip
        if task.watcher is not None:
            task.watcher.begin()
        try:
            with self._guarded(cancel):
                answer = process.ask(order, on_event=hear, cancel=cancel, stopping_s=self._patience.stopping_s)
                cancel.raise_if_cancelled()
                if answer["errors"] and not raised:
                    raise reported(str(answer["errors"][0]))
        finally:
            if raised:
                raise raised[0]
        return answer

    def _settings(self, task: GenerationTask, model: ModelInfo) -> Settings:
        if model.name not in self._defaults:
            with self._guarded():
                answer = self._ready(ignore_line).ask(
                    {"do": "defaults", "model": model.name}, patience_s=self._patience.silence_s
                )
            self._defaults[model.name] = answer["settings"]
        options = task.options.replace(**self._files(task, model), seed=_seed(task))
        parameters = self._parameters or ()
        return settings_of(options, model, parameters=parameters, defaults=self._defaults[model.name])

    def _files(self, task: GenerationTask, model: ModelInfo) -> dict[str, Any]:
        """Every file that is given, by its whole path: the checkout has a current folder of its own."""
        size = generation_size(task.options, model)
        files: dict[str, Any] = {}
        for name in (*task.options.media(), "activated_loras"):
            given = getattr(task.options, name)
            if given and name in _SIZED and size is not None:
                files[name] = str(_resized(Path(given), size, task.output_dir / f"given_{name}.png"))
            elif given:
                files[name] = [_whole(each) for each in given] if isinstance(given, list) else _whole(given)
        return files

    # ---- the interpreter

    def _ready(self, on_line: Callable[[str], None]) -> CheckoutProcess:
        """The interpreter with the checkout imported. Raises WanError; DeviceLost when it had worked before."""
        if self._process is not None and self._process.alive:
            return self._process
        self._end()
        logger.info("starting %s with %s", self.checkout, self._python)
        self._process = process = CheckoutProcess(self.checkout, self._python, self._variables, self._configuration)
        try:
            told = process.started(on_line, self._patience.silence_s)
        except WanError as error:
            self._end()
            if self._parameters is None or not isinstance(error, EngineError | OutOfMemory | DeviceLost):
                raise
            raise DeviceLost(f"the checkout does not start any more: {error}") from error
        self._parameters = tuple(told["parameters"])
        self._defaults.clear()  # it may have been updated meanwhile
        logger.info("the checkout runs on Python %s", told["python"])
        return process

    def _end(self) -> None:
        process, self._process, self._model = self._process, None, ""
        if process is not None:
            process.end()

    @contextmanager
    def _guarded(self, cancel: CancelToken | None = None) -> Iterator[None]:
        """What is raised inside, after the interpreter was ended where it must be. A cancelled run is cancelled."""
        try:
            yield
        except WanError as error:
            broken = isinstance(error, EndedUnasked | Stuck | OutOfMemory | DeviceLost)
            if broken:
                self._end()
            if cancel is not None:
                cancel.raise_if_cancelled()
            if not isinstance(error, DeviceLost) or self._lost:
                raise
            self._lost = True
            # a new process may find the device well: only if that one loses it too is it really gone
            raise EngineError(f"{error}; the checkout's process was ended, and the next run gets a new one") from error


def _seed(task: GenerationTask) -> int:
    """The seed that was asked for, or one by chance."""
    asked = task.options.seed
    return random.SystemRandom().randrange(MAX_SEED + 1) if asked is None or asked < 0 else asked


def _resized(file: Path, size: tuple[int, int], target: Path) -> Path:
    """The image at `size` = (width, height), as a PNG."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return write_image(target.resolve(), resize(read_image(file), size))


def _whole(name: str) -> str:
    """The whole path of a file that is there; anything else is a name that the checkout knows."""
    path = Path(name)
    return str(path.resolve()) if path.is_file() else name


def _show(watcher: Watcher, step: int, image: str) -> None:
    """A picture that the checkout made, JPEG in base64."""
    if watcher.wants:
        watcher.offer(lambda: Preview(step, "image/jpeg", base64.b64decode(image)))


def _no_lossless(task: GenerationTask, answer: Message) -> tuple[str, ...]:
    if not task.lossless or all(str(file).endswith(".mkv") for file in answer["files"]):
        return ()
    return ("the checkout's version writes no lossless video; its own is encoded again",)
