"""The engine's levers on an accelerator: random weights of the real sizes beside stock diffusers, in one run.

    python benchmarks/engine_gpu.py [--models t2v_1.3B t2v] [--parts forward vae …] [--rounds 5] [--json]
    python benchmarks/engine_gpu.py --tiny --device cpu          every part, in small, on any machine

forward   seconds of one pass at 480x832x81: diffusers as it comes, our choice of attention, compiled blocks, linear
          layers in fp8 (those that measuring chooses), compiled too, and with a LoRA beside them; what each does to the
          result. Aim: 1.5 times as fast without loss, twice with fp8
vae       the decoding of that clip: diffusers at once in float32, streamed, in bfloat16, with channels last; compiled
          in a part of its own. Aim: twice as fast; the error is in steps of 8 bits
switch    the transformer onto the device: `from_pretrained` from disk, out of page-locked memory, and that with the
          first pass, whose blocks wait for their own weights alone. Aim: 8 times
lora      a LoRA of rank 64 into all blocks and out again: by diffusers (peft, fused and unfused), on the host and moved
          (naive), and on the device
attention every kernel that runs here at 32,760 tokens (480x832x81) and 75,600 (720x1280x81)
idle      share of the time in which the accelerator's thread of a queue of equal runs has nothing to do: 4 steps of the
          1.3B model at that size, random weights, a tiny text encoder. Aim: 2 %

Norms and the parts of time and place are in float32 as `from_pretrained` leaves them, all else in bfloat16 (on a CPU in
float32). The arms of a part run in turn, round after round; numbers are medians, the first round is left out. A part or
an arm that fails says so in a row of its own, and the others go on; with --tiny it ends the run.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if "cpu" in sys.argv:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from engine_bench import Bench, lora_file, lora_rows, one_pass, relative_error, transformer
from engine_cpu import table
from separate_runs import machine

from headless.generation import GenerationTask
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from headless.orchestrator import WanOrchestrator
from Wan2GP.command_line import Command
from Wan2GP.engine.lora.merging import LoraSet
from Wan2GP.engine.residency.standby import Standby
from Wan2GP.engine.speed.attention import (
    KERNELS,
    NATIVE,
    fastest,
    measure_attention,
    set_attention,
    works,
)
from Wan2GP.engine.speed.compiling import compile_blocks
from Wan2GP.engine.speed.fp8 import Fp8Choice, check_fp8, in_fp8, working_layers
from Wan2GP.engine.wan.latents import decoded, laid_out, to_frames
from Wan2GP.engine.wan.parts import WanParts
from Wan2GP.errors import ModelUnavailable
from Wan2GP.weights.configs import config_for
from Wan2GP.weights.fp8 import Fp8Linear

SMALL_VAE = {"base_dim": 4}
#: a run of the idle part
STEPS = 4

Row = dict[str, Any]


# ---- one pass


def forward_rows(bench: Bench, architecture: str, folder: Path) -> list[Row]:
    model = transformer(bench, architecture)
    run = one_pass(bench, model)
    expected = run()
    kernel = set_attention([model], "auto", bench.device, folder)

    def by(name: str) -> Callable[[], torch.Tensor]:
        def do() -> torch.Tensor:
            model.set_attention_backend(name)
            return run()

        return do

    rows = bench.compared({"diffusers": by(NATIVE), f"our attention ({kernel})": by(kernel)}, architecture)
    first = rows[0]["seconds"]

    def more(arm: str) -> Row:
        seconds = bench.in_turn({arm: run})[arm]
        error = relative_error(run(), expected)
        return {"part": architecture, "arm": arm, "seconds": seconds, "times_faster": first / seconds, "error": error}

    rows[1]["error"] = relative_error(run(), expected)
    compile_blocks(model, folder, backend="eager" if bench.tiny else "inductor")
    rows.append(more("our attention, compiled"))
    return [*rows, *fp8_rows(bench, model, folder, more)]


def fp8_rows(bench: Bench, model: Any, folder: Path, more: Callable[[str], Row]) -> list[Row]:
    """The same compiled model, its layers in 8 bits; without the compiler first."""
    if not bench.tiny:
        try:
            check_fp8(bench.device)
        except ModelUnavailable as error:
            return [{"arm": "fp8", "failed": str(error)}]
    rows = []
    for compiled in (False, True):
        put = _put(bench, model, folder, compiled)
        name = f"fp8 ({put} layers)" + ", compiled" * compiled
        with torch.compiler.set_stance("default" if compiled else "force_eager"):
            rows.append(more(name))
    file = lora_file(model, folder / "lora.safetensors")
    with LoraSet({"transformer": model}, [file], [(1.0,)]) as loras:
        loras.at_step(0)
        rows.append(more(f"{name}, a LoRA beside"))
    return rows


def _put(bench: Bench, model: Any, folder: Path, compiled: bool) -> str:
    """Put the layers that pay into 8 bits, and say how many of all; in small, where none pays, all of them."""
    choice = Fp8Choice(bench.device, folder, compiled, bench.tokens[0])
    working = working_layers(model)
    chosen = list(working) if bench.tiny else choice.layers(model)
    for name in chosen:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, in_fp8(working.pop(name)))
    already = sum(isinstance(each, Fp8Linear) for each in model.modules())
    return f"{already} of {already + len(working)}"


# ---- the transformer onto the device


def switch_rows(bench: Bench, architecture: str, folder: Path) -> list[Row]:
    import diffusers

    model = transformer(bench, architecture).to("cpu")  # made on the device: a CPU draws so many numbers for minutes
    bench.free()
    kind, saved = type(model), folder / "saved"
    model.save_pretrained(saved)
    standby, run = Standby(model, bench.device, apart=True), one_pass(bench, model)

    def from_disk() -> None:
        kind.from_pretrained(saved, dtype=bench.dtype, local_files_only=True).to(bench.device)

    def from_memory() -> None:
        standby.bring()

    def first_pass() -> None:
        standby.bring(ahead=True)
        run()

    def park() -> None:
        standby.park(pinned=True)
        gc.collect()

    arms = {"from_pretrained": from_disk, "out of page-locked memory": from_memory}
    arms |= {"out of page-locked memory, with the first pass": first_pass, "that pass alone": run}
    diffusers.utils.logging.disable_progress_bar()
    standby.bring()
    before = dict.fromkeys(arms, park) | {"that pass alone": standby.bring}
    rows = bench.compared(arms, f"switch {architecture}", before)
    shutil.rmtree(saved)
    return rows


# ---- the VAE


class Vaes:
    """VAEs of the same random weights in several forms, and the latents that they decode."""

    def __init__(self, bench: Bench) -> None:
        from diffusers import AutoencoderKLWan

        self._bench, self._kind = bench, AutoencoderKLWan
        self._config = config_for("t2v_1.3B", "vae") | (SMALL_VAE if bench.tiny else {})
        torch.manual_seed(0)
        self._weights = AutoencoderKLWan.from_config(self._config).state_dict()
        self.latents = bench.latents(int(self._config.get("z_dim", 16)))

    def parts(self, dtype: torch.dtype, *, last: bool = False) -> WanParts:
        vae = self._kind.from_config(self._config).eval().requires_grad_(False)
        vae.load_state_dict(self._weights)
        vae = laid_out(vae, torch.channels_last_3d if last else torch.contiguous_format).to(self._bench.device, dtype)
        return WanParts(tokenizer=None, text_encoder=None, vae=vae, transformer=None, device=self._bench.device)

    def decoding(self, parts: WanParts) -> Callable[[], object]:
        return lambda: list(decoded(parts, self.latents))


def vae_rows(bench: Bench) -> list[Row]:
    vaes = Vaes(bench)
    stock, latents = vaes.parts(torch.float32), vaes.latents
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
        "streamed, channels last": vaes.parts(torch.float32, last=True),
        "streamed, bfloat16": vaes.parts(torch.bfloat16),
        "streamed, bfloat16, channels last": vaes.parts(torch.bfloat16, last=True),
    }
    arms = {name: vaes.decoding(each) for name, each in ours.items()}
    rows = bench.compared({"diffusers at once": at_once, **arms}, "vae")
    expected = at_once().astype(int)
    for row, each in zip(rows[1:], ours.values(), strict=True):
        row["mean_error_8_bit"] = _off(each, latents, expected)
    return rows


def compiled_vae_rows(bench: Bench) -> list[Row]:
    """The compiler needs minutes for a whole decoder, so this comes last."""
    vaes = Vaes(bench)
    plain, compiled = (vaes.parts(torch.bfloat16, last=True) for _ in range(2))
    compiled.vae.decoder.compile(backend="eager" if bench.tiny else "inductor", dynamic=False)
    arms = {"streamed, bfloat16, channels last": vaes.decoding(plain), "that, compiled": vaes.decoding(compiled)}
    rows = bench.compared(arms, "vae")
    expected = [frame.astype(int) for part in decoded(plain, vaes.latents) for frame in part]
    rows[1]["mean_error_8_bit"] = _off(compiled, vaes.latents, expected)
    return rows


def _off(parts: WanParts, latents: Any, expected: Any) -> float:
    made = (frame for part in decoded(parts, latents) for frame in part)
    return statistics.fmean(float(abs(a.astype(int) - b).mean()) for a, b in zip(made, expected, strict=True))


# ---- attention, and a queue


def attention_rows(bench: Bench) -> list[Row]:
    usable = [kernel for kernel in KERNELS if works(kernel, bench.device)]
    rows = []
    for tokens in bench.tokens:
        shape = (1, tokens, 2, 24) if bench.tiny else (1, tokens, 40, 128)
        measured = measure_attention(shape, bench.dtype, bench.device, usable, bench.rounds)
        best = fastest(measured)
        rows += [{"tokens": tokens} | vars(each) | {"chosen": each.kernel == best} for each in measured]
    return rows


def idle_rows(bench: Bench, folder: Path, runs: int = 6) -> list[Row]:
    """Equal runs, all queued at once; loading is left out."""
    model = "tiny_wan_t2v" if bench.tiny else real_model(bench, folder)
    clip = {} if bench.tiny else {"resolution": f"{bench.clip.width}x{bench.clip.height}"}
    options = GenerationOptions(
        prompt="a red circle moving right", num_inference_steps=STEPS, guidance_scale=1.0,
        video_length=17 if bench.tiny else bench.clip.frames, **clip,
    )  # fmt: skip
    rows = folder / "rows"
    engine = WanOrchestrator(
        checkpoints=folder / "ckpts", definitions=[rows] if rows.is_dir() else [], device=str(bench.device)
    )

    def task(name: str) -> GenerationTask:
        return GenerationTask(id=name, model=model, options=options, output_dir=folder / name)

    with HeadlessTaskQueue(engine) as queue:
        queue.submit(task("warm")).result()
        before = queue.statistics()
        for future in [queue.submit(task(str(number))) for number in range(runs)]:
            future.result()
        after = queue.statistics()
    engine.unload_model()
    seconds = after.uptime_s - before.uptime_s
    return [
        {"runs": runs, "seconds": seconds / runs, "idle_share": (after.idle_seconds - before.idle_seconds) / seconds}
    ]


def real_model(bench: Bench, folder: Path) -> str:
    """A text-to-video model on disk: transformer and VAE of the 1.3B model's real sizes, what reads prompts tiny."""
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from tiny_models import TEXT_DIM, tiny_wan_t2v, write_definition

    weights = tiny_wan_t2v(folder / "weights")
    default = torch.get_default_dtype()
    torch.set_default_dtype(bench.dtype)
    config = config_for("t2v_1.3B") | {"text_dim": TEXT_DIM}
    WanTransformer3DModel.from_config(config).save_pretrained(weights / "transformer")
    torch.set_default_dtype(default)
    AutoencoderKLWan.from_config(config_for("t2v_1.3B", "vae")).save_pretrained(weights / "vae")
    write_definition(folder / "rows", "real", "t2v_1.3B", weights)
    return "real"


# ---- all

PARTS = ("forward", "switch", "lora", "vae", "attention", "idle", "vae_compiled")


def guarded(bench: Bench, part: str, work: Callable[[], list[Row]]) -> list[Row]:
    """The rows of a part, or one that says why there are none."""
    try:
        return work()
    except Exception as error:
        if bench.tiny:
            raise
        failed = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    finally:
        bench.free()
        torch.compiler.reset()
    return [{"part": part, "failed": failed}]


def measured(bench: Bench, models: list[str], parts: list[str]) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each part, as soon as they are there: what was measured stays said when the run is ended."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        of_model = {"forward": forward_rows, "switch": switch_rows, "lora": lora_rows}
        alone = {"vae": lambda: vae_rows(bench), "attention": lambda: attention_rows(bench)}
        alone |= {"idle": lambda: idle_rows(bench, folder / "idle"), "vae_compiled": lambda: compiled_vae_rows(bench)}
        for part in parts:
            if part in alone:
                yield part, guarded(bench, part, alone[part])
                continue
            rows: list[Row] = []
            for model in models:
                rows += guarded(bench, model, lambda p=part, m=model: of_model[p](bench, m, folder / m))
            yield part, rows


def device_name(bench: Bench) -> str:
    if bench.device.type == "cuda":
        return torch.cuda.get_device_name(bench.device)
    return f"no accelerator: {machine()}, {platform.machine()}"


EXAMPLES = (("python benchmarks/engine_gpu.py --tiny --device cpu", "every part in small: shows that it runs"),)
CODES = {0: "measured", 1: "it cannot run here; also a wrong flag"}


def parser() -> Command:
    """The flags."""
    flags = Command("benchmarks/engine_gpu.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_argument("--models", nargs="+", default=["t2v_1.3B", "t2v"], help="architectures (1.3B and 14B)")
    flags.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    flags.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    flags.add_argument("--tiny", action="store_true", help="every part in small: shows that the script runs")
    flags.add_argument("--rounds", type=int, default=5, help="rounds, of which medians are taken")
    flags.add_argument("--json", action="store_true", help="print JSON instead of tables")
    flags.add_version()
    return flags


def main() -> int:
    given = parser().parse_args()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        sys.stderr.write("this machine has no accelerator that torch can use; add --tiny --device cpu to see it run\n")
        return 1
    if given.device == "cpu" and not given.tiny:
        sys.stderr.write("the real sizes take hours on a CPU; add --tiny\n")
        return 1
    bench = Bench(torch.device(given.device), given.tiny, given.rounds)
    parts = measured(bench, given.models, given.parts)
    if given.json:
        print(json.dumps({"device": device_name(bench), "torch": torch.__version__} | dict(parts), indent=2))
        return 0
    small = "; sizes are tiny, so the numbers say nothing" if given.tiny else ""
    print(f"the engine on {device_name(bench)}, torch {torch.__version__}{small}", flush=True)
    for part, rows in parts:
        print(f"\n{part}\n\n{table(rows)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
