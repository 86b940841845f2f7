"""Files that people give for their rows on Supabase: in the project's bucket, under a name of their content."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pydantic import BaseModel

from source.settings import Settings
from source.storage import unwatched
from source.store.base import TaskStore
from source.store.supabase import Functions, SupabaseStore
from source.supabase_storage import checked, content_type
from source.upload import measured, upload
from source.uploads import LocalUploads, Uploads


class _Target(BaseModel):
    """Where the project wants a file to be put; `stored`: it is there already."""

    upload_url: str
    upload_headers: dict[str, str]
    public_url: str
    stored: bool


class SupabaseUploads:
    """The bucket, by the Edge Function upload-input. `project_id`: of whose rows the files are, for a service key."""

    def __init__(self, functions: Functions, project_id: str | None = None) -> None:
        self._functions = functions
        self._project_id = project_id
        #: where a file is received on its way
        self.folder = Path(tempfile.gettempdir())

    def keep(self, path: Path, name: str) -> str:
        """Upload a file, unless the project has it; its address. Raises StorageUnavailable, RefusedUpload, StoreError,
        OSError."""
        measure = measured(path, lambda: None)
        body = {
            "filename": name,
            "content_type": content_type(name),
            "size_bytes": measure.size_bytes,
            "sha256": measure.sha256,
            "md5": measure.md5,
            **({"project_id": self._project_id} if self._project_id else {}),
        }
        target = checked(_Target, self._functions.call("upload-input", body))
        if not target.stored:
            upload(path, target.upload_url, target.upload_headers, measure.size_bytes, unwatched)
        return target.public_url


def uploads_for(settings: Settings, store: TaskStore, project_id: str | None = None) -> Uploads:
    """Where files for rows of a database are kept: in its project, or beside its file."""
    if isinstance(store, SupabaseStore):
        return SupabaseUploads(store.functions, project_id)
    return LocalUploads(settings)
