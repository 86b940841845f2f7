"""A checkout driven by `shared/api.py`, the door that it offers itself (10.981 and later)."""

from __future__ import annotations

import base64
import importlib
import inspect
import io
import sys
from typing import Any

from headless.bridge.child.calls import Call, forget_peak, peak_memory_bytes
from headless.bridge.child.direct import LOSSLESS, changed
from headless.bridge.child.failures import NoStart

#: its words for the phases of a run -> ours
_PHASES = {
    "loading_model": "loading", "encoding_text": "encoding", "decoding": "decoding", "downloading_output": "saving",
}  # fmt: skip
LOOK_S = 0.05
#: pixels of the longest side of a picture that is passed on
_PICTURE_SIDE = 192


class SessionDriver:
    """A session for each run, all on the one runtime that a process may have: a session's folder of results is fixed.

    The checkout loads models when a run wants them, and at no other time.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        sys.argv = ["wgp.py"]
        try:
            self._init = importlib.import_module("shared.api").init
            self._session = self._opened(None)
            self._session.ensure_ready()
        except SystemExit as error:
            raise NoStart(f"the checkout ended its process while it was imported (code {error.code})") from error
        self.parameters = self._known()
        self.model = ""

    def defaults(self, model: str) -> dict[str, Any]:
        """As the checkout ships them where it says so; else what its session gives."""
        factory = getattr(sys.modules.get("wgp"), "get_factory_settings", None)
        return dict(factory(model) if factory is not None else self._session.get_default_settings(model))

    def load(self, model: str, profile: int) -> bool:
        """Whether the next run has to load it."""
        return self.model != model

    def release(self) -> None:
        self.model = ""
        self._session.close()

    def generate(self, call: Call) -> dict[str, Any]:
        """Run. A failure is in `errors`: a job reports and never raises."""
        session = self._opened(call.output_dir)
        forget_peak(sys.modules)
        if self.model != call.model:
            self.model = ""
        config = getattr(sys.modules.get("wgp"), "server_config", {})
        with changed(config, LOSSLESS if call.lossless else {}):
            job = session.submit_task({**call.settings, "model_type": call.model, "client_id": call.id})
            call.stop = job.cancel
            if call.cancelled.is_set():
                job.cancel()
            while (event := job.events.get(timeout=LOOK_S)) is not None or not job.done:
                if event is not None:
                    self._pass_on(call, event)
            result = job.result()
        self.model = call.model
        errors = [] if call.cancelled.is_set() else [str(error) for error in result.errors]
        if not result.success and not errors and not call.cancelled.is_set():
            errors.append("the checkout says that the generation failed, and not why")
        return {
            "files": call.files(list(result.generated_files), root=self._root),
            "errors": errors,
            "peak_memory_bytes": peak_memory_bytes(sys.modules),
        }

    def _pass_on(self, call: Call, event: Any) -> None:
        data = event.data
        if event.kind == "progress":
            call.hear("progress", _progress(data))
        elif event.kind == "preview" and call.watched and (picture := _picture(data)):
            call.hear("preview", picture)
        elif event.kind in ("status", "info"):
            call.hear(event.kind, str(data))

    def _opened(self, output_dir: str | None) -> Any:
        wanted = {"root": self._root, "output_dir": output_dir, "console_output": True, "console_isatty": False}
        known = inspect.signature(self._init).parameters
        return self._init(**{name: value for name, value in wanted.items() if name in known})

    def _known(self) -> list[str]:
        """The settings that its generation function takes; [] where it cannot be asked."""
        wgp = sys.modules.get("wgp")
        entry = getattr(wgp, "generate_media", None) or getattr(wgp, "generate_video", None)
        return list(inspect.signature(entry).parameters) if entry is not None else []


def _picture(update: Any) -> list[Any]:
    """[step, JPEG in base64] of the PIL image in an update; [] where it has none."""
    image: Any = getattr(update, "image", None)
    if not hasattr(image, "thumbnail"):
        return []
    small, file = image.convert("RGB"), io.BytesIO()
    small.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
    small.save(file, "JPEG", quality=70)
    step = getattr(getattr(update, "progress", update), "current_step", None)
    return [step or 0, base64.b64encode(file.getvalue()).decode("ascii")]


def _progress(update: Any) -> list[Any]:
    """[(step, total), text] or [0, text], with our word for the phase where one fits."""
    phase = _PHASES.get(update.phase, "")
    text = f"{phase}: {update.status}" if phase else str(update.status)
    if update.current_step is None or phase:
        return [0, text]
    return [[update.current_step, update.total_steps or 0], "denoising"]
