"""What a worker looks at before its first claim: the doctor's checks that take no time."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from headless.orchestrator import machine_device
from source.doctor.checkout import ADVICE, shape_at_once
from source.doctor.checks import Check, Examined, Finding, State, doubtful, examine, well
from source.doctor.machine import FFMPEG_S, LEAST_BYTES, disk, ffmpeg_at_once
from source.errors import ConfigurationError, disk_full
from source.settings import Settings

log = logging.getLogger(__name__)


def check_fitness(settings: Settings) -> None:
    """Warn of what may be missing. Raises ConfigurationError where no task could end well: all of it in one message,
    with what to do."""
    found = examine(fitness_checks(settings))
    missing = [each for each in found if each.finding.state is State.FAILED]
    if missing:
        raise ConfigurationError(f"this machine is not ready for a worker:\n{_listed(missing)}")
    doubts = [each for each in found if each.finding.state is State.WARNING]
    if doubts:
        log.warning("this worker starts, but:\n%s", _listed(doubts))


def fitness_checks(settings: Settings) -> list[Check]:
    """The database is opened before, and the device that is set is checked by the engine."""
    if settings.wan_dir is None:
        engine = [Check("gpu", lambda: device(settings)), Check("weights", lambda: weights(settings))]
    else:
        engine = [Check("checkout", lambda: shape_at_once(settings), ADVICE)]
    return [
        Check("ffmpeg", ffmpeg_at_once, "install the requirements again: `pip install --force-reinstall "
              "imageio-ffmpeg`", FFMPEG_S),
        Check("disk", lambda: room(settings),
              "make the folder writable, or name another by its setting (docs/settings.md)"),
        *engine,
    ]  # fmt: skip


def room(settings: Settings) -> Finding:
    """Whether the folders can be written. A disk that is full for now only makes the worker wait. Raises OSError."""
    try:
        return disk(settings, scarce_bytes=LEAST_BYTES, least_bytes=0)
    except OSError as error:
        if not disk_full(error):
            raise
        return doubtful(str(error), "free some space; no task is claimed before")


def device(settings: Settings) -> Finding:
    """Whether there is a GPU, by the driver's word: nothing is computed, that takes seconds."""
    if settings.device is not None or machine_device() != "cpu":
        return well("")
    return doubtful("no GPU: tasks run on the CPU", "`debug.py doctor` says why; DEVICE=cpu when none is wanted")


def weights(settings: Settings) -> Finding:
    """Whether there is a folder of weights, with something in it."""
    if settings.ckpts.is_dir() and any(settings.ckpts.iterdir()):
        return well("")
    return doubtful(
        f"nothing in {settings.ckpts}: only models without weights run",
        "set CKPTS, or fetch some: `python -m Wan2GP.models list`",
    )


def _listed(found: Iterable[Examined]) -> str:
    return "\n".join(f"  {each.check}: {_in_a_line(each.finding)}" for each in found)


def _in_a_line(finding: Finding) -> str:
    told = "; ".join(finding.measured.splitlines())
    return f"{told} -> {finding.advice}" if finding.advice else told
