"""What a worker needs of its machine: a device to compute on, ffmpeg, space on its disks, programs of others."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from source.comfy.api import ComfyApi
from source.comfy.program import ComfyProgram
from source.disk import existing, free_bytes
from source.doctor.checks import Check, Finding, doubtful, failed, well
from source.errors import DeviceLost, ProgramUnavailable
from source.settings import Settings, child_environment

#: a process that imports torch on a slow disk
CHILD_S = 120.0
FFMPEG_S = 20.0
GB = 1_000_000_000
#: below the first a travel may not fit any more, below the second not even one result
SCARCE_BYTES, LEAST_BYTES = 20 * GB, 1 * GB
ENCODERS = ("libx264", "ffv1")
GPU_ADVICE = "look at `nvidia-smi` and at the driver; a GPU that is lost comes back by a restart"
Ended = subprocess.CompletedProcess[str]
#: where `python -m headless…` and `python -m Wan2GP…` are found
ROOT = Path(__file__).resolve().parents[2]


def machine_checks(settings: Settings) -> list[Check]:
    """The same for every database."""
    return [
        Check("gpu", lambda: device(settings), GPU_ADVICE, CHILD_S + 10),
        Check("ffmpeg", ffmpeg, "install the requirements again: `pip install --force-reinstall imageio-ffmpeg av`"),
        Check("disk", lambda: disk(settings), "check the folders and their permissions"),
        Check("comfyui", lambda: comfyui(settings)),
        Check("replicate", lambda: replicate(settings)),
    ]


# ---- device


def device(settings: Settings) -> Finding:
    """The accelerators, each after a small computation. Raises DeviceLost and TimeoutError."""
    found = computed()
    names = [f"{each['name']}, {_gb(each['free_bytes'])} of {_gb(each['total_bytes'])} free"
             for each in found["accelerators"]]  # fmt: skip
    present = ["cpu", *(["cuda"] if names else []), *(f"cuda:{index}" for index in range(len(names)))]
    if settings.device and settings.device not in present:
        return failed(
            f"the setting device is {settings.device!r}, this machine has {', '.join(present)}",
            f"set DEVICE to one of these, or leave it out{_of_build(found)}",
        )
    if names:
        return well(f"{'; '.join(names)}; torch {found['torch']}")
    told = f"no GPU, torch {found['torch']}: tasks run on the CPU"
    if settings.device == "cpu":
        return well(f"{told}, as DEVICE says")
    return doubtful(
        told, f"video models need an NVIDIA GPU and its driver{_of_build(found)}; set DEVICE=cpu when none is wanted"
    )


def computed() -> dict[str, Any]:
    """What `headless.devices` found out by computing, in a process that may crash or hang. Raises DeviceLost where it
    did not go well, and TimeoutError."""
    done = module_run("headless.devices", timeout_s=CHILD_S)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"the process ended with code {done.returncode}"]
        raise DeviceLost(reason[0])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _of_build(found: dict[str, Any]) -> str:
    return ", and a torch that is built for it (the installed one is a CPU build)" if found["cpu_build"] else ""


def module_run(module: str, *arguments: str, timeout_s: float) -> Ended:
    """Run a module of this project in a process of its own, without our secrets. Raises TimeoutError."""
    return _run([sys.executable, "-m", module, *arguments], timeout_s)


def _run(command: list[str], timeout_s: float) -> Ended:
    try:
        return subprocess.run(
            command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"`{' '.join(command[:3])}` did not end within {timeout_s:g} s") from None


# ---- ffmpeg


def ffmpeg() -> Finding:
    """Encode a picture with each encoder that results are made with, by the program and by PyAV's own libraries."""
    import av

    from Wan2GP.media.ffmpeg import ffmpeg_path

    try:
        program = str(ffmpeg_path())
    except RuntimeError as error:
        return failed(str(error), "install imageio-ffmpeg again, or set IMAGEIO_FFMPEG_EXE to an ffmpeg")
    lacking = [f"{program}: {name}" for name in ENCODERS if not _encodes(program, name)]
    lacking += [f"PyAV {av.__version__}: {name}" for name in ENCODERS if name not in av.codecs_available]
    if lacking:
        return failed(f"no encoder {', '.join(lacking)}", "use the ffmpeg that comes with imageio-ffmpeg")
    first_line = _ffmpeg(program, "-version").stdout.split(" Copyright")[0].strip()
    return well(f"{first_line}, PyAV {av.__version__}: {', '.join(ENCODERS)}")


def ffmpeg_at_once() -> Finding:
    """The same in one process, for a worker that starts; only what is wrong is looked at more closely."""
    from Wan2GP.media.ffmpeg import ffmpeg_path

    try:
        return well("") if _encodes(str(ffmpeg_path()), *ENCODERS) else ffmpeg()
    except RuntimeError:
        return ffmpeg()


def _encodes(program: str, *encoders: str) -> bool:
    picture = ("-f", "lavfi", "-i", "color=s=64x64:d=0.04")
    outputs = (word for name in encoders for word in ("-c:v", name, "-f", "null", "-"))
    return _ffmpeg(program, *picture, *outputs).returncode == 0


def _ffmpeg(program: str, *arguments: str) -> Ended:
    return _run([program, "-nostdin", "-hide_banner", "-loglevel", "error", *arguments], FFMPEG_S)


# ---- disk


def disk(settings: Settings, *, scarce_bytes: int = SCARCE_BYTES, least_bytes: int | None = None) -> Finding:
    """Free space of the folders that a worker writes into, each of which a file is written into to see. Below
    `least_bytes` that is a failure; by default where no result would fit, or a worker would claim nothing."""
    lines, least = [], None
    if least_bytes is None:
        least_bytes = max(LEAST_BYTES, int(settings.min_free_gb * GB))
    for name, folder in _written(settings):
        place = existing(folder)
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(1 << 16))
        free = free_bytes(place)
        least = free if least is None else min(least, free)
        lines.append(f"{name} {folder}: {_gb(free)} free")
    # Weights may lie on a disk that is only read, and full.
    lines.append(f"weights {settings.ckpts}: {_gb(free_bytes(settings.ckpts))} free")
    told = "\n".join(lines)
    cure = "free some space, or move the folder by its setting (docs/settings.md)"
    if least is not None and least < least_bytes:
        return failed(told, cure)
    return doubtful(told, cure) if least is not None and least < scarce_bytes else well(told)


def _written(settings: Settings) -> Iterator[tuple[str, Path]]:
    yield "scratch", settings.main_output_dir
    if settings.db_type == "sqlite":
        yield "results", settings.public_dir
    yield "LoRAs", settings.loras_dir


def _gb(size: int) -> str:
    return f"{size / GB:.1f} GB"


# ---- programs of others


def comfyui(settings: Settings) -> Finding:
    """Only tasks of type comfy need it."""
    if settings.comfy_url is not None:
        api = ComfyApi(settings.comfy_url)
        try:
            answers = api.answers()
        finally:
            api.close()
        if answers:
            return well(f"{settings.comfy_url} answers")
        return doubtful(f"{settings.comfy_url} does not answer", "start it, or correct COMFY_URL")
    try:
        ComfyProgram(settings).check()
    except ProgramUnavailable:
        return well("not set up; only tasks of type comfy need it (COMFY_PATH or COMFY_URL)")
    return well(f"in {settings.comfy_path}; a worker starts it when a task needs it")


def replicate(settings: Settings) -> Finding:
    """Whether there is a token; whether it is right shows only a call that costs."""
    if settings.replicate_api_token is None:
        return well("not set up; only tasks of type magic_edit need it (REPLICATE_API_TOKEN)")
    return well("a token is set")
