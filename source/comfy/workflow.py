"""Workflows of ComfyUI in the API format: {node id: {"class_type": …, "inputs": {…}}}. Pure: nothing is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from source.errors import InvalidInput
from Wan2GP.errors import did_you_mean

Workflow = dict[str, dict[str, Any]]

#: where a node's result lists files: the best answer to "the output" first
KINDS = ("videos", "gifs", "images", "audio")
#: saved videos are listed as images by some nodes
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".webm", ".mov", ".avi"})


def parse_workflow(value: Any) -> Workflow:
    """A workflow as an object or as JSON text, checked in its form. Raises ValueError that says what to do."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"the workflow is not JSON: {error}") from None
    if not isinstance(value, Mapping) or not value:
        raise ValueError("the workflow must be a JSON object of nodes")
    if "nodes" in value and "links" in value:
        raise ValueError('the workflow is in the format of the editor; export it with "Export (API)"')
    for node_id, node in value.items():
        _check_node(node_id, node)
    return {str(node_id): dict(node) for node_id, node in value.items()}


def _check_node(node_id: str, node: Any) -> None:
    if not isinstance(node, Mapping) or not isinstance(node.get("class_type"), str):
        raise ValueError(f'node {node_id} of the workflow has no class_type; export it with "Export (API)"')
    if not isinstance(node.get("inputs", {}), Mapping):
        raise ValueError(f"the inputs of node {node_id} of the workflow are not an object")


def check_input(workflow: Workflow, node_id: str, input_field: str, field: str) -> None:
    """Raises InvalidInput unless the node has that input. `field` is the parameter that named the node."""
    if node_id not in workflow:
        having = [node for node, each in workflow.items() if input_field in each.get("inputs", {})]
        hint = f" {input_field!r} is an input of: {', '.join(having)}." if having else did_you_mean(node_id, workflow)
        raise InvalidInput(f"the workflow has no node {node_id!r}.{hint}", field=field)
    inputs = workflow[node_id].get("inputs", {})
    if input_field not in inputs:
        raise InvalidInput(
            f"node {titled(workflow, node_id)} has no input {input_field!r}; it has {', '.join(inputs) or 'none'}",
            field=field,
        )


def with_input(workflow: Workflow, node_id: str, input_field: str, value: str) -> Workflow:
    """A copy in which one input of one node has another value."""
    node = workflow[node_id]
    return workflow | {node_id: node | {"inputs": {**node.get("inputs", {}), input_field: value}}}


def titled(workflow: Workflow, node_id: str) -> str:
    """A node for people: "12 (LoadVideo)", with the title that the editor gave it where there is one."""
    node = workflow.get(node_id, {})
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, Mapping) else None
    name = title or node.get("class_type")
    return f"{node_id} ({name})" if name else node_id


@dataclass(frozen=True)
class SavedFile:
    """A file that a workflow saved, as ComfyUI names it."""

    node_id: str
    kind: str
    filename: str
    subfolder: str
    folder: str


def saved_files(entry: Mapping[str, Any]) -> list[SavedFile]:
    """The files of a finished workflow: videos, then GIFs (and what is listed as such), images, sounds.

    Previews count only where nothing was saved.
    """
    found = list(_listed(entry))
    saved = [each for each in found if each.folder == "output"] or found
    return sorted(saved, key=_rank)


def _rank(saved: SavedFile) -> int:
    return -1 if PurePath(saved.filename).suffix.lower() in VIDEO_SUFFIXES else KINDS.index(saved.kind)


def _listed(entry: Mapping[str, Any]) -> Iterator[SavedFile]:
    for node_id, result in _mapping(entry.get("outputs")).items():
        for kind in KINDS:
            files = _mapping(result).get(kind)
            for each in files if isinstance(files, list) else ():
                name = _mapping(each).get("filename")
                if isinstance(name, str) and name:
                    folders = (str(each.get("subfolder") or ""), str(each.get("type") or "output"))
                    yield SavedFile(str(node_id), kind, name, *folders)


def failure(workflow: Workflow, entry: Mapping[str, Any]) -> tuple[str, str] | None:
    """(class of the exception, what happened for people) of a workflow that did not end well; None when it did."""
    status = _mapping(entry.get("status"))
    if status.get("status_str") != "error":
        return None
    for event, data in _messages(status):
        if event == "execution_interrupted":
            return "interrupted", f"it was interrupted at node {titled(workflow, str(data.get('node_id')))}"
        if event == "execution_error":
            kind = str(data.get("exception_type") or "error")
            said = str(data.get("exception_message") or "").strip() or "no message"
            return kind, f"node {titled(workflow, str(data.get('node_id')))} failed: {kind}: {said}"
    return "error", "it failed; the log of ComfyUI says why"


def _messages(status: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    messages = status.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, list) and len(message) == 2:
            yield str(message[0]), _mapping(message[1])


def refusal(workflow: Workflow, answer: Mapping[str, Any]) -> str:
    """Why ComfyUI does not take a workflow (or a part of it), by node and input."""
    error = _mapping(answer.get("error"))
    text = " ".join(str(part) for part in (error.get("message"), error.get("details")) if part)
    parts = [text] if text else []
    for node_id, found in _mapping(answer.get("node_errors")).items():
        errors = _mapping(found).get("errors")
        for each in errors if isinstance(errors, list) else ():
            parts.append(f"node {titled(workflow, str(node_id))}{_named_input(_mapping(each))}")
    return "; ".join(parts) or "no reason was given"


def _named_input(error: Mapping[str, Any]) -> str:
    name = _mapping(error.get("extra_info")).get("input_name")
    said = ": ".join(str(part) for part in (error.get("message"), error.get("details")) if part)
    return f", input {name!r}: {said}" if name else f": {said}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
