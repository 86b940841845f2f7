"""What a workflow of somebody else's may not do: have ComfyUI read files and addresses by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from source.comfy.workflow import Workflow, titled
from source.errors import InvalidInput
from source.media.download import url_scheme
from source.media.places import Folders
from source.provenance.portable import is_place


def refuse_places(workflow: Workflow, folders: Folders) -> None:
    """Raises InvalidInput for a node that names an address, or a file outside `folders`, where those are limited."""
    for node_id, node in workflow.items() if folders.folders is not None else ():
        for text in _texts(node.get("inputs", {})):
            if _leads_upwards(text) or (is_place(text) and (url_scheme(text) or not folders.allow(Path(text)))):
                raise InvalidInput(
                    f"node {titled(workflow, node_id)} names {text[:80]!r} itself; give the file as video_url or in "
                    "inputs, so that it is fetched and checked",
                    field="workflow",
                )


def _leads_upwards(text: str) -> bool:
    return ".." in PurePath(text.replace("\\", "/")).parts


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)
