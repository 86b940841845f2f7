"""A second model for a moment: one that prepares what the resident one is given, or that finishes what it made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from Wan2GP.definitions import Definitions
from Wan2GP.engine.families import Model, Place, Report
from Wan2GP.errors import ModelUnavailable, OutOfMemory
from Wan2GP.layout import weight_files


@dataclass(frozen=True)
class Beside:
    """Loads models beside the resident one, which gives way where an accelerator has no room for both at work, or where
    the other cannot be loaded."""

    definitions: Definitions
    place: Place
    report: Report
    #: frees the memory of the resident model; it is loaded again before its run
    give_way: Callable[[], None]
    #: lets the resident models wait in host memory; None: they give way instead
    step_aside: Callable[[], None] | None = None
    #: ids of the models that were loaded, in order
    used: list[str] = field(default_factory=list)

    @contextmanager
    def model(self, name: str) -> Iterator[Model]:
        """The model of that id, for the time of the block.

        Raises UnknownModel, ModelUnavailable with the command that fetches its weights, or OutOfMemory.
        """
        self.require(name)
        model = self._loaded(name)
        try:
            yield model
        finally:
            model.release()

    def require(self, name: str) -> None:
        """Raises UnknownModel, or ModelUnavailable with the reason and the cure; loads nothing."""
        reason = self.definitions.unavailable(name, self.place.checkpoints, self.place.device.partition(":")[0])
        if reason is not None:
            raise ModelUnavailable(reason)

    def _loaded(self, name: str) -> Model:
        from Wan2GP.engine.loading import has_room, load

        definition = self.definitions[name]
        self.used.append(definition.id)
        weights_bytes = sum(file.stat().st_size for file in weight_files(definition, self.place.checkpoints))
        if self.place.device != "cpu" and not has_room(weights_bytes, self.place.device):
            (self.step_aside or self.give_way)()
        try:
            return load(definition, self.place, self.report)
        except OutOfMemory:
            self.give_way()
        return load(definition, self.place, self.report)
