"""What was computed before: found by its content alone, bounded in bytes, and nobody's but the caller's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from Wan2GP.engine.residency.budgets import free_host_bytes
from Wan2GP.engine.residency.cache import TensorCache, digest
from Wan2GP.memory_profiles import AUTOMATIC, PROFILES, profile_of
from Wan2GP.parameters import LEAST_MEMORY_PROFILE, LOW_MEMORY_PROFILES


def squares(cache: TensorCache, number: int, size: int = 256) -> torch.Tensor:
    return cache.of("square", number, lambda: torch.full((size,), float(number**2)))


def test_the_same_content_is_computed_once_and_no_caller_can_change_it_for_another() -> None:
    cache = TensorCache(1 << 20)
    first = squares(cache, 3)
    first.zero_()
    second = squares(cache, 3)
    second.fill_(7)
    assert torch.equal(squares(cache, 3), torch.full((256,), 9.0))
    assert cache.counts == {"square computed": 1, "square found": 2}


def test_it_holds_no_more_bytes_than_it_may_and_forgets_what_was_longest_unused() -> None:
    cache = TensorCache(3 * 1024)
    for number in (1, 2, 3, 1, 4):
        squares(cache, number)
    assert cache.num_bytes == 3 * 1024 and cache.counts["square dropped"] == 1
    for number in (1, 3, 4):
        squares(cache, number)
    assert cache.counts["square computed"] == 4, "2 was the one that went"
    squares(cache, 9, size=1024)
    assert cache.num_bytes == 3 * 1024, "what is larger than all of it is not kept"
    cache.limit(1024)
    assert cache.num_bytes == 1024
    cache.clear()
    assert cache.num_bytes == 0


def test_nested_results_come_back_as_they_were() -> None:
    cache, made = TensorCache(1 << 20), {"a": (torch.ones(2), None), "b": [torch.zeros(3, dtype=torch.bfloat16)]}
    for _ in range(2):
        found = cache.of("nested", "key", lambda: made)
        assert found["a"][1] is None and torch.equal(found["a"][0], torch.ones(2))
        assert found["b"][0].dtype == torch.bfloat16
    assert cache.num_bytes == 2 * 4 + 3 * 2


@pytest.mark.parametrize(
    "other",
    [
        torch.zeros(2, 3), torch.zeros(6), torch.zeros(3, 2, dtype=torch.int32), torch.full((3, 2), -0.0), "0", 0, 0.0,
        False, None, [], (), {}, np.zeros((3, 2), np.float32), Image.new("RGB", (3, 2)), Image.new("RGB", (2, 3)),
        Image.new("L", (6, 3)), [torch.zeros(3, 2)],
    ],
)  # fmt: skip
def test_different_content_has_another_digest(other: object) -> None:
    zeros = torch.zeros(3, 2)
    assert digest(zeros) == digest(torch.zeros(2, 3).T.contiguous()) != digest(other)
    assert digest([zeros, object()]) is None, "what cannot be compared is not kept"


def test_the_profiles_that_take_little_of_the_gpu_are_those_that_stream() -> None:
    assert {2, 4, 5} == LOW_MEMORY_PROFILES and LEAST_MEMORY_PROFILE == 5
    assert [PROFILES[number].overlapped for number in range(1, 6)] == [False, True, False, True, False]
    assert profile_of(-1) is profile_of(0) is AUTOMATIC
    assert not PROFILES[5].pins("transformer") and PROFILES[5].kept_share == 0
    assert PROFILES[4].pins("transformer_2") and not PROFILES[4].pins("text_encoder")


def test_a_container_has_what_its_limit_leaves(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable: 4000 kB\n")
    assert free_host_bytes(meminfo, tmp_path) == 4000 * 1024
    for name, text in (("memory.max", "3000000"), ("memory.current", "2500000"), ("memory.stat", "inactive_file 500")):
        (tmp_path / name).write_text(text + "\n")
    assert free_host_bytes(meminfo, tmp_path) == 500_500
    (tmp_path / "memory.max").write_text("max\n")
    assert free_host_bytes(meminfo, tmp_path) == 4000 * 1024
