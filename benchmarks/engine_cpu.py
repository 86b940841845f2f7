"""The engine's levers on a CPU, each beside the naive way and beside stock diffusers, in one run.

    python benchmarks/engine_cpu.py [--frames 33] [--side 128] [--steps 20] [--clips 2] [--rounds 3] [--json]

decode    a clip decoded and encoded: all frames first, then the file (naive), and streamed into the encoder, four
          frames at a time; aim: at most 1.1 times the longer of the two. The peak memory of each way for one length
          and for four times as many frames, in processes of their own
cache     the step cache on the trained tiny model: CPU seconds, and PSNR against the video of all steps; the naive way
          is a schedule of as many steps as are predicted
vace      calls of VACE's blocks with half of the steps left out: ours, and diffusers' FirstBlockCache in its pipeline
numbers   the trained tiny model in fewer bits: its transformer in bfloat16, and with linear layers in float8: PSNR
          against float32
lora      a LoRA of rank 64 into a small transformer and out again: by diffusers, on another copy that is then moved
          (naive), and in place
kernels   torch's attention kernels on this CPU
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from separate_runs import machine, run_alone  # noqa: E402

from Wan2GP.command_line import Command  # noqa: E402

AIM = 1.1


EXAMPLES = (("python benchmarks/engine_cpu.py", "measure, and print a table"),)
CODES = {0: "measured", 1: "it cannot run here; also a wrong flag"}


def parser() -> Command:
    """The flags."""
    flags = Command("benchmarks/engine_cpu.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_argument("--frames", type=int, default=33, help="frames of the decoded clip (default 33)")
    flags.add_argument("--side", type=int, default=128, help="its width and height (default 128)")
    flags.add_argument("--steps", type=int, default=20, help="steps of the cached runs (default 20)")
    flags.add_argument("--clips", type=int, default=2, help="clips of the cached runs (default 2)")
    flags.add_argument("--rounds", type=int, default=3, help="rounds of the decoding (default 3)")
    flags.add_argument("--speed-ups", type=float, nargs="+", default=[1.5, 1.75, 2.0], help="asked of the step cache")
    flags.add_argument("--json", action="store_true", help="print JSON instead of tables")
    flags.add_argument("--memory-of", choices=("whole", "streamed"), help=argparse.SUPPRESS)
    flags.add_version()
    return flags


def main() -> int:
    given = parser().parse_args()
    if given.memory_of:
        _parts(narrow=True)
        with tempfile.TemporaryDirectory() as folder:
            WAYS[given.memory_of](latents_of(given.frames, given.side), given.side, Path(folder) / "clip.mp4")
        return 0
    # Before anything large is imported: the memory of a parent counts towards the peak of its children.
    memory = [memory_row(frames, 2 * given.side) for frames in (given.frames, 4 * given.frames - 3)]
    told = {
        "machine": machine(),
        "decode": {"rows": decode_rows(given.frames, given.side, given.rounds), "memory": memory},
        "cache": cache_rows(given.steps, given.clips, given.speed_ups),
        "vace": vace_rows(),
        "numbers": number_rows(given.steps, given.clips),
        "lora": merging_rows(given.rounds),
        "kernels": kernel_rows(),
    }
    print(json.dumps(told, indent=2) if given.json else tables(told))
    return 0


# ---- decode


def latents_of(frames: int, side: int) -> Any:
    import torch

    shape = _parts().latent_shape(frames, side, side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _parts(made: list[Any] = [], narrow: bool = False) -> Any:  # noqa: B006 - one VAE for the whole process
    """Parts with a VAE of Wan 2.1's shape, a twelfth as wide; `narrow`: one small beside the frames."""
    if not made:
        import torch
        from diffusers import AutoencoderKLWan

        from Wan2GP.engine.wan.parts import WanParts

        torch.set_num_threads(1)
        torch.manual_seed(0)
        shape = {"base_dim": 3, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1} if narrow else {"base_dim": 8}
        vae = AutoencoderKLWan(**shape, z_dim=16).eval().requires_grad_(False)
        made.append(WanParts(tokenizer=None, text_encoder=None, vae=vae, transformer=None))
    return made[0]


def _write(frames: Iterable[Any], side: int, path: Path) -> None:
    from Wan2GP.media import VideoWriter

    path.unlink(missing_ok=True)
    with VideoWriter(path, fps=16, size=(side, side)) as writer:
        for frame in frames:
            writer.write(frame)


def whole(latents: Any, side: int, path: Path) -> None:
    """All frames by diffusers' decode, then the file."""
    _write(at_once(latents), side, path)


def at_once(latents: Any) -> Any:
    """(F, H, W, 3) uint8 by diffusers' own decode."""
    import torch

    from Wan2GP.engine.wan.latents import to_frames

    with torch.inference_mode():
        return to_frames(_parts().vae.decode(latents, return_dict=False)[0])


def streamed(latents: Any, side: int, path: Path) -> None:
    """Frames into the encoder's thread as they are decoded."""
    from Wan2GP.engine.families import Cancel
    from Wan2GP.engine.later import save_later
    from Wan2GP.engine.wan.latents import decoded

    def save(frames: Iterable[Any]) -> list[Path]:
        _write(frames, side, path)
        return [path]

    made = (frame for part in decoded(_parts(), latents) for frame in part)
    save_later(made, save, Cancel(lambda: False)).result()


WAYS: dict[str, Callable[[Any, int, Path], None]] = {"whole": whole, "streamed": streamed}


def decode_rows(frames: int, side: int, rounds: int) -> list[dict[str, Any]]:
    """Seconds of each way in turn; each is held against the longer of decoding and encoding in its own round."""
    from Wan2GP.engine.wan.latents import decoded

    latents = latents_of(frames, side)
    pictures = at_once(latents)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        work: dict[str, Callable[[], object]] = {
            "decode at once (diffusers)": lambda: at_once(latents),
            "decode streamed": lambda: list(decoded(_parts(), latents)),
            "encode": lambda: _write(pictures, side, path),
            "at once, then the file": lambda: whole(latents, side, path),
            "streamed into the file": lambda: streamed(latents, side, path),
        }
        seconds: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(rounds + 1):
            for name, do in work.items():
                began = time.perf_counter()
                do()
                seconds[name].append(time.perf_counter() - began)
    longer = [max(pair) for pair in zip(seconds["decode streamed"], seconds["encode"], strict=True)]
    return [
        {
            "way": name,
            "seconds": statistics.median(each[1:]),
            "of_the_longer": statistics.median(one / other for one, other in list(zip(each, longer, strict=True))[1:]),
        }
        for name, each in seconds.items()
    ]


def memory_row(frames: int, side: int) -> dict[str, Any]:
    """Peak memory of whole processes in MB."""
    peaks = {
        way: run_alone(Path(__file__), "--memory-of", way, "--frames", str(frames), "--side", str(side))[1]
        for way in WAYS
    }
    return {"frames": frames} | peaks


# ---- step cache


def cache_rows(steps: int, clips: int, speed_ups: list[float]) -> list[dict[str, Any]]:
    """PSNR in dB against the video of all steps, over the clips."""
    from training.tiny_wan.measure import cases, drawn, psnr
    from Wan2GP import wgp

    wgp.configure(definitions=[], device="cpu")
    chosen = list(cases(clips))
    rows = []
    with tempfile.TemporaryDirectory() as folder:

        def draw(**values: Any) -> tuple[list[Any], float]:
            began = time.process_time()
            videos = [drawn("tiny_wan_t2v", case, Path(folder), **values) for case in chosen]
            return videos, time.process_time() - began

        draw(num_inference_steps=2)
        reference, all_seconds = draw(num_inference_steps=steps)
        rows.append({"way": "all steps", "steps": steps, "psnr_db": None, "times_faster": 1.0})
        for speed_up in speed_ups:
            fewer = int(steps / speed_up)
            ways = {
                f"fewer steps (naive), {speed_up:g}": {"num_inference_steps": fewer},
                **{
                    f"{kind} {speed_up:g}": {
                        "num_inference_steps": steps,
                        "skip_steps_cache_type": kind,
                        "skip_steps_multiplier": speed_up,
                    }
                    for kind in ("tea", "mag")
                },
            }
            for way, values in ways.items():
                videos, seconds = draw(**values)
                decibel = [psnr(one, other) for one, other in zip(videos, reference, strict=True)]
                row = {"way": way, "steps": fewer, "psnr_db": statistics.fmean(decibel), "worst_db": min(decibel)}
                rows.append(row | {"times_faster": all_seconds / seconds})
    wgp.release_model()
    return rows


def vace_rows(steps: int = 12) -> list[dict[str, Any]]:
    """Calls of blocks in a run of which half of the steps are left out."""
    import torch
    from diffusers import FirstBlockCacheConfig, WanVACEPipeline
    from wan_runs import Tiny

    with tempfile.TemporaryDirectory() as folder:
        tiny = Tiny(Path(folder), "vace_1.3B")
        transformer = tiny.parts.transformer
        asked = {"num_inference_steps": steps, "guidance_scale": 1.0, "resolution": "32x32", "video_length": 17}
        rows = [_calls("all steps, ours", transformer, lambda: tiny.frames(**asked))]
        cached = asked | {"skip_steps_cache_type": "tea", "skip_steps_multiplier": 2.0}
        rows.append(_calls("step cache, ours", transformer, lambda: tiny.frames(**cached)))
        pipeline = WanVACEPipeline.from_pretrained(tiny.weights)
        pipeline.set_progress_bar_config(disable=True)
        # So high that every step but the first is left out as far as the hooks can.
        pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=1e9))
        prompts = tiny.prompts("a red circle", "")

        def theirs() -> None:
            pipeline(
                prompt_embeds=prompts.positive, height=32, width=32, num_frames=17, num_inference_steps=steps,
                guidance_scale=1.0, output_type="latent", generator=torch.Generator().manual_seed(0),
            )  # fmt: skip

        rows.append(_calls("FirstBlockCache, diffusers", pipeline.transformer, theirs))
    return rows


def _calls(way: str, transformer: Any, run: Callable[[], object]) -> dict[str, Any]:
    counts = {"blocks": 0, "vace_blocks": 0}

    def counter(name: str) -> Callable[..., None]:
        def count(*_: Any, **__: Any) -> None:
            counts[name] += 1

        return count

    hooks = [block.ffn.register_forward_hook(counter(name)) for name in counts for block in getattr(transformer, name)]
    run()
    for hook in hooks:
        hook.remove()
    return {"way": way} | counts


# ---- fewer bits


def number_rows(steps: int, clips: int) -> list[dict[str, Any]]:
    """PSNR in dB of the videos' files, mean and worst."""
    from training.tiny_wan.measure import cases, drawn, psnr
    from Wan2GP import wgp
    from Wan2GP.engine.speed.fp8 import in_fp8, working_layers

    wgp.configure(definitions=[], device="cpu")
    chosen = list(cases(clips))

    def plain(parts: Any) -> None:
        pass

    def halved(parts: Any) -> None:
        for name, parameter in parts.transformer.named_parameters():
            if "norm" not in name and "time_embedder" not in name and "scale_shift_table" not in name:
                parameter.data = parameter.data.bfloat16()

    def eighths(parts: Any) -> None:
        for name, layer in working_layers(parts.transformer).items():
            parent, _, last = name.rpartition(".")
            setattr(parts.transformer.get_submodule(parent), last, in_fp8(layer))

    ways: dict[str, Callable[[Any], object]] = {
        "float32": plain,
        "transformer in bfloat16": halved,
        "linear layers in float8_e4m3": eighths,
    }
    rows: list[dict[str, Any]] = []
    reference: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        for way, change in ways.items():
            wgp.release_model()
            change(wgp.load_models("tiny_wan_t2v")[0]._parts)  # type: ignore[attr-defined]
            videos = [drawn("tiny_wan_t2v", case, Path(folder), num_inference_steps=steps) for case in chosen]
            reference = reference or videos
            decibel = [psnr(one, other) for one, other in zip(videos, reference, strict=True)]
            told = {} if way == "float32" else {"psnr_db": statistics.fmean(decibel), "worst_db": min(decibel)}
            rows.append({"way": way} | told)
    wgp.release_model()
    return rows


def merging_rows(rounds: int) -> list[dict[str, Any]]:
    """Into 8 layers of 256 channels, about 12 million weights."""
    import torch
    from engine_bench import Bench, lora_rows

    size = {"num_layers": 8, "num_attention_heads": 2, "attention_head_dim": 128, "ffn_dim": 1024}
    with tempfile.TemporaryDirectory() as folder:
        return lora_rows(Bench(torch.device("cpu"), True, rounds), "t2v_1.3B", Path(folder), **size)


# ---- kernels


def kernel_rows() -> list[dict[str, Any]]:
    import torch

    from Wan2GP.engine.speed.attention import KERNELS, measure_attention, works

    cpu = torch.device("cpu")
    usable = [kernel for kernel in (*KERNELS, "_native_math") if works(kernel, cpu)]
    return [vars(each) for each in measure_attention((1, 1560, 4, 64), torch.float32, cpu, usable, repeats=3)]


# ---- shown


def tables(told: dict[str, Any]) -> str:
    longest = next(row for row in told["decode"]["rows"] if row["way"] == "streamed into the file")["of_the_longer"]
    verdict = f"aim: at most {AIM:g} of the longer of decode and encode; {'met' if longest <= AIM else 'missed'}"
    parts = [f"the engine's levers; {told['machine']}", table(told["decode"]["rows"]), verdict]
    parts += [f"peak memory of a process, MB\n\n{table(told['decode']['memory'])}", table(told["cache"])]
    parts += [table(told[name]) for name in ("vace", "numbers", "lora", "kernels")]
    return "\n\n".join(parts)


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as Markdown; every name that some row has is a column."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"| {' | '.join(name.replace('_', ' ') for name in names)} |", "|---" * len(names) + "|"]
    lines += [f"| {' | '.join(_cell(row.get(name)) for name in names)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
