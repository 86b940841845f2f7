"""From our options to the settings of a checkout, whichever version it is, and from settings that it saved to ours.

our table of defaults <- the checkout's own for the model <- the options; names of other versions are translated
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from headless.generation import ModelInfo
from headless.options import GenerationOptions
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.parameters import CONTENT, PARAMETERS, PLUMBING, asked

#: parameters of some versions that neither ours nor the newest have
_ELSEWHERE: Mapping[str, Any] = {
    "pace": 0.5, "exaggeration": 0.5, "seedvc_voice_sample": None, "seedvc_voice_sample2": None,
}  # fmt: skip

#: names of one and the same setting, the older first
_RENAMED = (
    ("slg_switch", "perturbation_switch"),
    ("slg_layers", "perturbation_layers"),
    ("slg_start_perc", "perturbation_start_perc"),
    ("slg_end_perc", "perturbation_end_perc"),
    ("MMAudio_prompt", "postprocess_audio_prompt"),
    ("MMAudio_neg_prompt", "postprocess_audio_neg_prompt"),
    ("seedvc_voice_sample", "replace_voice_sample"),
    ("seedvc_voice_sample2", "replace_voice_sample2"),
)
_OTHER_NAME = {**dict(_RENAMED), **{newer: older for older, newer in _RENAMED}}
#: a sound track made by MMAudio: a switch in older versions, one of several makers in newer ones
_MMAUDIO_SWITCH, _SOUND_MAKER, _MMAUDIO = "MMAudio_setting", "postprocess_audio", "mmaudio"
#: what becomes of a prompt of several lines, in letters -> as older versions count it; the whole text is one prompt
_WHOLE_TEXT = "FG"
_PROMPT_KINDS = {"W": 1, "PW": 1, _WHOLE_TEXT: 2}
#: what becomes of such a prompt when settings are queued: each line, or each paragraph, is a run of its own
EACH_LINE, EACH_PARAGRAPH = "G", "PG"
_SAVED_KINDS: Mapping[Any, str] = {
    0: EACH_LINE, 1: "W", 2: _WHOLE_TEXT, "": _WHOLE_TEXT, "P": EACH_PARAGRAPH,
}  # fmt: skip
#: what saved settings say of themselves and of the run that they are of: no settings
_ABOUT = frozenset({
    "type", "settings_version", "base_model_type", "model_type", "creation_date", "creation_timestamp",
    "generation_time", "prompts", "seeds", "id",
})  # fmt: skip
#: the one kind of run that our tasks are: others redo what was made before
_GENERATING = ("", "generate", None)
#: texts that a checkout may keep as numbers
_TEXTS = frozenset({"keep_frames_video_source", "keep_frames_video_guide", "frames_positions"})
#: letters that announce media: those of each setting
_LETTERS: Mapping[str, Mapping[str, str]] = {
    "image_prompt_type": {"image_start": "S", "image_end": "E", "video_source": "V"},
    "video_prompt_type": {
        "video_guide": "V", "image_guide": "V", "video_mask": "A", "image_mask": "A", "image_refs": "I",
    },
    "audio_prompt_type": {"audio_guide": "A", "audio_guide2": "B"},
}  # fmt: skip
#: of video_prompt_type: without it a mask counts for nothing there, while our own engine takes one that is given
_MASKED = ("video_prompt_type", "A")


@dataclass(frozen=True)
class Settings:
    """What a run is called with."""

    values: Mapping[str, Any]
    #: the names among them that are image files
    images: tuple[str, ...]
    #: what was asked for and changed or left out
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Understood:
    """What settings that a checkout saved mean here."""

    options: GenerationOptions
    #: what was said there and has no counterpart
    notes: tuple[str, ...]


def understood(settings: Mapping[str, Any]) -> Understood:
    """Settings of any version as options. What is empty is left to the model; media keep the names that they have.

    Raises InvalidInput, which names the setting: for a wrong value, for media that nothing here takes, and for runs
    that are no generation.
    """
    if settings.get("mode") not in _GENERATING:
        raise InvalidInput(f"{settings['mode']!r} works on what was made before, and makes nothing new", field="mode")
    given = {
        name: value
        for name, value in settings.items()
        if name not in _ABOUT | PLUMBING and not name.startswith("_") and value not in (None, "", [], {}, ())
    }
    here = translated(given, frozenset(GenerationOptions.model_fields))
    notes = [*_without_counterpart(given, here), *_fit_to_options(here)]
    return Understood(GenerationOptions.parse(here), tuple(notes))


def prompt_kind(settings: Mapping[str, Any]) -> str:
    """What becomes of a prompt of several lines, in letters: EACH_LINE, EACH_PARAGRAPH, W, PW, or the whole text."""
    kind = settings.get("multi_prompts_gen_type", PARAMETERS["multi_prompts_gen_type"].default)
    return _SAVED_KINDS.get(kind, str(kind))


def _without_counterpart(given: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    notes = []
    for name, value in given.items():
        if name in here or _OTHER_NAME.get(name) in here:
            continue
        if {name, _OTHER_NAME.get(name)} & CONTENT:
            raise InvalidInput("nothing here takes it; take it out of the settings", field=name)
        silent = name in PARAMETERS and name not in asked({name: value})
        if not silent and value and value != _ELSEWHERE.get(name):
            notes.append(f"{name} is left out: there is no such setting here")
    return notes


def _fit_to_options(here: dict[str, Any]) -> list[str]:
    """Values as our options have them; what was left out."""
    if (kind := here.pop("multi_prompts_gen_type", None)) in ("W", "PW", 1):
        here["multi_prompts_gen_type"] = _SAVED_KINDS.get(kind, kind)
    for name in _TEXTS & set(here):
        here[name] = str(here[name])
    for name, letters in _LETTERS.items():
        present = str(here.get(name, ""))
        missing = "".join(dict.fromkeys(
            letter for media, letter in letters.items() if media in here and letter not in present
        ))  # fmt: skip
        if missing or present:
            here[name] = present + missing
    profile = here.get("override_profile")
    if not isinstance(profile, float) or profile.is_integer():
        return []
    del here["override_profile"]
    return [f"override_profile {profile} is left out: profiles here are 1 to 5"]


def check_options(options: GenerationOptions, parameters: Iterable[str]) -> tuple[str, ...]:
    """A note for each setting asked for that the checkout does not have. Raises Unsupported for media and LoRAs."""
    known = _known(parameters)
    notes = []
    for name in sorted(asked(options.to_engine())):
        if name in known or _OTHER_NAME.get(name) in known:
            continue
        if name in CONTENT:
            raise Unsupported("the checkout's version does not take it", field=name)
        notes.append(f"{name} is ignored: the checkout's version does not have it")
    return tuple(notes)


def settings_of(
    options: GenerationOptions, model: ModelInfo, *, parameters: Iterable[str], defaults: Mapping[str, Any]
) -> Settings:
    """Everything that a run is called with, by the checkout's names; what it can do without is left out.

    parameters  names that its generation function takes; none: it cannot be asked, so all that there are
    defaults    its own settings of the model
    Raises Unsupported.
    """
    known = _known(parameters)
    notes = [*check_options(options, known)]
    ours = {name: parameter.default for name, parameter in PARAMETERS.items() if name not in PLUMBING}
    given = options.to_engine()
    values = {
        name: list(value) if isinstance(value, tuple) else value
        for settings in (_ELSEWHERE, ours, defaults, {"prompt": ""}, given)
        for name, value in translated(settings, known).items()
    }
    _fit_to_model(values, given, model, notes)
    _announce_media(values, given)
    _fit_prompt(values, given, defaults)
    images = (name for name, kind in options.media().items() if kind == "image" and name in values)
    return Settings(values, tuple(images), tuple(notes))


def translated(settings: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The settings among `known`, those of other versions under the names that they have here."""
    here: dict[str, Any] = {}
    for name, value in settings.items():
        other = _OTHER_NAME.get(name, "")
        if name in known:
            here[name] = value
        elif other in known and other not in settings:
            here[other] = value
        elif name == _MMAUDIO_SWITCH and _SOUND_MAKER in known and value and not settings.get(_SOUND_MAKER):
            here[_SOUND_MAKER] = _MMAUDIO
        elif name == _SOUND_MAKER and _MMAUDIO_SWITCH in known and value == _MMAUDIO:
            here[_MMAUDIO_SWITCH] = 1
    return here


def _known(parameters: Iterable[str]) -> frozenset[str]:
    return frozenset(parameters) - PLUMBING or frozenset(PARAMETERS) - PLUMBING


def _fit_to_model(values: dict[str, Any], given: Mapping[str, Any], model: ModelInfo, notes: list[str]) -> None:
    """Image models make images; video models begin at some number of frames, of which a still is the first."""
    if model.image_output:
        values["image_mode"] = given.get("image_mode") or values.get("image_mode") or 1
        values["video_length"] = 1
    elif not values.get("image_mode") and (length := values.get("video_length") or 0) < model.min_frames:
        values["video_length"] = model.min_frames
        if length > 1:
            notes.append(f"video_length {length} became {model.min_frames}, the least of {model.name}")


def _announce_media(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    """The letters of the media that are given, where nobody wrote the letters themselves; that of a mask always."""
    for setting, letters in _LETTERS.items():
        if setting not in values:
            continue
        present, chosen = str(values[setting] or ""), setting in given
        missing = (
            letter
            for media, letter in letters.items()
            if given.get(media) and letter not in present and (not chosen or (setting, letter) == _MASKED)
        )
        values[setting] = present + "".join(dict.fromkeys(missing))


def _fit_prompt(values: dict[str, Any], given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """One task is one prompt. Older versions count the kinds, and know no paragraphs: each becomes one line."""
    name = "multi_prompts_gen_type"
    if name not in values:
        return
    asked_for = str(given.get(name, ""))
    kind = asked_for if asked_for in _PROMPT_KINDS else _WHOLE_TEXT
    counted = isinstance(defaults.get(name), int)
    values[name] = _PROMPT_KINDS[kind] if counted else kind
    if counted and kind == "PW":
        paragraphs = re.split(r"\n\s*\n", str(values["prompt"]).strip())
        values["prompt"] = "\n".join(" ".join(each.split()) for each in paragraphs)
