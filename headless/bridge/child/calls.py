"""What one run hands to the checkout and hears from it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Emit = Callable[[str, Any, "tuple[int, int]"], None]

#: events that are passed on, and those of them that are lists; latents and the bookkeeping of a screen are left out
_HEARD, _LISTS = frozenset({"progress", "status", "info", "preview"}), frozenset({"progress", "preview"})


class Call:
    """One run. `emit` gets (event, data, (window, windows)); `cancel` may come from another thread, at any moment."""

    def __init__(self, order: Mapping[str, Any], emit: Emit) -> None:
        self.id: str = order["task"]
        self.model: str = order["model"]
        self.settings: dict[str, Any] = dict(order["settings"])
        #: settings that name image files
        self.images: list[str] = order["images"]
        self.output_dir: str = order["output_dir"]
        self.lossless: bool = order["lossless"]
        #: whether somebody wants to see it on its way
        self.watched: bool = order["watched"]
        self.errors: list[str] = []
        self.cancelled = threading.Event()
        #: told of a cancellation, and again of each event after it
        self.stop: Callable[[], None] = _nothing
        self._emit = emit

    def cancel(self) -> None:
        self.cancelled.set()
        self.stop()

    def hear(self, command: str, data: Any = None, window: tuple[int, int] = (0, 0)) -> None:
        """An event. An engine forgets an interruption that came before its start, so each event repeats it."""
        if self.cancelled.is_set():
            self.stop()
        if command == "error":
            self.errors.append(str(data))
        told = isinstance(data, (list, tuple)) and data if command in _LISTS else command in _HEARD
        if told:
            self._emit(command, _plain(data), window)

    def files(self, *lists: list[Any], root: str) -> list[str]:
        """The paths in the lists, made absolute: the checkout names them from its own folder."""
        return [str(Path(root, str(file))) for files in lists for file in files]


def _nothing() -> None:
    """Nobody is to be told yet."""


def _plain(data: Any) -> Any:
    """Numbers, texts and lists of them; anything else as text."""
    if isinstance(data, (list, tuple)):
        return [_plain(each) for each in data]
    return data if data is None or isinstance(data, (str, int, float)) else str(data)


def fresh_state(call: Call, record: dict[str, Any]) -> dict[str, Any]:
    """A state that no run has seen: its lists hold this run's files, and no flag of an earlier run is set."""
    gen: dict[str, Any] = {
        "file_list": [], "file_settings_list": [], "audio_file_list": [], "audio_file_settings_list": [],
        "selected": 0, "audio_selected": 0, "last_selected": True, "queue": [record], "prompt_no": 1, "prompts_max": 1,
        "process_status": "process:main", "in_progress": True, "abort": False, "resume": False, "early_stop": False,
        "repeat_no": 0, "total_generation": 1, "window_no": 0, "total_windows": 0, "progress_status": "",
        "progress_phase": ("", -1), "num_inference_steps": 0, "extra_orders": 0, "extra_windows": 0,
        "api_output_artifacts": {},
    }  # fmt: skip
    loras = list(call.settings.get("activated_loras") or [])
    return {
        "gen": gen, "loras": loras, "loras_names": loras, "loras_presets": [], "model_type": call.model,
        "model_filename": "", "edit_model_type": call.model, "advanced": True, "last_model_per_family": {},
        "last_resolution_per_group": {}, "all_settings": {}, "validate_success": 1, "apply_success": 1, "refresh": "",
        "image_mode_tab": 0,
    }  # fmt: skip


def peak_memory_bytes(modules: Mapping[str, Any]) -> int:
    """The most memory of the accelerator since `forget_peak`; 0 without one."""
    cuda = _cuda(modules)
    return int(cuda.max_memory_allocated()) if cuda is not None else 0


def forget_peak(modules: Mapping[str, Any]) -> None:
    """Begin to measure the peak."""
    cuda = _cuda(modules)
    if cuda is not None:
        cuda.reset_peak_memory_stats()


def _cuda(modules: Mapping[str, Any]) -> Any:
    torch = modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None
