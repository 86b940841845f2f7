"""A form is read while it is sent."""

from __future__ import annotations

import os
from pathlib import Path

from source.comfy.form import CHUNK_BYTES, Form


def test_a_form_has_the_length_that_it_says_and_holds_the_file_in_pieces(tmp_path: Path) -> None:
    content = os.urandom(2 * CHUNK_BYTES + 7)
    (tmp_path / "clip").write_bytes(content)
    with (tmp_path / "clip").open("rb") as file:
        form = Form({"type": "input"}, "image", 'a "clip".mp4', file)
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
