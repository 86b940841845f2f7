"""What befalls the workers, drawn from a seed: the same seed makes the same plan."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from source.chaos.engine import ENDS_AS, POISON
from source.chaos.points import POINTS
from source.chaos.tasks import CLIP, MODELS, PARENT
from source.store.types import NewTask

#: only the tasks come
NOTHING = "nothing"
#: fault -> how often, against each other
USUAL = {"kill": 6, "terminate": 3, "stand_still": 3, "twin": 2, "cancel": 4, "retry": 2}
MISFORTUNES = ("out_of_memory", "transient", "engine", "bad_input", "device_lost")
#: share of the starts of a worker that have a trap, and of the traps that lie on the way of most tasks
TRAPPED, ON_THE_WAY = 0.7, 0.8
#: faults between two poisonous tasks
POISON_EVERY = 60


@dataclass(frozen=True)
class Fault:
    """One fault, the tasks that are added before it, and how long nothing happens before it."""

    kind: str
    #: which of the workers
    worker: int
    #: 0-1: which of the tasks that come into question
    pick: float
    pause_s: float
    tasks: tuple[NewTask, ...]


@dataclass(frozen=True)
class Plan:
    """All of it. `project`: where the tasks go."""

    seed: int
    faults: tuple[Fault, ...]
    project: str | None = None

    def tasks(self) -> list[NewTask]:
        """Of all faults."""
        return [task for fault in self.faults for task in fault.tasks]

    def trap(self, worker: int, start: int) -> str:
        """What the process is told that is the `start`-th of a worker; "" for nothing."""
        draw = random.Random(f"{self.seed} trap {worker} {start}")
        if not start or draw.random() > TRAPPED:
            return ""
        points = POINTS[: POINTS.index("after-complete") + 1] if draw.random() < ON_THE_WAY else POINTS
        action = draw.choices(("kill", "lose", "stop"), (6, 3, 2))[0]
        return f"{draw.choice(points)}:{draw.randint(1, 2)}:{action}"


def may_fail(tasks: Sequence[NewTask]) -> dict[str, frozenset[str]]:
    """The error classes with which each task may fail, where there are any."""
    return {task.id: ENDS_AS[task.params["misfortune"]] for task in tasks if task.params.get("misfortune") in ENDS_AS}


def draw(seed: int, faults: int, workers: int, further: Sequence[str] = (), project: str | None = None) -> Plan:
    """`faults` faults for `workers` workers. `further`: faults that the database's machines know."""
    source = random.Random(seed)
    weights = USUAL | dict.fromkeys(further, 1)
    graph = _Graph(source, project)
    drawn = []
    for number in range(faults):
        drawn.append(
            Fault(
                kind=source.choices(list(weights), list(weights.values()))[0],
                worker=source.randrange(workers),
                pick=source.random(),
                pause_s=round(source.uniform(0.0, 0.6), 3),
                tasks=graph.grown(poison=number % POISON_EVERY == POISON_EVERY // 6),
            )
        )
    return Plan(seed, tuple(drawn), project)


class _Graph:
    """Random tasks, each depending on a few of the latest ones before it."""

    def __init__(self, source: random.Random, project: str | None) -> None:
        self._source = source
        self._project = {} if project is None else {"project_id": project}
        #: what others may depend on
        self._known: list[str] = []

    def grown(self, *, poison: bool) -> tuple[NewTask, ...]:
        """The next few tasks."""
        number = self._source.choices((0, 1, 2, 3), (2, 3, 3, 2))[0]
        return tuple(self._task() for _ in range(number)) + ((self._poison(),) if poison else ())

    def _task(self) -> NewTask:
        kind = PARENT if self._source.random() < 0.12 else CLIP
        params: dict[str, str | int] = {"children": self._source.randint(1, 3)}
        if kind == CLIP:
            params = {"model": self._source.choices(MODELS, (3, 1))[0]}
            if self._source.random() < 0.15:
                params["misfortune"] = self._source.choice(MISFORTUNES)
        task = self._made(kind, params, self._needed())
        if params.get("misfortune") != "bad_input":
            self._known.append(task.id)
        return task

    def _poison(self) -> NewTask:
        return self._made(CLIP, {"model": MODELS[0], "misfortune": POISON, "times": 100}, ())

    def _needed(self) -> tuple[str, ...]:
        latest = self._known[-8:]
        wanted = self._source.choices((0, 1, 2), (6, 3, 1))[0]
        return tuple(self._source.sample(latest, min(wanted, len(latest))))

    def _made(self, kind: str, params: dict[str, str | int], needed: tuple[str, ...]) -> NewTask:
        task_id = str(uuid.UUID(int=self._source.getrandbits(128), version=4))
        return NewTask(task_type=kind, params=params, id=task_id, dependant_on=needed, **self._project)  # type: ignore[arg-type]
