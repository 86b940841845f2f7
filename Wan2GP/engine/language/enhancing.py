"""The prompt of a run, written by a prompt enhancer before its model reads it (`prompt_enhancer`). No torch here.

What was written is kept beside the state of a run that can be taken up: the run goes on with the prompt it began with.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from Wan2GP.definitions import Definitions, ModelDefinition
from Wan2GP.engine.beside import Beside
from Wan2GP.engine.families import Cancel
from Wan2GP.engine.language.prompt_enhancer import MAX_PICTURES, PromptEnhancer, Wish, check_wish, parse_letters
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.errors import EmptyAnswer, InvalidInput, ModelUnavailable, Unsupported
from Wan2GP.media import publishing
from Wan2GP.parameters import PARAMETERS

logger = logging.getLogger(__name__)

FIELD, MODEL_FIELD = "prompt_enhancer", "prompt_enhancer_model"
#: the setting under which the record of a file tells the prompt that its model read
WRITTEN = "enhanced_prompt"
#: the architecture of the rows that can be named
ARCHITECTURE = "prompt_enhancer"

_KEPT = "enhanced_prompt.json"


@dataclass(frozen=True)
class _Written:
    """A prompt, and what the user should know of how it came."""

    prompt: str
    notes: tuple[str, ...] = ()


def check_enhancing(
    request: GenerationRequest, definitions: Definitions, unavailable: Callable[[str], str | None]
) -> None:
    """Raises before anything is loaded: InvalidInput for letters without what they use, Unsupported for a model that is
    no prompt enhancer, ModelUnavailable with the command that fetches it."""
    wish, _ = _wish(request)
    if wish is None:
        return
    definition = definitions[_named(request)]
    if definition.architecture_name != ARCHITECTURE:
        known = ", ".join(name for name in definitions if definitions[name].architecture_name == ARCHITECTURE)
        raise Unsupported(f"{definition.id} is no prompt enhancer; there are: {known}", field=MODEL_FIELD)
    reason = unavailable(definition.id)
    if reason is not None:
        raise ModelUnavailable(f"{FIELD} {wish.letters}: {reason}")
    check_wish(definition, wish)


def enhanced(request: GenerationRequest, beside: Beside, cancel: Cancel) -> GenerationRequest:
    """The request with the prompt that its enhancer wrote; as it is where none is asked for."""
    wish, notes = _wish(request)
    if wish is None:
        return request
    definition = beside.definitions[_named(request)]
    key = _key(wish, definition)
    written = _kept(request.checkpoint, key)
    if written is None:
        written = _written(wish, definition, request, beside, cancel)
        _keep(written, request.checkpoint, key)
    return replace(
        request,
        prompt=written.prompt,
        settings={**request.settings, WRITTEN: written.prompt},
        notes=(*request.notes, *notes, *written.notes),
    )


def _named(request: GenerationRequest) -> str:
    return str(request.settings[MODEL_FIELD] or PARAMETERS[MODEL_FIELD].default)


def _written(
    wish: Wish, definition: ModelDefinition, request: GenerationRequest, beside: Beside, cancel: Cancel
) -> _Written:
    with beside.model(definition.id) as enhancer:
        assert isinstance(enhancer, PromptEnhancer), "its architecture says so"
        try:
            prompt = enhancer.written(wish, request, beside.report, cancel)
        except EmptyAnswer as error:
            return _Written(request.prompt, (f"the prompt was not enhanced: {error}",))
    return _Written(prompt, (f"prompt enhanced: {prompt}",))


def _wish(request: GenerationRequest) -> tuple[Wish | None, tuple[str, ...]]:
    """What is asked of the enhancer, and a note where that is less than the letters say; None where nothing is."""
    letters = parse_letters(request.settings[FIELD])
    if not letters or not request.definition.architecture.draws_from_text:
        return None, ()
    shown = _shown(request)
    given = ("T" if request.prompt.strip() else "") + ("I" if shown else "")
    used = "".join(letter for letter in letters if letter in given)
    if not used:
        lacking = "the prompt is empty" if letters == "T" else "no image is given"
        raise InvalidInput(f"{letters} asks for what is not there: {lacking}", field=FIELD)
    lost = {"T": "the prompt is empty", "I": "no image is given"}
    notes = tuple(f"{FIELD} {letters} became {used}: {lost[letter]}" for letter in letters if letter not in used)
    labels, pictures = tuple(label for label, _ in shown), tuple(picture for _, picture in shown)
    return Wish(request.prompt, pictures, labels, used, request.image_output), notes


def _shown(request: GenerationRequest) -> list[tuple[str, Frame]]:
    """The pictures of a request and what each is, the most telling first."""
    found = [("first frame", request.image_start)] if request.image_start is not None else []
    found += [("last frame", end) for end in request.image_ends[-1:]]
    found += [("picture to change", request.image_guide)] if request.image_guide is not None else []
    found += [(f"reference {number}", each) for number, each in enumerate(request.references, start=1)]
    return [(label, picture) for label, picture in found if picture is not None][:MAX_PICTURES]


def _key(wish: Wish, definition: ModelDefinition) -> str:
    """What decides the prompt that is written."""
    rows = [[part.id, dict(part.model)] for part in (definition, *definition.parts.values())]
    pictures = [hashlib.sha256(picture.tobytes()).hexdigest() for picture in wish.pictures]
    told = [wish.prompt, wish.letters, wish.labels, wish.still, pictures, rows]
    return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()


def _kept(folder: Path | None, key: str) -> _Written | None:
    """What an interrupted run of the same wish wrote."""
    if folder is None:
        return None
    try:
        found = json.loads((folder / _KEPT).read_text(encoding="utf-8"))
        return _Written(found["prompt"], tuple(found["notes"])) if found["key"] == key else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.info("the prompt of an interrupted run cannot be read, it is written anew: %s", error)
        return None


def _keep(written: _Written, folder: Path | None, key: str) -> None:
    """A full disk is no reason to fail: what cannot be kept is written again when the run is taken up."""
    if folder is None:
        return
    text = json.dumps({"key": key, "prompt": written.prompt, "notes": written.notes})
    try:
        with publishing(folder / _KEPT) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        logger.warning("the enhanced prompt cannot be kept: %s", error)
