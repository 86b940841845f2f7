"""LoRAs come and go with the steps, on the expert that runs, and leave every weight as it was, bit for bit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_loras import factors, linears, predict, transformer
from torch import nn

from Wan2GP.engine.lora.merging import LoraSet
from Wan2GP.engine.lora.multipliers import plan_multipliers
from Wan2GP.errors import EngineError, Unsupported

PHASES = (1, 1, 2, 2, 3, 3)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the names and bytes of every weight."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def versions(model: nn.Module) -> dict[str, int]:
    """How often each weight was written to."""
    return {name: parameter._version for name, parameter in model.named_parameters()}


def lora_file(folder: Path, model: nn.Module, seed: int, names: list[str] | None = None) -> Path:
    path = folder / f"lora_{seed}.safetensors"
    pairs = factors(model, names or linears(model), seed)
    downs = {f"transformer.{name}.lora_A.weight": down for name, (down, _) in pairs.items()}
    save_file({**downs, **{f"transformer.{name}.lora_B.weight": up for name, (_, up) in pairs.items()}}, path)
    return path


def plan(text: str, count: int = 1) -> list[tuple[float, ...]]:
    return plan_multipliers(["lora"] * count, text, PHASES, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_after_the_run_every_weight_is_what_it_was(tmp_path: Path, dtype):
    model = transformer().to(dtype)
    before = fingerprint(model)
    files = [lora_file(tmp_path, model, seed) for seed in (1, 2)]
    with LoraSet({"transformer": model}, files, plan("1.2;0.6;0.0 0.3,0.7", 2)) as loras:
        merged = set()
        for step in range(6):
            loras.at_step(step)
            merged.add(fingerprint(model))
        assert before not in merged and len(merged) == 4
    assert fingerprint(model) == before
    loras.remove()
    assert fingerprint(model) == before


def test_a_lora_of_the_second_phase_changes_nothing_before_it(tmp_path: Path):
    model = transformer()
    path = lora_file(tmp_path, model, 1)
    plain, before = predict(model), fingerprint(model)
    with LoraSet({"transformer": model}, [path], plan("0;1;0")) as loras:
        outputs = []
        for step in range(6):
            loras.at_step(step)
            outputs.append(predict(model))
            assert (fingerprint(model) == before) is (PHASES[step] != 2)
    assert [torch.equal(output, plain) for output in outputs] == [True, True, False, False, True, True]
    assert (outputs[2] - plain).abs().max() > 0.05


def test_a_list_of_steps_merges_each_value_from_the_original(tmp_path: Path):
    """0.8 after 1.0 is what 0.8 alone gives: nothing drifts."""
    model = transformer()
    path = lora_file(tmp_path, model, 1)
    with LoraSet({"transformer": model}, [path], [(1.0, 0.8, 0.4, 1.0)]) as loras:
        seen = []
        for step in range(4):
            loras.at_step(step)
            seen.append(fingerprint(model))
    with LoraSet({"transformer": model}, [path], [(0.8,)]) as loras:
        loras.at_step(0)
        assert fingerprint(model) == seen[1]
    assert len(set(seen)) == 3 and seen[0] == seen[3]


def test_several_loras_add_up(tmp_path: Path):
    model = transformer()
    files = [lora_file(tmp_path, model, seed) for seed in (1, 2)]
    original = model.blocks[0].attn1.to_q.weight.detach().clone()
    with LoraSet({"transformer": model}, files, [(0.5,), (-2.0,)]) as loras:
        loras.at_step(0)
        difference = model.blocks[0].attn1.to_q.weight - original
    (d1, u1), (d2, u2) = (factors(model, linears(model), seed)["blocks.0.attn1.to_q"] for seed in (1, 2))
    assert torch.allclose(difference, 0.5 * u1 @ d1 - 2 * u2 @ d2, atol=1e-6)


def test_sums_are_rounded_once_from_float32(tmp_path: Path):
    model = transformer().to(torch.bfloat16)
    path = lora_file(tmp_path, model, 1)
    original = model.blocks[0].attn1.to_q.weight.detach().clone()
    down, up = factors(model, linears(model), 1)["blocks.0.attn1.to_q"]
    with LoraSet({"transformer": model}, [path], [(0.3,)]) as loras:
        loras.at_step(0)
        assert torch.equal(model.blocks[0].attn1.to_q.weight, (original.float() + 0.3 * (up @ down)).bfloat16())


def test_unchanged_multipliers_and_untouched_layers_are_not_written(tmp_path: Path):
    model = transformer()
    only_q, rest = ["blocks.0.attn1.to_q"], ["blocks.1.attn1.to_q"]
    files = [lora_file(tmp_path, model, 1, only_q), lora_file(tmp_path, model, 2, rest)]
    start = versions(model)
    with LoraSet({"transformer": model}, files, [(1.0, 1.0, 1.0, 0.0), (0.0, 0.0, 0.5, 0.5)]) as loras:
        writes = []
        for step in range(4):
            before = versions(model)
            loras.at_step(step)
            writes.append({name for name, count in versions(model).items() if count != before[name]})
    first, second = ({f"{names[0]}.weight"} for names in (only_q, rest))
    assert writes == [first, set(), second, first]
    assert {name for name, count in versions(model).items() if count != start[name]} == first | second


def test_each_expert_is_merged_only_while_it_runs(tmp_path: Path):
    high, low = transformer(seed=0), transformer(seed=1)
    files = [lora_file(tmp_path, high, seed) for seed in (1, 2)]
    before, untouched = (fingerprint(high), fingerprint(low)), versions(low)
    experts = ["transformer"] * 2 + ["transformer_2"] * 2
    schedules = plan_multipliers(["high", "low"], "1;0 0;1", (1, 1, 2, 2), 2)
    with LoraSet({"transformer": high, "transformer_2": low}, files, schedules, expert_of_step=experts) as loras:
        assert [note.split(": ")[1] for note in loras.notes] == [
            "20 weights of transformer, rank 3", "20 weights of transformer_2, rank 3",
        ] * 2  # fmt: skip
        loras.at_step(0)
        merged_high = fingerprint(high)
        assert merged_high != before[0] and versions(low) == untouched
        written = versions(high)
        loras.at_step(1)
        loras.at_step(2)
        loras.at_step(3)
        assert versions(high) == written, "the expert that has finished is left alone"
        once = {count - untouched[name] for name, count in versions(low).items()}
        assert fingerprint(low) != before[1] and once == {0, 1}
    assert (fingerprint(high), fingerprint(low)) == before


def test_without_experts_by_step_both_are_merged(tmp_path: Path):
    high, low = transformer(seed=0), transformer(seed=1)
    before = (fingerprint(high), fingerprint(low))
    with LoraSet({"transformer": high, "transformer_2": low}, [lora_file(tmp_path, high, 1)], [(1.0,)]) as loras:
        loras.at_step(0)
        assert fingerprint(high) != before[0] and fingerprint(low) != before[1]
    assert (fingerprint(high), fingerprint(low)) == before


def test_a_failure_between_steps_leaves_the_weights_as_they_were(tmp_path: Path):
    model = transformer()
    before = fingerprint(model)
    with (
        pytest.raises(RuntimeError),
        LoraSet({"transformer": model}, [lora_file(tmp_path, model, 1)], [(1.0,)]) as loras,
    ):
        loras.at_step(0)
        assert fingerprint(model) != before
        raise RuntimeError("the step failed")
    assert fingerprint(model) == before


def test_a_failure_inside_merging_leaves_the_weights_as_they_were(tmp_path: Path):
    """The last weight is moved to a device that holds no numbers, so that merging stops with the others done."""
    model = transformer()
    before = fingerprint(model)
    loras = LoraSet({"transformer": model}, [lora_file(tmp_path, model, 1)], [(1.0,)])
    last = model.blocks[1].ffn.net[2].weight
    held = last.data
    with pytest.raises((RuntimeError, NotImplementedError)), loras:
        last.data = torch.empty_like(held, device="meta")
        try:
            loras.at_step(0)
        finally:
            last.data = held
            assert fingerprint(model) != before
    assert fingerprint(model) == before


def test_loras_can_be_merged_again_after_removal(tmp_path: Path):
    model = transformer()
    loras = LoraSet({"transformer": model}, [lora_file(tmp_path, model, 1)], [(1.0, 0.5)])
    loras.at_step(0)
    first = fingerprint(model)
    loras.remove()
    loras.at_step(0)
    assert fingerprint(model) == first
    loras.remove()


def test_merging_works_inside_inference_mode(tmp_path: Path):
    model = transformer()
    before = fingerprint(model)
    with (
        torch.inference_mode(),
        LoraSet({"transformer": model}, [lora_file(tmp_path, model, 1)], [(1.0, 0.5)]) as loras,
    ):
        loras.at_step(0)
        loras.at_step(1)
        assert fingerprint(model) != before
    assert fingerprint(model) == before


def test_no_lora_is_no_work():
    model = transformer()
    with LoraSet({"transformer": model}, [], []) as loras:
        start = versions(model)
        loras.at_step(7)
    assert versions(model) == start and loras.notes == ()


def test_steps_without_a_multiplier_are_an_error(tmp_path: Path):
    model = transformer()
    path = lora_file(tmp_path, model, 1)
    loras = LoraSet({"transformer": model}, [path], [(1.0,)])
    for step in (-1, 1):
        with pytest.raises(EngineError, match=f"for 1 steps, none for step {step}"):
            loras.at_step(step)
    with pytest.raises(EngineError, match="1 LoRAs with 2 schedules"):
        LoraSet({"transformer": model}, [path], [(1.0,), (1.0,)])


def test_quantised_weights_are_refused_by_name(tmp_path: Path):
    model = transformer()
    path = lora_file(tmp_path, model, 1)
    model.blocks[0].attn1.to_q.weight.data = model.blocks[0].attn1.to_q.weight.data.to(torch.float8_e4m3fn)
    with pytest.raises(
        Unsupported, match=r"lora_1\.safetensors: .* blocks\.0\.attn1\.to_q\.weight is quantised .*float8"
    ):
        LoraSet({"transformer": model}, [path], [(1.0,)])


def test_weights_that_are_not_loaded_are_refused_by_name(tmp_path: Path):
    model = transformer()
    path = lora_file(tmp_path, model, 1)
    with pytest.raises(Unsupported, match=r"to_k\.weight is not in memory: load the model"):
        LoraSet({"transformer": model.to("meta")}, [path], [(1.0,)])
