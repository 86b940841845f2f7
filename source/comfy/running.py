"""One workflow, from its inputs to its files.

    uploads -> POST /prompt -> the websocket tells of progress, the history says how it ended -> GET /view for each file

A lost websocket costs the progress and nothing else: the history is looked at anyway. However the run ends, its prompt
is not left in ComfyUI's queue, and no other prompt is touched.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from source.comfy.api import ComfyApi
from source.comfy.events import Events
from source.comfy.workflow import SavedFile, Workflow, failure, saved_files, titled, with_input
from source.errors import (
    EngineError,
    GenerationCancelled,
    OutOfMemory,
    ShuttingDown,
    Transient,
    Unsupported,
    WanError,
)
from source.media.download import DownloadRules
from source.storage import sanitise_filename
from source.task_registry import TaskContext

log = logging.getLogger(__name__)

#: how often the history is asked: without the websocket, and beside it. Both are there because ComfyUI promises no
#: event: it drops those that it cannot deliver
POLL_S, SECOND_LOOK_S = 0.5, 5.0
#: how often it is asked what it has let go of (a prompt that was taken back, memory), which it does not tell
LOOK_S = 0.1
#: an outage of the server that is sat out: loading a large model may keep it from answering
OUTAGE_S = 60.0
#: what freed memory gets to be there
FREEING_S = 10.0
FREED_BYTES = 512 * 1024 * 1024
MAX_FILES = 64
#: events after which the history knows the end
LAST_EVENTS = frozenset({"execution_success", "execution_error", "execution_interrupted"})


@dataclass(frozen=True)
class InputFile:
    """A local file for one input of one node."""

    path: Path
    node_id: str
    input_field: str


@dataclass(frozen=True)
class Made:
    """The files of a workflow, as they lie in the task's scratch folder: the one that stands for it first."""

    files: tuple[Path, ...]
    prompt_id: str
    notes: tuple[str, ...]


def run_workflow(workflow: Workflow, inputs: Sequence[InputFile], context: TaskContext) -> Made:
    """Run a workflow with the worker's ComfyUI, alone on the GPU where it shares that. Raises typed errors."""
    program = context.comfy
    program.check()
    if not program.shares_gpu:
        context.without_gpu()
    with context.gpu_for_another() if program.shares_gpu else nullcontext():
        context.report("starting", text="ComfyUI")
        with program.serving(context.wait) as api:
            try:
                return _Run(api, context).made(workflow, inputs)
            finally:
                if program.shares_gpu and not _ends_at_once(context):
                    _give_back_memory(api)


def _ends_at_once(context: TaskContext) -> bool:
    """Whether the worker is leaving, and its ComfyUI with it: nothing has to be taken back from that one."""
    try:
        context.wait(0)
    except ShuttingDown:
        return context.comfy.ends_with_worker
    except GenerationCancelled:
        pass
    return False


class _Run:
    """One run of one workflow."""

    def __init__(self, api: ComfyApi, context: TaskContext) -> None:
        self._api = api
        self._context = context
        self._last_answer_at = time.monotonic()

    def made(self, workflow: Workflow, inputs: Sequence[InputFile]) -> Made:
        self._forget_earlier_claims()
        for each in inputs:
            self._context.report("uploading", text=each.path.name)
            name = self._api.upload(each.path, upload_name(each.path), self._look_for_a_stop)
            workflow = with_input(workflow, each.node_id, each.input_field, name)
        client_id = f"{self._context.task.id}:{self._context.task.claim_number}"
        with Events(self._api.url, client_id) as events:
            self._context.on_stop(events.wake)
            prompt_id, left_out = self._submitted(workflow, client_id)
            try:
                entry = self._outcome(workflow, prompt_id, events)
            except BaseException:
                if not _ends_at_once(self._context) and not self._stopped(prompt_id, events):
                    self._context.comfy.end_for_now()
                raise
        files = self._downloaded(self._saved(workflow, entry))
        return Made(files, prompt_id, (f"left out: {left_out}",) if left_out else ())

    def _look_for_a_stop(self) -> None:
        """Raises GenerationCancelled when the task should stop."""
        self._context.wait(0)

    def _submitted(self, workflow: Workflow, client_id: str) -> tuple[str, str | None]:
        """The prompt's id, and what is said against a part of the workflow that is left out."""
        try:
            prompt_id, left_out = self._api.submit(workflow, client_id)
        except Transient:
            with suppress(WanError):  # the answer may be what was lost, and not the prompt
                self._forget_earlier_claims()
            raise
        if left_out:
            log.warning("ComfyUI leaves out a part of the workflow: %s", left_out)
        return prompt_id, left_out

    def _forget_earlier_claims(self) -> None:
        """A worker that died may have left this task's prompt in a ComfyUI that lives on."""
        for each in self._api.queue():
            if each.client_id.startswith(f"{self._context.task.id}:"):
                self._api.cancel(each.prompt_id)

    # ---- following

    def _outcome(self, workflow: Workflow, prompt_id: str, events: Events) -> Mapping[str, Any]:
        """The entry of the history once the prompt has ended. Raises when it takes too long or is gone."""
        deadline = time.monotonic() + self._context.settings.comfy_timeout_s
        progress = _Progress(workflow, prompt_id, self._context)
        look_at = 0.0
        while (now := time.monotonic()) < deadline:
            self._context.wait(0)
            ending = progress.listen(events, min(look_at, deadline) - now)
            if ending or time.monotonic() >= look_at:
                if entry := self._look(prompt_id):
                    return entry
                look_at = time.monotonic() + (POLL_S if events.lost or ending or progress.ended else SECOND_LOOK_S)
        timeout_s = self._context.settings.comfy_timeout_s
        raise EngineError(f"the workflow takes more than {timeout_s:g} s (setting comfy_timeout_s); it was stopped")

    def _look(self, prompt_id: str) -> Mapping[str, Any] | None:
        """Ask the history. Raises EngineError when ComfyUI does not know the prompt any more."""
        try:
            entry = self._api.history(prompt_id)
            gone = not entry and all(each.prompt_id != prompt_id for each in self._api.queue())
            entry = self._api.history(prompt_id) if gone else entry
        except Transient:
            self._context.comfy.check_alive()
            if time.monotonic() - self._last_answer_at > OUTAGE_S:
                raise
            return None
        self._last_answer_at = time.monotonic()
        if gone and entry is None:
            raise EngineError("ComfyUI does not know the workflow any more: it was restarted, or somebody removed it")
        return entry

    def _saved(self, workflow: Workflow, entry: Mapping[str, Any]) -> list[SavedFile]:
        """What it saved. Raises what became of it when it failed."""
        if failed := failure(workflow, entry):
            kind, what = failed
            raise (OutOfMemory if "OutOfMemory" in kind else EngineError)(f"the workflow did not end well: {what}")
        saved = saved_files(entry)
        if not saved:
            raise EngineError("the workflow saved no video, GIF, image or sound; give it a node that saves one")
        if len(saved) > MAX_FILES:
            raise Unsupported(f"saves {len(saved)} files; at most {MAX_FILES} are taken", field="workflow")
        return saved

    def _downloaded(self, saved: Sequence[SavedFile]) -> tuple[Path, ...]:
        """The files, together no larger than one download may be."""
        settings, files = self._context.settings, list[Path]()
        left = settings.max_download_mb * 1024 * 1024
        folder = self._context.scratch / "made"
        folder.mkdir(exist_ok=True)
        for each, name in zip(saved, distinct_names(saved), strict=True):
            self._context.report("downloading", len(files), len(saved), name)
            rules = DownloadRules(
                timeout_s=settings.download_timeout_s,
                max_bytes=left,
                max_text=f"what is left of {settings.max_download_mb} MB (setting max_download_mb)",
                check=self._look_for_a_stop,
            )
            files.append(self._api.download(each, folder / name, rules))
            left -= files[-1].stat().st_size
        return tuple(files)

    # ---- a bad end

    def _stopped(self, prompt_id: str, events: Events) -> bool:
        """Take the prompt out of the queue, and see it go."""
        try:
            self._api.cancel(prompt_id)
            deadline = time.monotonic() + self._context.settings.comfy_stop_s
            while any(each.prompt_id == prompt_id for each in self._api.queue()):
                if time.monotonic() > deadline:
                    return False
                events.next(LOOK_S)
        except WanError as error:
            log.debug("the workflow was not taken back: %s", error)
            return False
        return True


class _Progress:
    """Turns what the websocket tells of one prompt into progress of the task."""

    def __init__(self, workflow: Workflow, prompt_id: str, context: TaskContext) -> None:
        self._workflow = workflow
        self._prompt_id = prompt_id
        self._context = context
        self._node = ""
        self._done: set[str] = set()
        self.ended = False

    def listen(self, events: Events, timeout_s: float) -> bool:
        """Wait so long for news. Returns whether they say that the prompt has just ended."""
        news = events.next(timeout_s)
        if news is None or news[1].get("prompt_id") != self._prompt_id:
            return False
        kind, data = news
        node = data.get("node")
        if kind in LAST_EVENTS or (kind == "executing" and node is None):
            self.ended = True
            return True
        self._tell(kind, str(node), data)
        return False

    def _tell(self, kind: str, node: str, data: Mapping[str, Any]) -> None:
        nodes = data.get("nodes")
        match kind:
            case "execution_cached" if isinstance(nodes, list):
                self._done |= {str(each) for each in nodes}
            case "executing":
                self._done |= {self._node} - {""}
                self._node = node
                done = len(self._done & self._workflow.keys())
                self._context.report("generating", done, len(self._workflow), titled(self._workflow, node))
            case "progress":
                step, total = (_whole(data.get(name)) for name in ("value", "max"))
                self._context.report("generating", step, total, titled(self._workflow, node))


def distinct_names(saved: Sequence[SavedFile]) -> list[str]:
    """A safe name for each file; those that share one are numbered."""
    names: list[str] = []
    for each in saved:
        safe = Path(sanitise_filename(Path(each.filename).name))
        name, number = safe.name, 1
        while name.lower() in (taken.lower() for taken in names):
            number += 1
            name = f"{safe.stem}_{number}{safe.suffix}"
        names.append(name)
    return names


def upload_name(path: Path) -> str:
    """A file's name among ComfyUI's inputs: its own after a hash of its bytes, so that no other is overwritten."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return f"{digest}_{sanitise_filename(path.name)[-80:]}"


def _give_back_memory(api: ComfyApi) -> None:
    """Have ComfyUI free its models, and wait until its torch holds next to nothing: our next model needs the room."""
    try:
        api.free()
        deadline = time.monotonic() + FREEING_S
        while _held_bytes(api.stats()) > FREED_BYTES and time.monotonic() < deadline:
            time.sleep(LOOK_S)
    except WanError as error:
        log.debug("ComfyUI was not asked to free its memory: %s", error)


def _held_bytes(stats: Mapping[str, Any]) -> int:
    """What its torch has reserved on GPUs (on other devices it reports all the memory that there is)."""
    devices = stats.get("devices")
    held = 0
    for device in devices if isinstance(devices, list) else ():
        if isinstance(device, Mapping) and device.get("type") == "cuda":
            held += _whole(device.get("torch_vram_total"))
    return held


def _whole(value: Any) -> int:
    """A number that ComfyUI (or one of its nodes) told; 0 for anything else."""
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else 0
