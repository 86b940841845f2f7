"""Stand-ins for upstream checkouts: three shapes, and the habits of the real ones that an adapter has to live with.

Written from the facts alone (signatures, protocol, side effects); nothing of upstream is in here. A stand-in draws real
videos and notes each call in `calls.jsonl`. What it does beside that is asked for by words of the prompt, or by
`behaviour.json` for what happens at its import.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

OLD, RENAMED, API = "generate_video", "generate_media", "shared/api"
SHAPES = (OLD, RENAMED, API)


def _words(text: str) -> list[str]:
    return text.split()


VERSIONS = {OLD: "8.55", RENAMED: "12.60", API: "12.61"}

_BOTH = _words("""
task send_cmd image_mode prompt negative_prompt resolution video_length batch_size seed force_fps num_inference_steps
guidance_scale guidance2_scale guidance3_scale switch_threshold switch_threshold2 guidance_phases model_switch_phase
audio_guidance_scale flow_shift sample_solver embedded_guidance_scale repeat_generation multi_prompts_gen_type
multi_images_gen_type skip_steps_cache_type skip_steps_multiplier skip_steps_start_step_perc activated_loras
loras_multipliers image_prompt_type image_start image_end model_mode video_source keep_frames_video_source
video_prompt_type image_refs frames_positions video_guide image_guide keep_frames_video_guide denoising_strength
video_guide_outpainting video_mask image_mask control_net_weight control_net_weight2 mask_expand audio_guide
audio_guide2 audio_source audio_prompt_type speakers_locations sliding_window_size sliding_window_overlap
sliding_window_color_correction_strength sliding_window_overlap_noise sliding_window_discard_last_frames
image_refs_relative_size remove_background_images_ref temporal_upsampling spatial_upsampling film_grain_intensity
film_grain_saturation RIFLEx_setting NAG_scale NAG_tau NAG_alpha apg_switch cfg_star_switch cfg_zero_step
prompt_enhancer min_frames_if_references override_profile state model_type mode
""")
_OLD_ONLY = _words("""
MMAudio_setting MMAudio_prompt MMAudio_neg_prompt slg_switch slg_layers slg_start_perc slg_end_perc model_filename
""")
_NEW_ONLY = _words("""
client_id alt_prompt duration_seconds pause_seconds alt_guidance_scale alt_scale audio_scale input_video_strength
video_guide2 masking_strength video_guide_outpainting_ratio control_net_weight_alt motion_amplitude custom_guide
replace_voice_method replace_voice_sample replace_voice_sample2 sub_parallel_window_size sub_parallel_window_overlap
sliding_window_trim_first_frames postprocess_audio postprocess_audio_prompt postprocess_audio_neg_prompt
perturbation_switch perturbation_layers perturbation_start_perc perturbation_end_perc override_attention
attention_sparsity temperature top_p top_k custom_settings self_refiner_setting self_refiner_plan
self_refiner_f_uncertainty self_refiner_certain_percentage output_filename config
""")
#: every parameter is mandatory
PARAMETERS = {OLD: [*_BOTH, *_OLD_ONLY], RENAMED: [*_BOTH, *_NEW_ONLY], API: [*_BOTH, *_NEW_ONLY]}

MODELS: dict[str, dict[str, Any]] = {
    "t2v": {"model": {"name": "T", "architecture": "t2v"}, "num_inference_steps": 3, "prompt": "a sample of theirs"},
    "i2v": {"model": {"name": "I", "architecture": "i2v"}, "num_inference_steps": 2, "image_prompt_type": "S"},
    "vace_14B": {"model": {"name": "V", "architecture": "vace_14B", "URLs": "t2v"}, "num_inference_steps": 2},
    "z_image": {"model": {"name": "Z", "architecture": "z_image"}, "num_inference_steps": 2},
    "newcomer": {"model": {"name": "N", "architecture": "nobody_knows", "fps": 24, "frames_minimum": 9}},
}


def checkout(folder: Path, shape: str, more: tuple[str, ...] = (), **behaviour: Any) -> Path:
    """A stand-in in `folder`; `more` are parameters that no version of today has."""
    (folder / "defaults").mkdir(parents=True)
    (folder / "finetunes").mkdir()
    for name, document in MODELS.items():
        (folder / "defaults" / f"{name}.json").write_text(json.dumps(document))
    entry = "generate_video" if shape == OLD else "generate_media"
    head = f"WanGP_version = {VERSIONS[shape]!r}\nOLD = {shape == OLD}\n"
    names = ", ".join([*PARAMETERS[shape], *more])
    last = "" if shape == OLD else ", plugin_data=None"
    function = f"\n\ndef {entry}({names}{last}):\n    return _generate(dict(locals()))\n"
    (folder / "wgp.py").write_text(head + _WGP + function)
    if shape == API:
        (folder / "shared").mkdir()
        (folder / "shared" / "api.py").write_text(_API)
    (folder / "behaviour.json").write_text(json.dumps(behaviour))
    return folder


def calls(folder: Path) -> list[dict[str, Any]]:
    """Each call of the generation function, in order: its settings, and what it saw of its process."""
    noted = folder / "calls.jsonl"
    return [json.loads(line) for line in noted.read_text().splitlines()] if noted.exists() else []


_WGP = '''
import argparse
import json
import os
import signal
import socket
import sys
import threading

import av
import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("--profile", type=int, default=-1)
parser.add_argument("--settings", default="settings")
args = parser.parse_args()  # ends the process for flags of another program

with open("behaviour.json") as opened:  # found in the current folder alone
    behaviour = json.load(opened)
print("a stand-in says hello on standard output: {not json")
print("and this on standard error", file=sys.stderr)
if behaviour.get("import") == "mmgp":
    print("this version wants another mmgp")
    sys.exit()
if behaviour.get("import") == "cuda":
    raise RuntimeError("Found no NVIDIA driver on your system.")
if behaviour.get("import") == "hang":
    threading.Event().wait()
if behaviour.get("import") == "no models":
    for name in os.listdir("defaults"):
        os.rename(f"defaults/{name}", f"{name}.gone")

if not os.path.isfile("wgp_config.json"):
    with open("wgp_config.json", "w") as opened:
        json.dump({"save_path": "outputs", "image_save_path": "outputs", "video_container": "mp4"}, opened)
with open("wgp_config.json") as opened:
    server_config = json.load(opened)
os.makedirs(args.settings, exist_ok=True)
save_path, image_save_path = server_config["save_path"], server_config["image_save_path"]
if not OLD:
    audio_save_path = server_config["save_path"]
    sys.modules["wgp"] = sys.modules[__name__]

models_def = {}
for folder in ("defaults", "finetunes"):
    for name in sorted(os.listdir(folder)):
        with open(f"{folder}/{name}") as opened:
            models_def[name[:-5]] = json.load(opened)

wan_model = offloadobj = None
transformer_type = "t2v"  # nothing is loaded
reload_needed = True
loaded_profile, default_profile = -1, 4
preload_model_policy = []
attention_mode, transformer_quantization = "sdpa", "int8"


class OutOfMemoryError(RuntimeError):
    pass


class Error(Exception):
    __module__ = "gradio.exceptions"


class _Model:
    _interrupt = False


class _Offload:
    def release(self):
        pass


def _note(file, **what):
    with open(file, "a") as opened:
        opened.write(json.dumps(what, default=str) + "\\n")


def load_models(model_type, override_profile=-1, **more):
    """The caller keeps the pair: nothing is stored here."""
    global transformer_type
    print("loading", model_type)
    container = server_config.get("video_container", "mp4")
    _note("engine.jsonl", attention=attention_mode, profile=default_profile, container=container)
    _note("loads.jsonl", model=model_type, profile=override_profile)
    if behaviour.get("load") == "hang":
        threading.Event().wait()
    if behaviour.get("load") == "chatter":
        for number in range(100_000):
            print("still loading", number, flush=True)
            threading.Event().wait(0.02)
    transformer_type = model_type
    return _Model(), _Offload()


def release_model():
    global wan_model, offloadobj, reload_needed
    _note("loads.jsonl", released=transformer_type)
    wan_model = offloadobj = None
    reload_needed = True


def unload_model_if_needed(state):
    """Does nothing unless the policy says U, and it does not."""


def apply_changes(state, **settings):
    with open("wgp_config.json", "w") as opened:
        json.dump(settings, opened)


def get_settings_file_name(model_type):
    return os.path.join(args.settings, model_type + "_settings.json")


def _shipped(model_type):
    kind = 0 if OLD else "PG"
    base = {"video_length": 81, "multi_prompts_gen_type": kind, "flow_shift": 7, "settings_version": 2.34, "type": "x"}
    base |= behaviour.get("defaults", {})
    return base | {key: value for key, value in models_def[model_type].items() if key != "model"}


def get_default_settings(model_type):
    """What the user saved, or what is shipped, which is saved then."""
    path = get_settings_file_name(model_type)
    if not os.path.isfile(path):
        with open(path, "w") as opened:
            json.dump(_shipped(model_type), opened)
    with open(path) as opened:
        return json.load(opened)


if not OLD:
    def get_factory_settings(model_type):
        return _shipped(model_type)


def _reloaded(values):
    global wan_model, offloadobj, reload_needed, loaded_profile
    profile = values["override_profile"] if values["override_profile"] > 0 else default_profile
    if values["model_type"] != transformer_type or reload_needed or profile != loaded_profile:
        wan_model = None
        wan_model, offloadobj = load_models(values["model_type"], values["override_profile"])
        reload_needed, loaded_profile = False, profile


def _seen(values):
    kept = {}
    for name, value in values.items():
        if name not in ("task", "send_cmd", "state"):
            image = getattr(value, "size", None)
            kept[name] = {"image": image, "mode": value.mode} if image else value
    process = {
        "cwd": os.getcwd(), "argv": sys.argv, "environment": dict(os.environ),
        "descriptors": sum(map(_inheritable, map(int, os.listdir("/proc/self/fd")))),
    }
    return {"settings": kept, "process": process, "save_path": save_path, "state_loras": values["state"]["loras"]}


def _inheritable(number):
    try:
        return number > 2 and os.get_inheritable(number)
    except OSError:
        return False


def _generate(values):
    _note("calls.jsonl", **_seen(values))
    gen, send_cmd, prompt = values["state"]["gen"], values["send_cmd"], values["prompt"]
    if "lora" in prompt and not os.path.exists("loras/missing.safetensors"):
        raise Error("the LoRA missing.safetensors was not found")
    if "memory raised" in prompt:
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    if "raises" in prompt:
        raise KeyError("a part of it")
    send_cmd("status", "Loading model")
    _reloaded(values)
    if gen["abort"]:
        return None if OLD else True
    wan_model._interrupt = False
    gen["prompt_no"], gen["prompts_max"]
    loras = values["activated_loras"] if values["state"]["loras"] or not OLD else []
    _note("loras.jsonl", applied=loras)
    if "attention" in prompt:
        send_cmd("info", "this attention is not there")
        send_cmd("exit")
        return None if OLD else True
    gen["window_no"], gen["total_windows"] = 1, 2 if "windows" in prompt else 1
    try:
        done = _sampled(values, gen, send_cmd, prompt)
    except Exception as error:  # swallowed, and told
        told = "you probably have insufficient VRAM" if "out of memory" in str(error) else str(error)
        send_cmd("error", told)
        return None if OLD else False
    if done and "silently" not in prompt:
        _saved(values, gen, send_cmd, prompt)
    return None if OLD else True


def _sampled(values, gen, send_cmd, prompt):
    steps = values["num_inference_steps"]
    send_cmd("progress", [0, "Encoding prompt"])
    if not OLD:
        send_cmd("refresh_models")
    for step in range(steps):
        if gen["process_status"].startswith("request:"):
            raise RuntimeError("somebody else wants the GPU")
        if "deaf" in prompt:
            send_cmd("progress", [(step + 1, steps), "Denoising", steps])
            threading.Event().wait()
        if wan_model._interrupt:
            send_cmd("output")
            return False
        _misbehave(prompt)
        send_cmd("preview", object())
        send_cmd("progress", [(step + 1, steps), "Denoising", steps])
        if "slow" in prompt:
            threading.Event().wait(0.05)
    send_cmd("progress", [0, "VAE Decoding"])
    return True


def _misbehave(prompt):
    if "memory" in prompt:
        raise RuntimeError("CUDA error: out of memory")
    if "sticky" in prompt:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    if "swallowed" in prompt:
        raise ValueError("it went wrong inside")
    if "dies" in prompt and not ("once" in prompt and os.path.exists("died")):
        open("died", "w").close()
        print("about to die; token=hf_0123456789abcdefghij", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if "garbage" in prompt:
        for each in os.listdir("/proc/self/fd"):
            if os.path.exists(f"/proc/self/fd/{each}") and os.readlink(f"/proc/self/fd/{each}").startswith("socket"):
                os.write(int(each), b"{this is no message\\n")
        threading.Event().wait()


def _saved(values, gen, send_cmd, prompt):
    send_cmd("info", "nothing special")
    if "sound" in prompt:
        path = _path(audio_save_path, "sound.wav")
        with open(path, "wb") as opened:
            opened.write(b"RIFF")
        gen["audio_file_list"].append(path)
    elif values["image_mode"]:
        _still(values, gen)
    else:
        for window in range(1, gen["total_windows"] + 1):
            gen["window_no"] = window
            _video(values, gen, values["video_length"] // (gen["total_windows"] - window + 1), window)
    gen["file_settings_list"].append({})
    send_cmd("output")


def _path(folder, name):
    """As the real one: relative to the checkout's folder where that is how the folder was given."""
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, name)


def _video(values, gen, frames, window):
    width, height = (int(side) // 16 * 16 for side in values["resolution"].split("x"))
    lossless = server_config.get("video_output_codec") == "libx264_lossless"
    container = server_config.get("video_container", "mp4")
    path = _path(save_path, f"seed{values['seed']}_{window}.{container}")
    frames = (frames - 1) // 4 * 4 + 1
    with av.open(path, "w") as opened:
        stream = opened.add_stream("ffv1" if lossless and container == "mkv" else "libx264", rate=16)
        stream.width, stream.height = width, height
        stream.pix_fmt = "bgr0" if lossless and container == "mkv" else "yuv420p"
        for number in range(frames):
            picture = np.full((height, width, 3), (number * 7 + values["seed"]) % 256, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                opened.mux(packet)
        for packet in stream.encode():
            opened.mux(packet)
    gen["file_list"].append(path)


def _still(values, gen):
    from PIL import Image

    width, height = (int(side) // 16 * 16 for side in values["resolution"].split("x"))
    path = _path(image_save_path, f"seed{values['seed']}.jpg")
    Image.new("RGB", (width, height), (values["seed"] % 256, 80, 40)).save(path)
    gen["file_list"].append(path)
'''

_API = """
import os
import queue
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

_runtime = None
_lock = threading.RLock()


@contextmanager
def _in(root):
    before = os.getcwd()
    os.chdir(root)
    try:
        yield
    finally:
        os.chdir(before)


def _module(root):
    global _runtime
    if _runtime is None:
        argv, sys.argv = sys.argv, ["wgp.py"]
        with _in(root):
            import wgp
        sys.argv = argv
        _runtime = (root, wgp)
    if _runtime[0] != root:
        raise RuntimeError("there is one runtime in a process")
    return _runtime[1]


@dataclass
class _Failure:
    message: str
    stage: str

    def __str__(self):
        return self.message


class _Events:
    def __init__(self):
        self._queue, self._closed = queue.Queue(), False

    def put(self, kind, data=None):
        self._queue.put(SimpleNamespace(kind=kind, data=data))

    def get(self, timeout=None):
        try:
            return self._queue.get(timeout=timeout)
        except queue.Empty:
            return None


class _Job:
    def __init__(self):
        self.events, self.cancel_requested, self.cancelling = _Events(), False, lambda: None
        self._done, self._result = threading.Event(), None

    @property
    def done(self):
        return self._done.is_set()

    def cancel(self):
        self.cancel_requested = True
        self.cancelling()

    def result(self, timeout=None):
        self._done.wait(timeout)
        return self._result


class _Session:
    def __init__(self, root, output_dir):
        self._root, self._output_dir, self._job = root, output_dir, None

    def ensure_ready(self):
        _module(self._root)
        return self

    def get_default_settings(self, model_type):
        with _in(self._root):
            return _module(self._root).get_default_settings(model_type)

    def close(self):
        with _in(self._root):
            _module(self._root).release_model()

    def submit_task(self, settings):
        if self._job is not None and not self._job.done:
            raise RuntimeError("a job is at work")
        for path in settings.values():
            if isinstance(path, str) and path.endswith((".png", ".mp4")) and not os.path.isabs(path):
                raise ValueError("files are named whole here")
        self._job = job = _Job()
        threading.Thread(target=self._run, args=(job, settings), daemon=True).start()
        return job

    def _run(self, job, settings):
        wgp = _module(self._root)
        files, audio = [], []
        gen = {
            "file_list": files, "file_settings_list": [], "audio_file_list": audio, "abort": False,
            "process_status": "process:main", "in_progress": True, "prompt_no": 1, "prompts_max": 1,
        }
        errors = []

        def cancelling():
            gen["abort"] = True
            if wgp.wan_model is not None:
                wgp.wan_model._interrupt = True

        def send(command, data=None):
            if job.cancel_requested:
                cancelling()
            if command == "progress":
                stepped = isinstance(data[0], tuple)
                step, total = data[0] if stepped else (None, None)
                phase = "inference" if stepped else "encoding_text" if "ncod" in data[1] else "decoding"
                job.events.put("progress", SimpleNamespace(
                    phase=phase, status=data[1], progress=0, current_step=step, total_steps=total))
            elif command == "preview":
                from PIL import Image

                job.events.put(command, SimpleNamespace(image=Image.new("RGB", (480, 320), (200, 40, 90))))
            elif command == "error":
                errors.append(_Failure(str(data), "generation"))
            else:
                job.events.put(command, data)

        job.cancelling = cancelling
        taken = wgp.generate_media.__code__.co_varnames[:wgp.generate_media.__code__.co_argcount]
        values = dict.fromkeys(taken) | wgp._shipped(settings["model_type"]) | settings
        values |= {"task": {}, "send_cmd": send, "state": {"gen": gen, "loras": []}, "mode": ""}
        values["override_profile"] = values["override_profile"] or -1
        for name in ("image_start", "image_end"):
            if isinstance(values[name], str):
                from PIL import Image

                values[name] = Image.open(values[name])
        with _lock, _in(self._root):
            if self._output_dir:
                os.makedirs(self._output_dir, exist_ok=True)
                wgp.save_path = wgp.image_save_path = wgp.audio_save_path = self._output_dir
            success = False
            try:
                success = wgp.generate_media(**{name: values[name] for name in taken})
            except Exception as error:
                errors.append(_Failure(str(error), "runtime"))
        if job.cancel_requested:
            errors = [_Failure("the job was cancelled", "cancelled")]
        job._result = SimpleNamespace(
            success=bool(success) and not errors and bool(files), generated_files=files, errors=errors, artifacts=())
        job._done.set()


def init(root=None, config_path=None, output_dir=None, callbacks=None, cli_args=(), console_output=True,
         console_isatty=True, webui_state=None):
    session = _Session(str(root), output_dir)
    return session.ensure_ready()
"""
