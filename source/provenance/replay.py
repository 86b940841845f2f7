"""Queueing again what made a file: its metadata say which row, and the files it needs are found by their digests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from headless.options import GenerationOptions
from source.errors import InvalidInput, TaskNotFound, Transient
from source.logs import REDACTED
from source.media.download import url_scheme
from source.media.fetch import MediaFetcher
from source.media.places import Folders
from source.params.base import knob_table, levels
from source.provenance.portable import PINNED_SEEDS, localised, notes_in, places_in
from source.provenance.record import FileNote, OutputNote, Provenance, RootNote, versions
from source.provenance.weights import known_digest
from source.settings import Settings
from source.storage import Storage
from source.store.base import TaskStore
from source.store.types import NewTask, Status
from source.supabase_storage import storage_for
from source.task_registry import registry
from Wan2GP.layout import PACKAGE_DIR
from Wan2GP.media.digest import FileDigests

#: files of a folder that are looked into for a digest
MAX_SEARCHED = 10_000
#: characters of a digest that tell files apart
SHORT_DIGEST = 12


@dataclass
class Files:
    """Where files are looked for.

    given     name, or the beginning of a digest -> the paths that the user names; an empty one leaves the file out
    folders   looked through by name, then (`searched` alone) by content
    """

    given: Mapping[str, Sequence[str]]
    searched: Sequence[Path]
    folders: Sequence[Path]
    #: of every file that is looked into: each is asked for once for each note
    digests: FileDigests = field(default_factory=lambda: FileDigests(1 << 20))
    #: files of one folder that are looked into
    most: int = MAX_SEARCHED
    #: what is missing, as sentences
    missing: list[str] = field(default_factory=list)

    def path_of(self, note: FileNote) -> str | None:
        """The absolute path of a file; None when it is to be left out or is missing."""
        if named := self._given(note):
            return self._chosen(note, named)
        for path in self._candidates(note):
            if note.sha256 and self._holds(path, note.sha256):
                return str(path.resolve())
        self.missing.append(self._complaint(note))
        return None

    def _given(self, note: FileNote) -> Sequence[str]:
        """What the user says of it; a digest is more exact than a name."""
        for key, paths in self.given.items():
            if note.sha256 and len(key) >= SHORT_DIGEST and note.sha256.startswith(key.lower()):
                return paths
        return self.given.get(note.name, ())

    def _chosen(self, note: FileNote, named: Sequence[str]) -> str | None:
        """The one that holds what is needed; of files of one name there may be several."""
        if "" in named:
            return None
        for path in map(Path, named):
            if path.is_file() and (note.sha256 is None or self._holds(path, note.sha256)):
                return str(path.resolve())
        path = Path(named[-1])
        self.missing.append(
            f"{note.name}: {path} holds something else (sha256 {self.digests.of(path)[:SHORT_DIGEST]}…, "
            f"{(note.sha256 or '')[:SHORT_DIGEST]}… is needed)"
            if path.is_file() else f"{note.name}: there is no file {path}"
        )  # fmt: skip
        return None

    def _candidates(self, note: FileNote) -> Iterator[Path]:
        name = Path(note.name).name  # what another wrote is no path
        for folder in (*self.folders, *self.searched):
            if name and (folder / name).is_file():
                yield folder / name
        for folder in self.searched:
            everything = (path for path in folder.rglob("*") if path.is_file())
            several = list(islice(everything, self.most))
            yield from sorted(several, key=lambda path: (path.suffix.lower() != Path(name).suffix.lower(), path))

    def _holds(self, path: Path, digest: str) -> bool:
        try:
            return self.digests.of(path) == digest
        except OSError:
            return False

    def _complaint(self, note: FileNote) -> str:
        if note.sha256 is None:
            return (
                f"{note.name}: its content is not known; give --input {note.name}=PATH, "
                f"or --input {note.name}= to go without it"
            )
        others = [path for path in self._candidates(note) if path.name == note.name]
        changed = f"; {others[0]} has its name and other content" if others else ""
        return (
            f"{note.name} (sha256 {note.sha256}) is not here{changed}; give --input {note.name}=PATH, "
            f"or --search the folder that holds it under any name (of one folder {self.most} files are looked into)"
        )


@dataclass(frozen=True)
class Replay:
    """A row to add, and what is worth knowing of it."""

    task: NewTask
    #: name -> path
    inputs: Mapping[str, str]
    #: what may come out otherwise than it did
    warnings: tuple[str, ...]


def plan_replay(
    record: Provenance,
    store: TaskStore,
    settings: Settings,
    *,
    given: Mapping[str, Sequence[str]],
    search: Sequence[Path],
) -> Replay:
    """The row of a record, with this machine's files.

    Raises InvalidInput that names every file and task that is missing, or a parameter that this version refuses.
    """
    for folder in search:
        if not folder.is_dir():
            raise InvalidInput(f"there is no folder {folder}", field="search")
    if places := places_in(record.root.params):
        raise InvalidInput(
            f"its metadata name a place themselves ({places[0][:80]!r}), which those of this project never do; "
            "they were changed, and are not followed"
        )
    files = Files(given, search, (Path.cwd(), settings.public_dir / "files"))
    notes = notes_in(record.root.params)
    _refuse_unused(given, [*notes, *record.loras])
    paths = {note: files.path_of(note) for note in notes}
    loras = _loras(record, files, settings)
    missing = [*files.missing, *_missing_outputs(record.root.dependant_on, store, settings, files.digests)]
    if missing:
        raise InvalidInput("it cannot be replayed as it was:\n  " + "\n  ".join(missing))
    params = localised(record.root.params, paths, loras)
    if not isinstance(params, Mapping):
        raise InvalidInput("its metadata have no parameters; they were changed")
    pinned = _with_seeds(params, record)
    registry().get(record.root.type).parse(pinned)
    task = NewTask(
        task_type=record.root.type, params=pinned, dependant_on=tuple(each.task for each in record.root.dependant_on)
    )
    found = {note.name: path for note, path in paths.items() if path is not None}
    warnings = (*_warnings(record, params, settings), *_unread(found.values(), settings))
    return Replay(task, found, warnings)


def _refuse_unused(given: Iterable[str], notes: Iterable[FileNote]) -> None:
    """Raises InvalidInput for an --input that nothing asks for."""
    known = list(notes)
    for key in given:
        digest = len(key) >= SHORT_DIGEST and any((note.sha256 or "").startswith(key.lower()) for note in known)
        if not digest and key not in {note.name for note in known}:
            names = ", ".join(dict.fromkeys(note.name for note in known)) or "none"
            raise InvalidInput(f"it was made with no file {key!r}; its files: {names}", field="input")


def _loras(record: Provenance, files: Files, settings: Settings) -> dict[str, str]:
    """LoRAs that have another name now: name -> path. One under its own name stays that."""
    elsewhere: dict[str, str] = {}
    roots = [settings.loras_dir, *settings.lora_dirs]
    inside = replace(files, searched=(*files.searched, *(root for root in roots if root.is_dir())), missing=[])
    for note in record.loras:
        path = inside.path_of(note)
        if path is None:
            continue
        if not any(Path(path).is_relative_to(root.resolve()) for root in roots):
            inside.missing.append(f"{note.name}: {path} is outside the folders of LoRAs")
        elif Path(path).name != note.name or note.name in files.given:
            elsewhere[note.name] = path
    folders = " or ".join(str(root) for root in roots)
    files.missing += [
        f"LoRA {each} (LoRAs belong into the folder of their family in {folders})" for each in inside.missing
    ]
    return elsewhere


def _missing_outputs(
    needed: Iterable[OutputNote], store: TaskStore, settings: Settings, digests: FileDigests
) -> Iterator[str]:
    """What is wrong with the outputs of other tasks that the row depends on."""
    for note in needed:
        try:
            row = store.get(note.task)
        except (TaskNotFound, UnicodeEncodeError):
            yield f"it depends on task {note.task}, which this database does not have"
            continue
        if row.status is not Status.COMPLETE:
            yield f"it depends on task {note.task}, which is {row.status}"
        elif note.sha256 is not None:
            yield from _changed_output(note, row.output_location or "", storage_for(settings, store), settings, digests)


def _changed_output(
    note: OutputNote, location: str, storage: Storage, settings: Settings, digests: FileDigests
) -> Iterator[str]:
    """One that is a URL is downloaded for a look."""
    with tempfile.TemporaryDirectory() as folder:
        fetcher = MediaFetcher(settings, Path(folder), storage=storage)
        try:
            path = fetcher.locate(location) if url_scheme(location) else storage.resolve(location)
            if digests.of(path) != note.sha256:
                yield f"the output of task {note.task} is not what it was (sha256 {note.sha256} is needed)"
        except (InvalidInput, Transient, OSError) as error:
            yield f"the output of task {note.task} cannot be used: {error}"


# ---- seeds


def _with_seeds(params: Mapping[str, Any], record: Provenance) -> dict[str, Any]:
    """The parameters, with each task's seeds as they were drawn; a seed that the row gives stays.

    A row that says nothing of its one seed gets it in its usual place.
    """
    seeds = {task.key: [run.seed for run in task.generations] for task in record.tasks if task.generations}
    own = seeds.get("", [])
    if len(own) == 1 and own[0] is not None and _may_name_seed(record.root, params):
        return {**params, "seed": own[0]}
    return {**params, PINNED_SEEDS: seeds} if seeds else dict(params)


def _may_name_seed(root: RootNote, params: Mapping[str, Any]) -> bool:
    knobs = knob_table(registry().get(root.type).params, GenerationOptions)
    names = {name for name, knob in knobs.items() if knob == "seed"}
    said = any(values.get(name) is not None for _, values in levels(params) for name in names)
    return "seed" in names and not said


# ---- what may differ


def _warnings(record: Provenance, params: Mapping[str, Any], settings: Settings) -> Iterator[str]:
    for name, made_with in record.versions.items():
        here = versions().get(name)
        if here != made_with:
            yield f"made with {name} {made_with}, here is {here or 'none'}"
    for weight in record.weights:
        package = weight.name.removeprefix("package:")
        path = PACKAGE_DIR / package if package != weight.name else settings.ckpts / weight.name
        known = known_digest(settings.ckpts, path)
        if known is not None and weight.sha256 is not None and known != weight.sha256:
            yield f"the weights {weight.name} of {weight.model} are not those that it was made with"
    if _holds_redacted(params):
        yield f"secrets were left out of its parameters; they read {REDACTED}"


def _unread(paths: Iterable[str], settings: Settings) -> Iterator[str]:
    folders = Folders.of(settings)
    for path in paths:
        if not folders.allow(Path(path)):
            yield f"workers refuse {path}, unless their setting MEDIA_DIRS names its folder"


def _holds_redacted(value: Any) -> bool:
    if isinstance(value, str):
        return REDACTED in value
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(_holds_redacted(each) for each in inner)
