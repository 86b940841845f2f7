"""Reading, writing and probing of video and images. The lowest layer: no torch, nothing of ours but the error tree.

Arrays are RGB, (H, W, 3), uint8. Frames are counted exactly and read by index, one at a time.
"""

from Wan2GP.media.colour import BT709_SIGNALLING, Box, Planes, Signalling, to_planes, to_rgb
from Wan2GP.media.ffmpeg import ffmpeg_path, mux_audio
from Wan2GP.media.files import publishing
from Wan2GP.media.images import (
    Frame,
    ImageInfo,
    probe_image,
    read_image,
    read_mask,
    resize,
    snap_size,
    write_image,
)
from Wan2GP.media.index import Encoding, VideoIndex, VideoInfo, index_video, probe_video
from Wan2GP.media.reader import check_video, decode, read_frame, read_frames, read_planes
from Wan2GP.media.remux import PacketRange, concat_copy, needs_sets_in_band
from Wan2GP.media.sound import SOUND_RATE, Samples, check_sound, mux_samples, read_sound, stereo_pieces
from Wan2GP.media.writer import VideoWriter, exact_fps, write_video

__all__ = [
    "BT709_SIGNALLING",
    "SOUND_RATE",
    "Box",
    "Encoding",
    "Frame",
    "ImageInfo",
    "PacketRange",
    "Planes",
    "Samples",
    "Signalling",
    "VideoIndex",
    "VideoInfo",
    "VideoWriter",
    "check_sound",
    "check_video",
    "concat_copy",
    "decode",
    "exact_fps",
    "ffmpeg_path",
    "index_video",
    "mux_audio",
    "mux_samples",
    "needs_sets_in_band",
    "probe_image",
    "probe_video",
    "publishing",
    "read_frame",
    "read_frames",
    "read_image",
    "read_mask",
    "read_planes",
    "read_sound",
    "resize",
    "snap_size",
    "stereo_pieces",
    "to_planes",
    "to_rgb",
    "write_image",
    "write_video",
]
