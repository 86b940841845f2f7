"""One training run against the clock: learning rate, running mean of the weights, checkpoints it resumes from."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

SAVE_EVERY_S = 60.0


class Run:
    """Trains the parameters of `module` that want a gradient, for `minutes` of its own time over all resumptions.

    The rate warms up over `warm` steps and falls along a cosine to `last` of itself. `averaged` is the exponential
    running mean of the weights, which is what ships.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        checkpoint: Path,
        minutes: float,
        rate: float,
        warm: int,
        decay: float,
        last: float,
    ) -> None:
        self.module, self._checkpoint, self._total_s = module, checkpoint, minutes * 60
        self._rate, self._warm, self._decay, self._last = rate, warm, decay, last
        self._learning = [value for value in module.parameters() if value.requires_grad]
        self._optimiser = torch.optim.AdamW(self._learning, lr=rate, betas=(0.9, 0.99), weight_decay=0.01)
        self.averaged = {name: value.detach().clone() for name, value in module.state_dict().items()}
        self.step, self._spent_s = 0, 0.0
        if checkpoint.exists():
            self._resume()

    def steps(self) -> Iterator[int]:
        """The numbers of the steps from the one to go on with, while there is time; then the state is saved."""
        began = time.time() - self._spent_s
        saved_s = self._spent_s
        while (spent := time.time() - began) < self._total_s:
            self._spent_s = spent
            fallen = 0.5 * (1 + math.cos(math.pi * spent / self._total_s)) * (1 - self._last) + self._last
            for group in self._optimiser.param_groups:
                group["lr"] = self._rate * min(1.0, (self.step + 1) / self._warm) * fallen
            yield self.step
            if spent - saved_s > SAVE_EVERY_S:
                saved_s = spent
                self._save()
        self._save()

    def learn(self, loss: torch.Tensor) -> None:
        """One step down the loss."""
        self._optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._learning, 1.0)
        self._optimiser.step()
        self.step += 1
        keep = min(self._decay, self.step / (self.step + 10))
        for name, value in self.module.state_dict().items():
            self.averaged[name].lerp_(value, 1 - keep)

    def tell(self, every: int, line: str) -> None:
        """A line about the run, now and then."""
        if self.step % every == 0:
            sys.stdout.write(f"{self._spent_s:6.0f} s  step {self.step}  {line}\n")
            sys.stdout.flush()

    def _resume(self) -> None:
        kept = torch.load(self._checkpoint, weights_only=True)
        self.module.load_state_dict(kept["model"])
        self._optimiser.load_state_dict(kept["optimiser"])
        self.averaged, self._spent_s, self.step = kept["averaged"], kept["spent"], kept["step"]

    def _save(self) -> None:
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        part = self._checkpoint.with_suffix(".part")
        state = {
            "model": self.module.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "averaged": self.averaged,
        }
        torch.save(state | {"spent": self._spent_s, "step": self.step}, part)
        part.replace(self._checkpoint)
