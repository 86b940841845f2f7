"""The two storage functions of a project, beside a storage of the test's own: what each asks for, and what it gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bucket_site import BucketSite

from source.errors import StaleClaim, TaskNotFound


class ProjectFunctions:
    """Answers as generate-upload-url and generate-download-url do."""

    def __init__(self, bucket: BucketSite, project: str, *, public: bool = True) -> None:
        self._bucket = bucket
        self._folder = f"{project}/storage/v1/object/public/image_uploads/"
        self._public = public
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.stale = False

    def call(self, function: str, body: Mapping[str, Any], *, repeat: bool = True) -> Any:
        self.asked.append((function, dict(body)))
        return self._upload(body) if function == "generate-upload-url" else self._download(body)

    def close(self) -> None:
        """Nothing is open."""

    def _upload(self, body: Mapping[str, Any]) -> dict[str, Any]:
        if self.stale:
            raise StaleClaim("generate-upload-url: the claim is stale")
        key = f"project/tasks/{body['task_id']}/{body['claim_number']}-{body['filename']}"
        headers = {"Content-Type": body["content_type"]}
        return {
            "upload_url": self._bucket.upload_url(key), "upload_headers": headers, "storage_path": key,
            "public_url": self._folder + key, "token": "t", "expires_at": "2030-01-01T00:00:00.000Z",
        }  # fmt: skip

    def _download(self, body: Mapping[str, Any]) -> dict[str, Any]:
        location = body["location"]
        key = location.removeprefix(self._folder)
        if key not in self._bucket.files:
            raise TaskNotFound(f"generate-download-url: there is no object {key}")
        return {"download_url": location if self._public else self._bucket.upload_url(key), "expires_at": None}
