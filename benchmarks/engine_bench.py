"""What the engine's benchmarks share: where and how large everything is, arms that run in turn, models of random
weights of the real shapes, and LoRAs for them."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402

from Wan2GP.engine.loading import free_memory  # noqa: E402
from Wan2GP.engine.lora.merging import LoraSet  # noqa: E402
from Wan2GP.engine.residency.standby import Standby  # noqa: E402
from Wan2GP.weights.configs import config_for  # noqa: E402

#: what `from_pretrained` leaves in float32
IN_FLOAT32 = ("rope", "time_embedder", "scale_shift_table", "norm1", "norm2", "norm3")
SMALL = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 64, "text_dim": 32}
#: of the LoRAs; the usual size
RANK = 64

Arms = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Size:
    """A clip."""

    width: int
    height: int
    frames: int


@dataclass(frozen=True)
class Bench:
    """Where and how large everything is."""

    device: torch.device
    tiny: bool
    rounds: int

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.device.type == "cpu" else torch.bfloat16

    @property
    def clip(self) -> Size:
        return Size(64, 64, 9) if self.tiny else Size(832, 480, 81)

    @property
    def tokens(self) -> tuple[int, ...]:
        return (256, 512) if self.tiny else (32_760, 75_600)

    def latents(self, channels: int) -> torch.Tensor:
        shape = (1, channels, (self.clip.frames - 1) // 4 + 1, self.clip.height // 8, self.clip.width // 8)
        generator = torch.Generator(self.device).manual_seed(0)
        return torch.randn(shape, generator=generator, device=self.device)

    def finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def free(self) -> None:
        """Hand back what nobody holds any more."""
        self.finish()
        free_memory()

    def in_turn(self, work: Arms, before: Arms | None = None) -> dict[str, float]:
        """The median seconds of each arm, the first round left out; `before` is done ahead of an arm, not counted."""
        seconds: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(self.rounds + 1):
            for name, do in work.items():
                if before is not None:
                    before[name]()
                self.finish()
                began = time.perf_counter()
                do()
                self.finish()
                seconds[name].append(time.perf_counter() - began)
        return {name: statistics.median(each[1:]) for name, each in seconds.items()}

    def compared(self, work: Arms, part: str, before: Arms | None = None) -> list[dict[str, Any]]:
        """Rows of the arms; the first is what the others are held against."""
        medians = self.in_turn(work, before)
        first = next(iter(medians.values()))
        return [{"part": part, "arm": name, "seconds": s, "times_faster": first / s} for name, s in medians.items()]


def transformer(bench: Bench, architecture: str, **changes: Any) -> Any:
    """Random weights of the real shape, each in the number type that `from_pretrained` gives it, made on the device."""
    import diffusers

    config = config_for(architecture) | (SMALL if bench.tiny else {}) | changes
    kind = getattr(diffusers, config["_class_name"])
    default = torch.get_default_dtype()
    torch.set_default_dtype(bench.dtype)
    try:
        with torch.device(bench.device):
            torch.manual_seed(0)
            made = kind.from_config(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(default)
    for name, parameter in made.named_parameters():
        if any(part in name.split(".") for part in IN_FLOAT32):
            parameter.data = parameter.data.float()
    rope = made.rope
    made.rope = type(rope)(rope.attention_head_dim, rope.patch_size, rope.max_seq_len).to(bench.device)
    return made


def one_pass(bench: Bench, model: Any) -> Callable[[], torch.Tensor]:
    hidden = bench.latents(int(model.config.in_channels)).to(bench.dtype)
    prompt = torch.randn((1, 512, int(model.config.text_dim)), device=bench.device, dtype=bench.dtype)
    moment = torch.full((1,), 500.0, device=bench.device)

    @torch.inference_mode()
    def run() -> torch.Tensor:
        found: torch.Tensor = model(
            hidden_states=hidden, timestep=moment, encoder_hidden_states=prompt, return_dict=False
        )[0]
        return found

    return run


def lora_file(model: torch.nn.Module, path: Path, rank: int = RANK) -> Path:
    """A LoRA of random factors for every linear layer of the blocks."""
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and name.startswith("blocks."):
            for which, sides in (("A", (rank, layer.in_features)), ("B", (layer.out_features, rank))):
                factor = torch.randn(sides, generator=generator) * 0.01
                tensors[f"transformer.{name}.lora_{which}.weight"] = factor.to(torch.bfloat16)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def lora_rows(bench: Bench, architecture: str, folder: Path, **changes: Any) -> list[dict[str, Any]]:
    """A LoRA into the blocks and out again: by diffusers, on the host and moved, and where the weights are."""
    model = transformer(bench, architecture, **changes)
    file = lora_file(model, folder / "lora.safetensors")
    standby = Standby(model, bench.device, apart=True)
    standby.bring()

    def merged() -> LoraSet:
        loras = LoraSet({"transformer": model}, [file], [(1.0,)])
        loras.at_step(0)
        return loras

    def on_device() -> None:
        merged().remove()

    def on_host() -> None:
        standby.park(pinned=True)
        loras = merged()
        standby.bring()
        standby.park(pinned=True)
        loras.remove()
        standby.bring()

    def by_diffusers() -> None:
        model.load_lora_adapter(str(file), prefix="transformer")
        model.fuse_lora()
        model.unfuse_lora()
        model.unload_lora()

    before = model.blocks[0].ffn.net[2].weight.clone()
    on_device()
    exact = torch.equal(model.blocks[0].ffn.net[2].weight, before)
    arms = {"on the host, then moved (naive)": on_host, "on the device": on_device}
    rows = bench.compared({"diffusers (peft), fused and unfused": by_diffusers, **arms}, f"lora {architecture}")
    rows[-1]["taken_out_bit_for_bit"] = exact
    return rows


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Root of mean squares."""
    off = (found.float() - expected.float()).square().mean()
    return float((off / expected.float().square().mean()).sqrt())
