"""The engine's levers on an accelerator: random weights of the real sizes beside stock diffusers, in one run.

    python benchmarks/engine_gpu.py [--models t2v_1.3B t2v] [--rounds 5] [--json]
    python benchmarks/engine_gpu.py --tiny --device cpu          every part, in small, on any machine

forward   seconds of one pass at 480x832x81: diffusers as it comes, our choice of attention, and compiled blocks; what
          each does to the result. Aim: 1.5 times as fast without loss
vae       the decoding of that clip: diffusers at once in float32, streamed, in bfloat16, and with channels last. Aim: 2
          times as fast; the error is in steps of 8 bits
switch    the transformer onto the device: `from_pretrained` from disk, and out of page-locked memory. Aim: 8 times
attention every kernel that runs here at 32,760 tokens (480x832x81) and 75,600 (720x1280x81)
idle      share of the time in which the accelerator's thread of a queue of equal runs has nothing to do. Aim: 2 %

Norms and the parts of time and place are in float32 as `from_pretrained` leaves them, all else in bfloat16 (on a CPU in
float32). The arms of a part run in turn, round after round; numbers are medians, the first round is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

import torch  # noqa: E402
from engine_cpu import table  # noqa: E402
from separate_runs import machine  # noqa: E402

from headless.generation import GenerationTask  # noqa: E402
from headless.model_management import HeadlessTaskQueue  # noqa: E402
from headless.options import GenerationOptions  # noqa: E402
from headless.orchestrator import WanOrchestrator  # noqa: E402
from Wan2GP.engine.speed.attention import (  # noqa: E402
    KERNELS,
    NATIVE,
    fastest,
    measure_attention,
    set_attention,
    works,
)
from Wan2GP.engine.speed.compiling import compile_blocks  # noqa: E402
from Wan2GP.engine.wan.latents import decoded, to_frames  # noqa: E402
from Wan2GP.engine.wan.parts import WanParts  # noqa: E402
from Wan2GP.weights.configs import config_for  # noqa: E402

#: what `from_pretrained` leaves in float32
IN_FLOAT32 = ("rope", "time_embedder", "scale_shift_table", "norm1", "norm2", "norm3")
SMALL = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 64, "text_dim": 32}
SMALL_VAE = {"base_dim": 4}


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

    def in_turn(self, work: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        """The median seconds of each arm; the first round is left out."""
        seconds: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(self.rounds + 1):
            for name, do in work.items():
                self.finish()
                began = time.perf_counter()
                do()
                self.finish()
                seconds[name].append(time.perf_counter() - began)
        return {name: statistics.median(each[1:]) for name, each in seconds.items()}

    def compared(self, work: Mapping[str, Callable[[], object]], part: str) -> list[dict[str, Any]]:
        """Rows of the arms; the first is what the others are held against."""
        medians = self.in_turn(work)
        first = next(iter(medians.values()))
        return [{"part": part, "arm": name, "seconds": s, "times_faster": first / s} for name, s in medians.items()]


# ---- transformers


def transformer(bench: Bench, architecture: str) -> Any:
    """Random weights of the real shape, each in the number type that `from_pretrained` gives it."""
    import diffusers

    config = config_for(architecture) | (SMALL if bench.tiny else {})
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


def forward_rows(bench: Bench, architecture: str, folder: Path) -> list[dict[str, Any]]:
    model = transformer(bench, architecture)
    run = one_pass(bench, model)
    expected = run()
    kernel = set_attention([model], "auto", bench.device, folder)
    chosen = run()

    def by(name: str) -> Callable[[], object]:
        def do() -> object:
            model.set_attention_backend(name)
            return run()

        return do

    arms = {"diffusers": by(NATIVE), f"our attention ({kernel})": by(kernel)}
    rows = bench.compared(arms, architecture)
    rows[1]["error"] = _error(chosen, expected)
    compile_blocks(model, folder, backend="eager" if bench.tiny else "inductor")
    seconds = bench.in_turn({"compiled": by(kernel)})["compiled"]
    row = {"part": architecture, "arm": "our attention, compiled", "seconds": seconds}
    return [*rows, row | {"times_faster": rows[0]["seconds"] / seconds, "error": _error(run(), expected)}]


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative, root of mean squares."""
    off = (found.float() - expected.float()).square().mean()
    return float((off / expected.float().square().mean()).sqrt())


def switch_rows(bench: Bench, architecture: str, folder: Path) -> list[dict[str, Any]]:
    """The transformer in bfloat16 onto the device."""
    import diffusers

    model = transformer(bench, architecture)
    kind = type(model)
    model.save_pretrained(folder / "saved")
    resting = {name: _resting(value, bench) for name, value in model.state_dict().items()}

    def from_disk() -> None:
        kind.from_pretrained(folder / "saved", dtype=bench.dtype, local_files_only=True).to(bench.device)

    def from_memory() -> None:
        for name, value in model.state_dict().items():
            value.copy_(resting[name], non_blocking=True)

    diffusers.utils.logging.disable_progress_bar()
    return bench.compared({"from_pretrained": from_disk, "out of memory": from_memory}, f"switch {architecture}")


def _resting(value: torch.Tensor, bench: Bench) -> torch.Tensor:
    """A copy in host memory, page-locked beside an accelerator."""
    return value.cpu().pin_memory() if bench.device.type == "cuda" else value.clone()


# ---- the VAE


def vae_rows(bench: Bench) -> list[dict[str, Any]]:
    from diffusers import AutoencoderKLWan

    config = config_for("t2v_1.3B", "vae") | (SMALL_VAE if bench.tiny else {})
    torch.manual_seed(0)

    def parts(dtype: torch.dtype, layout: torch.memory_format) -> WanParts:
        vae = AutoencoderKLWan.from_config(config).eval().requires_grad_(False)
        vae.load_state_dict(weights)
        for module in vae.modules():
            if isinstance(module, torch.nn.Conv3d):
                module.to(memory_format=layout)
        vae.to(bench.device, dtype)
        return WanParts(tokenizer=None, text_encoder=None, vae=vae, transformer=None, device=bench.device)

    weights = AutoencoderKLWan.from_config(config).state_dict()
    latents = bench.latents(int(config.get("z_dim", 16)))
    plain, channels_last = torch.contiguous_format, torch.channels_last_3d
    stock = parts(torch.float32, plain)
    shape = (1, stock.latent_channels, 1, 1, 1)
    mean, spread = (
        torch.tensor(getattr(stock.vae.config, name), device=bench.device).view(shape)
        for name in ("latents_mean", "latents_std")
    )

    @torch.inference_mode()
    def at_once() -> Any:
        return to_frames(stock.vae.decode(latents * spread + mean, return_dict=False)[0])

    ours = {
        "streamed": stock,
        "streamed, channels last": parts(torch.float32, channels_last),
        "streamed, bfloat16": parts(torch.bfloat16, plain),
        "streamed, bfloat16, channels last": parts(torch.bfloat16, channels_last),
    }
    arms = {name: (lambda each=each: list(decoded(each, latents))) for name, each in ours.items()}
    rows = bench.compared({"diffusers at once": at_once, **arms}, "vae")
    expected = at_once().astype(int)
    for row, each in zip(rows[1:], ours.values(), strict=True):
        made = [frame for part in decoded(each, latents) for frame in part]
        row["mean_error_8_bit"] = float(
            statistics.fmean(abs(a - b).mean() for a, b in zip(made, expected, strict=True))
        )
    return rows


# ---- attention, and a queue


def attention_rows(bench: Bench) -> list[dict[str, Any]]:
    usable = [kernel for kernel in KERNELS if works(kernel, bench.device)]
    rows = []
    for tokens in bench.tokens:
        shape = (1, tokens, 2, 24) if bench.tiny else (1, tokens, 40, 128)
        measured = measure_attention(shape, bench.dtype, bench.device, usable, bench.rounds)
        best = fastest(measured)
        rows += [{"tokens": tokens} | vars(each) | {"chosen": each.kernel == best} for each in measured]
    return rows


def idle_row(bench: Bench, folder: Path, runs: int = 6) -> dict[str, Any]:
    """Equal runs of the tiny model that ships, all queued at once; loading is left out."""
    engine = WanOrchestrator(checkpoints=folder / "ckpts", device=str(bench.device))
    options = GenerationOptions(prompt="a red circle moving right", num_inference_steps=4 if bench.tiny else 20)
    with HeadlessTaskQueue(engine) as queue:
        queue.submit(_task("warm", options, folder)).result()
        before = queue.statistics()
        futures = [queue.submit(_task(str(number), options, folder)) for number in range(runs)]
        for future in futures:
            future.result()
        after = queue.statistics()
    idle = after.idle_seconds - before.idle_seconds
    return {"runs": runs, "idle_share": idle / (after.uptime_s - before.uptime_s)}


def _task(name: str, options: GenerationOptions, folder: Path) -> GenerationTask:
    return GenerationTask(id=name, model="tiny_wan_t2v", options=options, output_dir=folder / name)


# ---- all


def measured(bench: Bench, models: list[str]) -> dict[str, Any]:
    told: dict[str, Any] = {"device": device_name(bench), "torch": torch.__version__, "forward": [], "switch": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in models:
            told["forward"] += forward_rows(bench, model, folder / model)
            _free(bench)
            told["switch"] += switch_rows(bench, model, folder / model)
            _free(bench)
        told["vae"] = vae_rows(bench)
        _free(bench)
        told["attention"] = attention_rows(bench)
        _free(bench)
        told["idle"] = [idle_row(bench, folder)]
    return told


def _free(bench: Bench) -> None:
    from Wan2GP.engine.loading import free_memory

    bench.finish()
    free_memory()


def device_name(bench: Bench) -> str:
    if bench.device.type == "cuda":
        return torch.cuda.get_device_name(bench.device)
    return f"no accelerator: {machine()}, {platform.machine()}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["t2v_1.3B", "t2v"], help="architectures (1.3B and 14B)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--tiny", action="store_true", help="every part in small: shows that the script runs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    given = parser.parse_args()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        sys.stderr.write("this machine has no accelerator that torch can use; add --tiny --device cpu to see it run\n")
        return 1
    if given.device == "cpu" and not given.tiny:
        sys.stderr.write("the real sizes take hours on a CPU; add --tiny\n")
        return 1
    told = measured(Bench(torch.device(given.device), given.tiny, given.rounds), given.models)
    if given.json:
        print(json.dumps(told, indent=2))
        return 0
    small = "; sizes are tiny, so the numbers say nothing" if given.tiny else ""
    print(f"the engine on {told['device']}, torch {told['torch']}{small}")
    for part in ("forward", "switch", "vae", "attention", "idle"):
        print(f"\n{part}\n\n{table(told[part])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
