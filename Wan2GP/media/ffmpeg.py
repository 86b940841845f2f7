"""The bundled ffmpeg program, for what PyAV does not do well."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg

from Wan2GP.errors import EngineError, InvalidInput, InvalidMedia
from Wan2GP.media.files import publishing, require_file

_TIMEOUT_S = 600


def ffmpeg_path() -> Path:
    """The ffmpeg program that comes with imageio-ffmpeg."""
    return Path(imageio_ffmpeg.get_ffmpeg_exe())


def mux_audio(video: str | Path, audio: str | Path, output: str | Path) -> Path:
    """Lay the sound of `audio` (a sound file, or a video with sound) under `video`, into the mp4 `output`.

    The pictures are copied, all of them; the sound becomes AAC 192 kbit/s, cut or followed by silence to their length.
    Raises InvalidMedia when ffmpeg cannot use one of them, EngineError when it takes over ten minutes.
    """
    video, audio, output = Path(video), Path(audio), Path(output)
    if output.suffix.lower() != ".mp4":
        raise InvalidInput(f"cannot write {output}: use a name that ends in .mp4")
    require_file(video)
    require_file(audio)
    with publishing(output) as partial:
        inputs = ["-i", str(video.absolute()), "-i", str(audio.absolute()), "-map", "0:v:0", "-map", "1:a:0"]
        coding = ["-c:v", "copy", "-c:a", "aac", "-b:a", "192k", "-af", "apad", "-shortest", "-movflags", "+faststart"]
        _run([*inputs, *coding, str(partial.absolute())], f"cannot put the sound of {audio} under {video}")
    return output


def _run(arguments: list[str], failure: str) -> None:
    quiet = ["-nostdin", "-hide_banner", "-loglevel", "error", "-protocol_whitelist", "file", "-y"]
    command = [str(ffmpeg_path()), *quiet, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{failure}: ffmpeg did not finish in {_TIMEOUT_S} s") from error
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"ffmpeg ended with code {done.returncode}"]
        raise InvalidMedia(f"{failure}: {reason[0]}")
