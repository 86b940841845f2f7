"""What a vision-language model is asked about each shot, what is made of its answers, and the row that asks. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from source.store.types import NewTask, Task

TASK_TYPE = "enhance_prompts"
CHILD_KEY = f"{TASK_TYPE}:0"
DEFAULT_MODEL = "qwen2_5_vl_7b"

Kind = Literal["travel", "join"]

#: most pictures of a shot: a travel's start and end, the frames around a join
MOST_PICTURES: Mapping[Kind, int] = {"travel": 2, "join": 4}

#: the prompt of a shot that has none of its own, when the model gave none either
FALLBACK = "cinematic transition"
#: stands for the user's idea when there is none
_NO_IDEA = "the things in the picture move and change shape while the camera moves with them"

_SENTENCES = (
    "Answer with exactly three sentences of English and nothing else. The first sentence tells the primary motion and "
    "what the camera does. The second tells which things move and how. The third tells the fine details of the motion: "
    "hair, cloth, light, water, dust, and the like."
)
_PAIR = (
    "The picture shows two frames of one video side by side. The left one, with the green border, is the start; the "
    "right one, with the red border, is the end. Between them lie {seconds} seconds. Describe the motion that leads "
    "from the start to the end in that time. The borders are not a part of the video; do not speak of them. "
    + _SENTENCES
)
_SINGLE = (
    "The picture is the first frame of a video of {seconds} seconds. Describe a natural motion that begins there and "
    "fits into that time. " + _SENTENCES
)
_JOIN = (
    "The pictures are frames of a video in the order of time. Between the middle ones {seconds} seconds are missing. "
    "Describe what happens in them, so that what comes before flows into what comes after: the motion, the change of "
    "the scene, what the camera does. Answer with the prompt for a video model alone, of at most 50 words, without an "
    "introduction."
)

#: opening quotation marks, and what closes each
_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019", "\u00ab": "\u00bb"}
_PREFIX = re.compile(
    r"\A(?:(?:sure|certainly|of course|okay)\W+)?"
    r"(?:here (?:is|'s)[^:\n]{0,60}|(?:the |enhanced |video |final )*prompt|answer|output)\s*:\s*",
    re.I,
)


@dataclass(frozen=True)
class Picture:
    """A picture that the model is shown."""

    #: path or URL
    path: str
    #: a frame of a video, negative from its end; None: an image
    frame: int | None = None


@dataclass(frozen=True)
class Shot:
    """What a prompt is wanted for: a segment of a travel, or a join."""

    #: the user's own; may be empty
    prompt: str
    num_frames: int
    fps: float
    #: of a travel: the start, or start and end; of a join: up to four frames in the order of time
    pictures: tuple[Picture, ...]
    #: number of the segment or join; None: its place among the shots
    index: int | None = None


def prompts_task(row: Task, shared: Mapping[str, Any], *, kind: Kind, shots: Sequence[Shot], model: str) -> NewTask:
    """The child of `row` that asks `model` about the shots that need a prompt; give at least one.

    `shared` is what every child carries. What the task found is read by `source.prompting.enhanced_prompt`.
    """
    numbered = [
        asdict(shot) | {"index": place if shot.index is None else shot.index} for place, shot in enumerate(shots)
    ]
    return NewTask.child(row, CHILD_KEY, TASK_TYPE, {**shared, "kind": kind, "shots": numbered, "model_name": model})


def instruction(kind: Kind, shot: Shot) -> str:
    """The text that goes to the model with the pictures of a shot; its last line is the user's idea."""
    template = _JOIN if kind == "join" else _PAIR if len(shot.pictures) == 2 else _SINGLE
    idea = " ".join(shot.prompt.split()) or _NO_IDEA
    return f"{template.format(seconds=f'{shot.num_frames / shot.fps:.1f}')}\nThe idea of the person who made it: {idea}"


def cleaned(answer: str) -> str:
    """The prompt in an answer: on one line, without quotes around it or words that announce it."""
    text = " ".join(answer.replace("**", " ").split())
    before = None
    while text != before:
        before, text = text, _unquoted(_PREFIX.sub("", text, count=1)).strip()
    return text


def _unquoted(text: str) -> str:
    """Without the quotation marks around the whole; those of a word inside stay."""
    opening, inside, closing = text[:1], text[1:-1], text[-1:]
    whole = len(text) > 1 and _QUOTES.get(opening) == closing
    return inside if whole and opening not in inside and closing not in inside else text


def kept_prompt(shot: Shot) -> str:
    """The prompt of a shot for which the model has none."""
    return shot.prompt.strip() or FALLBACK
