"""A store that no secret gets into by what a worker says: what it writes beside the rows' parameters is redacted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from source.redaction import redact, redact_values
from source.store.base import TaskStore
from source.store.types import Claim, HeartbeatReply, Status


class DiscreetStore:
    """What is no text of the worker's goes straight to the store."""

    def __init__(self, store: TaskStore, secrets: Sequence[str]) -> None:
        self._store = store
        self._secrets = tuple(secrets)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def progress(self, claim: Claim, progress: Mapping[str, Any], **given: Any) -> bool:
        """The text may name an address."""
        return self._store.progress(claim, redact_values(progress, self._secrets), **given)

    def note(self, claim: Claim, name: str, detail: str) -> None:
        """A later claim reads some of them, so names of secrets may stay: their values do not."""
        self._store.note(claim, name, redact_values(detail, self._secrets))

    def complete(
        self, claim: Claim, output_location: str | None, *, result_data: Mapping[str, Any] | None = None, **given: Any
    ) -> None:
        """What the task tells beside its files."""
        data = None if result_data is None else redact_values(result_data, self._secrets)
        self._store.complete(claim, output_location, result_data=data, **given)

    def fail(self, claim: Claim, message: str, *, error_class: str) -> None:
        """An error quotes what it was given."""
        self._store.fail(claim, redact(message, self._secrets), error_class=error_class)

    def retry_later(self, claim: Claim, message: str, *, error_class: str, delay_s: float) -> Status:
        """As above."""
        message = redact(message, self._secrets)
        return self._store.retry_later(claim, message, error_class=error_class, delay_s=delay_s)

    def heartbeat(
        self, worker_id: str, claims: Sequence[Claim], *, metadata: Mapping[str, Any] | None = None, **given: Any
    ) -> HeartbeatReply:
        """What the worker says of itself."""
        told = None if metadata is None else redact_values(metadata, self._secrets)
        return self._store.heartbeat(worker_id, claims, metadata=told, **given)


def discreet(store: TaskStore, secrets: Sequence[str]) -> TaskStore:
    """The store, for a worker that knows these secrets."""
    return cast(TaskStore, DiscreetStore(store, secrets))
