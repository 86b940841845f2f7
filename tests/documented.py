"""The commands of the documentation, as a reader types them: in a copy of this checkout, with its environment.

A fenced block says in an HTML comment above it what becomes of it in a test:

    run                 its lines after "$ " are run in one shell a page, and must succeed; what stands below such a
                        line is part of what it prints, where numbers and ids stand for any, and … for anything
    run: fails          they must fail
    run: background     they go on while the rest of the page is run
    file: PATH          it is written there
    patch               it is applied to the copy
    not run: REASON     it is not, and why; a test that is named there exists
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ordinary_folder import ordinary_folder

#: what a reader may have to type or write; other blocks show something
WORK = frozenset({"bash", "console", "diff", "json", "python"})
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
#: git looks for the lines around a change where they are now
_PATCH = "git apply -C1 -"
_SEPARATOR = "@@step"


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: str
    language: str
    mark: str
    text: str

    @property
    def what(self) -> str:
        """The mark's first word or words: "run", "file", "not run" …"""
        return self.mark.partition(":")[0]

    @property
    def more(self) -> str:
        """What the mark says after the colon."""
        return self.mark.partition(":")[2].strip()

    def steps(self) -> Iterator[tuple[str, list[str]]]:
        """Each command with the lines that it shall print."""
        text = self.text.replace("\\\n", " ")
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, *printed = part.rstrip("\n").split("\n")
            yield command, [line for line in printed if line.strip(" …")]


def blocks(root: Path, page: str) -> list[Block]:
    text = (root / page).read_text(encoding="utf-8")
    return [
        Block(page, found["language"], (found["mark"] or "").strip(), found["text"]) for found in _BLOCK.finditer(text)
    ]


def pattern(line: str) -> re.Pattern[str]:
    """What a line of a page stands for."""
    text = re.sub(r"\s+", " ", line.strip())
    pieces = re.split(rf"({_ID.pattern}|\d+(?:\.\d+)?|…| )", text)
    stands_for = {"…": ".*", " ": r"\s+"}
    return re.compile(
        "".join(
            _ID.pattern if _ID.fullmatch(piece)
            else r"\d+(?:\.\d+)?" if re.fullmatch(r"\d+(?:\.\d+)?", piece)
            else stands_for.get(piece, re.escape(piece))
            for piece in pieces
        )
    )  # fmt: skip


def script(page: list[Block]) -> tuple[str, list[tuple[str, list[str], bool]]]:
    """A shell script that does a page and says where each step begins; and the steps, with the lines that each prints
    and whether it fails."""
    lines = ["trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT"]
    steps: list[tuple[str, list[str], bool]] = []
    for block in page:
        if block.what in ("file", "patch"):
            ending = f"END_OF_{len(lines)}"
            target = f"mkdir -p $(dirname {block.more}); cat > {block.more}" if block.more else _PATCH
            lines += [f"{target} <<'{ending}' || exit 98", f"{block.text}{ending}"]
        if block.what != "run":
            continue
        for command, printed in block.steps():
            lines.append(f"echo; echo {_SEPARATOR}")
            fails = block.more == "fails"
            if block.more == "background":
                lines.append(f"{command} &")
            else:
                lines.append(f"{command}\ncode=$?; echo; [ $code {'!=' if fails else '='} 0 ] || exit 99")
            steps.append((command, printed, fails))
    return "\n".join([*lines, f"echo {_SEPARATOR}", "exit 0"]), steps


def run_page(clone: Path, page: list[Block], environment: dict[str, str], timeout_s: float = 240) -> dict[str, str]:
    """Run the page, and check what it prints. Returns command -> what it printed."""
    text, steps = script(page)
    done = subprocess.run(
        ["bash", "-s"], input=text, cwd=clone, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=timeout_s, check=False,
    )  # fmt: skip
    said = done.stdout.split(f"{_SEPARATOR}\n")[1:]
    if done.returncode:
        command = steps[len(said) - 1][0] if said else "(nothing was run)"
        raise AssertionError(
            f"{page[0].page}: `{command}` did not end as the page says:\n{said[-1] if said else done.stdout}"
        )
    for (command, printed, _), output in zip(steps, said, strict=False):
        lacking = [line for line in printed if not pattern(line).search(output)]
        assert not lacking, f"{page[0].page}: `{command}` did not print {lacking} but:\n{output}"
    return {command: output for (command, _, _), output in zip(steps, said, strict=False)}


@contextmanager
def cloned(root: Path) -> Iterator[Path]:
    """A copy of the checkout, whose `.venv` is the environment of this test."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    with ordinary_folder("documented") as place:
        folder = place / "Headless-Wan2GP"
        for name in listed.stdout.split("\0"):
            if name and (root / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / name, folder / name)
        (folder / ".venv").mkdir()
        for path in Path(sys.prefix).iterdir():
            if path.name != ".installed":
                (folder / ".venv" / path.name).symlink_to(path)
        (folder / ".venv" / ".installed").touch()  # make takes it for up to date
        yield folder


def shell_environment(clone: Path, around: dict[str, str]) -> dict[str, str]:
    """What a shell has after `source .venv/bin/activate`."""
    kept = {name: value for name, value in around.items() if not name.startswith(("PYTHON", "SUPABASE", "PG"))}
    return kept | {"PATH": f"{clone / '.venv' / 'bin'}:{around['PATH']}", "VIRTUAL_ENV": str(clone / ".venv")}
