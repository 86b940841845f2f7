"""Choices that were measured once on a device, kept in a JSON file. No torch here."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

from Wan2GP.media import publishing

logger = logging.getLogger(__name__)


class Choices:
    """Choices by a text that names all they depend on. What cannot be read or kept is measured again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, key: str, measure: Callable[[], str]) -> str:
        """The choice that was kept under the key, else that which `measure` makes, which is kept."""
        known = self._read()
        if key not in known:
            known[key] = measure()
            self._write(known)
        return known[key]

    def _read(self) -> dict[str, str]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be read (%s); what it held is measured again", self._path, error)
            return {}
        return {str(key): str(value) for key, value in content.items()} if isinstance(content, dict) else {}

    def _write(self, known: dict[str, str]) -> None:
        try:
            with publishing(self._path) as partial:
                partial.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        except OSError as error:
            logger.warning("%s cannot be written (%s); its measurements are made again next time", self._path, error)
