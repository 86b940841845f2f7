"""GGUF files, read with the `gguf` package: every quantisation that it can undo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader, ReaderTensor
from gguf.quants import dequantize

from Wan2GP.weights.reader import Stored

#: GGUF knows four dimensions at most; converters note the shape of what has five under this name
_TRUE_SHAPE = "comfy.gguf.orig_shape."


def gguf_tensors(path: Path) -> dict[str, Stored]:
    """What the file holds, float32 on reading. Raises ValueError or IndexError for a damaged file."""
    reader = GGUFReader(path)
    return {tensor.name: _stored(reader, tensor) for tensor in reader.tensors}


def _stored(reader: GGUFReader, tensor: ReaderTensor) -> Stored:
    noted = reader.get_field(_TRUE_SHAPE + tensor.name)
    # GGUF counts dimensions from the innermost.
    shape = tuple(int(n) for n in (noted.contents() if noted else reversed(tensor.shape.tolist())))

    def load() -> torch.Tensor:
        values = dequantize(tensor.data, tensor.tensor_type)
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32).reshape(shape).copy())

    return Stored(shape, torch.float32, load)
