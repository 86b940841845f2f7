"""Functions that count how often they are asked, and lose answers on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from source.edge_functions import NoAnswer
from source.store.supabase import Functions


class CountedFunctions:
    """`asked`: how often, by function, or by operation of task-store. `losing`: whose next answer gets lost on the way
    back, after the function did what was asked."""

    def __init__(self, functions: Functions, losing: set[str] | None = None) -> None:
        self._functions = functions
        self.asked: Counter[str] = Counter()
        self.losing = losing or set()

    def call(self, function: str, body: Mapping[str, Any], *, repeat: bool = True) -> Any:
        name = body.get("operation", function)
        self.asked[name] += 1
        answer = self._functions.call(function, body, repeat=repeat)
        if name in self.losing:
            self.losing.remove(name)
            raise NoAnswer(f"{function}: the answer got lost")
        return answer

    def close(self) -> None:
        self._functions.close()
