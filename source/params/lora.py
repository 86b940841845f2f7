"""LoRAs as rows name them, brought to one list with one multiplier each. Nothing is downloaded here.

A multiplier is a number, or text in which ";" separates guidance phases and "," separates steps: "1;0", "1,0.5;0".
Two LoRAs are the same when their files have the same name; of a URL that is the last part of its path, decoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator

from headless.options import GenerationOptions
from source.errors import InvalidInput
from Wan2GP.layout import SHARED_LORA_NAMES

#: larger multipliers are slips of the keyboard
MOST = 10.0
MAX_LENGTH = 4096
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)
_SPACED = re.compile(r"\s*([;,])\s*")


class LoRAStatus(StrEnum):
    """Whether the file is on this machine: named by a URL, fetched from one, or named as a file."""

    PENDING = "pending"
    DOWNLOADED = "downloaded"
    LOCAL = "local"


def checked_multiplier(value: Any) -> float | str:
    """A number, or text of phases and steps, returned without spaces. A null is 1. Raises ValueError."""
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f'{value!r:.40} is no multiplier; write a number, or phases as "1;0"')
    text = _SPACED.sub(r"\1", value.strip()) if isinstance(value, str) else str(value)
    if len(text) > MAX_LENGTH:
        raise ValueError("the multiplier is too long")
    for number in re.split("[;,]", text):
        if not _NUMBER.fullmatch(number) or abs(float(number)) > MOST:
            raise ValueError(f"{text[:60]!r}: {number[:30]!r} is not a number between -{MOST:g} and {MOST:g}")
    return text if is_phased(text) else float(text)


def checked_reference(text: str) -> str:
    """A file name, path or http(s) URL that names a file. Raises ValueError."""
    text = text.strip()
    if len(text) > MAX_LENGTH or any(ord(letter) < 32 for letter in text):
        raise ValueError(f"{text[:60]!r} is no file name or URL")
    if "://" in text and not is_url(text):
        raise ValueError(f"{text[:60]!r}: only http and https URLs are fetched")
    if file_name(text) in ("", ".", ".."):
        raise ValueError(f"{text[:60]!r} names no file")
    return text


Multiplier = Annotated[float | str, BeforeValidator(checked_multiplier, json_schema_input_type=float | str)]
LoRAReference = Annotated[str, AfterValidator(checked_reference)]


def is_phased(multiplier: float | str) -> bool:
    """Whether a multiplier differs between phases or steps."""
    return isinstance(multiplier, str) and (";" in multiplier or "," in multiplier)


def is_url(reference: str) -> bool:
    return reference.lower().startswith(("http://", "https://"))


def file_name(reference: str) -> str:
    """The name of the file that a path or URL names. Raises ValueError for a broken URL."""
    path = unquote(urlsplit(reference).path) if is_url(reference) else reference
    return re.split(r"[/\\]", path)[-1]


def multiplier_text(multiplier: float | str) -> str:
    """0.5 -> "0.5", 1.0 -> "1", "1;0" -> "1;0"."""
    return multiplier if isinstance(multiplier, str) else repr(multiplier).removesuffix(".0")


@dataclass(frozen=True)
class LoRAEntry:
    """One LoRA: where it is and how strong."""

    filename: str
    multiplier: float | str = 1.0
    url: str | None = None
    local_path: str | None = None
    status: LoRAStatus = LoRAStatus.LOCAL

    @classmethod
    def of(cls, reference: str, multiplier: float | str | None = None) -> Self:
        """From a file name, path or URL. Raises ValueError."""
        reference, strength = checked_reference(reference), checked_multiplier(multiplier)
        if is_url(reference):
            return cls(file_name(reference), strength, url=reference, status=LoRAStatus.PENDING)
        return cls(file_name(reference), strength, local_path=reference)

    @property
    def reference(self) -> str:
        """What the engine or the downloader is given."""
        return self.local_path or self.url or self.filename

    @property
    def key(self) -> str:
        """The same for two entries that mean one LoRA."""
        if self.filename.lower() not in SHARED_LORA_NAMES:
            return self.filename
        if not self.url:
            return self.local_path or self.filename
        parts = urlsplit(self.url)
        return parts.netloc.lower() + unquote(parts.path).replace("/blob/", "/resolve/")

    def merged(self, later: LoRAEntry) -> LoRAEntry:
        """The later one wins, but phases are kept against a plain number, and a file at hand against a URL."""
        keeps_phases = is_phased(self.multiplier) and not is_phased(later.multiplier)
        multiplier = self.multiplier if keeps_phases else later.multiplier
        at_hand = later.status is LoRAStatus.PENDING and self.status is not LoRAStatus.PENDING
        return replace(self if at_hand else later, multiplier=multiplier)


@dataclass(frozen=True)
class LoRAConfig:
    """LoRAs in the order of their use, each once."""

    entries: tuple[LoRAEntry, ...] = ()
    #: multipliers of the model's own LoRAs: what stands before a "|"
    preset: str = ""

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> LoRAConfig:
        """Every LoRA that a row names, by whatever name and at whatever level. Raises InvalidInput."""
        from source.params.generating import parse_generating

        return cls.from_options(parse_generating(params).options)

    @classmethod
    def from_options(cls, options: GenerationOptions) -> LoRAConfig:
        """The inverse of `to_options`."""
        return cls.from_names(options.activated_loras or (), options.loras_multipliers or "")

    @classmethod
    def from_names(
        cls, names: Iterable[str], multipliers: str, fields: tuple[str, str] = ("activated_loras", "loras_multipliers")
    ) -> LoRAConfig:
        """A list of names and a text of multipliers; `fields` are named in messages. Raises InvalidInput."""
        named = list(names)
        preset, tokens = split_multipliers(multipliers, len(named), field=fields[1])
        if named and len(tokens) > len(named):
            raise InvalidInput(f"has {len(tokens)} multipliers for {len(named)} LoRAs", field=fields[1])
        strengths = _checked(tokens, fields[1]) + [1.0] * (len(named) - len(tokens))
        _checked(preset, fields[1])
        return cls(preset=" ".join(preset)).merge(cls._of(zip(named, strengths, strict=False), fields[0]))

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[str, float | str]], field: str) -> LoRAConfig:
        """References with their multipliers; the last of several for one file wins. Raises InvalidInput."""
        return cls().merge(cls._of(pairs, field))

    @classmethod
    def _of(cls, pairs: Iterable[tuple[str, float | str]], field: str) -> LoRAConfig:
        try:
            return cls(tuple(LoRAEntry.of(reference, multiplier) for reference, multiplier in pairs))
        except ValueError as error:
            raise InvalidInput(str(error), field=field) from None

    def merge(self, other: LoRAConfig) -> LoRAConfig:
        """Both, in order; for a LoRA of both see `LoRAEntry.merged`."""
        merged: dict[str, LoRAEntry] = {}
        for entry in (*self.entries, *other.entries):
            merged[entry.key] = merged[entry.key].merged(entry) if entry.key in merged else entry
        return LoRAConfig(tuple(merged.values()), other.preset or self.preset)

    @property
    def has_pending_downloads(self) -> bool:
        return bool(self.get_pending_downloads())

    def get_pending_downloads(self) -> dict[str, float | str]:
        """URL -> multiplier of what is not on this machine."""
        return {entry.url: entry.multiplier for entry in self.entries if entry.url and entry.status is _PENDING}

    def mark_downloaded(self, url: str, path: Path | str) -> LoRAConfig:
        """A copy in which the LoRA of `url` is the file `path`. Raises InvalidInput when nothing waits for that URL."""
        if url not in self.get_pending_downloads():
            raise InvalidInput(f"no LoRA waits for {url[:200]!r}", field="activated_loras")
        entries = tuple(
            replace(entry, filename=Path(path).name, local_path=str(path), status=LoRAStatus.DOWNLOADED)
            if entry.url == url
            else entry
            for entry in self.entries
        )
        return replace(self, entries=entries)

    def to_options(self, options: GenerationOptions) -> GenerationOptions:
        """`options` with these LoRAs and no others; URLs stay URLs until they are downloaded."""
        return options.replace(**self._knobs(self.entries))

    def to_wgp_format(self) -> dict[str, Any]:
        """The engine's two parameters. What is not downloaded yet is left out."""
        return self._knobs(tuple(entry for entry in self.entries if entry.status is not _PENDING))

    def _knobs(self, entries: tuple[LoRAEntry, ...]) -> dict[str, Any]:
        text = " ".join(multiplier_text(entry.multiplier) for entry in entries)
        multipliers = f"{self.preset}|{text}" if self.preset else text
        return {"activated_loras": [entry.reference for entry in entries], "loras_multipliers": multipliers}


_PENDING = LoRAStatus.PENDING


def split_multipliers(text: str, count: int, *, field: str = "loras_multipliers") -> tuple[list[str], list[str]]:
    """(tokens of the model's own LoRAs, tokens of the `count` LoRAs given). Raises InvalidInput for a second "|".

    Spaces and lines separate LoRAs; lines that begin with "#" are comments. Commas are steps of one LoRA, except where
    older rows list plain numbers with them: when a space follows them, or there are no more numbers than LoRAs.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    preset, _, own = " ".join(lines).rpartition("|")
    if "|" in preset:
        raise InvalidInput("has more than one '|'; one separates the model's multipliers from yours", field=field)
    return preset.split(), own.split(",") if _is_comma_list(own, count) else own.split()


def _is_comma_list(text: str, count: int) -> bool:
    if ";" in text or "," not in text or count < 2:
        return False
    return bool(re.search(r",\s", text)) or (len(text.split()) == 1 and text.count(",") < count)


def _checked(tokens: Iterable[str], field: str) -> list[float | str]:
    try:
        return [checked_multiplier(token) for token in tokens]
    except ValueError as error:
        raise InvalidInput(str(error), field=field) from None
