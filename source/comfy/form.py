"""A form with a file (multipart/form-data, RFC 7578) that is read while it is sent: a large video needs no memory."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

CHUNK_BYTES = 1024 * 1024


class Form:
    """The body of one request: `fields`, then one file. It is sent once. `check` may raise, before each piece."""

    def __init__(
        self, fields: Mapping[str, str], field: str, filename: str, file: BinaryIO, check: Callable[[], None]
    ) -> None:
        boundary = uuid.uuid4().hex
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        ]
        quoted = filename.replace("\\", "_").replace('"', "_")
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{quoted}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._head = "".join(parts).encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._file = file
        self._check = check
        self._size = os.fstat(file.fileno()).st_size

    def __len__(self) -> int:
        return len(self._head) + self._size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        left = self._size
        while left and (chunk := self._file.read(min(CHUNK_BYTES, left))):
            self._check()
            left -= len(chunk)
            yield chunk
        yield self._tail
