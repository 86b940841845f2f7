"""`debug.py watch`: the frame drawn again and again, until somebody has seen enough."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.live import Live

from source.diagnostics.views import View
from source.diagnostics.watch.drawing import draw
from source.diagnostics.watch.scene import Looker
from source.errors import StoreError
from source.interrupt import SLICE_S, Interrupt
from source.store.base import TaskStore

#: seconds between two looks
LOOK_S = 1.0
QUIT = frozenset(b"qQ")


def watch(store: TaskStore, console: Console, *, once: bool = False) -> tuple[View, RenderableType, int]:
    """Show what happens until q or Ctrl-C; once where that is asked for, or where there is no terminal. Returns the
    last frame, how it looks, and exit code 0.

    A database that gets out of reach is said to be, and asked again. Raises StoreError when it is from the start.
    """
    looker = Looker(store)
    frame = looker.look()
    if once or not console.is_terminal:
        return frame, draw(frame, console.width), 0
    with (
        Interrupt() as interrupt,
        Keys(lambda: interrupt.heard) as keys,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        problem = ""
        while True:
            size = console.size
            live.update(draw(frame, size.width, size.height, problem=problem), refresh=True)
            if keys.quit_within(LOOK_S):
                break
            try:
                frame, problem = looker.look(), ""
            except StoreError as error:
                problem = f"the database is out of reach, this is how it was: {error}"
    return frame, "", 0


class Keys:
    """Single keys of the terminal, without Enter. Where there is none, nobody presses any. `over` is another reason to
    quit."""

    def __init__(self, over: Callable[[], bool]) -> None:
        self._over = over
        self._before: Any = None

    def __enter__(self) -> Self:
        if sys.stdin.isatty() and os.name == "posix":
            import termios
            import tty

            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            import termios

            with suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def quit_within(self, seconds: float) -> bool:
        """Whether q was pressed within so long, or it is over; returns as soon as that is so."""
        deadline = time.monotonic() + seconds
        while not self._over() and (left := deadline - time.monotonic()) > 0:
            if self._quit_pressed(min(left, SLICE_S)):
                return True
        return self._over()

    def _quit_pressed(self, seconds: float) -> bool:
        """Within so long; a terminal that is gone is as good."""
        if self._before is None:
            time.sleep(seconds)
            return False
        if not select.select([sys.stdin], [], [], seconds)[0]:
            return False
        try:
            pressed = os.read(sys.stdin.fileno(), 64)
        except OSError:
            return True
        return not pressed or bool(QUIT & set(pressed))
