"""Where RIFE's weights lie, and whether they are the file that was tested. No torch here."""

from __future__ import annotations

import hashlib
from pathlib import Path

from Wan2GP.errors import ModelUnavailable

#: of the released checkpoint; where it comes from stands in defaults/rife.json
SHA256 = "fe854fc8996547c953f732aaa3b78cae76cc0a12833ae856ea0749c4c570d7d8"
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
        raise ModelUnavailable(f"{path} is not the released RIFE checkpoint; delete it and run: {FETCH_COMMAND}")
