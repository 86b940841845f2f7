"""A row's parameters without what only one machine knows, and back: a file's path gives way to its name and digest."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from source.errors import InvalidInput
from source.logs import redact_values
from source.media.download import url_scheme
from source.params.base import BOOKKEEPING, check_plain
from source.provenance.record import FileNote

#: what a text stands for: files, the name of a LoRA, or (None) itself
Meaning = list[FileNote] | FileNote | str | None

#: names of parameters whose values are words, whatever they look like
_WORDS = re.compile(r"prompt|caption|instruction|text_(before|after)|^text$", re.IGNORECASE)
#: but those of the places of such
_PLACES = re.compile(r"(url|uri|path|file|folder|dir)s?$", re.IGNORECASE)
#: between the files of a text that names several
_SEPARATORS = re.compile(r"[,;\n]")
#: a longer text is no name of a file
MAX_PATH = 4096
#: stands, as the one key of an object, where a text of JSON stood that names files
_JSON_TEXT = "json_text"
#: of a row alone: what a replay brings and what the row's own run does not need again
PINNED_SEEDS = "_seeds"
_NOTE_KEYS = {"name", "sha256"}


def portable(params: Mapping[str, Any], meaning: Callable[[str], Meaning]) -> dict[str, Any]:
    """The parameters with every file as `{"name", "sha256"}`, every LoRA as its name, and no secrets.

    `meaning` says what a text stands for. What front ends wrote for themselves is left out where it names a place.
    """
    kept = {name: value for name, value in params.items() if name != PINNED_SEEDS}
    made = {
        name: value
        for name, value in _portable(kept, meaning).items()
        if not (name in BOOKKEEPING and _holds_files(value))
    }
    redacted: dict[str, Any] = redact_values(made)
    return redacted


def _portable(value: Any, meaning: Callable[[str], Meaning]) -> Any:
    if isinstance(value, str):
        inner = _json_in(value)
        return _written(value, meaning(value)) if inner is None else _text_of_json(value, inner, meaning)
    if isinstance(value, list | tuple):
        return [_portable(item, meaning) for item in value]
    if isinstance(value, Mapping):
        return {_key(name, meaning): _inner(str(name), item, meaning) for name, item in value.items()}
    return value


def _json_in(text: str) -> Any:
    """What a text of JSON (a workflow of ComfyUI) holds; None for any other text, and for what no parameter holds."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        found = json.loads(text)
        check_plain({"": found})
        return found
    except (ValueError, RecursionError, InvalidInput):
        return None


def _text_of_json(text: str, inner: Any, meaning: Callable[[str], Meaning]) -> Any:
    made = redact_values(_portable(inner, meaning))
    return text if made == inner else {_JSON_TEXT: made}


def _inner(name: str, item: Any, meaning: Callable[[str], Meaning]) -> Any:
    return _words(item, meaning) if _WORDS.search(name) and not _PLACES.search(name) else _portable(item, meaning)


def _words(item: Any, meaning: Callable[[str], Meaning]) -> Any:
    """Words stay, whatever they look like; what is more than words among them does not."""
    if isinstance(item, list | tuple):
        return [_words(each, meaning) for each in item]
    return item if isinstance(item, str) and _json_in(item) is None else _portable(item, meaning)


def _key(name: Any, meaning: Callable[[str], Meaning]) -> str:
    """LoRAs may be keys: `additional_loras`."""
    found = meaning(str(name))
    if isinstance(found, FileNote):
        return found.name
    if isinstance(found, list):
        return ",".join(each.name for each in found)
    return found if isinstance(found, str) else str(name)


def _written(text: str, found: Meaning) -> Any:
    if isinstance(found, FileNote):
        return asdict(found)
    if isinstance(found, list):
        return [asdict(each) for each in found]
    return text if found is None else found


def _holds_files(value: Any) -> bool:
    return bool(notes_in(value))


def notes_in(value: Any) -> list[FileNote]:
    """The files that portable parameters name, in order, each once."""
    found: dict[FileNote, None] = {}
    _collect(value, found)
    return list(found)


def _collect(value: Any, found: dict[FileNote, None]) -> None:
    if (note := as_note(value)) is not None:
        found[note] = None
    elif isinstance(value, Mapping):
        for item in value.values():
            _collect(item, found)
    elif isinstance(value, list):
        for item in value:
            _collect(item, found)


def places_in(params: Mapping[str, Any]) -> list[str]:
    """The paths and addresses that parameters name, which those of `portable` never do."""
    found: list[str] = []

    def meaning(text: str) -> Meaning:
        text = text.strip()
        found.extend([text] if is_place(text) else filter(is_place, several(text)))
        return None

    _portable(params, meaning)
    return found


def several(text: str) -> list[str]:
    """The files that a text names, two at least: there is an address among them, or they all look like files.

    An address may hold separators itself: what follows it is a file only if it is a place too.
    """
    parts = [part.strip() for part in _SEPARATORS.split(text) if part.strip()]
    if url_scheme(text) is not None:
        named = all(map(is_place, parts))
    else:
        named = any(url_scheme(part) is not None for part in parts) or all(map(_looks_like_file, parts))
    return parts if named and len(parts) > 1 else []


def _looks_like_file(text: str) -> bool:
    return is_place(text) or bool(PurePosixPath(text).suffix)


def is_place(text: str) -> bool:
    """Whether a text is an address, or an absolute path here or on another kind of machine."""
    if url_scheme(text) is not None:
        return True
    return len(text) <= MAX_PATH and not {"\n", "\0"} & set(text) and _is_absolute(text)


def _is_absolute(text: str) -> bool:
    return text.startswith(("/", "~", "\\\\")) or PureWindowsPath(text).is_absolute()


def as_note(value: Any) -> FileNote | None:
    """The file that a JSON value stands for; None when it stands for itself."""
    if not isinstance(value, Mapping) or set(value) != _NOTE_KEYS or not isinstance(value["name"], str):
        return None
    digest = value["sha256"]
    return FileNote(name=value["name"], sha256=digest) if digest is None or isinstance(digest, str) else None


def localised(value: Any, paths: Mapping[FileNote, str | None], names: Mapping[str, str]) -> Any:
    """Portable parameters with a path for each file, and another name for some LoRAs.

    A file whose path is None is left out, together with the name it stood under.
    """
    if (note := as_note(value)) is not None:
        return paths[note]
    if isinstance(value, Mapping) and set(value) == {_JSON_TEXT}:
        return json.dumps(localised(value[_JSON_TEXT], paths, names), ensure_ascii=False)
    if isinstance(value, Mapping):
        kept = {name: localised(item, paths, names) for name, item in value.items()}
        return {names.get(name, name): item for name, item in kept.items() if item is not None or value[name] is None}
    if isinstance(value, list):
        kept_items = [(item, localised(item, paths, names)) for item in value]
        return [made for item, made in kept_items if made is not None or item is None]
    return names.get(value, value) if isinstance(value, str) else value
