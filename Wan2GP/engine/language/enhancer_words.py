"""What a model is told that shall write a prompt, in words of our own. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

#: by whether the result is a still
_ROLE = {
    False: "You write prompts for a model that makes short videos.",
    True: "You write prompts for a model that makes single pictures.",
}
#: letters -> what is given; {shown} is how the pictures come
_GIVEN = {
    "T": "You are given an idea. Turn it into one prompt: keep all that the idea says, and add only what fits it.",
    "I": "You are {shown}. Write the prompt that makes what they show, and what follows from it.",
    "TI": (
        "You are given an idea, and you are {shown}. The idea says what is wanted, the pictures show how it looks: "
        "keep both, and where they contradict each other keep to the idea."
    ),
}
_SHOWN = {True: "shown pictures", False: "told what pictures show"}
_CONTENT = {
    False: (
        "Say who or what is seen and where, in which light and style; then what moves, how, and in which order; then "
        "what the camera does. It is one shot of a few seconds, without a cut."
    ),
    True: (
        "Say who or what is seen and where, how the picture is composed, in which light, colours and style. It is one "
        "moment: nothing in it moves, and the camera does not either."
    ),
}
_FORM = (
    "Write one paragraph of plain English, in the present tense, of 60 to 120 words. Answer with the paragraph alone: "
    "no heading, no list, no quotation marks, and not a word about the task."
)


def role(letters: str, still: bool, sees: bool) -> str:
    """The part that the model plays. `letters` are T, I or TI; `sees` is whether it is shown pictures itself."""
    return " ".join([_ROLE[still], _GIVEN[letters].format(shown=_SHOWN[sees]), _CONTENT[still], _FORM])


def message(letters: str, prompt: str, labels: Sequence[str], captions: Sequence[str]) -> str:
    """What the user says: the idea where T is among the letters, and what each picture is and shows.

    Without captions the pictures stand before the message, and it names them in their order.
    """
    lines = [f"Idea: {prompt}"] if "T" in letters else []
    if captions:
        lines += [f"The {label}: {caption}" for label, caption in zip(labels, captions, strict=True)]
    elif labels:
        lines.append(f"The pictures are, in this order: {', '.join(f'the {label}' for label in labels)}.")
    return "\n".join(lines)


def cleaned(answer: str) -> str:
    """An answer as a prompt: a line of what can be printed, no quotation marks around it; empty if it has no word."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in answer).split())
    for opening, closing in (('"', '"'), ("'", "'"), ("“", "”")):
        if len(text) > 1 and text.startswith(opening) and text.endswith(closing):
            text = text[1:-1].strip()
    return text if any(letter.isalnum() for letter in text) else ""
