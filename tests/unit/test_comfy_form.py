"""A form is read while it is sent."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from pathlib import Path

import pytest

from source.comfy.api import ComfyApi
from source.comfy.form import CHUNK_BYTES, Form
from source.errors import GenerationCancelled


def test_a_form_has_the_length_that_it_says_and_holds_the_file_in_pieces(tmp_path: Path) -> None:
    content = os.urandom(2 * CHUNK_BYTES + 7)
    (tmp_path / "clip").write_bytes(content)
    with (tmp_path / "clip").open("rb") as file:
        form = Form({"type": "input"}, "image", 'a "clip".mp4', file, lambda: None)
        pieces = list(form)
    assert max(map(len, pieces)) == CHUNK_BYTES
    body = b"".join(pieces)
    assert len(body) == len(form)
    boundary = form.content_type.partition("boundary=")[2].encode()
    nothing, first, second, end = body.split(b"--" + boundary)
    assert (nothing, end) == (b"", b"--\r\n")
    assert first == b'\r\nContent-Disposition: form-data; name="type"\r\n\r\ninput\r\n'
    head, _, sent = second.partition(b"\r\n\r\n")
    assert b'name="image"; filename="a _clip_.mp4"' in head
    assert sent.removesuffix(b"\r\n") == content


def test_an_upload_stops_when_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "clip").write_bytes(bytes(64 * CHUNK_BYTES))
    asked = itertools.count(1)

    def check() -> None:
        if next(asked) == 3:
            raise GenerationCancelled

    with socket.create_server(("127.0.0.1", 0)) as server:
        reader = threading.Thread(target=read_until_closed, args=(server,))
        reader.start()
        api = ComfyApi(f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(GenerationCancelled):
            api.upload(tmp_path / "clip", "clip", check)
        api.close()
        reader.join(10)
    assert not reader.is_alive(), "the connection stays open"


def read_until_closed(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        while connection.recv(CHUNK_BYTES):
            pass
