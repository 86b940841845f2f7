"""Whole safetensors files pass; anything else is named for what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lora_site import lora_bytes, put_lora
from safetensors.numpy import save_file

from source.errors import InvalidMedia
from source.loras.inspection import check_lora


def with_header(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(begin: int, end: int, dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - begin], "data_offsets": [begin, end]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.safetensors"


def test_what_the_library_writes_passes(path: Path) -> None:
    save_file({"a": np.ones((3, 4), np.float16), "b": np.zeros(5, np.float32), "c": np.ones((), np.int64)}, path)
    check_lora(path, 50)


def test_dtypes_of_later_versions_pass(path: Path) -> None:
    put_lora(path, with_header({"a": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}}, bytes(4)))
    check_lora(path, 50)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"PK\x03\x04 and so on", "ZIP"),
        (b"<!DOCTYPE html><head><title> Sign in </title>", "HTML page titled 'Sign in'"),
        (b'{"error": "Repository not found"}', "JSON .*Repository not found"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "Git LFS pointer"),
        (b"just a note", "text"),
        (lora_bytes()[:-1], "cut off: it has"),
        (lora_bytes()[:40], "cut off within its header"),
        (lora_bytes() + b"xyz", "3 bytes too many"),
        (with_header({}), "no tensors"),
        (with_header({"__metadata__": {"a": "b"}}), "no tensors"),
        (with_header(b'{"a": '), "not JSON"),
        (with_header(b"{" + b'"a":[' * 3000), "not JSON"),
        (with_header({"a": tensor(0, 4), "b": tensor(6, 8)}, bytes(8)), "gaps"),
        (with_header({"a": tensor(0, 4), "b": tensor(2, 8)}, bytes(8)), "overlap"),
        (with_header({"a": tensor(0, 8, "F32")}, bytes(8)), "tensor 'a'"),
        (with_header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4)), "tensor 'a'"),
        (with_header({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)), "tensor 'a'"),
        (with_header({"a": 7}), "tensor 'a'"),
        (with_header({"a": {"dtype": [], "shape": "x", "data_offsets": "xy"}}), "tensor 'a'"),
    ],
)
def test_what_is_wrong_is_said(path: Path, content: bytes, said: str) -> None:
    put_lora(path, content)
    with pytest.raises(InvalidMedia, match=said):
        check_lora(path, 50)


def test_a_file_beyond_the_limit_is_refused(path: Path) -> None:
    put_lora(path)
    with pytest.raises(InvalidMedia, match="max_lora_gb"):
        check_lora(path, 1e-6)
