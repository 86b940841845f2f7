"""Transformer blocks compiled by torch.compile, one graph for all blocks of a kind.

Off unless asked for: the first step of each new size waits for the compiler. Sizes are told apart exactly: those of a
model's requests are few, for lengths and sides come in steps of its own. Past torch's limit of recompilations a new
size runs uncompiled. What was compiled is kept in a file, and loaded by the next process of the same versions.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from Wan2GP.media import publishing

logger = logging.getLogger(__name__)

#: what the compiler kept
KEPT = "compiled_blocks.bin"


def compile_blocks(transformer: Any, folder: Path, backend: str = "inductor") -> None:
    """Compile the repeated blocks of a transformer of diffusers; the work is done by the first pass of each size."""
    path = folder / KEPT
    if backend == "inductor" and path.is_file():
        try:
            torch.compiler.load_cache_artifacts(path.read_bytes())
        except (OSError, RuntimeError, ValueError) as error:
            logger.warning("%s cannot be used (%s); blocks are compiled anew", path, error)
    transformer.compile_repeated_blocks(backend=backend, dynamic=False)


def keep_compiled(folder: Path) -> bool:
    """Keep what was compiled in this process. False when nothing was, or when it could not be written."""
    found = torch.compiler.save_cache_artifacts()
    if found is None:
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with publishing(folder / KEPT) as partial:
            partial.write_bytes(found[0])
    except OSError as error:
        logger.warning("what was compiled cannot be kept: %s", error)
        return False
    return True
