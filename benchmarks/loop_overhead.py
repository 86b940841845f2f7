"""What our denoise loop costs beside that of diffusers' own pipeline, step by step on the same weights.

    python benchmarks/loop_overhead.py [--repeats 5] [--steps 20] [--json FILE]

A small Wan transformer with random weights (a step takes some 100 ms of one core), the same noise levels, prompts and
guidance. Both loops run in turn in one process on one thread; the numbers are medians over all steps, in CPU time, so
that other work on the machine counts little. Aim: ours takes at most 1.02 times as long; the exit status is 1 when it
is missed.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from tiny_models import tiny_wan_t2v, write_definition  # noqa: E402

from Wan2GP.command_line import Command  # noqa: E402
from Wan2GP.definitions import load_definitions  # noqa: E402
from Wan2GP.engine.families import Cancel, Place  # noqa: E402
from Wan2GP.engine.request import GenerationRequest, parse_request  # noqa: E402
from Wan2GP.engine.wan.conditions import Conditions, Prompts  # noqa: E402
from Wan2GP.engine.wan.loading import load_parts  # noqa: E402
from Wan2GP.engine.wan.loop import denoise  # noqa: E402
from Wan2GP.engine.wan.media import spans_of, window_of  # noqa: E402
from Wan2GP.engine.wan.model import Wan  # noqa: E402
from Wan2GP.engine.wan.resume import Resume  # noqa: E402
from Wan2GP.engine.wan.steps import plan_steps  # noqa: E402
from Wan2GP.engine.wan.text import encode_prompts  # noqa: E402

AIM = 1.02
SIZE = {"num_attention_heads": 8, "attention_head_dim": 32, "ffn_dim": 1024, "num_layers": 8}
CLIP = {"prompt": "a red circle", "negative_prompt": "ring", "resolution": "128x128", "video_length": 17, "seed": 5}


@dataclass(frozen=True)
class Row:
    """Medians over all steps of one sampler."""

    solver: str
    steps: int
    ours_ms: float
    theirs_ms: float
    ratio: float
    largest_difference: float

    @property
    def good(self) -> bool:
        return self.ratio <= AIM


class NoLoras:
    def at_step(self, step: int) -> None:
        """Nothing to change."""


class Bench:
    """One model, for both loops."""

    def __init__(self, folder: Path) -> None:
        self.weights = _larger(tiny_wan_t2v(folder / "weights"))
        rows = write_definition(folder / "rows", "bench", "t2v_1.3B", self.weights)
        self.definition = load_definitions([rows])["bench"]
        self.parts = load_parts(self.definition, Place(folder, "cpu"))
        self.prompts = Prompts(*encode_prompts(self.parts, [CLIP["prompt"], CLIP["negative_prompt"]]))

    def request(self, solver: str, steps: int) -> GenerationRequest:
        values = CLIP | {"sample_solver": solver, "num_inference_steps": steps, "guidance_scale": 5.0}
        return parse_request(values, self.definition, Wan.reads, Path("loras"))

    def ours(self, request: GenerationRequest) -> tuple[torch.Tensor, list[float]]:
        """The latents, and the CPU seconds of each step."""
        steps, levels = plan_steps(request.sampling, ("transformer",))
        empty = np.zeros((0, request.height, request.width, 3), np.uint8)
        window = window_of(request, 0, spans_of(request)[0], 1, empty)
        conditions = Conditions(self.parts, request, window, self.prompts)
        moments: list[float] = []
        latents = denoise(
            conditions,
            steps,
            levels,
            request.seed,
            NoLoras(),
            Resume.of(request).window(0),
            lambda *_: moments.append(time.process_time()),
            Cancel(lambda: False),
        )
        return latents, _between(moments)

    def theirs(self, request: GenerationRequest, pipeline: Any) -> tuple[torch.Tensor, list[float]]:
        """The same of the stock pipeline. The first step, for which nothing is reported before, is left out."""
        moments: list[float] = []

        def note(_: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            moments.append(time.process_time())
            return values

        noise = torch.randn(
            self.parts.latent_shape(request.num_frames, request.height, request.width),
            generator=torch.Generator().manual_seed(request.seed),
        )
        found = pipeline(
            prompt_embeds=self.prompts.positive,
            negative_prompt_embeds=self.prompts.negative,
            height=request.height,
            width=request.width,
            num_frames=request.num_frames,
            num_inference_steps=request.sampling.num_inference_steps,
            guidance_scale=request.sampling.guidance_scale,
            latents=noise,
            output_type="latent",
            callback_on_step_end=note,
        )
        return found.frames, _between(moments)

    def measure(self, solver: str, steps: int, repeats: int) -> Row:
        """Both loops in turn, after one round that warms up."""
        request = self.request(solver, steps)
        pipeline = _pipeline(self.weights, request)
        ours: list[float] = []
        theirs: list[float] = []
        difference = 0.0
        for number in range(repeats + 1):
            latents, seconds = self.ours(request)
            expected, their_seconds = self.theirs(request, pipeline)
            difference = max(difference, float((latents - expected).abs().max()))
            if number:
                ours += seconds[1:]
                theirs += their_seconds
        medians = statistics.median(ours) * 1000, statistics.median(theirs) * 1000
        return Row(solver, len(ours), *medians, medians[0] / medians[1], difference)


def _larger(weights: Path) -> Path:
    """The tiny model with a transformer whose steps are long enough to measure."""
    from diffusers import WanTransformer3DModel

    config = WanTransformer3DModel.load_config(weights / "transformer")
    torch.manual_seed(0)
    WanTransformer3DModel.from_config(config | SIZE).save_pretrained(weights / "transformer")
    return weights


def _pipeline(weights: Path, request: GenerationRequest) -> Any:
    """The stock pipeline at our noise levels."""
    from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, WanPipeline

    _, levels = plan_steps(request.sampling, ("transformer",))
    euler = request.sampling.solver == "euler"
    kind: Any = FlowMatchEulerDiscreteScheduler if euler else UniPCMultistepScheduler
    options = {} if euler else {"prediction_type": "flow_prediction", "use_flow_sigmas": True}

    class AtLevels(kind):
        def set_timesteps(self, num_inference_steps: int, device: Any = None, **_: Any) -> None:
            super().set_timesteps(sigmas=levels.copy(), device=device)
            self.timesteps = torch.tensor(levels * 1000, dtype=torch.float32)

    pipeline = WanPipeline.from_pretrained(weights)
    pipeline.scheduler = AtLevels(**options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _between(moments: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(moments)]


def machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"


EXAMPLES = (("python benchmarks/loop_overhead.py", "measure, and print a table"),)
CODES = {0: "measured, and the aims are met", 1: "an aim was missed; also a wrong flag"}


def parser() -> Command:
    """The flags."""
    flags = Command("benchmarks/loop_overhead.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_argument("--repeats", type=int, default=5, help="runs of each loop (default 5)")
    flags.add_argument("--steps", type=int, default=20, help="steps of a run (default 20)")
    flags.add_argument("--json", type=Path, help="also write the numbers to this file")
    flags.add_version()
    return flags


def main() -> int:
    arguments = parser().parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        rows = [bench.measure(solver, arguments.steps, arguments.repeats) for solver in ("unipc", "euler")]
    print(f"a denoise step, our loop beside diffusers' pipeline; {machine()}\n")
    print(f"| sampler | steps | ours ms | diffusers ms | ratio | latents differ by | aim {AIM:g} |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        numbers = f"{row.ours_ms:.1f} | {row.theirs_ms:.1f} | {row.ratio:.3f} | {row.largest_difference:.1e}"
        print(f"| {row.solver} | {row.steps} | {numbers} | {'met' if row.good else 'missed'} |")
    if arguments.json:
        document = {"machine": machine(), "aim": {"ratio": AIM}, "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
