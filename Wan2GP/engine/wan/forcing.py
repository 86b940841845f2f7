"""When each latent frame of a window takes each of its steps (Chen et al. 2024, "Diffusion Forcing").

Frames are denoised together, or in blocks of which each begins some rounds after the one before, so that what comes
later in the video sees what comes earlier less noisy. One round is one pass of the transformer over all frames. No
torch here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from Wan2GP.engine.wan.steps import Step


@dataclass(frozen=True)
class Round(Step):
    """One pass of the transformer: the step that it stands for, and the timestep (0-999) of each latent frame."""

    moments: tuple[int, ...]


@dataclass(frozen=True)
class Stagger:
    """The rounds of one window. Blocks that are given whole take no part."""

    #: latent frames, a whole number of blocks
    frames: int
    #: how many of them, from the beginning, are given
    known: int
    #: latent frames that are denoised together
    block: int
    #: rounds that a block begins after the one before; 0: all at once
    lag: int
    #: steps that each block takes
    steps: int

    @property
    def blocks(self) -> tuple[slice, ...]:
        """The latent frames of each block that has something to draw."""
        starts = range(self.known // self.block * self.block, self.frames, self.block)
        return tuple(slice(start, start + self.block) for start in starts)

    @property
    def rounds(self) -> int:
        """How many there are."""
        return self.steps + (len(self.blocks) - 1) * self._spacing

    def at_work(self, number: int) -> Iterator[tuple[int, int]]:
        """(block, step) of each block that takes a step in the round of that number."""
        for block in range(len(self.blocks)):
            step = number - block * self._spacing
            if 0 <= step < self.steps:
                yield block, step

    def moments(self, number: int, timesteps: Sequence[int], given: int) -> tuple[int, ...]:
        """The timestep of each latent frame in that round: `given` where it is known, 0 where it is done."""
        found = [given] * self.frames
        for block, frames in enumerate(self.blocks):
            step = max(number - block * self._spacing, 0)
            for frame in range(max(frames.start, self.known), frames.stop):
                found[frame] = timesteps[step] if step < self.steps else 0
        return tuple(found)

    @property
    def _spacing(self) -> int:
        """A block begins at the latest when the one before is done."""
        return min(self.lag, self.steps)


def rounds_of(stagger: Stagger, steps: Sequence[Step], given: int) -> tuple[Round, ...]:
    """The rounds over a run's steps; what changes from step to step (guidance, LoRAs) is spread evenly over them.

    `given` is the timestep of the frames that are known.
    """
    timesteps = [min(int(step.timestep), 999) for step in steps]
    count = stagger.rounds
    stands_for = (steps[number * len(steps) // count] for number in range(count))
    return tuple(
        Round(**vars(step), moments=stagger.moments(number, timesteps, given)) for number, step in enumerate(stands_for)
    )
