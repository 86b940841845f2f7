#!/usr/bin/env python3
"""Run benchmarks and write what they print to benchmarks/README.md.

    python benchmarks/collect.py [lanes queues …] [--into FILE]

Without names all that need no GPU. The sections of those that were not run stay as they are. The exit status is 1 when
one of them missed its aim or failed; that stands in its section too.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from separate_runs import machine

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from Wan2GP.command_line import Command  # noqa: E402

README = HERE / "README.md"
#: in the order of the page
NAMES = (
    "lanes", "saving", "affinity", "queues", "scaling", "noop_tasks", "hand_off", "supabase_claims", "stitch",
    "stitch_memory", "colour_match", "join", "loop_overhead", "engine_cpu",
)  # fmt: skip
BEGIN = """# Benchmarks

Written by `python benchmarks/collect.py` (`make bench`): what each benchmark printed, on which machine and when.
Compare the ratios, not the seconds. What the numbers mean is told in [docs/benchmarks.md](../docs/benchmarks.md) and at
the head of each script.
"""


def section(name: str) -> tuple[str, bool]:
    """Run one. Returns its part of the page, and whether it ended well."""
    script = HERE / f"{name}.py"
    began = time.monotonic()
    done = subprocess.run([sys.executable, str(script)], cwd=HERE.parent, stdout=subprocess.PIPE, text=True)
    seconds = time.monotonic() - began
    told = (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
    ended = "" if done.returncode == 0 else f" It ended with status {done.returncode}."
    printed = re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in done.stdout.splitlines())).strip()
    sys.stdout.write(f"{name}\n{printed}\n\n")
    sys.stdout.flush()
    lead = f"{' '.join(told.split())} `python benchmarks/{name}.py`, {seconds:.0f} s."
    measured = f"Measured {datetime.now(UTC):%Y-%m-%d} on {machine()}.{ended}"
    return f"## {name}\n\n{lead} {measured}\n\n{printed}\n", done.returncode == 0


def sections(page: str) -> dict[str, str]:
    """The parts of a page by their names."""
    parts = re.split(r"(?m)^(?=## )", page)[1:]
    return {part.partition("\n")[0].removeprefix("## "): part.rstrip() + "\n" for part in parts}


EXAMPLES = (("python benchmarks/collect.py lanes", "measure one again, and write its part of benchmarks/README.md"),)
CODES = {0: "measured, and the aims are met", 1: "an aim was missed; also a wrong flag"}


def parser() -> Command:
    """The flags."""
    flags = Command("benchmarks/collect.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    flags.add_argument("--into", type=Path, default=README, help="the page that is written")
    flags.add_version()
    return flags


def main() -> int:
    """Run and write."""
    given = parser().parse_args()
    if unknown := set(given.names) - set(NAMES):
        parser().error(f"there is no benchmark {', '.join(sorted(unknown))}; choose among {', '.join(NAMES)}")
    well = True
    for name in given.names or NAMES:
        page = given.into.read_text(encoding="utf-8") if given.into.exists() else ""
        part, ended_well = section(name)
        well = well and ended_well
        known = sections(page) | {name: part}
        ordered = [known[each] for each in NAMES if each in known]
        given.into.write_text("\n".join([BEGIN, *ordered]), encoding="utf-8")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
