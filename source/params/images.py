"""Parameters of the image tasks: the pictures that are given, and how they shall be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AliasChoices, BeforeValidator, Field, StringConstraints, model_validator

from headless.options import GenerationOptions, ImageRef, size_of
from source.errors import InvalidInput
from source.params.generating import GenerateParams, GeneratingParams

#: an address or path of a picture
Picture = Annotated[ImageRef, StringConstraints(strip_whitespace=True, min_length=1, max_length=4096)]
#: front ends write an empty text for a picture that was not chosen
MaybePicture = Annotated[Picture | None, BeforeValidator(lambda value: value if value != "" else None)]
Strength = Annotated[float, Field(ge=0, le=10)]

#: sizes of qwen_image_hires by their aspect
ASPECTS = {
    "1:1": "1328x1328",
    "16:9": "1664x928",
    "9:16": "928x1664",
    "4:3": "1472x1104",
    "3:4": "1104x1472",
    "3:2": "1584x1056",
    "2:3": "1056x1584",
}


class QwenParams(GeneratingParams):
    """What all image tasks of Qwen-Image take. The task type's LoRAs stand before the row's own."""

    resolution: Annotated[str, BeforeValidator(lambda value: _any_size(value))] | None = Field(
        None,
        description="WIDTHxHEIGHT in pixels; scaled down to the type's limit, then floored to the model's pixel block",
        validation_alias=AliasChoices("resolution", "parsed_resolution_wh"),
    )
    lightning_lora_strength: Strength | None = Field(
        None, description="strength of the acceleration LoRA in both passes; 0 leaves it out"
    )
    lightning_lora_strength_phase_1: Strength | None = Field(None, description="its strength in the first pass")
    lightning_lora_strength_phase_2: Strength | None = Field(
        None, description="its strength in the second pass, which there is with hires_scale above 1"
    )

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) that the row asks for, before any limit."""
        return size_of(self.resolution)


class QwenTextParams(QwenParams, GenerateParams):
    """An image from text alone."""


class QwenHiresParams(QwenTextParams):
    """An image from text in two passes."""

    resolution: Annotated[str, BeforeValidator(lambda value: _aspect_or_size(value))] = Field(
        ...,
        description=f"size of the first pass: WIDTHxHEIGHT, or an aspect ({', '.join(ASPECTS)})",
        validation_alias=AliasChoices("resolution", "aspect_ratio", "parsed_resolution_wh"),
    )


class QwenEditParams(QwenParams):
    """An image that is changed as the prompt says; without a prompt it is drawn as it is."""

    not_knobs: ClassVar[frozenset[str]] = frozenset({"image_guide"})

    image: Picture = Field(..., description="the image to change", validation_alias=AliasChoices("image", "image_url"))


class MaskedParams(QwenParams):
    """An image and the mask of what of it is meant: white (128 and above) is, black is not."""

    not_knobs: ClassVar[frozenset[str]] = frozenset({"image_guide", "image_mask"})

    image_url: Picture = Field(
        ..., description="the image to change", validation_alias=AliasChoices("image_url", "image")
    )
    mask_url: Picture = Field(
        ...,
        description="the mask: what is white is meant; transparent parts are black; it is brought to the image's size",
        validation_alias=AliasChoices("mask_url", "mask"),
    )


class AnnotatedParams(MaskedParams, GenerateParams):
    """An image, marks in it, and what the prompt says about them."""


class QwenStyleParams(QwenParams):
    """A new image that keeps something of one or two given ones."""

    not_knobs: ClassVar[frozenset[str]] = frozenset({"image_guide"})

    style_reference_image: MaybePicture = Field(None, description="the image whose style is kept")
    subject_reference_image: MaybePicture = Field(None, description="the image whose subject or scene is kept")
    style_reference_strength: Strength = Field(0.0, description="how much of the style is kept; 0 nothing")
    subject_strength: Strength = Field(0.0, description="how much of the subject is kept; 0 nothing")
    scene_reference_strength: Strength = Field(0.0, description="how much of the scene is kept; 0 nothing")
    subject_description: str = Field("", description="what the subject is, in a few words", max_length=500)
    in_this_scene: bool = Field(False, description="show the subject in the scene of the image")

    @model_validator(mode="after")
    def _has_a_picture(self) -> Self:
        style, subject = self.style_reference_image, self.subject_reference_image
        if not (style or subject):
            raise InvalidInput(
                "is missing; give the image whose style is kept, or subject_reference_image",
                field="style_reference_image",
            )
        if style and subject and style != subject:
            raise InvalidInput(
                "is not the style_reference_image, and the model is shown one image; give one, or put both into one",
                field="subject_reference_image",
            )
        return self

    @property
    def picture(self) -> tuple[str, str]:
        """(field, image) of the one that is shown."""
        name = "style_reference_image" if self.style_reference_image else "subject_reference_image"
        return name, getattr(self, name)


class RedrawParams(GeneratingParams):
    """An image that is drawn anew from some noise on it."""

    image: Picture = Field(
        ..., description="the image to draw anew", validation_alias=AliasChoices("image", "image_url", "image_start")
    )
    image_size: str | list[int] | dict[str, int] | None = Field(
        None,
        description="size of the result: WIDTHxHEIGHT, or another word for that of `resolution`; by default, and with "
        '"auto", the image\'s aspect at about 1024 x 1024 pixels, whatever `resolution` says',
    )

    @model_validator(mode="after")
    def _has_a_size(self) -> Self:
        _ = self.size_text
        return self

    @property
    def size_text(self) -> str | None:
        """ "1024x768", or None for a size by the image. Raises InvalidInput."""
        size: Any = self.image_size
        if size is None or (isinstance(size, str) and size.strip().lower() in ("", "auto")):
            return None
        if isinstance(size, Mapping):
            size = [size.get("width"), size.get("height")]
        try:
            return GenerationOptions.parse({"resolution": size}).resolution
        except InvalidInput as error:
            if isinstance(size, str) and not size[:1].isdigit() and self.options.resolution:
                return self.options.resolution
            text = str(error).removeprefix("resolution: ")
            raise InvalidInput(f'{text}; or write "auto"', field="image_size") from None


def _any_size(value: Any) -> Any:
    """A size as "WIDTHxHEIGHT", however large. Raises ValueError."""
    size = size_of(value)
    return f"{size[0]}x{size[1]}" if size else value


def _aspect_or_size(value: Any) -> Any:
    """ "16:9" -> "1664x928"; sizes in every way of writing become "WIDTHxHEIGHT". Raises ValueError."""
    if isinstance(value, str) and ":" in value:
        if value.strip() not in ASPECTS:
            raise ValueError(f"{value!r:.40} is none of the aspects {', '.join(ASPECTS)}; or write WIDTHxHEIGHT")
        return ASPECTS[value.strip()]
    try:
        return GenerationOptions.parse({"resolution": value}).resolution
    except InvalidInput as error:
        raise ValueError(str(error).removeprefix("resolution: ")) from None
