"""The pages of docs/tasks/: one a task type, all of it read from the declarations and from samples/tasks/."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tables import parameter_table, table

from headless.options import GenerationOptions, aliases
from source.parameter_help import own_rows
from source.params.base import TaskParams, knob_table
from source.params.schema import parameter_rows
from source.task_registry import TaskType, registry

INDEX = """\
# Task types

One page each, written from the declarations by `make docs`. `python add_task.py --help TYPE` shows the same on the
command line, `python add_task.py --schema TYPE` as JSON Schema.

A row's `params` is one JSON object. The same names may also stand in `full_orchestrator_payload` or
`orchestrator_details` (weaker than the row's own level) and in `individual_segment_params` (stronger). A `null` is the
same as an absent name. Media are paths, http(s) URLs, or output locations (`files/…`).

The output of a finished row is its `output_location`: `files/<task id>_<name>`, in the folder `public/` beside the
database. What else a task has to say (the place of a poster, further files, texts) stands in `result_data`. Pictures
and videos say in their own metadata [how they were made](../metadata-and-replay.md).

"""
BEGUN_BY = "<!-- written by scripts/document.py from the declarations; change those, then run `make docs` -->\n"


def task_pages(root: Path) -> dict[str, str]:
    """Path below `root` -> text, for every page there has to be. Raises SystemExit when a type has no sample."""
    pages = {f"docs/tasks/{kind.name}.md": page(kind, root) for kind in registry()}
    return {"docs/tasks/README.md": BEGUN_BY + INDEX + _types() + "\n"} | pages


def stale_pages(root: Path, *, write: bool) -> list[str]:
    """The pages that are not as they have to be, or left over; with `write` they are mended."""
    wanted = task_pages(root)
    left_over = {str(path.relative_to(root)) for path in (root / "docs/tasks").glob("*")} - set(wanted)
    stale = [name for name, text in wanted.items() if not _holds(root / name, text)]
    if write:
        (root / "docs/tasks").mkdir(parents=True, exist_ok=True)
        for name in stale:
            (root / name).write_text(wanted[name], encoding="utf-8")
        for name in left_over:
            (root / name).unlink()
    return [*stale, *sorted(left_over)]


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _types() -> str:
    rows = (
        (
            f"[`{kind.name}`]({kind.name}.md)",
            kind.help,
            kind.output,
            f"`{kind.default_model}`" if kind.default_model else "",
            "yes" if kind.uses_gpu else "no",
        )
        for kind in registry()
    )
    return table(("task type", "what it does", "output", "default model", "waits for the GPU"), rows)


def page(kind: TaskType, root: Path) -> str:
    """One task type's page."""
    parts = (_what(kind), _parameters(kind), _options(kind), *_defaults(kind), _example(kind, root))
    return f"{BEGUN_BY}# `{kind.name}`\n\n" + "\n".join(parts)


def _what(kind: TaskType) -> str:
    waiting = (
        "waits for its turn on the GPU"
        if kind.uses_gpu
        else "runs beside a generation; it waits for the GPU only when it generates itself"
    )
    facts = (
        ("output", kind.output),
        ("default model", f"`{kind.default_model}` ([models](../models.md))" if kind.default_model else "none"),
        ("GPU", waiting),
    )
    return f"{kind.help}\n\n{table(('', 'this type'), facts)}\n"


@cache
def _parameters(kind: TaskType) -> str:
    needed = ", ".join(f"`{name}`" for name in kind.params.needed_knobs)
    besides = f"Of the engine's options it needs {needed}.\n\n" if needed else ""
    rows = own_rows(kind, parameter_rows(kind.schema()))
    return f"## Parameters\n\n{besides}{parameter_table(rows)}\n"


@cache
def _options(kind: TaskType) -> str:
    """Which of the engine's knobs a row may hold, and under which names of its own."""
    every = [name for name in GenerationOptions.model_fields if name not in TaskParams.model_fields]
    taken = set(knob_table(kind.params, GenerationOptions).values())
    refused = [name for name in every if name not in taken]
    names = [f"`{name}` ({knob})" for name, knob in kind.params.knob_names.items() if name not in _common_names()]
    also = f" It knows some under further names: {', '.join(names)}.\n" if names else "\n"
    if not taken:
        return "## Engine options\n\nNone: this type takes none of the [engine's options](../options.md).\n"
    if not refused:
        return "## Engine options\n\nBesides, a row may hold any of the [engine's options](../options.md)." + also
    if len(taken) < len(refused):
        some = ", ".join(f"`{name}`" for name in every if name in taken)
        return f"## Engine options\n\nOf the [engine's options](../options.md) a row may hold {some}." + also
    others = ", ".join(f"`{name}`" for name in refused)
    text = f"## Engine options\n\nBesides, a row may hold the [engine's options](../options.md) except {others}"
    return f"{text}, which this type decides itself or declares above.{also}"


def _defaults(kind: TaskType) -> Iterator[str]:
    """What the type takes where a row says nothing; nothing where that is the model's."""
    if kind.defaults:
        rows = ((f"`{name}`", f"`{value}`") for name, value in kind.defaults.items())
        told = "Where the row says nothing, this type takes these instead of its model's own:"
        yield f"## Defaults of its own\n\n{told}\n\n{table(('parameter', 'default'), rows)}\n"


def _common_names() -> set[str]:
    return set(aliases(GenerationOptions))


def _example(kind: TaskType, root: Path) -> str:
    folder = root / "samples/tasks"
    sample = folder / f"{kind.name}.json"
    if not sample.is_file():
        raise SystemExit(f"samples/tasks/{kind.name}.json is missing: every task type has a sample")
    row = f"```json\n{sample.read_text(encoding='utf-8').strip()}\n```\n\n"
    command = f"python add_task.py --type {kind.name} --params @samples/tasks/{sample.name}"
    link = f"[samples/tasks/{sample.name}](../../samples/tasks/{sample.name})"
    return f"## Example\n\n{link}:\n\n{row}```console\n$ {command}\n```\n{_more(kind, folder)}"


def _more(kind: TaskType, folder: Path) -> str:
    """Links to the samples of its other modes."""
    links = list(_variants(kind, folder))
    return f"\nOther modes: {', '.join(links)}.\n" if links else ""


def _variants(kind: TaskType, folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob(f"{kind.name}.*.json")):
        mode = path.name.removeprefix(f"{kind.name}.").removesuffix(".json")
        yield f"[{mode}](../../samples/tasks/{path.name})"
