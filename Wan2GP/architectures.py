"""The architectures that there are: what every model of each takes and gives, never guessed from a model's name.

What can be declared, and what the letters mean, is in `architecture.py`. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from Wan2GP.architecture import Architecture, WindowRule, with_svi

_TEXT = frozenset({"text", "loras"})
_REDRAWN = _TEXT | {"video_source", "control_video", "mask"}
_STARTED = _TEXT | {"image_start", "video_source"}
_IMAGES = _STARTED | {"image_end"}
_VACE = _STARTED | {"control_video", "mask", "references"}

_REDRAW_LETTERS = "GUVA"
_VACE_LETTERS = "UPODSELCMVTGANXYWZIKF"


#: windows that share exactly the frame which the next one starts from
_ONE_FRAME = WindowRule(overlap_max=1, overlap_step=0, overlap_default=1)

_T2V = Architecture(
    inputs=_REDRAWN,
    engine="wan",
    parts_from="t2v",
    image_too=True,
    windows=WindowRule(),
    image_prompt_letters="TVL",
    control=_REDRAW_LETTERS,
)
_I2V = Architecture(
    inputs=_IMAGES,
    engine="wan",
    parts_from="i2v",
    i2v=True,
    svi=True,
    lora_folder="wan_i2v",
    windows=_ONE_FRAME,
    image_prompt_letters="SEVL",
)
_I2V_2_2 = replace(_I2V, parts_from="i2v_2_2", lora_folder="wan", experts=2)
_VACE_14B = replace(_T2V, inputs=_VACE, min_frames=17, vace=True, control=_VACE_LETTERS)
_PHANTOM = Architecture(inputs=_TEXT | {"references"}, engine="wan", parts_from="t2v", control="I")
#: front ends step by 20 frames; the VAE takes any 4k + 1, so that is the rule here
_SKY_DF = Architecture(
    inputs=_STARTED,
    engine="wan",
    parts_from="sky_df_14B",
    fps=24,
    min_frames=17,
    phases=1,
    windows=WindowRule(size=97, overlap_max=73, overlap_default=17),
    solvers=("unipc", "euler"),
    image_prompt_letters="TSV",
    model_modes=(0, 5),
)

_WAN: Mapping[str, Architecture] = {
    "t2v": _T2V,
    "t2v_1.3B": replace(_T2V, parts_from="t2v_1.3B", lora_folder="wan_1.3B"),
    "t2v_2_2": replace(_T2V, parts_from="t2v_2_2", experts=2),
    "i2v": _I2V,
    "i2v_2_2": replace(_I2V_2_2, inputs=_IMAGES | {"control_video", "mask"}, control=_REDRAW_LETTERS),
    "i2v_2_2_svi2pro": replace(with_svi(_I2V_2_2), svi_always=True),
    "ti2v_2_2": replace(
        _I2V,
        inputs=_STARTED,
        parts_from="ti2v_2_2",
        i2v=False,
        svi=False,
        fps=24,
        pixel_block=32,
        lora_folder="wan_5B",
        windows=replace(_ONE_FRAME, size=121),
        image_prompt_letters="TSVL",
    ),
    "flf2v_720p": replace(_I2V, parts_from="flf2v_720p", svi=False),
    "fun_inp": _I2V,
    "fun_inp_1.3B": replace(_I2V, lora_folder="wan_1.3B"),
    "vace_1.3B": replace(_VACE_14B, parts_from="t2v_1.3B", lora_folder="wan_1.3B"),
    "vace_14B": _VACE_14B,
    "vace_14B_2_2": replace(_VACE_14B, parts_from="t2v_2_2", experts=2),
    "phantom_1.3B": replace(_PHANTOM, parts_from="t2v_1.3B", lora_folder="wan_1.3B"),
    "phantom_14B": _PHANTOM,
    "recam_1.3B": Architecture(
        inputs=_TEXT | {"control_video"},
        engine="wan",
        parts_from="t2v_1.3B",
        lora_folder="wan_1.3B",
        control="UV",
        model_modes=tuple(range(1, 11)),
    ),
    "fantasy": replace(_I2V, inputs=_STARTED | {"audio"}, svi=False, fps=23, image_prompt_letters="SVL", audio=True),
    "sky_df_1.3B": replace(_SKY_DF, parts_from="sky_df_1.3B", fps=16, lora_folder="wan_1.3B"),
    "sky_df_14B": _SKY_DF,
}

#: an image model that a stock pipeline of diffusers runs
_STILL = Architecture(
    inputs=_TEXT,
    frame_step=1,
    min_frames=1,
    image_output=True,
    phases=1,
    solvers=(),
)
_FLUX = replace(_STILL, inputs=_TEXT | {"control_video", "mask"}, engine="flux", family="Flux", lora_folder="flux")
_Z_IMAGE = replace(
    _STILL,
    inputs=_TEXT | {"image_start"},
    engine="z_image",
    family="Z-Image",
    lora_folder="z_image",
    image_prompt_letters="S",
)

#: draws a control picture for each frame it is given
_CONTROL = Architecture(
    inputs=frozenset({"control_video"}),
    frame_step=1,
    min_frames=1,
    pixel_block=1,
    image_too=True,
    phases=1,
    lora_folder="",
    solvers=(),
)
_DRAWN = replace(_CONTROL, family="OpenCV", needs_weights=False)
_BLAZEPOSE = ("pose_detection.tflite", "pose_landmark_full.tflite")

#: text to image; the edit models see pictures too
_QWEN = replace(
    _STILL,
    inputs=_TEXT | {"control_video", "mask"},
    engine="qwen_image",
    family="Qwen-Image",
    lora_folder="qwen",
    solvers=("default", "lightning"),
    control="VAN",
    model_modes=(0,),
)
_QWEN_EDIT = replace(_QWEN, inputs=_QWEN.inputs | {"references"}, engine="qwen_image_edit", control="KIVAN")
_QWEN_EDIT_PLUS = replace(_QWEN_EDIT, engine="qwen_image_edit_plus")
_HUNYUAN = Architecture(
    inputs=_TEXT,
    engine="hunyuan",
    parts_from="hunyuan",
    fps=24,
    phases=1,
    family="Hunyuan Video",
    lora_folder="hunyuan",
    solvers=(),
)

#: families other than Wan
_OTHERS: Mapping[str, Architecture] = {
    "draft": Architecture(
        inputs=frozenset({"image_start", "image_end", "video_source", "control_video", "mask"}),
        phases=1,
        family="Draft",
        needs_weights=False,
        engine="draft",
        svi=True,
        lora_folder="",
        solvers=(),
        image_prompt_letters="SEV",
        control="VUMANT",
    ),
    "rife": Architecture(
        inputs=frozenset({"image_start", "image_end", "control_video"}),
        frame_step=1,
        min_frames=1,
        pixel_block=2,
        phases=1,
        family="RIFE",
        needs_weights=False,  # it draws by optical flow without its own
        folder_files=("flownet.pkl",),
        engine="rife",
        lora_folder="",
        solvers=(),
        image_prompt_letters="SE",
        control="V",
    ),
    "hunyuan": _HUNYUAN,
    "hunyuan_custom": replace(
        _HUNYUAN,
        inputs=_TEXT | {"references"},
        engine="hunyuan_custom",
        parts_from="hunyuan_i2v",
        control="I",
    ),
    "hunyuan_i2v": replace(
        _HUNYUAN,
        inputs=_STARTED,
        engine="hunyuan_i2v",
        parts_from="hunyuan_i2v",
        i2v=True,
        lora_folder="hunyuan_i2v",
        windows=_ONE_FRAME,
        image_prompt_letters="SVL",
    ),
    "ltxv_13B": Architecture(
        inputs=_IMAGES | {"control_video", "mask", "references"},
        fps=30,
        frame_step=8,
        min_frames=17,
        pixel_block=32,
        phases=1,
        family="LTX Video",
        engine="ltx",
        lora_folder="ltxv",
        solvers=(),
        windows=WindowRule(size=257, overlap_step=8, overlap_default=9),
        image_prompt_letters="TSEV",
        control="GUVANFT",
    ),
    "qwen2_5_vl": Architecture(
        inputs=frozenset({"text", "references"}),
        fps=1,
        frame_step=1,
        min_frames=1,
        pixel_block=1,
        phases=1,
        family="Qwen2.5-VL",
        engine="vision_language",
        lora_folder="",
        solvers=(),
        text_output=True,
        folder_files=("config.json", "tokenizer.json", "tokenizer_config.json"),
    ),
    "depth_anything_v2": replace(
        _CONTROL, family="Depth Anything", engine="depth", control="VD", draws="D", folder_files=("config.json",)
    ),
    "pose": replace(_CONTROL, family="BlazePose", engine="pose", control="VP", draws="P", folder_files=_BLAZEPOSE),
    "pose_joints": replace(
        _CONTROL,
        family="BlazePose",
        engine="pose_joints",
        control="V",
        image_too=False,
        text_output=True,
        folder_files=_BLAZEPOSE,
    ),
    "canny": replace(_DRAWN, engine="canny", control="VE", draws="E"),
    "scribble": replace(_DRAWN, engine="scribble", control="VS", draws="S"),
    "flow": replace(_DRAWN, engine="flow", control="VL", draws="L", image_too=False),
    "flux": _FLUX,
    "flux_schnell": _FLUX,
    "flux_dev_kontext": replace(
        _FLUX, engine="flux_kontext", inputs=_TEXT | {"references"}, control="KI", image_prompt_letters=""
    ),
    "qwen_image_20B": _QWEN,
    "qwen_image_edit_20B": _QWEN_EDIT,
    "qwen_image_edit_plus_20B": _QWEN_EDIT_PLUS,
    "qwen_image_edit_plus2_20B": _QWEN_EDIT_PLUS,
    "z_image": _Z_IMAGE,
    "z_image_base": _Z_IMAGE,
}

#: models that make masks
_MASKS: Mapping[str, Architecture] = {
    "sam2": replace(
        _CONTROL, family="SAM 2", engine="sam2", control="VN", mask_of="prompts", folder_files=("config.json",)
    ),
    "person_mask": replace(
        _CONTROL,
        family="MediaPipe",
        engine="person_mask",
        control="VN",
        mask_of="people",
        folder_files=("selfie_segmentation.tflite",),
    ),
}

#: answers with text
_WRITES = Architecture(
    inputs=frozenset({"text"}),
    fps=1,
    frame_step=1,
    min_frames=1,
    pixel_block=1,
    phases=1,
    family="Prompt enhancer",
    lora_folder="",
    solvers=(),
    text_output=True,
)
_WITH_TOKENIZER = ("config.json", "tokenizer.json", "tokenizer_config.json")

#: models that write prompts, and their parts
_WRITERS: Mapping[str, Architecture] = {
    "llama3": replace(_WRITES, family="Llama 3", engine="language", folder_files=_WITH_TOKENIZER),
    "florence2": replace(
        _WRITES,
        inputs=frozenset({"references"}),
        family="Florence-2",
        engine="captioner",
        folder_files=_WITH_TOKENIZER,
    ),
    "prompt_enhancer": replace(
        _WRITES,
        inputs=frozenset({"text", "references"}),
        engine="prompt_enhancer",
        needs_weights=False,
        needed_parts=("writer",),
    ),
}

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType({**_WAN, **_OTHERS, **_MASKS, **_WRITERS})
