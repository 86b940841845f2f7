"""The variables of a checkout's interpreter."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from Wan2GP.errors import InvalidInput
from Wan2GP.media.ffmpeg import ffmpeg_path

_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")

#: of our own interpreter: they would lead another one to our packages
_OURS = frozenset({"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP"})
#: no window, no sound card, no report of use to anybody
_HEADLESS = {
    "MPLBACKEND": "Agg", "SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "GRADIO_ANALYTICS_ENABLED": "False",
}  # fmt: skip


def child_variables(environment: Mapping[str, str], device: str | None) -> dict[str, str]:
    """`environment` for the checkout, which works on one GPU and calls it the first.

    device  "cuda:1" shows it that GPU alone; "cpu" shows it none
    Raises InvalidInput.
    """
    ours = {name: value for name, value in environment.items() if name not in _OURS} | _HEADLESS
    if device is not None and not _DEVICE.fullmatch(device):
        raise InvalidInput(f"{device!r} is none; a checkout works on cuda, cuda:1 …, or cpu", field="device")
    if device is not None and device != "cuda":
        visible = [each for each in ours.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
        number = int(device.partition(":")[2] or 0)
        shown = visible[number] if number < len(visible) else str(number)
        ours["CUDA_VISIBLE_DEVICES"] = "" if device == "cpu" else shown
    return ours


def with_ffmpeg(path: str, tools: Path) -> str:
    """PATH with an `ffmpeg`: as it is where it has one, else with `tools` at its end, where ours has that name then."""
    if shutil.which("ffmpeg", path=path) is not None:
        return path
    tools.mkdir(parents=True, exist_ok=True)
    link, ours = tools.resolve() / "ffmpeg", ffmpeg_path()
    if not link.exists():
        link.unlink(missing_ok=True)  # of an environment that is gone
        with contextlib.suppress(FileExistsError):  # a worker beside this one was faster
            link.symlink_to(ours)
    return f"{path}:{link.parent}".removeprefix(":")
