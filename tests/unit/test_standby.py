"""Weights that stand by: exact whatever happens to them in between. Host and device are two places on the CPU here;
what needs an accelerator (page-locked memory, streams) is left out of the same code."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_loras import factors, linears, predict, transformer
from torch import nn

from Wan2GP.engine.lora.merging import LoraSet
from Wan2GP.engine.residency import standby as standby_module
from Wan2GP.engine.residency.placement import Form, Placement, back_to_rest, form_of, stream_through
from Wan2GP.engine.residency.standby import Standby, blocks_of, num_bytes, packed, tensors_of
from Wan2GP.memory_profiles import AUTOMATIC, PROFILES

CPU = torch.device("cpu")


@pytest.fixture
def model() -> Iterator[nn.Module]:
    yield transformer()


def apart(model: nn.Module) -> Standby:
    found = Standby(model, CPU, apart=True)
    standby_module._standbys[model] = found
    return found


def weights(model: nn.Module) -> list[torch.Tensor]:
    """The weights as they lie; whoever has them keeps their memory from being used again."""
    return [tensor.data for tensor in tensors_of(model)]


def moved(model: nn.Module, before: list[torch.Tensor]) -> list[bool]:
    return [tensor.data_ptr() != old.data_ptr() for tensor, old in zip(tensors_of(model), before, strict=True)]


def lora(folder: Path, model: nn.Module) -> Path:
    pairs = factors(model, linears(model), 1)
    tensors = {f"transformer.{name}.lora_A.weight": down for name, (down, _) in pairs.items()}
    path = folder / "lora.safetensors"
    save_file(tensors | {f"transformer.{name}.lora_B.weight": up for name, (_, up) in pairs.items()}, path)
    return path


def test_weights_go_to_the_device_and_back_unchanged(model: nn.Module) -> None:
    at_home, expected = weights(model), predict(model)
    parked = apart(model)
    parked.bring()
    assert all(moved(model, at_home)) and parked.device_bytes == parked.num_bytes
    assert parked.host_bytes == 0, "the copy in host memory is let go unless it is page-locked"
    assert torch.equal(predict(model), expected)
    parked.park()
    assert parked.device_bytes == 0 and parked.host_bytes == parked.num_bytes
    parked.bring()
    assert torch.equal(predict(model), expected)


def test_a_master_copy_is_used_again_and_follows_what_was_changed(model: nn.Module) -> None:
    parked = apart(model)
    parked.bring()
    parked.park()
    parked.pinned = True  # from now on the copy stays, as page-locked memory does
    master = weights(model)
    parked.bring()
    weight = next(model.parameters())
    with torch.no_grad():
        weight.add_(1)
    changed = weight.clone()
    parked.park()
    assert not any(moved(model, master)) and torch.equal(weight, changed)


def test_a_lora_stays_merged_while_its_expert_is_away_and_leaves_nothing(tmp_path: Path, model: nn.Module) -> None:
    parked, plain = apart(model), predict(model)
    parked.bring()
    with LoraSet({"transformer": model}, [lora(tmp_path, model)], [(1.0, 1.0)]) as loras:
        loras.at_step(0)
        merged = predict(model)
        for _ in range(2):
            parked.park()
            parked.pinned = True
            parked.bring()
            assert torch.equal(predict(model), merged)
    parked.park()
    assert torch.equal(predict(model), plain) and not torch.equal(merged, plain)


def test_each_block_waits_for_its_own_weights_and_the_first_pass_is_right(model: nn.Module) -> None:
    expected, at_home = predict(model), weights(model)
    parked = apart(model)
    parked.bring(ahead=True)
    assert 0 < sum(moved(model, at_home)) < len(at_home), "without streams the copies are made when their blocks run"
    assert torch.equal(predict(model), expected)
    assert all(moved(model, at_home))
    assert not any(block._forward_pre_hooks for block in blocks_of(model)), "the second pass waits for nothing"


def test_loras_wait_for_weights_that_are_on_their_way(tmp_path: Path, model: nn.Module) -> None:
    with LoraSet({"transformer": model}, [lora(tmp_path, model)], [(1.0,)]) as loras:
        loras.at_step(0)
        expected = predict(model)
    at_home = weights(model)
    apart(model).bring(ahead=True)
    with LoraSet({"transformer": model}, [lora(tmp_path, model)], [(1.0,)]) as loras:
        assert all(moved(model, at_home))
        loras.at_step(0)
        assert torch.equal(predict(model), expected)


def test_a_part_that_nobody_holds_is_freed_with_its_copies() -> None:
    model = transformer()
    parked = apart(model)
    parked.bring(ahead=True)
    gone = weakref.ref(model)
    del model, parked
    gc.collect()
    assert gone() is None


def test_weights_for_which_there_is_no_room_stay_where_they_were_all_of_them() -> None:
    model = nn.ModuleList([nn.Linear(3, 3), nn.Linear(1, 1)])
    model[1].weight.data = torch.zeros(1, 1).expand(1 << 30, 1 << 20)  # takes no memory until it is copied
    at_home, parked = weights(model), apart(model)
    with pytest.raises(RuntimeError, match="memory"):
        parked.bring()
    assert not any(moved(model, at_home)) and (parked.device_bytes, parked.on_device) == (0, False)


def test_master_copies_are_packed_into_few_pieces() -> None:
    tensors = [
        torch.arange(n, dtype=kind) for n in (5, 64, 1000) for kind in (torch.float32, torch.bfloat16, torch.int8)
    ]
    made = packed(tensors, pin=False, piece_bytes=4096)
    for copy, tensor in zip(made, tensors, strict=True):
        copy.copy_(tensor)
    assert all(torch.equal(copy, tensor) for copy, tensor in zip(made, tensors, strict=True))
    assert all(copy.data_ptr() % 64 == 0 for copy in made)
    pieces = {copy.untyped_storage().data_ptr() for copy in made}
    assert len(pieces) < len(tensors) and num_bytes(made) == num_bytes(tensors)


def test_master_copies_keep_channels_last() -> None:
    weight = torch.randn(6, 4, 3, 3, 3).to(memory_format=torch.channels_last_3d)
    [copy] = packed([weight], pin=False)
    copy.copy_(weight)
    assert copy.stride() == weight.stride() and torch.equal(copy, weight)


def test_layers_that_come_one_by_one_compute_the_same_with_loras_too(tmp_path: Path, model: nn.Module) -> None:
    plain = predict(model)
    with LoraSet({"transformer": model}, [lora(tmp_path, model)], [(1.0,)]) as loras:
        loras.at_step(0)
        merged = predict(model)
    stream_through(model, CPU, overlapped=True, pinned=True)
    for _ in range(2):
        assert torch.equal(predict(model), plain)
    with LoraSet({"transformer": model}, [lora(tmp_path, model)], [(1.0,)]) as loras:
        loras.at_step(0)
        assert torch.equal(predict(model), merged)
        back_to_rest(model)
    assert torch.equal(predict(model), plain)


def test_a_part_streams_for_one_model_and_not_for_the_next_that_shares_it(tmp_path: Path, model: nn.Module) -> None:
    plain, parked = predict(model), apart(model)
    placements = [Placement({"transformer": model}, CPU, PROFILES[number], 10**9) for number in (4, 1)]
    placements[0].form = Form.STREAMED  # which a CPU never chooses by itself
    for _ in range(2):
        placements[0].bring()
        assert parked.streamed and torch.equal(predict(model), plain)
        with LoraSet({"transformer": model}, [lora(tmp_path, model)], [(1.0,)]) as loras:
            loras.at_step(0)
            assert not torch.equal(predict(model), plain)
        placements[1].bring()
        assert not parked.streamed and parked.device_bytes == parked.num_bytes
        assert torch.equal(predict(model), plain)
        placements[1].park()
        assert parked.device_bytes == 0 and torch.equal(predict(model), plain)


@pytest.mark.parametrize(
    ("room", "profile", "form"),
    [(10**9, 1, Form.WHOLE), (10**9, 2, Form.STREAMED), (1, 3, Form.STREAMED), (1, -1, Form.STREAMED)],
)
def test_what_a_model_does_with_a_gpu_follows_from_room_and_profile(
    model: nn.Module, room: int, profile: int, form: Form
) -> None:
    chosen = PROFILES.get(profile, AUTOMATIC)
    assert form_of({"transformer": model}, torch.device("cuda"), chosen, room) is form
    assert form_of({"transformer": model}, CPU, chosen, room) is Form.WHOLE


def test_parts_that_fit_alone_but_not_together_visit(model: nn.Module) -> None:
    parts, size = {"transformer": model, "vae": transformer(seed=1)}, num_bytes(tensors_of(model))
    assert form_of(parts, torch.device("cuda"), AUTOMATIC, size) is Form.VISITING
    assert form_of(parts, torch.device("cuda"), AUTOMATIC, 2 * size) is Form.WHOLE
