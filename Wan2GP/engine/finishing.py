"""What is done to the frames of any model on their way into the file: steps between them, size, grain.

Frames are taken one by one, two of them are in memory. What is asked for is declared in `Wan2GP/post_processing.py`.
No torch here: the interpolator is a model of its own, loaded beside the one that makes the frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from Wan2GP.engine.beside import Beside
from Wan2GP.engine.families import Cancel, Model, Report
from Wan2GP.engine.grain import Grain
from Wan2GP.engine.interpolation.between import Steps
from Wan2GP.engine.measures import enlarged_size
from Wan2GP.engine.numbers import Numbers
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.errors import EngineError
from Wan2GP.media import resize
from Wan2GP.post_processing import PostProcessing

#: the model that draws frames between frames
INTERPOLATOR = "rife"


def check_finishing(request: GenerationRequest, reads: frozenset[str]) -> None:
    """Raises Unsupported or InvalidInput for post-processing that cannot be done to what the model makes.

    `reads` names the parameters that its family uses: one that makes a second pass hands on larger stills.
    """
    scale = Numbers(request.settings).real("hires_scale", 1) if "hires_scale" in reads and request.image_output else 1
    PostProcessing.of(request.settings).size(enlarged_size(request.size, scale, request.definition))


@contextmanager
def finishing(request: GenerationRequest, beside: Beside) -> Iterator[Finishing]:
    """What a request asks for; its interpolator is in memory during the block alone."""
    wanted = PostProcessing.of(request.settings)
    architecture = request.definition.architecture
    if wanted.times == 1 or request.image_output or architecture.text_output:
        yield Finishing(wanted)
        return
    with beside.model(INTERPOLATOR) as model:
        yield Finishing(wanted, Steps(model.interpolator), model.notes)


@dataclass
class Finishing:
    """The post-processing of the runs of one call."""

    wanted: PostProcessing
    steps: Steps | None = None
    notes: tuple[str, ...] = ()
    #: frames of the latest run's result before which the scene changes, and nothing was drawn between
    cuts: list[int] = field(default_factory=list)

    def of(self, model: Model, *, later: bool = False) -> Model:
        """The model, its frames finished; `later`: as far as the accelerator is needed for that."""
        as_it_is = self.wanted.changes_nothing or (later and not self.needs_accelerator)
        return model if as_it_is else _Finished(model, self)

    @property
    def needs_accelerator(self) -> bool:
        """Whether a model takes part; else frames may be finished on any thread."""
        return self.steps is not None

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the user should know about the latest run."""
        shown = ", ".join(map(str, self.cuts[:10])) + (" …" if len(self.cuts) > 10 else "")
        return (f"the scene changes at frame {shown}: nothing was drawn in between",) if self.cuts else ()

    def frames(
        self, made: Iterable[Frame], request: GenerationRequest, report: Report, cancel: Cancel
    ) -> Iterator[Frame]:
        """The frames of a run, finished, (H, W, 3) uint8. Raises EngineError when the model made another number."""
        grain = Grain(self.wanted.grain, self.wanted.grain_saturation, request.seed)
        for number, frame in enumerate(self._stepped(made, request, report, cancel)):
            cancel.raise_if_requested()
            size = self.wanted.size((frame.shape[1], frame.shape[0]))
            yield grain.on(resize(frame, size), number)

    def _stepped(
        self, made: Iterable[Frame], request: GenerationRequest, report: Report, cancel: Cancel
    ) -> Iterator[Frame]:
        """The model's frames, and those between them."""
        wanted = request.batch_size if request.image_output else request.total_frames
        times = [step / self.wanted.times for step in range(1, self.wanted.times)] if self.steps else []
        self.cuts, before, number = [], None, 0
        for number, frame in enumerate(made, start=1):
            if before is not None and self.steps is not None:
                yield from self.steps.between(before, frame, times, cancel)
                self.cuts += [self.wanted.num_frames(number) - 1] if self.steps.cut else []
            yield frame
            before = frame
            report("saving", number, wanted)
        if number != wanted:
            raise EngineError(f"the model made {number} frames where {wanted} were asked for")


class _Finished:
    """A model whose frames come out finished."""

    def __init__(self, model: Model, finishing: Finishing) -> None:
        self._model, self._finishing = model, finishing

    @property
    def remarks(self) -> tuple[str, ...]:
        return (*self._model.remarks, *self._finishing.remarks)

    def generate(self, request: GenerationRequest, report: Report, cancel: Cancel) -> Iterable[Frame] | str:
        made = self._model.generate(request, report, cancel)
        return made if isinstance(made, str) else self._frames(made, request, report, cancel)

    def _frames(
        self, made: Iterable[Frame], request: GenerationRequest, report: Report, cancel: Cancel
    ) -> Iterator[Frame]:
        try:
            yield from self._finishing.frames(made, request, report, cancel)
        finally:
            getattr(made, "close", lambda: None)()
