"""Named places on a task's way at which a worker process can be told to do something fatal to itself.

step:2:kill         SIGKILL at the second denoising step that this process reports
write:3:kill        SIGKILL while a video is being written, before its third frame
after-complete:1:lose   the database did it, and the answer gets lost
before-upload:1:stop    the process stands still (SIGSTOP) until somebody lets it go on
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from source.edge_functions import NoAnswer

#: in the order in which a task passes them. The last line is passed by tasks that end otherwise, and by the threads
#: beside them.
POINTS = (
    "before-claim", "after-claim", "load", "before-start", "after-start", "step", "decode", "write", "written",
    "before-upload", "during-upload", "after-upload", "before-complete", "before-publish", "after-publish",
    "after-complete",
    "before-fan_out", "after-fan_out",
    "before-retry", "after-retry", "before-fail", "after-fail", "before-cancelled", "after-cancelled",
    "before-release", "after-release", "before-heartbeat", "after-heartbeat", "before-rescue", "after-rescue",
)  # fmt: skip
ACTIONS = ("kill", "stop", "lose")


class Trap:
    """What happens at the n-th passing of a point. `Trap.parse("")` never does anything."""

    def __init__(self, point: str = "", passing: int = 0, action: str = "") -> None:
        self.point, self._passing, self._action = point, passing, action
        #: told before it springs
        self.told: Callable[[str], None] = lambda point: None
        self._passed: Counter[str] = Counter()
        self._lock = threading.Lock()

    @classmethod
    def parse(cls, text: str) -> Trap:
        """`point:n:action`. Raises ValueError that says what is wrong."""
        if not text:
            return cls()
        point, _, rest = text.partition(":")
        count, _, action = rest.partition(":")
        if point not in POINTS:
            raise ValueError(f"there is no point {point!r}; known: {', '.join(POINTS)}")
        if not count.isdigit() or not int(count) or action not in ACTIONS:
            raise ValueError(f"{text!r} must be point:n:action with n from 1 and an action of {', '.join(ACTIONS)}")
        return cls(point, int(count), action)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        given = core_schema.no_info_plain_validator_function(lambda value: cls.parse(str(value)))
        return core_schema.union_schema([core_schema.is_instance_schema(cls), given])

    def passing(self, point: str) -> None:
        """A thread passes the point. Raises NoAnswer where the trap is to lose an answer."""
        if point != self.point:
            return
        with self._lock:
            self._passed[point] += 1
            caught = self._passed[point] == self._passing
        if not caught:
            return
        self.told(f"trap {point}:{self._passing}:{self._action}")
        if self._action == "lose":
            raise NoAnswer(f"the answer got lost at {point}")
        os.kill(os.getpid(), signal.SIGKILL if self._action == "kill" else signal.SIGSTOP)
