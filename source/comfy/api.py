"""The door to ComfyUI's HTTP interface. Its websocket has one of its own, `source.comfy.events`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from source.addresses import is_loopback
from source.comfy.form import Form
from source.comfy.workflow import SavedFile, Workflow, refusal
from source.errors import EngineError, InvalidInput, InvalidMedia, Transient
from source.media.download import CONNECT_TIMEOUT_S, DownloadRules, received, shown
from Wan2GP.media import publishing

#: longest silence of an answer, seconds; an upload may take as long as it likes while it moves
ANSWER_S = 30.0
#: the same where it is asked again and again, so that a cancellation is not held up
LOOK_S = 5.0


@dataclass(frozen=True)
class Queued:
    """One prompt in ComfyUI's queue, running or waiting."""

    prompt_id: str
    client_id: str
    running: bool


class ComfyApi:
    """One ComfyUI. Used by one thread at a time; close it."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()
        # a proxy that the environment names is for other machines
        self._session.trust_env = not is_loopback(url)

    def close(self) -> None:
        self._session.close()

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            self.stats()
        except (Transient, EngineError):
            return False
        return True

    def stats(self) -> Mapping[str, Any]:
        """Its devices and their memory."""
        return self._json("GET", "/system_stats", timeout=LOOK_S)

    def upload(self, path: Path, name: str, check: Callable[[], None]) -> str:
        """Put a file into its folder of inputs. Returns the name by which nodes load it; `check` may raise to stop."""
        with path.open("rb") as file:
            form = Form({"overwrite": "true", "type": "input"}, "image", name, file, check)
            response = self._ask("POST", "/upload/image", data=form, headers={"Content-Type": form.content_type})
        if response.status_code == 413:
            raise InvalidMedia(
                f"{path.name} is larger than what ComfyUI takes; start it with a larger --max-upload-size (in MB), "
                "for which there is COMFY_ARGS"
            )
        _refuse(response)
        answer = _object(response)
        given, subfolder = answer.get("name"), answer.get("subfolder")
        if not isinstance(given, str) or not given:
            raise EngineError("ComfyUI did not say under which name it put the upload")
        return f"{subfolder}/{given}" if subfolder else given

    def submit(self, workflow: Workflow, client_id: str) -> tuple[str, str | None]:
        """Queue a workflow. Returns its prompt id, and what is said against a part of it that is left out.

        Raises InvalidInput that names nodes and inputs when nothing of it can run.
        """
        response = self._ask("POST", "/prompt", json={"prompt": workflow, "client_id": client_id})
        answer = _object(response)
        if response.status_code == 400:
            raise InvalidInput(f"ComfyUI refuses it: {refusal(workflow, answer)}", field="workflow")
        _refuse(response)
        prompt_id = answer.get("prompt_id")
        if not isinstance(prompt_id, str) or not prompt_id:
            raise EngineError("ComfyUI took the workflow without giving it an id")
        return prompt_id, refusal(workflow, answer) if answer.get("node_errors") else None

    def history(self, prompt_id: str) -> Mapping[str, Any] | None:
        """What became of a prompt; None while it waits or runs, or when nothing is known of it."""
        entry = self._json("GET", f"/history/{quote(prompt_id, safe='')}", timeout=LOOK_S).get(prompt_id)
        return entry if isinstance(entry, Mapping) else None

    def queue(self) -> list[Queued]:
        """The prompts that run or wait, whoever sent them."""
        answer = self._json("GET", "/queue", timeout=LOOK_S)
        return [*_queued(answer.get("queue_running"), True), *_queued(answer.get("queue_pending"), False)]

    def cancel(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, or interrupt it. Another one that runs is left alone."""
        self._json("POST", "/queue", json={"delete": [prompt_id]}, timeout=LOOK_S)
        if any(each.running and each.prompt_id == prompt_id for each in self.queue()):
            # older versions do not heed the id: they interrupt what runs, which was this one just now
            self._json("POST", "/interrupt", json={"prompt_id": prompt_id}, timeout=LOOK_S)

    def free(self) -> None:
        """Ask it to give up its models and memory; it does so as soon as nothing runs."""
        self._json("POST", "/free", json={"unload_models": True, "free_memory": True}, timeout=LOOK_S)

    def download(self, saved: SavedFile, target: Path, rules: DownloadRules) -> Path:
        """A file that a workflow saved, as `target`."""
        query = {"filename": saved.filename, "subfolder": saved.subfolder, "type": saved.folder}
        url = f"{self.url}/view"
        with self._open("GET", "/view", params=query, stream=True, timeout=rules.timeout_s) as response:
            if response.status_code == 404:
                raise EngineError(f"ComfyUI does not have {saved.filename}, which the workflow saved, any more")
            _refuse(response)
            with publishing(target) as partial, partial.open("wb") as file:
                for chunk in received(response, url, rules):
                    file.write(chunk)
        return target

    # ---- asking

    def _json(self, method: str, path: str, **request: Any) -> Mapping[str, Any]:
        response = self._ask(method, path, **request)
        _refuse(response)
        return _object(response)

    def _ask(self, method: str, path: str, **request: Any) -> requests.Response:
        with self._open(method, path, **request) as response:
            return response

    @contextmanager
    def _open(
        self, method: str, path: str, *, timeout: float = ANSWER_S, **request: Any
    ) -> Iterator[requests.Response]:
        url = f"{self.url}{path}"
        try:
            response = self._session.request(method, url, timeout=(CONNECT_TIMEOUT_S, timeout), **request)
        except requests.RequestException as error:
            raise Transient(f"ComfyUI at {shown(self.url)} does not answer ({type(error).__name__})") from None
        with response:
            yield response


def _refuse(response: requests.Response) -> None:
    if response.status_code >= 500:
        raise Transient(f"ComfyUI answered {response.status_code}; it may work later")
    if response.status_code >= 400:
        raise EngineError(f"ComfyUI answered {response.status_code} for {urlsplit(response.url).path}")


def _object(response: requests.Response) -> Mapping[str, Any]:
    """The JSON object of an answer; several answers have no body at all."""
    try:
        answer = response.json() if response.content else {}
    except ValueError:
        answer = {}
    return answer if isinstance(answer, Mapping) else {}


def _queued(entries: Any, running: bool) -> Iterator[Queued]:
    """[number, prompt id, prompt, {"client_id": …}, outputs] each."""
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, list) and len(entry) > 3 and isinstance(entry[3], Mapping):
            yield Queued(str(entry[1]), str(entry[3].get("client_id") or ""), running)
