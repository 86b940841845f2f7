"""How busy a device is, read from a program that prints it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from headless.device_use import DeviceUse, device_uuid, nvidia_smi

PRINTS = "import sys, time; print('{}', flush=True); time.sleep(60)"


def listened(use: DeviceUse, program: str, *, enough: float) -> None:
    """Until the last number was read."""
    use.start([sys.executable, "-c", program])
    wait_for(use, enough)


def wait_for(use: DeviceUse, latest: float) -> None:
    deadline = time.monotonic() + 30
    while use.latest != latest:
        assert time.monotonic() < deadline


@pytest.fixture
def use() -> DeviceUse:
    return DeviceUse()


def test_readings_are_averaged_since_the_last_look(use: DeviceUse) -> None:
    assert use.mean() is None
    listened(use, PRINTS.format(r"40\n[N/A]\n\n60\n80"), enough=80)
    assert use.mean() == 60
    assert use.mean() is None and use.latest == 80
    use.close()


def test_a_program_that_fails_is_no_failure_of_ours(use: DeviceUse) -> None:
    use.start([sys.executable, "-c", "import sys; sys.exit('no device')"])
    use.start(["never started: there is one already"])
    assert use.mean() is None
    use.close()


def test_the_program_hears_no_secret(use: DeviceUse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_ACCESS_TOKEN", "swordfish")
    knows = "import os, time; print(int('SUPABASE_ACCESS_TOKEN' in os.environ), flush=True); time.sleep(60)"
    listened(use, knows, enough=0)
    use.close()


def test_it_is_asked_for_one_device_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "$@" > ' + str(tmp_path / "asked") + "\necho 93\nsleep 60\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_smi("GPU-1") is None
    program.chmod(0o755)
    command = nvidia_smi("GPU-1")
    assert command is not None
    use = DeviceUse()
    use.start(command)
    wait_for(use, 93)
    use.close()
    asked = (tmp_path / "asked").read_text().split()
    assert "--id=GPU-1" in asked and "--loop=5" in asked


def test_without_a_device_nothing_is_asked() -> None:
    assert device_uuid() is None
