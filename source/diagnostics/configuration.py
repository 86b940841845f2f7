"""`debug.py config`: every setting, its value here, where that comes from, and what it means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from headless.options import aliases
from source.diagnostics.views import View
from source.diagnostics.words import counted, printable
from source.logs import redact, redact_values
from source.settings import Settings, is_secret, origins

SET, UNSET = "set", "unset"


def config_view(settings: Settings, **flags: Any) -> list[View]:
    """Each setting: [{name, value, origin (flag, environment, .env or default), variables, default, meaning}]. Of a
    secret it is told whether it is set, and nothing of its value. `flags`: those that the settings were loaded with."""
    found = origins(**flags)
    names: dict[str, list[str]] = {}
    for alias, name in aliases(Settings).items():
        names.setdefault(name, []).append(alias.upper())
    return [
        {
            "name": name,
            "value": _value(name, getattr(settings, name)),
            "origin": found[name],
            "variables": list(dict.fromkeys(names[name])),
            "default": None if is_secret(name) else _plain(field.default),
            "meaning": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]


def _value(name: str, value: Any) -> Any:
    if is_secret(name):
        return UNSET if value is None else SET
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return redact(str(value))
    return [_plain(each) for each in value] if isinstance(value, tuple) else redact_values(value)


# -- for people -----------------------------------------------------------------------------------------------------


def rendered_config(views: Sequence[View], *, explain: bool = False) -> RenderableType:
    """What is not a default first; with `explain` the meaning of each."""
    table = Table("setting", "value", "from", box=None, pad_edge=False)
    ordered = sorted(views, key=lambda view: view["origin"] == "default")
    for view in ordered:
        style = "" if view["origin"] != "default" else "dim"
        table.add_row(Text(view["variables"][0], style="bold" if not style else ""), _shown(view), view["origin"],
                      style=style)  # fmt: skip
        if explain:
            table.add_row("", Text(f"{view['meaning']}{_also(view)}", style="italic"), "", style=style)
    given = sum(view["origin"] != "default" for view in views)
    return Group(table, Text(f"{counted(given, 'setting')} given, {len(views) - given} by default"))


def _shown(view: View) -> Text:
    value = view["value"]
    listed = ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    return Text(printable(listed) or "-")


def _also(view: View) -> str:
    others = view["variables"][1:]
    return f" (also {', '.join(others)})" if others else ""
