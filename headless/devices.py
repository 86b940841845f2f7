"""What this machine computes on, found out by computing on it.

python -m headless.devices     prints it as JSON

In a process of its own, because a driver that hangs or crashes takes the process with it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from importlib import metadata

from headless.orchestrator import accelerators

SIZE = 256


@dataclass(frozen=True)
class Device:
    """One accelerator that multiplied two matrices, and rightly."""

    name: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Devices:
    """The accelerators of this machine, and the installed torch."""

    torch: str
    #: the installed torch can use none, whatever the machine has
    cpu_build: bool
    accelerators: tuple[Device, ...]


def devices() -> Devices:
    """Multiply matrices on every accelerator. Raises what torch raises when one does not work."""
    installed = metadata.version("torch")
    count = accelerators()
    return Devices(installed, "+cpu" in installed, tuple(_device(index) for index in range(count)))


def _device(index: int) -> Device:
    import torch

    with torch.cuda.device(index):
        numbers = torch.arange(SIZE * SIZE, device="cuda", dtype=torch.float32).reshape(SIZE, SIZE) / SIZE**2
        if not torch.allclose((numbers @ numbers).cpu(), numbers.cpu() @ numbers.cpu(), rtol=1e-2):
            raise ArithmeticError(f"accelerator {index} multiplies wrongly")
        free, total = torch.cuda.mem_get_info()
        return Device(torch.cuda.get_device_name(index), total, free)


def main() -> int:
    """0, or 1 with the reason as the last line of stderr."""
    try:
        found = devices()
    except (RuntimeError, ArithmeticError) as error:
        print(str(error).splitlines()[0], file=sys.stderr)  # noqa: T201 - for the process that asked
        return 1
    print(json.dumps(asdict(found)))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
