"""Reading numbers out of the call's settings; text that is a number will do. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from Wan2GP.errors import InvalidInput


class Numbers:
    """The settings of one call. Every reader raises InvalidInput that names the field."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings

    def real(self, name: str, least: float = -math.inf, most: float = math.inf) -> float:
        """A finite number from `least` to `most`."""
        number = _real(self._settings[name], name)
        if not least <= number <= most:
            raise InvalidInput(f"must be from {least:g} to {most:g}, not {number:g}", field=name)
        return number

    def whole(self, name: str, least: int, most: int | None = None) -> int:
        """A whole number from `least` to `most`."""
        number = self.real(name)
        if number != int(number) or number < least or (most is not None and number > most):
            bounds = f"at least {least}" if most is None else f"from {least} to {most}"
            raise InvalidInput(f"must be a whole number, {bounds}, not {self._settings[name]!r}", field=name)
        return int(number)

    def switch(self, name: str) -> bool:
        """0 or 1."""
        return self.whole(name, 0, 1) == 1

    def text(self, name: str) -> str:
        """A word beside the numbers, which may be empty."""
        return str(self._settings[name] or "").strip()

    def reals(self, name: str) -> tuple[float, ...]:
        """Any number of finite numbers."""
        return tuple(_real(value, name) for value in self._items(name))

    def wholes(self, name: str) -> tuple[int, ...]:
        """Any number of whole numbers from 0."""
        numbers = self.reals(name)
        if any(number != int(number) or number < 0 for number in numbers):
            raise InvalidInput(f"must be whole numbers from 0, not {self._settings[name]!r}", field=name)
        return tuple(int(number) for number in numbers)

    def _items(self, name: str) -> tuple[Any, ...]:
        value = self._settings[name]
        if value is None or value == "":
            return ()
        if isinstance(value, str):
            return tuple(part for part in value.replace(",", " ").split())
        return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _real(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(f"must be a number, not {value!r:.80}", field=name) from None
    if not math.isfinite(number):
        raise InvalidInput(f"must be a finite number, not {number}", field=name)
    return number
