"""Measuring runs that are processes of their own: what one printed, its peak memory, and the machine it ran on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path


def run_alone(script: Path, *arguments: str) -> tuple[str, float]:
    """Run a script in a new process: (what it printed, peak memory of the whole process in MB).

    The caller must not have imported anything large: on Linux the memory of a parent counts towards that peak.
    """
    command = [sys.executable, str(script), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{script.name} {' '.join(arguments)} failed with code {process.returncode}")
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return printed, usage.ru_maxrss / unit


def machine() -> str:
    """What the numbers were measured on, as well as the system tells it."""
    return f"{os.cpu_count()} CPUs, {_cpu_model()}, {platform.system()}, Python {platform.python_version()}"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
