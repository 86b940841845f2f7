"""A prompt written by models: one that describes pictures, where the row names one, and one that writes.

The writer may see pictures itself; then there is no need of the other. No torch here: the parts bring it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.families import Cancel, Model, Place, Report, family
from Wan2GP.engine.language.enhancer_words import cleaned, message, role
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.errors import EmptyAnswer, InvalidInput, Unsupported

#: the parts of a row
WRITER, CAPTIONER = "writer", "captioner"
MAX_PICTURES = 4
LETTERS = ("T", "I", "TI")


@dataclass(frozen=True)
class Wish:
    """What a prompt is wanted for."""

    prompt: str
    pictures: tuple[Frame, ...]
    #: what each picture is: "first frame", "last frame", "reference" …
    labels: tuple[str, ...]
    #: T the text is used, I the pictures are, TI both
    letters: str
    #: for a single picture instead of a video
    still: bool


class PromptEnhancer:
    """Writes a prompt from `prompt`, from `image_refs`, or from both, as the letters of `prompt_enhancer` say."""

    reads = frozenset({"prompt", "image_refs", "prompt_enhancer"})

    def __init__(self, definition: ModelDefinition, place: Place, report: Report) -> None:
        """Load the parts. Raises ModelUnavailable."""
        self._interrupt = False
        self.remarks: tuple[str, ...] = ()
        self._parts: dict[str, tuple[ModelDefinition, Model]] = {}
        for name, part in definition.parts.items():
            self._parts[name] = part, _loaded(part, place, report)
        self.notes = tuple(note for _, part in self._parts.values() for note in part.notes)

    @classmethod
    def check(cls, request: GenerationRequest) -> None:
        """Raises InvalidInput for letters that ask for what was not given."""
        check_wish(request.definition, cls.wish(request))

    @staticmethod
    def wish(request: GenerationRequest) -> Wish:
        """What a request to this model itself asks for; without letters all that is given is used."""
        given = ("T" if request.prompt.strip() else "") + ("I" if request.references else "")
        letters = parse_letters(request.settings["prompt_enhancer"]) or given
        if lacking := set(letters) - set(given):
            field = "prompt" if "T" in lacking else "image_refs"
            raise InvalidInput("is missing, and prompt_enhancer asks for it", field=field)
        if not letters:
            raise InvalidInput("is missing; say what the prompt shall be about, or give image_refs", field="prompt")
        if len(request.references) > MAX_PICTURES:
            raise InvalidInput(f"takes {MAX_PICTURES} pictures at most", field="image_refs")
        labels = tuple(f"picture {number}" for number in range(1, len(request.references) + 1))
        return Wish(request.prompt, request.references, labels, letters, request.image_output)

    def generate(self, request: GenerationRequest, report: Report, cancel: Cancel) -> str:
        """The prompt; the one that was given, and a remark, where the models had no words."""
        wish = self.wish(request)
        self.remarks = ()
        try:
            return self.written(wish, request, report, cancel)
        except EmptyAnswer as error:
            if not wish.prompt.strip():
                raise
            self.remarks = (f"the prompt is as it was given: {error}",)
            return wish.prompt

    def written(self, wish: Wish, request: GenerationRequest, report: Report, cancel: Cancel) -> str:
        """The prompt for a wish; `request` is that of the run. Raises EmptyAnswer, GenerationCancelled."""
        definition, writer = self._parts[WRITER]
        sees = "references" in definition.architecture.inputs
        pictures = wish.pictures if "I" in wish.letters else ()
        labels = wish.labels if "I" in wish.letters else ()
        captions = [] if sees else [self._caption(picture, request, report, cancel) for picture in pictures]
        asked = _request(
            request,
            definition,
            prompt=message(wish.letters, wish.prompt, labels, captions),
            system_prompt=role(wish.letters, wish.still, sees),
            pictures=pictures if sees else (),
        )
        answer = writer.generate(asked, report, cancel)
        assert isinstance(answer, str), "a writer answers with text"
        if not (prompt := cleaned(answer)):
            raise EmptyAnswer(f"{definition.id} gave an empty answer")
        return prompt

    def _caption(self, picture: Frame, request: GenerationRequest, report: Report, cancel: Cancel) -> str:
        definition, captioner = self._parts[CAPTIONER]
        asked = _request(request, definition, prompt="", system_prompt="", pictures=(picture,))
        return str(captioner.generate(asked, report, cancel))

    def release(self) -> None:
        """Let go of the parts."""
        for _, part in self._parts.values():
            part.release()
        self._parts = {}


def check_wish(definition: ModelDefinition, wish: Wish) -> None:
    """Raises Unsupported where the parts of a row cannot meet a wish."""
    parts = definition.parts
    sees = CAPTIONER in parts or "references" in parts[WRITER].architecture.inputs
    if "I" in wish.letters and not sees:
        raise Unsupported(f"{definition.id} sees no pictures; leave out the letter I", field="prompt_enhancer")


def parse_letters(value: Any) -> str:
    """ "", "T", "I" or "TI", however they were written. Raises Unsupported for others."""
    text = str(value or "").strip().upper()
    if set(text) - {"T", "I"}:
        raise Unsupported(
            f"knows the letters T (use the text) and I (use the pictures), not {value!r}", field="prompt_enhancer"
        )
    return "".join(letter for letter in "TI" if letter in text)


def _request(
    request: GenerationRequest, definition: ModelDefinition, *, prompt: str, system_prompt: str, pictures: Any
) -> GenerationRequest:
    """The request to a part."""
    settings = dict(request.settings) | {"system_prompt": system_prompt}
    return replace(
        request, definition=definition, prompt=prompt, references=pictures, image_output=False, settings=settings
    )


def _loaded(part: ModelDefinition, place: Place, report: Report) -> Model:
    assert part.architecture.engine is not None, "the parts of an available model are available"
    return family(part.architecture.engine)(part, place, report)
