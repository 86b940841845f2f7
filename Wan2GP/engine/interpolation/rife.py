"""RIFE: a network that draws the frames between two frames.

Written from the paper: Huang et al., "Real-Time Intermediate Flow Estimation for Video Frame Interpolation", ECCV 2022
(arXiv 2011.06348). Three blocks, coarse to fine, each correct the flow from the middle frame to both inputs and a mask
that mixes the two warped inputs. The layer names follow the released HDv3 checkpoint, so that it loads as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, interpolate, pad

from Wan2GP.engine.families import Cancel
from Wan2GP.engine.interpolation.rife_weights import verify
from Wan2GP.engine.request import Frame

#: width of the flow blocks in the HDv3 checkpoint
CHANNELS = 90
#: both sides must be multiples of this: a quarter-scale block that halves twice
ALIGNMENT = 16
SCALES = (4, 2, 1)
#: times nearer than this, in leaves, are the same
_NOW = 1e-6


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.PReLU(outputs))


def _upsampler(outputs: int) -> nn.Sequential:
    half = CHANNELS // 2
    return nn.Sequential(
        nn.ConvTranspose2d(CHANNELS, half, 4, 2, 1), nn.PReLU(half), nn.ConvTranspose2d(half, outputs, 4, 2, 1)
    )


class FlowBlock(nn.Module):
    """Corrects the flow (4 channels: to the first frame, to the second) and the mask (1 channel) at one scale."""

    def __init__(self) -> None:
        super().__init__()
        images_mask_flow = 3 + 3 + 1 + 4
        self.conv0 = nn.Sequential(_conv(images_mask_flow, CHANNELS // 2, 2), _conv(CHANNELS // 2, CHANNELS, 2))
        self.convblock0 = nn.Sequential(_conv(CHANNELS, CHANNELS), _conv(CHANNELS, CHANNELS))
        self.convblock1 = nn.Sequential(_conv(CHANNELS, CHANNELS), _conv(CHANNELS, CHANNELS))
        self.convblock2 = nn.Sequential(_conv(CHANNELS, CHANNELS), _conv(CHANNELS, CHANNELS))
        self.convblock3 = nn.Sequential(_conv(CHANNELS, CHANNELS), _conv(CHANNELS, CHANNELS))
        self.conv1 = _upsampler(4)
        self.conv2 = _upsampler(1)

    def forward(self, images_and_mask: Tensor, flow: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        """(N, 7, H, W) and (N, 4, H, W) in pixels -> what to add to the flow and to the mask."""
        inputs = torch.cat((_resized(images_and_mask, 1 / scale), _resized(flow, 1 / scale) / scale), dim=1)
        features = self.conv0(inputs)
        for block in (self.convblock0, self.convblock1, self.convblock2, self.convblock3):
            features = features + block(features)
        return _resized(self.conv1(features), scale) * scale, _resized(self.conv2(features), scale)


@dataclass(frozen=True)
class Motion:
    """What moves between two frames, seen from the moment halfway."""

    first: Tensor
    second: Tensor
    #: (1, 4, H, W) in pixels: to the first frame, to the second
    flow: Tensor
    #: (1, 1, H, W), 0-1: how much of the first frame is shown
    share: Tensor

    def frame(self, time: float) -> Tensor:
        """The frame at `time`, 0 (the first) to 1. The motion is taken to be straight and even: at another time than
        halfway the flow is longer or shorter, and the nearer frame counts for more (Jiang et al., "Super SloMo", CVPR
        2018, equation 4)."""
        warped_first = _warp(self.first, self.flow[:, :2] * (2 * time))
        warped_second = _warp(self.second, self.flow[:, 2:] * (2 * (1 - time)))
        first, second = (1 - time) * self.share, time * (1 - self.share)
        share = self.share if time == 0.5 else first / (first + second).clamp_min(1e-6)
        return (warped_first * share + warped_second * (1 - share)).clamp(0, 1)


class FlowNetwork(nn.Module):
    """IFNet: the motion between two frames."""

    def __init__(self) -> None:
        super().__init__()
        self.block0 = FlowBlock()
        self.block1 = FlowBlock()
        self.block2 = FlowBlock()

    def forward(self, first: Tensor, second: Tensor) -> Motion:
        """Two (1, 3, H, W) images, 0-1, sides multiples of ALIGNMENT."""
        size = first.shape[-2:]
        flow = first.new_zeros(1, 4, *size)
        mask = first.new_zeros(1, 1, *size)
        warped_first, warped_second = first, second
        for block, scale in zip((self.block0, self.block1, self.block2), SCALES, strict=True):
            if scale != SCALES[0]:
                warped_first, warped_second = _warp(first, flow[:, :2]), _warp(second, flow[:, 2:])
            flow_change, mask_change = _symmetric(block, warped_first, warped_second, flow, mask, scale)
            flow, mask = flow + flow_change, mask + mask_change
        return Motion(first, second, flow, mask.sigmoid())


def _symmetric(
    block: nn.Module, first: Tensor, second: Tensor, flow: Tensor, mask: Tensor, scale: int
) -> tuple[Tensor, Tensor]:
    """Run a block forwards and backwards in time, as one batch, and average: the middle has no direction."""
    images = torch.cat((torch.cat((first, second, mask), 1), torch.cat((second, first, -mask), 1)))
    flows, masks = block(images, torch.cat((flow, _swapped(flow))), scale)
    return (flows[:1] + _swapped(flows[1:])) / 2, (masks[:1] - masks[1:]) / 2


def _swapped(flow: Tensor) -> Tensor:
    return torch.cat((flow[:, 2:], flow[:, :2]), dim=1)


def _resized(image: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return image
    return interpolate(image, scale_factor=factor, mode="bilinear", align_corners=False)


def _warp(image: Tensor, flow: Tensor) -> Tensor:
    """`image` sampled at every pixel's position plus `flow` (x, y in pixels); the border repeats."""
    height, width = image.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=image.device, dtype=flow.dtype),
        torch.arange(width, device=image.device, dtype=flow.dtype),
        indexing="ij",
    )
    grid = torch.stack(
        ((x + flow[:, 0]) * (2 / max(width - 1, 1)) - 1, (y + flow[:, 1]) * (2 / max(height - 1, 1)) - 1), dim=-1
    )
    return grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


@dataclass(frozen=True)
class _Span:
    """Two frames and their times, counted in leaves."""

    first: Tensor
    second: Tensor
    start: int
    stop: int


class Rife:
    """Frames between two frames: by repeated halving, and by a part of the motion within the last half."""

    name = "RIFE"

    def __init__(self, weights: Path, device: str) -> None:
        """Load the checkpoint. Raises ModelUnavailable when it is not the file that was tested."""
        verify(weights)
        state = torch.load(weights, map_location="cpu", weights_only=True)
        # The checkpoint also holds `block_tea`, a teacher that is used in training only.
        flow_blocks = {key.removeprefix("module."): value for key, value in state.items() if "block_tea." not in key}
        self._network = FlowNetwork()
        self._network.load_state_dict(flow_blocks)
        self._network.eval().to(device, memory_format=torch.channels_last)
        self._device = device

    def between(self, first: Frame, second: Frame, times: Sequence[float], cancel: Cancel) -> Iterator[Frame]:
        """RGB uint8 frames at exactly `times` (ascending).

        Midpoints are visited in order of time, so at most log2 of the gap are in memory.
        """
        if not times:
            return
        height, width = first.shape[:2]
        leaves = 2 ** int(math.log2(len(times) + 1))
        wanted = [time * leaves for time in times]
        for frame in self._halves(_Span(self._tensor(first), self._tensor(second), 0, leaves), wanted, cancel):
            yield _image(frame, height, width)

    def _halves(self, span: _Span, wanted: Sequence[float], cancel: Cancel) -> Iterator[Tensor]:
        inside = [time for time in wanted if span.start + _NOW < time < span.stop - _NOW]
        if not inside:
            return
        cancel.raise_if_requested()
        with torch.inference_mode():
            motion = self._network(span.first, span.second)
        if span.stop - span.start == 1:
            yield from (self._drawn(motion, time - span.start) for time in inside)
            return
        node = (span.start + span.stop) // 2
        middle = self._drawn(motion, 0.5)
        yield from self._halves(_Span(span.first, middle, span.start, node), inside, cancel)
        if any(abs(time - node) <= _NOW for time in inside):
            yield middle
        yield from self._halves(_Span(middle, span.second, node, span.stop), inside, cancel)

    @staticmethod
    def _drawn(motion: Motion, time: float) -> Tensor:
        with torch.inference_mode():
            return motion.frame(time)

    def _tensor(self, frame: Frame) -> Tensor:
        """(H, W, 3) uint8 -> (1, 3, H', W') float 0-1, padded to the alignment by repeating the border."""
        height, width = frame.shape[:2]
        image = torch.from_numpy(np.ascontiguousarray(frame)).to(self._device).permute(2, 0, 1)[None].float() / 255
        image = pad(image, (0, -width % ALIGNMENT, 0, -height % ALIGNMENT), mode="replicate")
        return image.contiguous(memory_format=torch.channels_last)


def _image(frame: Tensor, height: int, width: int) -> Frame:
    pixels = (frame[0, :, :height, :width] * 255).round().to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy())
