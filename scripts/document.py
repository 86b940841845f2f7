"""Write the generated parts of the documentation, or with --check fail when they are out of date.

A generated part stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; the pages of docs/tasks/, the figures and
the picture of `debug.py watch` are generated whole. Either way it fails when a link of the documentation leads nowhere,
or names a file that is not there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HUB = "https://huggingface.co/"
sys.path.insert(0, str(ROOT))

from figures import CHAINED, CONTINUED, PACKED, UNCHAINED, plan_rows, stale_figures  # noqa: E402
from links import broken_links, unlisted_pages  # noqa: E402
from tables import filled, parameter_table, table  # noqa: E402
from task_pages import stale_pages  # noqa: E402
from watch_picture import stale_picture  # noqa: E402

from headless.options import aliases  # noqa: E402
from source.metrics import names  # noqa: E402
from source.metrics.names import Metric  # noqa: E402
from source.params.base import TaskParams  # noqa: E402
from source.params.schema import parameter_rows, parameter_schema  # noqa: E402
from source.planning.frames import FramePlan  # noqa: E402
from source.settings import Settings  # noqa: E402
from Wan2GP.architecture import Architecture  # noqa: E402
from Wan2GP.command_line import Command  # noqa: E402
from Wan2GP.definitions import ModelDefinition, load_definitions  # noqa: E402


def knobs() -> str:
    rows = parameter_rows(parameter_schema(TaskParams, "", ""))
    return parameter_table(row for row in rows if row.name not in TaskParams.model_fields)


def settings() -> str:
    names: dict[str, list[str]] = {}
    for name, field in aliases(Settings).items():
        names.setdefault(field, []).append(f"`{name.upper()}`")
    rows = (
        (
            " or ".join(dict.fromkeys(names[name])),
            field.description or "",
            f"`{field.default}`" if field.default not in (None, "", ()) else "",
        )
        for name, field in Settings.model_fields.items()
    )
    return table(("environment variable", "meaning", "default"), rows)


def metrics(listed: tuple[Metric, ...]) -> str:
    """A table of metrics, named as queries name them."""
    rows = (
        (f"`{each.exposed}`", each.kind, ", ".join(f"`{label}`" for label in each.labels), each.meaning)
        for each in listed
    )
    return table(("metric", "kind", "labels", "meaning"), rows)


def models() -> str:
    known = load_definitions()
    rows = (
        (
            f"`{each.id}`",
            each.name,
            f"`{each.architecture_name}`",
            makes(each.architecture),
            ", ".join(sorted(each.architecture.inputs)),
            lengths(each.architecture),
            str(each.architecture.fps) if has_frames(each.architecture) else "",
            str(each.architecture.pixel_block),
            str(each.architecture.phases),
            str(each.architecture.experts),
        )
        for each in known.values()
    )
    header = "model, name, architecture, makes, takes, frames, fps, pixel block, phases, experts"
    return table(header.split(", "), rows)


def has_frames(architecture: Architecture) -> bool:
    return not (architecture.image_output or architecture.text_output)


def makes(architecture: Architecture) -> str:
    if architecture.text_output:
        return "text"
    if architecture.image_output:
        return "images"
    if architecture.mask_of:
        return "masks"
    return "video, images" if architecture.image_too else "video"


def lengths(architecture: Architecture) -> str:
    """Which numbers of frames its videos have."""
    if not has_frames(architecture):
        return ""
    if architecture.frame_step == architecture.min_frames == 1:
        return "any number"
    return f"{architecture.frame_step}k + 1, from {architecture.min_frames}"


def model_sources() -> str:
    known = load_definitions()
    rows = (
        (
            f"`{each.id}`",
            f"`{each.source}`" if each.source else "",
            ", ".join(f"`{file.removeprefix(HUB).replace('/resolve/main/', '/')}`" for file in model_files(each)),
            ", ".join(each.architecture.solvers),
            each.licence,
            ("yes" if each.verified else "unverified") if each.architecture.needs_weights else "",
        )
        for each in known.values()
    )
    header = "model, folder of parts, files of its own, solvers, licence, names and shapes checked"
    return table(header.split(", "), rows)


def model_files(definition: ModelDefinition) -> list[str]:
    """The first quantisation of each file beside the folder of parts, and the LoRAs that the model always applies."""
    variants = (*definition.transformers, *(module[0] for module in definition.modules))
    return [each[0] for each in variants if each] + list(definition.model.get("loras", ()))


def commands() -> str:
    import commands_page  # it imports this module, as one of the commands

    return commands_page.commands()


def plan_table(plan: FramePlan) -> str:
    header = "generation, new frames, shown of the one before, generated, dropped, its video, begins at"
    total = f"\n\nThe video: {plan.total_frames} frames; the pictures stand at {', '.join(map(str, plan.anchors))}."
    return table(header.split(", "), plan_rows(plan)) + total


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "docs/commands.md": {"commands": commands},
    "docs/options.md": {"options": knobs},
    "docs/settings.md": {"settings": settings},
    "docs/monitoring.md": {
        "worker metrics": partial(metrics, names.WORKER),
        "database metrics": partial(metrics, names.DATABASE),
    },
    "docs/models.md": {"models": models, "sources": model_sources},
    "docs/explanation/frames.md": {
        "chained": partial(plan_table, CHAINED),
        "unchained": partial(plan_table, UNCHAINED),
        "continued": partial(plan_table, CONTINUED),
        "packed": partial(plan_table, PACKED),
    },
}


EXAMPLES = (
    ("python scripts/document.py", "write them (make docs)"),
    ("python scripts/document.py --check", "say what is out of date (make check)"),
)
CODES = {0: "all is up to date, or was written", 1: "something is out of date, or a link leads nowhere"}


def parser() -> Command:
    """The flags."""
    parser = Command("scripts/document.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when something is out of date")
    parser.add_version()
    return parser


def main() -> int:
    check = parser().parse_args().check
    stale = []
    for name, parts in PARTS.items():
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = filled(before, parts)
        if before != after:
            stale.append(name)
            if not check:
                path.write_text(after, encoding="utf-8")
    for whole in (stale_pages, stale_figures, stale_picture):
        stale += whole(ROOT, write=not check)
    if stale and check:
        print(f"out of date: {', '.join(stale)}; run `make docs`", file=sys.stderr)
    broken, unlisted = broken_links(ROOT), unlisted_pages(ROOT)
    if broken:
        print("\n".join(("these links of the documentation lead nowhere:", *broken)), file=sys.stderr)
    if unlisted:
        print("\n".join(unlisted), file=sys.stderr)
    return 1 if broken or unlisted or (stale and check) else 0


if __name__ == "__main__":
    sys.exit(main())
