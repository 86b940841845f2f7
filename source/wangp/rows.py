"""Saved settings of Wan2GP as rows of the type `wgp`: one row for each run that they would have been there.

The names and values are understood by `headless.bridge.keywords`, which also speaks to checkouts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headless.bridge.keywords import EACH_LINE, EACH_PARAGRAPH, prompt_kind, understood
from headless.options import GenerationOptions, media_fields
from source.enqueue import check_task
from source.errors import InvalidInput, InvalidMedia, UnknownModel
from source.media.download import url_scheme
from source.settings import Settings
from source.wangp.media import MediaOfRows
from source.wangp.saved import Entry, Saved
from Wan2GP.definitions import Definitions, load_definitions

TASK_TYPE = "wgp"
#: the first line of a prompt that was rewritten already
ENHANCED = "!enhanced!"
#: first letters of a line of a prompt: a remark, and a template that Wan2GP fills in
_REMARK, _TEMPLATE = "#", "!"
_SECONDS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*s\s*")


@dataclass(frozen=True)
class Row:
    """A row to add."""

    #: where it comes from, for people
    entry: str
    params: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass
class Rows:
    """Makes rows of what was saved.

    given     media that the settings lack, or have elsewhere: setting -> path
    """

    settings: Settings
    media: MediaOfRows
    given: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def of(self, saved: Saved) -> list[Row]:
        """A row for each run. Raises InvalidInput and InvalidMedia, which name entry and setting."""
        folders = (self.settings.finetunes,) if self.settings.finetunes.is_dir() else ()
        models = load_definitions(folders)
        return [row for entry in saved.entries for row in self._of_entry(entry, saved, models)]

    def _of_entry(self, entry: Entry, saved: Saved, models: Definitions) -> Iterator[Row]:
        try:
            model = _model(entry.settings, models)
            settings, notes = self._prepared(entry.settings, saved, models[model].architecture.fps)
            prompts = _prompts(settings)
            for number, prompt in enumerate(prompts, 1):
                meant = understood({**settings, "prompt": prompt})
                params = {"model": model, **meant.options.to_engine()}
                check_task(TASK_TYPE, params)
                name = f"{entry.name}, prompt {number}" if len(prompts) > 1 else entry.name
                yield Row(name, params, (*notes, *meant.notes))
        except InvalidInput as error:
            raise type(error)(f"{entry.name}: {error}") from None

    def _prepared(self, settings: Mapping[str, Any], saved: Saved, fps: int) -> tuple[dict[str, Any], list[str]]:
        """Settings whose media rows may name, and whose length is in frames; what was changed on the way."""
        made, notes = dict(settings), []
        if isinstance(length := made.get("video_length"), str) and (match := _SECONDS.fullmatch(length)):
            made["video_length"] = round(float(match[1]) * fps) + 1
            notes.append(f"video_length {length.strip()} became {made['video_length']} frames at {fps} a second")
        for name, kind in media_fields(GenerationOptions).items():
            value = list(self.given[name]) if name in self.given else made.get(name)
            if value not in (None, "", []):
                made[name] = self._media(name, kind, value, saved)
        made["activated_loras"] = [_lora(each, notes) for each in made.get("activated_loras") or ()]
        return made, notes

    def _media(self, name: str, kind: str, value: Any, saved: Saved) -> str | list[str]:
        """A reference, or a list of them where the setting takes several. Raises InvalidInput that names it."""
        listed = value if isinstance(value, list) else [value]
        if not all(isinstance(each, str) for each in listed):
            raise InvalidInput("must be the name of a file, or a list of such", field=name)
        several = name == "image_refs"
        if len(listed) > 1 and not several:
            raise InvalidInput(f"names {len(listed)} files, and a row takes one: save the queue, not the settings, so "
                               "that each is a task of its own", field=name)  # fmt: skip
        try:
            found = [self._reference(each, kind, saved, ours=name in self.given) for each in listed]
        except InvalidMedia as error:
            raise InvalidMedia(str(error), field=name) from None
        except InvalidInput as error:
            raise InvalidInput(str(error), field=name) from None
        return found if several else found[0]

    def _reference(self, text: str, kind: str, saved: Saved, *, ours: bool) -> str:
        if url_scheme(text) is not None:
            return text
        if not ours and "|" in text:
            raise InvalidInput(f"{text!r} is a part of a file, which no row can name: cut it out")
        if saved.folder is None and not ours:
            return self.media.unpacked(text, saved.member(text), kind)
        folder = Path.cwd() if ours or saved.folder is None else saved.folder
        return self.media.on_disk(folder / Path(text).expanduser(), kind)


def _model(settings: Mapping[str, Any], models: Definitions) -> str:
    """The model's name here. Raises UnknownModel, InvalidInput."""
    for name in ("model_type", "base_model_type"):
        if isinstance(value := settings.get(name), str) and value:
            try:
                return models[value].id
            except UnknownModel as error:
                hint = "its own definition (JSON) can be put into the folder FINETUNES"
                raise UnknownModel(f"{str(error).removeprefix('model: ')} {hint}", field=name) from None
    raise InvalidInput("is missing: these settings do not say which model they are for", field="model_type")


def _prompts(settings: Mapping[str, Any]) -> list[str]:
    """The prompt of each run that Wan2GP would have made. Raises InvalidInput."""
    text = settings.get("prompt", "")
    if not isinstance(text, str):
        raise InvalidInput("must be a text", field="prompt")
    lines = [line for line in text.splitlines() if line.strip() != ENHANCED]
    if any(line.startswith(_TEMPLATE) for line in lines):
        raise InvalidInput("has a template (a line that begins with !); write out what it stands for", field="prompt")
    kind = prompt_kind(settings)
    units = {EACH_LINE: r"\n", EACH_PARAGRAPH: r"\n\s*\n"}
    if kind not in units:
        return ["\n".join(lines).strip()]
    kept = "\n".join(line for line in lines if not line.startswith(_REMARK))
    return [unit.strip() for unit in re.split(units[kind], kept) if unit.strip()] or [""]


def _lora(name: Any, notes: list[str]) -> Any:
    """A path of the machine that it was saved on is of no use elsewhere."""
    if not isinstance(name, str) or url_scheme(name) is not None or not re.match(r"/|~|[A-Za-z]:\\|\\\\", name):
        return name
    short = re.split(r"[/\\]", name)[-1]
    notes.append(f"activated_loras: {name} became {short}; a worker's folder of LoRAs (LORAS_DIR) has to hold it")
    return short
