"""Phases, experts and LoRAs by what they do: which transformer is asked at which step with which prompt, and which
latents change."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_runs import run_engine
from safetensors.torch import save_file
from wan_runs import CLIP, Call, Tiny, tiny_definition

from Wan2GP import wgp
from Wan2GP.engine.families import Cancel
from Wan2GP.engine.request import parse_request
from Wan2GP.engine.wan.model import Wan
from Wan2GP.schedules import SOLVERS, model_sigmas, switch_thresholds

HIGH, LOW = "transformer", "transformer_2"
SPLIT = (2, 1, 3)
STEPS = sum(SPLIT)


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("two"), "t2v_2_2")


def phased(solver: str = "euler", split: tuple[int, ...] = SPLIT, **values: Any) -> dict[str, Any]:
    """Values of a call whose phases have so many steps."""
    names = ("switch_threshold", "switch_threshold2")
    thresholds = switch_thresholds(model_sigmas(solver, sum(split), 5.0), split)
    scales = {"guidance_scale": 4.0, "guidance2_scale": 2.0, "guidance3_scale": 1.0}
    return {
        "num_inference_steps": sum(split),
        "sample_solver": solver,
        "guidance_phases": len(split),
        **scales,
        **dict(zip(names, thresholds, strict=False)),
        **values,
    }


def by_step(calls: list[Call]) -> list[list[Call]]:
    """The passes of each step, told apart by their timestep."""
    steps: dict[float, list[Call]] = {}
    for call in calls:
        steps.setdefault(call.timestep, []).append(call)
    return list(steps.values())


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("switch", "high"), [(1, 2), (2, 3)])
def test_each_step_asks_its_expert_and_passes_twice_only_where_guided(two, solver, switch, high):
    with two.watched() as calls:
        two.latents(**phased(solver, model_switch_phase=switch))
    steps = by_step(calls)
    assert [len(step) for step in steps] == [2, 2, 2, 1, 1, 1]
    assert [step[0].expert for step in steps] == [HIGH] * high + [LOW] * (STEPS - high)
    positive, negative = (float(each.mean()) for each in vars(two.prompts(CLIP["prompt"], "ring")).values())
    assert positive != negative
    for step in steps:
        assert [call.prompt for call in step] == pytest.approx([positive, negative][: len(step)])
        assert len({call.expert for call in step}) == 1


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("name", "first"), [("guidance_scale", 0), ("guidance2_scale", 2), ("guidance3_scale", 3)])
def test_the_guidance_of_a_phase_changes_nothing_before_it(two, solver, name, first):
    values = phased(solver, guidance3_scale=1.5)
    before, after = two.each_step(**values), two.each_step(**values | {name: 7.0})
    same = [torch.equal(*pair) for pair in zip(before, after, strict=True)]
    assert same == [True] * first + [False] * (STEPS - first)


@pytest.mark.parametrize("phases", [1, 2])
def test_two_experts_hand_over_with_any_number_of_phases(two, phases):
    with two.watched() as calls:
        two.latents(num_inference_steps=8, guidance_phases=phases, guidance_scale=1.0, guidance2_scale=1.0)
    assert [call.expert for call in calls] == [HIGH if call.timestep > 900 else LOW for call in calls]
    assert {call.expert for call in calls} == {HIGH, LOW}


def test_an_expert_that_is_not_asked_has_no_influence(two):
    first = two.each_step(**phased(model_switch_phase=1))
    bias = two.parts.transformer_2.proj_out.bias
    kept = bias.detach().clone()
    try:
        bias.add_(1.0)
        second = two.each_step(**phased(model_switch_phase=1))
    finally:
        bias.copy_(kept)
    assert [torch.equal(*pair) for pair in zip(first, second, strict=True)] == [True] * 2 + [False] * 4


# ---- LoRAs through the whole call


@pytest.fixture
def engine(two: Tiny, tmp_path: Path):
    """The two-expert model behind the call, a folder of LoRAs, and one LoRA in it."""
    tiny_definition(tmp_path / "rows", "t2v_2_2", two.weights)
    wgp.configure(
        checkpoints=tmp_path, definitions=[tmp_path / "rows"], loras=tmp_path / "loras", save_path=tmp_path / "out"
    )
    wgp.configure(device="cpu")
    wgp.load_models("tiny")
    write_lora(tmp_path / "loras" / "wan" / "style.safetensors", two.parts.transformer)
    yield
    wgp.release_model()
    wgp.configure(definitions=[])


def write_lora(path: Path, transformer: torch.nn.Module, seed: int = 3) -> None:
    """Low-rank factors for every attention and feed-forward layer, under the names that ComfyUI gives them."""
    noise = torch.Generator().manual_seed(seed)
    weights = {}
    for name in ("self_attn.q", "self_attn.v", "cross_attn.k", "ffn.0"):
        ours = {"self_attn.q": "attn1.to_q", "self_attn.v": "attn1.to_v", "cross_attn.k": "attn2.to_k"}
        for block in range(len(transformer.blocks)):
            layer = transformer.get_submodule(f"blocks.{block}.{ours.get(name, 'ffn.net.0.proj')}")
            stem = f"diffusion_model.blocks.{block}.{name}"
            weights[f"{stem}.lora_A.weight"] = torch.randn(2, layer.in_features, generator=noise)
            weights[f"{stem}.lora_B.weight"] = torch.randn(layer.out_features, 2, generator=noise)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)


class Watch:
    """Latents after each step of runs of the resident model, by a hook on what they report."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []
        self._last: torch.Tensor | None = None

    def note(self, module: Any, args: Any, named: dict[str, Any]) -> None:
        hidden = named["hidden_states"]
        if not self.seen or not torch.equal(hidden, self.seen[-1]):
            self.seen.append(hidden.clone())


def fingerprint() -> str:
    digest = hashlib.sha256()
    for expert in wgp.wan_model._parts.experts.values():
        for name, tensor in sorted(expert.state_dict().items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def inputs_of_steps(**values: Any) -> list[torch.Tensor]:
    """The latents that each step begins with, then the latents of the result decoded: through the resident model."""
    watch = Watch()
    experts = wgp.wan_model._parts.experts.values()
    hooks = [expert.register_forward_pre_hook(watch.note, with_kwargs=True) for expert in experts]
    request = parse_request(CLIP | values, wgp.definitions()["tiny"], Wan.reads, Path(wgp.server_config["loras_root"]))
    try:
        list(wgp.wan_model.generate(request, lambda *_: None, Cancel(lambda: False)))
    finally:
        for hook in hooks:
            hook.remove()
    assert len(watch.seen) == request.sampling.num_inference_steps
    return watch.seen


def unchanged(before: list[torch.Tensor], after: list[torch.Tensor]) -> list[bool]:
    return [torch.equal(*pair) for pair in zip(before, after, strict=True)]


@pytest.mark.parametrize(
    ("token", "first_with_effect"),
    [("1;0;0", 0), ("0;1;0", 2), ("0;1;1", 2), ("0;0;1", 3), ("0,0,0,0,1,1", 4), ("0;0;0,0,1", 5), ("0;0;0", 99)],
)
def test_a_lora_changes_nothing_before_the_step_where_it_begins(engine, token, first_with_effect):
    values = phased(guidance_scale=1.0, guidance2_scale=1.0)
    plain = inputs_of_steps(**values)
    with_lora = inputs_of_steps(**values, activated_loras=["style.safetensors"], loras_multipliers=token)
    # A step's prediction shows in what the next step begins with.
    expected = [step <= first_with_effect for step in range(STEPS)]
    assert unchanged(plain, with_lora) == expected


def test_a_lora_of_the_first_phase_alone_is_gone_in_the_later_ones(engine):
    """With LoRA weights in phase 1 only, the second phase predicts as it does without: same input, same output."""
    values = phased(guidance_scale=1.0, guidance2_scale=1.0)
    outputs: dict[str, list[torch.Tensor]] = {}
    for token in ("1;0;0", "1;1;1"):
        seen: list[torch.Tensor] = []
        hook = wgp.wan_model._parts.transformer_2.register_forward_pre_hook(
            lambda module, *_, seen=seen: seen.append(module.blocks[0].attn1.to_q.weight.clone())
        )
        inputs_of_steps(**values, activated_loras=["style.safetensors"], loras_multipliers=token)
        hook.remove()
        outputs[token] = seen
    own = wgp.wan_model._parts.transformer_2.blocks[0].attn1.to_q.weight
    assert all(torch.equal(weight, own) for weight in outputs["1;0;0"])
    assert not any(torch.equal(weight, own) for weight in outputs["1;1;1"])


@pytest.mark.parametrize("token", ["1", "0.5,0.7,0.9,0.1,0.2,0.3", "1;0.3;0.8"])
def test_after_a_run_every_weight_is_what_it_was(engine, token):
    before = fingerprint()
    run = run_engine(
        **CLIP | phased(), model_type="tiny", activated_loras=["style.safetensors"], loras_multipliers=token
    )
    assert run.returned and run.files
    assert fingerprint() == before


@pytest.mark.parametrize("step", [0, 1, 3, STEPS])
def test_after_a_cancelled_run_every_weight_is_what_it_was(engine, step):
    before = fingerprint()

    def stop(command: str, data: Any, state: dict[str, Any]) -> None:
        if command == "progress" and data[1] == "denoising" and data[0][0] == step:
            wgp.abort_generation(state)

    run = run_engine(stop, **CLIP | phased(), model_type="tiny", activated_loras=["style.safetensors"])
    assert run.returned and not run.files
    assert fingerprint() == before


def test_after_a_failed_run_every_weight_is_what_it_was(engine):
    before = fingerprint()

    def fail(module: Any, args: Any, named: dict[str, Any]) -> None:
        raise RuntimeError("CUDA out of memory")

    hook = wgp.wan_model._parts.transformer_2.register_forward_pre_hook(fail, with_kwargs=True)
    run = run_engine(**CLIP | phased(), model_type="tiny", activated_loras=["style.safetensors"])
    hook.remove()
    assert run.returned is False and not run.files
    assert fingerprint() == before


def test_after_a_run_that_is_given_up_between_windows_every_weight_is_what_it_was(engine, tmp_path: Path):
    before = fingerprint()
    values = CLIP | {"video_length": 29, "sliding_window_size": 17, "num_inference_steps": 2}
    values |= {"activated_loras": ["style.safetensors"]}
    request = parse_request(values, wgp.definitions()["tiny"], Wan.reads, tmp_path / "loras")
    frames = wgp.wan_model.generate(request, lambda *_: None, Cancel(lambda: False))
    assert next(frames).shape == (64, 64, 3)
    assert fingerprint() != before
    frames.close()
    assert fingerprint() == before


def test_a_recognised_lora_brings_its_settings_and_what_is_asked_for_wins(engine, two, tmp_path: Path):
    name = "Wan2.1_T2V_14B_lightx2v_cfg_step_distill_lora_rank32.safetensors"
    write_lora(tmp_path / "loras" / "wan" / name, two.parts.transformer)
    frugal = {"model_type": "tiny", "prompt": "a kite", "resolution": "64x64", "video_length": 5, "seed": 1}
    run = run_engine(**frugal, activated_loras=[name])
    total = {data[0][1] for data in run.data("progress") if data[1] == "denoising"}
    assert total == {4}
    note = next(note for note in run.data("info") if "recognised as LightX2V" in note)
    assert "4 steps" in note and "shift 5" in note and "values you set are kept" in note
    run = run_engine(**frugal, activated_loras=[name], num_inference_steps=3)
    assert {data[0][1] for data in run.data("progress") if data[1] == "denoising"} == {3}
