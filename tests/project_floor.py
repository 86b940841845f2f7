"""A worker on the local stack, with the shipped fake engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

from local_stack import LocalStack
from worker_floor import Floor

from headless.testing import FakeOrchestrator


class ProjectFloor(Floor):
    """What a test's worker stands on, in a Supabase project. Several of them are several machines."""

    def __init__(
        self, folder: Path, stack: LocalStack, engine: FakeOrchestrator | None = None, *, token: str | None = None,
        **settings: Any,
    ) -> None:  # fmt: skip
        self.stack = stack
        project = {"db_type": "supabase", "supabase_url": stack.url, "supabase_look_s": 0.1}
        super().__init__(folder, engine, **project | {"supabase_access_token": token or stack.service_key} | settings)

    def object(self, location: str) -> Path:
        """The file in the bucket behind a public address."""
        folder = f"{self.stack.url}/storage/v1/object/public/image_uploads/"
        assert location.startswith(folder)
        return self.stack.objects / unquote(location.removeprefix(folder))

    def output(self, task_id: str) -> Path:
        location = self.store.get(task_id).output_location
        assert location is not None
        return self.object(location)

    def published(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.stack.objects)) for path in self.stack.objects.rglob("*") if path.is_file()
        )
