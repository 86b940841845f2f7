"""A second model for a moment: one that prepares what the resident one is given, or that finishes what it made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from Wan2GP.definitions import Definitions
from Wan2GP.engine.families import Model, Place, Report, family
from Wan2GP.errors import ModelUnavailable, OutOfMemory


@dataclass(frozen=True)
class Beside:
    """Loads models beside the resident one, which gives way where the memory does not suffice for both."""

    definitions: Definitions
    place: Place
    report: Report
    #: frees the memory of the resident model; it is loaded again before its run
    give_way: Callable[[], None]
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
        definition = self.definitions[name]
        self.used.append(definition.id)
        assert definition.architecture.engine is not None, "an available model has an engine"
        kind = family(definition.architecture.engine)
        try:
            return kind(definition, self.place, self.report)
        except OutOfMemory:
            pass
        # Outside the handler: the failure holds the memory of the half-loaded model.
        self.give_way()
        return kind(definition, self.place, self.report)
