"""The runs of one call, one after the other, and their files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from Wan2GP.engine.families import Cancel, Model, Report
from Wan2GP.engine.finishing import Finishing
from Wan2GP.engine.later import begin_saving
from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.saving import save_frames, save_text
from Wan2GP.errors import GenerationCancelled, WanError

logger = logging.getLogger(__name__)

SendCommand = Callable[..., object]


@dataclass(frozen=True)
class Repeats:
    """One call: what it tells its caller, and where its files go."""

    gen: dict[str, Any]
    send: SendCommand
    report: Report
    cancel: Cancel
    folder: Path

    def run(self, model: Model, finish: Finishing, request: GenerationRequest) -> bool:
        """All repeats of the call. False when one failed. Raises GenerationCancelled."""
        from Wan2GP.engine.loading import typed_failure

        self.gen["total_generation"] = request.repeats
        for number in range(1, request.repeats + 1):
            if self.gen["early_stop"]:
                break
            self.gen["repeat_no"] = number
            current = request if number == 1 else request.repeated(number)
            try:
                self._run_once(model, finish, current)
            except GenerationCancelled:
                raise
            except (WanError, RuntimeError, ValueError, MemoryError) as error:
                logger.info("the run of %s failed", request.definition.id, exc_info=error)
                self.send("error", typed_failure(error))
                return False
        return True

    def _run_once(self, model: Model, finish: Finishing, request: GenerationRequest) -> None:
        gen, cancel = self.gen, self.cancel
        cancel.raise_if_requested()
        model = finish.of(model, later=request.save_later)
        made = model.generate(request, self.report, cancel)
        paths: list[Path] = []
        try:
            if isinstance(made, str):
                cancel.raise_if_requested()
                paths = save_text(made, request, self.folder, self.report)
            elif request.save_later:
                files = begin_saving(made, finish, request, self.folder, lambda: bool(gen.get("abort")))
                gen["unsaved"].append(lambda: self._list(files(), request))
                self.report("saving", 0, 1)
            else:
                paths = save_frames(made, request, self.folder, self.report, cancel)
        finally:
            # A failure that somebody keeps would keep the run too, and with it its LoRAs in the weights.
            getattr(made, "close", lambda: None)()
        for remark in model.remarks:
            self.send("info", remark)
        self._list(paths, request)
        for _ in paths:
            self.send("output")

    def _list(self, paths: Sequence[Path], request: GenerationRequest) -> None:
        for path in paths:
            self.gen["file_list"].append(str(path))
            record = {**request.settings, "seed": request.seed, "model_type": request.definition.id}
            self.gen["file_settings_list"].append(record)
