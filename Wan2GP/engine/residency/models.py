"""Which models are in memory. One is at work; the others stand by within the budgets, the least recently used leaving
first."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.families import Model, Place, Report
from Wan2GP.engine.loading import free_memory, load, typed_failure
from Wan2GP.engine.residency.identity import files_in, model_identity, model_places, state_of
from Wan2GP.engine.residency.memory import Memory
from Wan2GP.engine.residency.placement import Placement
from Wan2GP.engine.residency.standby import Standby
from Wan2GP.errors import OutOfMemory
from Wan2GP.layout import WEIGHT_SUFFIXES
from Wan2GP.memory_profiles import Profile, profile_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    """One model in memory."""

    id: str
    model: Model
    #: of its definition and its files when it was loaded
    identity: str
    profile: Profile

    @property
    def placement(self) -> Placement | None:
        """Where its parts are; None for a model that cannot stand by."""
        found: Placement | None = getattr(self.model, "placement", None)
        return found

    @property
    def standbys(self) -> set[Standby]:
        return set(self.placement.standbys.values()) if self.placement is not None else set()


class ResidentModels:
    """The models of one engine. Used by one thread."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        #: the least recently used first
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        #: "loaded MODEL", "found MODEL", "left MODEL" (for want of room) and "changed MODEL" (its files) -> how often
        self.counts: Counter[str] = Counter()

    @property
    def ids(self) -> tuple[str, ...]:
        """The models in memory, the one that was used last at the end."""
        return tuple(self._entries)

    @property
    def host_bytes(self) -> int:
        """Weights in host memory; shared parts count once."""
        return _host_bytes(list(self._entries.values()))

    @property
    def device_bytes(self) -> int:
        """Weights on the accelerator; shared parts count once."""
        return sum(standby.device_bytes for standby in _standbys(list(self._entries.values())))

    def take(self, definition: ModelDefinition, place: Place, report: Report) -> Model:
        """The model, ready to run; from memory, when it is there as its files are now.

        One that is there in the form of a profile that takes little of the accelerator, or of one that takes more, is
        read again for a profile of the other kind. Raises ModelUnavailable or OutOfMemory; nothing of the model is left
        then.
        """
        profile, identity = profile_of(place.profile), model_identity(definition, place.checkpoints)
        entry = self._entries.get(definition.id)
        changed = entry is not None and entry.identity != identity
        if changed:
            self.counts[f"changed {definition.id}"] += 1
            logger.info("the files or the definition of %s have changed", definition.id)
        if entry is None or changed or profile.streamed != entry.profile.streamed:
            self.drop(definition.id)
            entry = self._loaded(definition, place, profile, identity, report)
        else:
            self.counts[f"found {definition.id}"] += 1
            self._at_work(entry)
        self._entries[entry.id] = entry
        self._entries.move_to_end(entry.id)
        self._shrink(entry)
        return entry.model

    def profile(self, name: str) -> Profile:
        """The profile that a model in memory has."""
        return self._entries[name].profile

    def drop(self, name: str) -> None:
        """Free one model's memory, but for parts that others share."""
        entry = self._entries.pop(name, None)
        if entry is not None:
            entry.model.release()

    def step_aside(self) -> None:
        """Let all models wait in host memory, for one that computes beside them."""
        self._park_until(0, but=())

    def release(self) -> None:
        """Free the memory of all models, and of what they computed."""
        self.memory.cache.clear()
        for name in self.ids:
            self.drop(name)
        free_memory()

    def report(self) -> Mapping[str, Any]:
        """What is in memory, and how often what was found there: for logs and for people."""
        cache = self.memory.cache
        return {
            "models": list(self.ids),
            "host_mb": self.host_bytes >> 20,
            "device_mb": self.device_bytes >> 20,
            "cache_mb": cache.num_bytes >> 20,
            "parts": {"loaded": self.memory.shared.loaded, "found": self.memory.shared.found},
            **_tallied(self.counts),
            **_tallied(cache.counts),
        }

    # ---- loading

    def _loaded(
        self, definition: ModelDefinition, place: Place, profile: Profile, identity: str, report: Report
    ) -> _Entry:
        """Load, giving way first to what the budgets say, and to all of it when memory runs out even so."""
        files = files_in(model_places(definition, place.checkpoints))
        states = {state_of(file): file for file in files}
        # What the new model shares must not leave with the old one.
        shared = self.memory.shared.made_of(list(states))
        known = {state for part in shared for state in self.memory.shared.files_of(part)}
        weights = [file for state, file in states.items() if file.suffix in WEIGHT_SUFFIXES and state not in known]
        self._make_room(sum(file.stat().st_size for file in weights), place, profile)
        place = replace(place, memory=self.memory)
        try:
            model = load(definition, place, report)
        except OutOfMemory:
            if not self._entries and not self.memory.cache.num_bytes:
                raise
            model = None
        if model is None:
            logger.warning("memory ran out while %s was loaded; everything else gives way", definition.id)
            self.release()
            model = load(definition, place, report)
        del shared
        self.counts[f"loaded {definition.id}"] += 1
        return _Entry(definition.id, model, identity, profile)

    def _make_room(self, coming: int, place: Place, profile: Profile) -> None:
        """Before `coming` more bytes of weights are read."""
        for name in [entry.id for entry in self._entries.values() if entry.placement is None]:
            self.drop(name)
        while self._entries and not self._room_for(coming, profile):
            self._leave()
        if place.device != "cpu":
            limit = self.memory.device_limit(torch.device(place.device))
            self._park_until(limit - coming, but=())

    def _room_for(self, coming: int, profile: Profile) -> bool:
        limit = self.memory.host_limit
        kept = self.host_bytes
        return kept <= profile.kept_share * limit and kept + coming <= limit

    def _leave(self) -> None:
        """The least recently used model goes."""
        name = next(iter(self._entries))
        self.counts[f"left {name}"] += 1
        logger.info("model %s leaves memory", name)
        self.drop(name)

    def _shrink(self, working: _Entry) -> None:
        """Once the sizes are known: the others give way until the budgets are kept. The one at work always stays."""
        limit, own = self.memory.host_limit, _host_bytes([working])
        while len(self._entries) > 1:
            if self.host_bytes <= limit and self.host_bytes - own <= working.profile.kept_share * limit:
                return
            self._leave()

    # ---- the accelerator

    def _at_work(self, entry: _Entry) -> None:
        """Bring a model's weights to the accelerator, in place of others. Raises OutOfMemory."""
        placement = entry.placement
        if placement is None:
            return
        coming = sum(each.num_bytes for each in entry.standbys if not each.on_device)
        if placement.device.type != "cpu":
            self._park_until(self.memory.device_limit(placement.device) - coming, but=placement.parts.values())
        try:
            placement.bring()
            return
        except RuntimeError as error:
            failure = typed_failure(error)
        # Outside the handler: the traceback holds what was brought in part.
        self.drop(entry.id)
        raise failure

    def _park_until(self, limit: int, *, but: Iterable[torch.nn.Module]) -> None:
        """Let models stand by in host memory, the least recently used first, until so much is on the accelerator."""
        spared, before = list(but), self.device_bytes
        for entry in self._entries.values():
            if self.device_bytes <= limit:
                break
            if entry.placement is not None:
                entry.placement.park(but=spared, pin=self._may_pin(entry))
        if self.device_bytes < before:
            free_memory()

    def _may_pin(self, entry: _Entry) -> bool:
        """Whether page-locked memory for a model stays within the host's budget."""
        pinned = sum(each.num_bytes for each in _standbys(self._entries.values()) if each.pinned)
        return pinned + sum(each.num_bytes for each in entry.standbys if not each.pinned) <= self.memory.host_limit


def _standbys(entries: Iterable[_Entry]) -> set[Standby]:
    return {standby for entry in entries for standby in entry.standbys}


def _host_bytes(entries: Iterable[_Entry]) -> int:
    return sum(standby.host_bytes for standby in _standbys(entries))


def _tallied(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """ "loaded t2v": 3 -> {"loaded": {"t2v": 3}}."""
    found: dict[str, dict[str, int]] = {}
    for name, count in sorted(dict(counts).items()):
        first, _, second = name.partition(" ")
        found.setdefault(first, {})[second] = count
    return found
