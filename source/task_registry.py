"""Task types register themselves here; a row is parsed and run through here.

    @task("extract_frame", output="a PNG image")
    def extract_frame(params: ExtractFrameParams, context: TaskContext) -> Done:
        \"\"\"Save one frame of a video as a PNG.\"\"\"

The decorator reads the parameter class from the annotation; the docstring is the help text. Modules of `source.tasks`
are found by themselves. A duplicate name, or one without a docstring or an `output`,
fails at import.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, get_type_hints

from headless.generation import GenerationResult, ModelInfo
from headless.options import GenerationOptions
from source.errors import InvalidInput
from source.params.base import Parsed, TaskParams, parse_params
from source.settings import Settings
from source.store.types import NewTask, Task
from source.trail import Trail
from Wan2GP.errors import did_you_mean

if TYPE_CHECKING:
    from source.comfy.program import ComfyProgram

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """A task produced its result: a local file (moved to its final place by the worker), or none."""

    output: Path | None
    result_data: Mapping[str, Any] | None = None
    #: a picture that stands for the result; published with it, its location is `thumbnail_url` in result_data
    poster: Path | None = None
    #: further files, of names of their own; published with it, all are listed as `outputs` in result_data
    extra: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Spawned:
    """An orchestrator fanned out. Its own row waits for the children."""

    children: tuple[NewTask, ...]
    #: id of the child whose output becomes the orchestrator's
    final_child: str


@dataclass(frozen=True)
class Dependency:
    """A finished task that this one depends on."""

    task: Task
    locate: Callable[[], Path]

    @property
    def output(self) -> Path:
        """Its output as a local file. Raises InvalidMedia when it has none, or when it is gone."""
        return self.locate()


class TaskContext(Protocol):
    """What a running task may do. `source.daemon` provides it."""

    @property
    def task(self) -> Task:
        """The claimed row."""

    @property
    def settings(self) -> Settings:
        """The worker's settings."""

    @property
    def scratch(self) -> Path:
        """A folder of this claim alone; removed when the claim ends, unless the worker or the row keep it."""

    @property
    def keeps_intermediates(self) -> bool:
        """Whether intermediate files are wanted: then what is made on the way is left in `scratch`."""

    @property
    def trail(self) -> Trail:
        """The debug trail: frames expected and found, step by step; its warnings stand in the task's timeline."""

    def model(self, name: str) -> ModelInfo:
        """Raises UnknownModel, and ModelUnavailable when it cannot run on this machine."""

    def generate(self, model: str, options: GenerationOptions, *, lossless: bool = False) -> GenerationResult:
        """Run the engine; media and LoRAs in `options` are fetched and checked first. Raises typed errors.

        `lossless` asks for an FFV1 video (mkv), for a task that encodes the frames itself.
        """

    def fetch(self, reference: str, *, kind: str, field: str) -> Path:
        """A path or URL as a local file, checked to be an `image`, `video` or `audio`. Raises InvalidMedia."""

    def dependencies(self) -> Sequence[Dependency]:
        """What this task depends on, in the order of `dependant_on`; all Complete. Outputs are fetched when asked."""

    def output_of(self, task_id: str, *, field: str) -> Path:
        """The output of a finished task, whichever it is, as a local file; one that is a URL is fetched.

        `field` is the parameter that names the task. Raises InvalidInput for a task that is not there or not Complete,
        InvalidMedia for an output that is missing; each says which task, and what is wrong with it.
        """

    @property
    def comfy(self) -> ComfyProgram:
        """The worker's ComfyUI."""

    def gpu_for_another(self) -> AbstractContextManager[None]:
        """The GPU for another program: inside the block our model is unloaded and nothing generates. Waits its turn."""

    def without_gpu(self) -> None:
        """This task has no use for the GPU after all: generations may be claimed beside it."""

    def wait(self, seconds: float) -> None:
        """Wait. Raises GenerationCancelled as soon as this task should stop; 0 only looks."""

    def on_stop(self, tell: Callable[[], None]) -> None:
        """Have `tell` called once when this task should stop: for what waits elsewhere than in `wait`."""

    def keep(self, name: str, detail: str) -> None:
        """Make an entry of the task's timeline, which a later claim of it may read (`kept`)."""

    def kept(self, name: str) -> str | None:
        """The latest entry of that name, by whichever claim."""

    def report(self, phase: str, step: int = 0, total: int = 0, text: str = "") -> None:
        """Report progress. Raises GenerationCancelled when this task should stop."""


Run = Callable[[Any, TaskContext], Done | Spawned]
Function = TypeVar("Function", bound=Run)


@dataclass(frozen=True)
class TaskType:
    """A registered task type."""

    name: str
    params: type[TaskParams]
    run: Run
    help: str
    #: what a finished row's output is, for people: "an MP4 video", "a PNG image" …
    output: str
    #: the model when the row names none
    default_model: str | None = None
    #: False for types that plan, cut or join, and for those that seldom generate: they run beside a generation, however
    #: many generations wait
    uses_gpu: bool = True
    #: it means this one model: add_task refuses a row that names another, a worker corrects it with a warning
    forces_model: bool = False
    #: what it takes where the row says nothing, instead of the model's own defaults; for people
    defaults: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def schema(self, options_class: type[GenerationOptions] = GenerationOptions) -> dict[str, Any]:
        """Everything that a row of this type may hold, as JSON Schema."""
        from source.params.schema import parameter_schema

        return parameter_schema(self.params, self.name, self.help, options_class, self.default_model)

    def parse(
        self,
        raw: Mapping[str, Any],
        options_class: type[GenerationOptions] = GenerationOptions,
        *,
        strict: bool = False,
    ) -> Parsed[TaskParams]:
        """A row's parameters, typed, with the default model filled in. Raises InvalidInput that names the field."""
        parsed = parse_params(self.params, raw, options_class, strict=strict)
        named = parsed.params.model
        if named and self.forces_model and not self._is_own(named):
            said = f"{self.name} always runs {self.default_model}, not {named}"
            if strict:
                raise InvalidInput(f"{said}; leave it out, or use the task type wgp", field="model")
            log.warning("%s", said)
        elif not self.default_model or (named and not self.forces_model):
            return parsed
        return Parsed(parsed.params.model_copy(update={"model": self.default_model}), parsed.unknown)

    def _is_own(self, model: str) -> bool:
        """Whether this is the default model, by whichever of its names."""
        if model == self.default_model:
            return True
        from Wan2GP.definitions import ALIASES  # brings numpy along, which add_task does without

        return ALIASES.get(model) == self.default_model


class TaskRegistry:
    """Task types by name."""

    def __init__(self) -> None:
        self._types: dict[str, TaskType] = {}

    def register(self, task_type: TaskType) -> None:
        if task_type.name in self._types:
            raise ValueError(f"task type {task_type.name!r} is registered twice")
        if not task_type.help:
            raise ValueError(f"task type {task_type.name!r} has no docstring")
        if not task_type.output:
            raise ValueError(f"task type {task_type.name!r} does not say what its output is")
        self._types[task_type.name] = task_type

    def __iter__(self) -> Any:
        return iter(sorted(self._types.values(), key=lambda known: known.name))

    def __contains__(self, name: object) -> bool:
        return name in self._types

    def get(self, name: str) -> TaskType:
        """Raises InvalidInput that names the nearest types."""
        if name not in self._types:
            hint = did_you_mean(name, self._types) or f" Known types: {', '.join(sorted(self._types))}."
            raise InvalidInput(f"there is no task type {name!r}.{hint}", field="task_type")
        return self._types[name]


_declared = TaskRegistry()


def task(
    name: str, *, output: str, default_model: str | None = None, help: str = "", uses_gpu: bool = True,
    forces_model: bool = False, defaults: Mapping[str, Any] | None = None,
) -> Callable[[Function], Function]:  # fmt: skip
    """Register a function as a task type; `output` says what it makes, `defaults` what it takes where the row says
    nothing. `help` replaces its docstring, for types that share a function."""

    def register(function: Function) -> Function:
        params = get_type_hints(function)["params"]
        text = help or (function.__doc__ or "").strip().splitlines()[0]
        kind = TaskType(name, params, function, text, output, default_model, uses_gpu, forces_model, defaults or {})
        _declared.register(kind)
        return function

    return register


def registry() -> TaskRegistry:
    """Every task type of `source.tasks`."""
    package = importlib.import_module("source.tasks")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"source.tasks.{module.name}")
    return _declared
