"""Markdown tables of the generated documentation, and the places where they stand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from source.params.schema import ParameterRow


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (header, *rows)]
    lines.insert(1, "|" + "---|" * (lines[0].count(" | ") + 1))
    return "\n".join(lines)


def parameter_table(rows: Iterable[ParameterRow]) -> str:
    cells = (
        (
            f"`{row.name}`",
            row.type,
            f"`{row.default}`" if row.default else "",
            f"**needed**; {row.meaning}" if row.required else row.meaning,
            ", ".join(f"`{name}`" for name in row.also),
        )
        for row in rows
    )
    return table(("parameter", "type and bounds", "default", "meaning", "also called"), cells)


def filled(text: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """The text with what each part makes between its markers. Raises SystemExit where these are missing."""
    for name, make in parts.items():
        pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"the markers of {name!r} are missing")
        text = pattern.sub(partial(_filled_part, make()), text)
    return text


def _filled_part(body: str, match: re.Match[str]) -> str:
    return f"{match[1]}{body}\n{match[2]}"
