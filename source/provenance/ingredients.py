"""What one task is made of: the files it was given, the LoRAs and the weights it used, the runs of the engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote, urlsplit

from headless.generation import GenerationResult
from source.errors import InvalidInput
from source.loras.references import SUFFIXES, RemoteLoRA
from source.media.download import url_scheme
from source.provenance.portable import MAX_PATH, Meaning, is_place, portable, several
from source.provenance.record import FileNote, GenerationNote, WeightNote
from source.provenance.weights import Digests
from source.storage import FILES, UPLOADS, Storage
from Wan2GP.errors import InvalidMedia
from Wan2GP.layout import PACKAGE_DIR
from Wan2GP.media.digest import FileDigests

log = logging.getLogger(__name__)

#: addresses that a worker remembers
_MAX_SEEN = 4096


def _any(path: Path) -> bool:
    """Rows are the user's own."""
    return True


@dataclass
class Ingredients:
    """Filled by a run as it goes; asked at its end."""

    digests: FileDigests
    storage: Storage
    checkpoints: Path
    #: called while something is read; may raise to stop
    check: Callable[[], None]
    #: files that the worker's earlier tasks were given, by path or address; shared with them
    seen: dict[str, FileNote] = field(default_factory=dict)
    #: whether a file that the parameters name may be looked at
    may_read: Callable[[Path], bool] = _any
    _files: dict[str, FileNote] = field(default_factory=dict)
    _loras: dict[str, Path] = field(default_factory=dict)
    _runs: list[GenerationResult] = field(default_factory=list)
    _weights: dict[str, Future[Digests]] = field(default_factory=dict)
    _lora_digests: list[Future[Digests]] = field(default_factory=list)
    #: digests by name, of files that other tasks of the same job were given
    _elsewhere: dict[str, str | None] = field(default_factory=dict)

    # ---- while the task runs

    def given(self, reference: str, path: Path) -> None:
        """A file that the task was given: hashed now, while it is what the task sees."""
        self._files[reference] = self._note(_name_of(reference), path)
        if len(self.seen) >= _MAX_SEEN:
            self.seen.clear()
        self.seen[reference] = self._files[reference]

    def lora(self, reference: str, path: Path, digests: Future[Digests]) -> None:
        """A LoRA of the task."""
        self._loras[reference.strip()] = path
        self._lora_digests.append(digests)

    def weights(self, model: str, digests: Future[Digests]) -> None:
        """The files of a model that the task uses."""
        self._weights[model] = digests

    def generated(self, result: GenerationResult) -> None:
        """A run of the engine ended well."""
        self._runs.append(result)

    def learn(self, notes: Iterable[FileNote]) -> None:
        """What other tasks of the job know of files. A name that two contents share says nothing."""
        for note in notes:
            known = self._elsewhere.setdefault(note.name, note.sha256)
            if known != note.sha256:
                self._elsewhere[note.name] = None

    # ---- at its end

    def inputs(self) -> list[FileNote]:
        return list(dict.fromkeys(self._files.values()))

    def loras(self) -> list[FileNote]:
        """Waits for their digests."""
        known = self._all(self._lora_digests)
        paths = dict.fromkeys(self._loras.values())
        return [FileNote(name=_printable(path.name), sha256=known.get(path)) for path in paths]

    def weight_notes(self) -> list[WeightNote]:
        """Waits for their digests."""
        return [
            WeightNote(model=model, name=self._weight_name(path), sha256=digest)
            for model, answer in self._weights.items()
            for path, digest in self._all([answer]).items()
        ]

    def generations(self) -> list[GenerationNote]:
        return [
            GenerationNote(model=run.model, seed=run.seed, settings=portable(run.settings, self.meaning))
            for run in self._runs
        ]

    def meaning(self, text: str) -> Meaning:
        """What a text in the parameters stands for, as `portable` asks."""
        text = text.strip()
        if text in self._files:
            return self._files[text]
        if text in self._loras:
            return _printable(self._loras[text].name)
        known = self._existing(text) is not None  # its name may hold a comma
        return (None if known else self._of_several(text)) or self._of_one(text)

    def _of_one(self, text: str) -> Meaning:
        return self._of_url(text) if url_scheme(text) is not None else self._of_path(text)

    def _of_url(self, text: str) -> Meaning:
        name = _name_of(text)
        if PurePosixPath(name).suffix.lower() in SUFFIXES:
            try:
                return RemoteLoRA.parse(text).file_name()
            except InvalidMedia:
                return name
        return self._unseen(name, text)

    def _unseen(self, name: str, reference: str) -> FileNote:
        """A file that this task was not given: what other tasks say of it."""
        if (digest := self._elsewhere.get(name)) is not None:
            return FileNote(name=name, sha256=digest)
        return self.seen.get(reference, FileNote(name=name))

    def _of_path(self, text: str) -> Meaning:
        place = is_place(text)
        name = _name_of(text)
        if Path(name).suffix.lower() in SUFFIXES:
            return name if place else None
        if not place and not Path(name).suffix:
            return None
        path = self._existing(text)
        if path is not None and self.storage.is_scratch(path):
            return FileNote(name=name)  # made on the way
        if path is not None:
            return self._note(name, path)
        return self._unseen(name, text) if place else None

    def _of_several(self, text: str) -> Meaning:
        """Several files, or several LoRAs; None where each of them may stay as it is."""
        parts = several(text)
        found = [self.meaning(part) for part in parts]
        if not any(found):
            return None
        names = [_name_of(part) for part in parts]
        if any(isinstance(each, str) for each in found):
            return ",".join(each if isinstance(each, str) else name for each, name in zip(found, names, strict=True))
        return [
            each if isinstance(each, FileNote) else FileNote(name=name) for each, name in zip(found, names, strict=True)
        ]

    def _existing(self, text: str) -> Path | None:
        if not text or len(text) > MAX_PATH:
            return None
        try:
            path = Path(text).expanduser()
            if not self.may_read(path):
                return None
            if path.is_file():
                return path
            return self.storage.resolve(text) if path.parts[:1] in ((FILES,), (UPLOADS,)) else None
        except (OSError, RuntimeError, ValueError, InvalidInput):
            return None

    def note_of(self, path: Path) -> FileNote:
        """A file of this machine."""
        return self._note(_printable(path.name), path)

    def _note(self, name: str, path: Path) -> FileNote:
        try:
            return FileNote(name=name, sha256=self.digests.of(path, self.check))
        except OSError as error:
            log.warning("the digest of %s is not known: %s", name, error)
            return FileNote(name=name)

    def _weight_name(self, path: Path) -> str:
        for folder, before in ((self.checkpoints.resolve(), ""), (PACKAGE_DIR, "package:")):
            if path.resolve().is_relative_to(folder):
                return before + _printable(path.resolve().relative_to(folder).as_posix())
        return _printable(path.name)

    def _all(self, answers: Iterable[Future[Digests]]) -> Digests:
        found: Digests = {}
        for answer in answers:
            found |= self._waited(answer)
        return found

    def _waited(self, answer: Future[Digests]) -> Digests:
        while True:
            self.check()
            try:
                return answer.result(timeout=0.2)
            except TimeoutError:
                continue


def _name_of(reference: str) -> str:
    """The last part of a path or URL, without its query."""
    if (scheme := url_scheme(reference)) is not None:
        try:
            path = unquote(urlsplit(reference).path) if scheme not in ("data", "blob", "javascript") else scheme
        except ValueError:
            path = ""
        return _bare(PurePosixPath(path).name) or "download"
    windows = "\\" in reference and ("/" not in reference or bool(PureWindowsPath(reference).drive))
    return _bare((PureWindowsPath if windows else PurePosixPath)(reference.strip()).name) or "file"


def _bare(name: str) -> str:
    """A name that is no place itself (`~`, or `data:x` after a slash), as UTF-8 can hold it."""
    name = name.strip()
    while is_place(name):
        name = name[1:].strip()
    return _printable(name)


def _printable(name: str) -> str:
    """A name of a file as UTF-8 can hold it."""
    return name.encode("utf-8", errors="replace").decode("utf-8")
