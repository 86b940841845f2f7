"""Write the generated parts of the documentation, or with --check fail when they are out of date.

A generated part stands between `<!-- begin NAME -->` and `<!-- end NAME -->`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from headless.options import GenerationOptions, aliases  # noqa: E402
from source.settings import Settings  # noqa: E402
from source.task_registry import registry  # noqa: E402
from Wan2GP.definitions import load_definitions  # noqa: E402


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (header, *rows)]
    lines.insert(1, "|" + "---|" * (lines[0].count(" | ") + 1))
    return "\n".join(lines)


def task_types() -> str:
    rows = (
        (f"`{kind.name}`", kind.help, f"`{kind.default_model}`" if kind.default_model else "") for kind in registry()
    )
    return table(("task type", "what it does", "default model"), rows)


def knobs() -> str:
    by_field: dict[str, list[str]] = {}
    for name, field in aliases(GenerationOptions).items():
        if name != field:
            by_field.setdefault(field, []).append(f"`{name}`")
    rows = (
        (f"`{name}`", field.description or "", ", ".join(by_field.get(name, [])))
        for name, field in GenerationOptions.model_fields.items()
    )
    return table(("option", "meaning", "also called"), rows)


def settings() -> str:
    names: dict[str, list[str]] = {}
    for name, field in aliases(Settings).items():
        names.setdefault(field, []).append(f"`{name.upper()}`")
    rows = (
        (
            " or ".join(dict.fromkeys(names[name])),
            field.description or "",
            f"`{field.default}`" if field.default not in (None, "") else "",
        )
        for name, field in Settings.model_fields.items()
    )
    return table(("environment variable", "meaning", "default"), rows)


def models() -> str:
    definitions = load_definitions()
    found = sorted((definitions[name] for name in definitions), key=lambda each: each.id)
    rows = (
        (
            f"`{each.id}`",
            each.name,
            f"`{each.architecture_name}`",
            "yes" if each.architecture.engine else "not yet",
            ", ".join(sorted(each.architecture.inputs)),
        )
        for each in found
    )
    return table(("model", "name", "architecture", "runs in this version", "takes"), rows)


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"task types": task_types},
    "docs/options.md": {"options": knobs},
    "docs/settings.md": {"settings": settings},
    "docs/models.md": {"models": models},
}


def filled(text: str, parts: dict[str, Callable[[], str]]) -> str:
    for name, make in parts.items():
        pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"the markers of {name!r} are missing")
        text = pattern.sub(partial(_filled_part, make()), text)
    return text


def _filled_part(body: str, match: re.Match[str]) -> str:
    return f"{match[1]}{body}\n{match[2]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when something is out of date")
    check = parser.parse_args().check
    stale = []
    for name, parts in PARTS.items():
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = filled(before, parts)
        if before != after:
            stale.append(name)
            if not check:
                path.write_text(after, encoding="utf-8")
    if stale and check:
        print(f"out of date: {', '.join(stale)}; run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
