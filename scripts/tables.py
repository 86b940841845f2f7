"""Markdown tables of the generated documentation."""

from __future__ import annotations

from collections.abc import Iterable

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
