"""URLs of LoRAs: where the file is, which ones are the same, and what it is called here."""

from __future__ import annotations

import pytest

from source.errors import InvalidMedia
from source.loras.references import RemoteLoRA
from Wan2GP.layout import lora_file_name

HUB = "https://huggingface.co/lightx2v/Wan2.2-Lightning"


@pytest.mark.parametrize(
    ("reference", "served"),
    [
        (f"{HUB}/blob/main/a/x.safetensors", f"{HUB}/resolve/main/a/x.safetensors"),
        (f"{HUB}/resolve/main/x.safetensors?download=true", f"{HUB}/resolve/main/x.safetensors"),
        ("http://hf.co/a/b/blob/main/x.safetensors#top", "https://huggingface.co/a/b/resolve/main/x.safetensors"),
        ("https://hub.mine.org/a/b/blob/v1/x.sft", "https://hub.mine.org/a/b/resolve/v1/x.sft"),
        ("https://huggingface.co/datasets/a/b/blob/main/x.sft", "https://huggingface.co/datasets/a/b/resolve/main/x.sft"),
        ("https://github.com/a/b/blob/main/x.safetensors", "https://github.com/a/b/raw/main/x.safetensors"),
        ("https://cdn.org/blob/x.safetensors", "https://cdn.org/blob/x.safetensors"),
        ("https://cdn.org/x.safetensors?a=%20b&download=true&c", "https://cdn.org/x.safetensors?a=%20b&c"),
    ],
)  # fmt: skip
def test_the_page_of_a_file_becomes_the_file(reference: str, served: str) -> None:
    assert RemoteLoRA.parse(reference).url == served


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"{HUB}/blob/main/x.safetensors", f"{HUB}/resolve/main/x.safetensors?download=true"),
        ("https://h.org/a%20b.safetensors", "https://h.org/a b.safetensors"),
        ("https://h.org/x.safetensors?token=one", "https://h.org/x.safetensors?token=two"),
        ("https://user:pass@h.org/x.safetensors", "https://H.ORG/x.safetensors"),
        ("https://b.org/x.sft?X-Amz-Signature=1&X-Amz-Date=2", "https://b.org/x.sft"),
        ("https://b.org/x.sft?sv=1&sig=abc&se=later", "https://b.org/x.sft?sv=2&sig=cde"),
    ],
)
def test_two_ways_to_write_one_file_are_one_identity(one: str, other: str) -> None:
    assert RemoteLoRA.parse(one).identity == RemoteLoRA.parse(other).identity


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://h.org/get?file=a.safetensors", "https://h.org/get?file=b.safetensors"),
        ("https://h.org/get?key=a", "https://h.org/get?key=b"),
        ("https://h.org/x.safetensors?se=1", "https://h.org/x.safetensors?se=2"),
        ("https://h.org/x.safetensors", "http://h.org/x.safetensors"),
    ],
)
def test_what_may_be_another_file_is_another_identity(one: str, other: str) -> None:
    assert RemoteLoRA.parse(one).identity != RemoteLoRA.parse(other).identity


def test_an_identity_holds_no_secret() -> None:
    url = "https://me:hunter2@h.org/x.safetensors?token=swordfish&key=abc123&type=Model"
    identity = RemoteLoRA.parse(url).identity
    assert not any(secret in identity for secret in ("hunter2", "swordfish", "abc123"))
    assert "type=Model" in identity


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        (f"{HUB}/resolve/main/style%20one.safetensors?download=true", "style one.safetensors"),
        (f"{HUB}/resolve/main/Seko-V1.1/high_noise_model.safetensors", "Seko-V1.1_high_noise_model.safetensors"),
        (f"{HUB}/blob/main/low_noise_model.safetensors", "Wan2.2-Lightning_low_noise_model.safetensors"),
        ("https://h.org/me/pytorch_lora_weights.safetensors", "me_pytorch_lora_weights.safetensors"),
        ("https://h.org/adapter_model.safetensors", "adapter_model.safetensors"),
        ("https://h.org/api/download/models/123?type=Model", "123.safetensors"),
        ("https://h.org/..%2F..%2Fevil.safetensors", "evil.safetensors"),
        ("https://h.org/a/%2e%2e", "safetensors"),
    ],
)
def test_names_are_safe_and_say_something(reference: str, name: str) -> None:
    assert RemoteLoRA.parse(reference).file_name() == name


def test_the_servers_name_counts_where_the_url_has_none() -> None:
    nameless = RemoteLoRA.parse("https://h.org/api/download/models/123")
    assert nameless.file_name("Nice Style.safetensors") == "Nice Style.safetensors"
    assert nameless.file_name("setup.exe") == "123.safetensors"
    assert nameless.file_name("adapter_model.safetensors") == "123_adapter_model.safetensors"
    assert RemoteLoRA.parse("https://h.org/a.safetensors").file_name("b.safetensors") == "a.safetensors"


@pytest.mark.parametrize(
    "reference",
    [
        "file:///etc/passwd",
        "ftp://h.org/x.safetensors",
        "http://",
        "https://h.org",
        "https://h.org/",
        "http://h:x/a.safetensors",
        "http://[::1/x.safetensors",
        "https://h.org/x.ckpt",
        "https://h.org/x.bin?a=1",
    ],
)
def test_what_cannot_be_a_lora_is_refused_before_anything_is_asked(reference: str) -> None:
    with pytest.raises(InvalidMedia):
        RemoteLoRA.parse(reference)


@pytest.mark.parametrize(
    "url",
    [
        "https://huggingface.co/someone/loras/resolve/main/style.safetensors",
        "https://huggingface.co/someone/loras/resolve/main/wan/high_noise_model.safetensors?download=true",
        "https://huggingface.co/someone/loras/resolve/main/low_noise_model.safetensors",
        "https://example.com/a/b/adapter_model.safetensors",
    ],
)
def test_a_models_own_loras_are_called_as_a_tasks_downloads_are(url: str) -> None:
    assert lora_file_name(url) == RemoteLoRA.parse(url).file_name()
