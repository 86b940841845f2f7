"""URLs of LoRAs: which of them are the same file, where it is really served, and what it is called here."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from requests.utils import requote_uri

from source.errors import InvalidMedia
from source.media.download import refuse_malformed, shown, url_scheme
from source.storage import sanitise_filename
from Wan2GP.layout import SHARED_LORA_NAMES

HUGGING_FACE = "https://huggingface.co"
_HUB_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
SUFFIXES = frozenset({".safetensors", ".sft"})

#: suffixes that are never a safetensors file, so that nothing is downloaded to find that out
_OTHER_FORMATS = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".gguf", ".onnx", ".zip", ".rar", ".7z", ".gz"})
#: the page of a file, as hubs of the Hugging Face kind and GitHub write it
_PAGE = re.compile(r"(?P<repository>(?:/(?:datasets|spaces))?/[^/]+/[^/]+)/blob/(?P<file>[^/]+/.+)")
_FILE = re.compile(r"(?P<repository>(?:/(?:datasets|spaces))?/[^/]+/[^/]+)/(?:resolve|raw)/[^/]+/(?P<file>.+)")
#: parts of a query that say who asks, and until when; never what is asked for
_CREDENTIAL = re.compile(
    r"(?:.*[_-])?token|api[_-]?key|sig|signature|expires|policy|key-pair-id|awsaccesskeyid|googleaccessid|x-(?:amz|goog)-.*",
    re.IGNORECASE,
)
#: parts that may be either: they tell files apart, but their values stay out of the index
_DOUBTFUL = re.compile(r"(?:.*[_-])?(?:key|secret|auth|password|pass|code|hash)", re.IGNORECASE)
#: what goes with a signature of Azure
_SHARED_ACCESS = frozenset({"se", "sp", "st", "sv", "sr", "spr", "sip", "skoid", "sktid", "ske", "sks", "skt", "skv"})


@dataclass(frozen=True)
class RemoteLoRA:
    """One file on a server."""

    #: what is asked for; may hold credentials
    url: str
    #: the same for every way of writing the URL, without credentials: what the index remembers
    identity: str

    @classmethod
    def parse(cls, reference: str) -> RemoteLoRA:
        """Raises InvalidMedia that says what is wrong with the URL."""
        if (scheme := url_scheme(reference)) not in ("http", "https"):
            raise InvalidMedia(f"{scheme}: URLs are not read; give a file name or an http(s) URL")
        refuse_malformed(reference)
        parts = _served(urlsplit(reference))
        try:
            _ = parts.port
        except ValueError as error:
            raise InvalidMedia(f"the URL is malformed: {error}") from None
        if not parts.hostname or not _segments(parts.path):
            raise InvalidMedia(f"{shown(reference)} names no file; give the URL of a .safetensors file")
        remote = cls(urlunsplit(parts), requote_uri(urlunsplit(_without_credentials(parts))))
        suffix = PurePosixPath(remote._last).suffix.lower()
        if suffix in _OTHER_FORMATS:
            raise InvalidMedia(f"{shown(reference)} is a {suffix} file; only .safetensors LoRAs are read")
        return remote

    @cached_property
    def key(self) -> str:
        """A short name of the identity, safe in file names."""
        return hashlib.sha256(self.identity.encode()).hexdigest()[:16]

    @property
    def has_name(self) -> bool:
        """Whether the URL ends in the name of a file; some (`…/download/models/123`) do not."""
        return PurePosixPath(self._last).suffix.lower() in SUFFIXES

    def file_name(self, offered: str | None = None) -> str:
        """What the file is called here. `offered` is the server's name; it counts when the URL has none.

        Generic names get the folder that they lie in as a prefix, or the repository when they lie in none.
        """
        name, parents = self._last, self._parents
        if not self.has_name:
            parents = [*parents, name]
            name = offered if offered and PurePosixPath(offered).suffix in SUFFIXES else f"{name}.safetensors"
        if name.lower() in SHARED_LORA_NAMES and parents:
            name = f"{parents[-1]}_{name}"
        return sanitise_filename(name)

    def distinct_name(self, name: str, number: int = 1) -> str:
        """`name` with a hash of the URL, for when the plain one is taken by another file."""
        path = PurePosixPath(name)
        return f"{path.stem}_{self.key[:8]}{f'-{number}' if number > 1 else ''}{path.suffix}"

    @property
    def _last(self) -> str:
        return _segments(urlsplit(self.url).path)[-1]

    @property
    def _parents(self) -> list[str]:
        path = urlsplit(self.url).path
        if found := _FILE.fullmatch(path):
            path = f"{found['repository']}/{found['file']}"
        return _segments(path)[:-1]


def same_origin(url: str, other: str) -> bool:
    """Whether both have the same scheme, host and port."""
    return _origin(url) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _segments(path: str) -> list[str]:
    """The decoded parts of a path. An encoded slash separates too, so that no part is ever a path."""
    return [part for part in unquote(path).split("/") if part]


def _served(parts: SplitResult) -> SplitResult:
    """The address of the file itself: a page's `/blob/` becomes `/resolve/`, `download=true` goes."""
    path = parts.path
    if parts.hostname in _HUB_HOSTS and ":" not in parts.netloc.rpartition("@")[2]:
        parts = parts._replace(scheme="https", netloc="huggingface.co")
    if page := _PAGE.fullmatch(path):
        verb = "raw" if parts.hostname in ("github.com", "www.github.com") else "resolve"
        path = f"{page['repository']}/{verb}/{page['file']}"
    query = "&".join(pair for pair in parts.query.split("&") if pair.partition("=")[0] != "download")
    return parts._replace(path=path, query=query, fragment="")


def _without_credentials(parts: SplitResult) -> SplitResult:
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    known = _SHARED_ACCESS if "sig" in dict(pairs) else frozenset[str]()
    kept = [(name, value) for name, value in pairs if not _CREDENTIAL.fullmatch(name) and name not in known]
    query = sorted((name, _hashed(value) if _DOUBTFUL.fullmatch(name) else value) for name, value in kept)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2].lower(), query=urlencode(query))


def _hashed(value: str) -> str:
    return "sha256-" + hashlib.sha256(value.encode()).hexdigest()[:16]
