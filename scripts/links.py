"""Links of the documentation that lead nowhere, and files that it names and that are not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from os.path import normpath
from pathlib import Path

_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_IN_CODE = re.compile(r"`([^`\n]+)`")
#: a file or folder of the repository, named from its top
_FILE = re.compile(
    r"(?<![\w./])(?:Wan2GP|benchmarks|docs|headless|samples|scripts|source|tests|training)/[^\s,;:()\[\]\"']*"
)
#: one that stands for others: a pattern, or in capitals a name that the reader puts in
_PATTERN = re.compile(r"/.*[^a-z0-9_./-]")


_LIST_THEMSELVES = ("decisions/", "tasks/")


def broken_links(root: Path) -> list[str]:
    """One line for each: the page, and what it names. Addresses of the web are not looked at."""
    return [f"{page.relative_to(root)}: {target}" for page in pages(root) for target in _missing(page, root)]


def pages(root: Path) -> list[Path]:
    """The documentation: the top, docs/, and the pages of samples/ and supabase/."""
    below = (page for name in ("docs", "samples", "supabase") for page in (root / name).rglob("*.md"))
    return sorted([*root.glob("*.md"), *below])


def unlisted_pages(root: Path) -> list[str]:
    """Pages of docs/ that its index does not link, less those of folders that list their own."""
    docs = root / "docs"
    linked = {normpath(target.partition("#")[0]) for target in _LINK.findall((docs / "README.md").read_text("utf-8"))}
    names = {str(page.relative_to(docs)) for page in docs.rglob("*.md")} - {"README.md"} - linked
    return sorted(f"docs/README.md lacks a link to {name}" for name in names if not name.startswith(_LIST_THEMSELVES))


def _missing(page: Path, root: Path) -> Iterator[str]:
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    for target in _LINK.findall(text):
        if "://" not in target and not _leads(target, page):
            yield target
    for code in _IN_CODE.findall(text):
        yield from (name for name in _FILE.findall(code) if not (_PATTERN.search(name) or (root / name).exists()))


def _leads(target: str, page: Path) -> bool:
    name, _, anchor = target.partition("#")
    found = page.parent / name if name else page
    return found.exists() and (not anchor or anchor in _anchors(found))


@cache
def _anchors(page: Path) -> frozenset[str]:
    """The names of a page's headings, as GitHub makes them."""
    headings = _HEADING.findall(_FENCED.sub("", page.read_text(encoding="utf-8")))
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)
