"""Small networks in TensorFlow Lite's format, run by LiteRT on the CPU. No torch here.

On one thread, so that equal pictures give equal answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]


class Network:
    """A LiteRT network: (H, W, 3) float32 in, all its answers out."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter: Any = Interpreter(model_path=str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [each["index"] for each in self._interpreter.get_output_details()]

    def __call__(self, values: Values) -> list[Values]:
        self._interpreter.set_tensor(self._input, np.ascontiguousarray(values[None]))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]
