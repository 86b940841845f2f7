"""`Provenance`: how an output was made. It is written into the file itself, as JSON, and read from there again.

It holds no path of the machine and no secret: a file is its name and the SHA-256 of its bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from source.errors import InvalidInput
from source.logs import REDACTED
from Wan2GP.media.metadata import embedded_texts

FORMAT: Literal["headless-wan2gp/provenance"] = "headless-wan2gp/provenance"
VERSION = 1
#: levels of JSON: parameters (`source.params.base.MAX_DEPTH`), what a text of JSON among them holds, and what is around
MAX_DEPTH = 200
DISTRIBUTION = "headless-wan2gp"
#: the libraries whose versions decide what comes out
_LIBRARIES = (DISTRIBUTION, "torch", "diffusers", "transformers")


@dataclass(frozen=True, kw_only=True)
class FileNote:
    """A file by what it holds. In parameters it stands, as an object of the same two keys, where its path stood."""

    name: str
    #: None: its content was not seen by the task that wrote this
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class WeightNote:
    """A file that a model was loaded from."""

    model: str
    #: its path below the folder of checkpoints, or its name
    name: str
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class GenerationNote:
    """One run of the engine."""

    model: str
    seed: int | None
    #: the knobs that were asked for, by the engine's names; empty in what is said of a part
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TaskNote:
    """A task that took part."""

    id: str
    type: str
    claim: int = 0
    #: its place below the root: the keys of the rows on the way, "/" between them; "" is the root itself
    key: str = ""
    generations: list[GenerationNote] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class OutputNote:
    """The output of another task that a row depends on."""

    task: str
    name: str
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class RootNote:
    """The row to queue again: the task itself, or the orchestrator that began it all."""

    id: str
    type: str
    #: the row's parameters; a FileNote's object stands for each file, the name alone for each LoRA
    params: Mapping[str, Any]
    dependant_on: list[OutputNote] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How one file was made."""

    format: Literal["headless-wan2gp/provenance"] = FORMAT
    version: Literal[1] = 1
    #: the task that wrote the file
    task: TaskNote
    #: that task's parameters, when it is not the root
    params: Mapping[str, Any] | None = None
    root: RootNote
    #: the tasks whose outputs went into it
    parts: list[TaskNote] = field(default_factory=list)
    inputs: list[FileNote] = field(default_factory=list)
    loras: list[FileNote] = field(default_factory=list)
    weights: list[WeightNote] = field(default_factory=list)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def tasks(self) -> list[TaskNote]:
        """The task and its parts."""
        return [*self.parts, self.task]


_READER: TypeAdapter[Provenance] = TypeAdapter(Provenance)


def as_text(record: Provenance, secrets: tuple[str, ...] = ()) -> str:
    """The record as JSON in one line; `secrets` are taken out wherever they stand."""
    text = json.dumps(asdict(record), ensure_ascii=False, separators=(",", ":"))
    for secret in secrets:
        text = text.replace(json.dumps(secret, ensure_ascii=False)[1:-1], REDACTED)
    return text


def read_provenance(path: Path) -> Provenance:
    """How a file was made. Raises InvalidInput when it does not say, or in a way that this version does not know;
    InvalidMedia when the file is missing or damaged."""
    for text in embedded_texts(path):
        values = _ours(text)
        if values is not None:
            return _parsed(values, path)
    raise InvalidInput(
        f"{path.name} does not say how it was made: it is no output of this project, or another program has "
        "written it anew without its metadata"
    )


def _ours(text: str) -> dict[str, Any] | None:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) and values.get("format") == FORMAT else None


def _parsed(values: Mapping[str, Any], path: Path) -> Provenance:
    if _deeper(values, MAX_DEPTH):
        raise InvalidInput(f"the metadata of {path.name} are nested more than {MAX_DEPTH} deep, as none of ours are")
    if values.get("version") != VERSION:
        raise InvalidInput(
            f"{path.name} has metadata of version {values.get('version')!r}, and this version of the project reads "
            f"version {VERSION}; use the one that made it{_made_by(values)}"
        )
    try:
        return _READER.validate_python(values)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise InvalidInput(f"the metadata of {path.name} are damaged: {where}: {problem['msg']}") from None


def _deeper(value: Any, depth: int) -> bool:
    """Whether JSON is nested deeper than so many levels."""
    level = [value]
    while level and depth:
        inner = (each.values() if isinstance(each, Mapping) else each for each in level)
        level = [each for values in inner for each in values if isinstance(each, Mapping | list)]
        depth -= 1
    return bool(level)


def _made_by(values: Mapping[str, Any]) -> str:
    versions = values.get("versions")
    made = versions.get(DISTRIBUTION) if isinstance(versions, Mapping) else None
    return f" ({DISTRIBUTION} {made})" if made else ""


@lru_cache(maxsize=1)
def versions() -> Mapping[str, str]:
    """Of this project and the libraries that it works with, as installed."""
    found = {}
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def tool() -> str:
    """What files say made them."""
    return f"Headless-Wan2GP {versions().get(DISTRIBUTION, '')}".strip()
