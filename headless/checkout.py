"""What a folder given as `--wan-dir` holds. The checkout is read as text and never imported."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from Wan2GP.errors import InvalidInput

_VERSION = re.compile(r"""^WanGP_version\s*=\s*["']([^"']+)["']""", re.MULTILINE)
_ENTRY = re.compile(r"^def (generate_video|generate_media)\(", re.MULTILINE)


@dataclass(frozen=True)
class WanCheckout:
    """An upstream Wan2GP checkout."""

    path: Path
    #: as written in its wgp.py; "unknown" when it does not say
    version: str
    #: how it is driven: generate_video (before 12.21), generate_media, or shared/api (10.981 and later)
    entry: str
    #: model definitions in its defaults folder
    definitions: int
    #: its wgp_config.json; empty when there is none yet
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        """The interpreter of its own environment (venv, .venv or env in its folder); ours when it has none."""
        found = (self.path / folder / "bin" / "python" for folder in ("venv", ".venv", "env"))
        return next((path for path in found if path.is_file()), Path(sys.executable))

    def __str__(self) -> str:
        return f"Wan2GP {self.version} at {self.path} (entry {self.entry}, {self.definitions} model definitions)"


def inspect_wan_dir(path: Path) -> WanCheckout:
    """Raises InvalidInput that names what is missing, and what was looked for."""
    facade = path / "wgp.py"
    if not path.is_dir():
        raise InvalidInput(f"there is no folder {path}", field="wan_dir")
    if not facade.is_file():
        raise InvalidInput(f"{path} is no Wan2GP checkout: wgp.py is missing", field="wan_dir")
    text = facade.read_text(encoding="utf-8", errors="replace")
    definitions = len(list((path / "defaults").glob("*.json")))
    if not definitions:
        raise InvalidInput(f"{path} is no Wan2GP checkout: defaults/*.json is missing", field="wan_dir")
    version = _VERSION.search(text)
    found, config = version[1] if version else "unknown", _config(path / "wgp_config.json")
    return WanCheckout(path.resolve(), found, _entry(path, text), definitions, config)


def _config(path: Path) -> dict[str, Any]:
    """The checkout reads it at each start, and stops at one that is empty."""
    if not path.exists():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"{path} cannot be read ({error}); remove it, Wan2GP writes a new one", field="wan_dir"
        ) from None
    return config if isinstance(config, dict) else {}


def _entry(path: Path, text: str) -> str:
    if (path / "shared" / "api.py").is_file():
        return "shared/api"
    names = set(_ENTRY.findall(text))
    if not names:
        raise InvalidInput(
            f"{path} is no Wan2GP checkout that this adapter knows: there is no shared/api.py, and wgp.py defines "
            "neither generate_video nor generate_media",
            field="wan_dir",
        )
    return "generate_media" if "generate_media" in names else "generate_video"
