"""The facade of the engine: `generate_video` and the model functions that callers of such engines know.

Importing this module does nothing but define it; torch is imported by the first call that needs it. One model is at
work per process, and one run at a time; others stand by in memory. Nothing here reads the environment: `configure` sets
what is to be set.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Wan2GP.definitions import Definitions, ModelDefinition, load_definitions
from Wan2GP.engine.beside import Beside
from Wan2GP.engine.families import WINDOW, Cancel, Model, Place, Report, family, importing
from Wan2GP.engine.finishing import check_finishing, finishing
from Wan2GP.engine.later import slots
from Wan2GP.engine.preparing import check_preparing, prepared, read_ahead
from Wan2GP.engine.repeats import Repeats, SendCommand
from Wan2GP.engine.request import GenerationRequest, parse_request
from Wan2GP.engine.residency.budgets import Budgets
from Wan2GP.errors import GenerationCancelled, ModelUnavailable, Unsupported
from Wan2GP.parameters import PARAMETERS, PLUMBING, SIGNATURE, check_names

if TYPE_CHECKING:
    from Wan2GP.engine.residency.models import ResidentModels

#: folders that new files go to
save_path: str = "outputs"
image_save_path: str = "outputs"

#: the model at work, what gives its memory back (the same object here), and its id; "" when there is none
wan_model: Model | None = None
offloadobj: Model | None = None
transformer_type: str = ""
#: set it to load again even when the model is the same
reload_needed: bool = False
#: whether the model at work takes little of the accelerator though it may fit
low_memory: bool = False

server_config: dict[str, Any] = {
    "checkpoints_paths": ["ckpts"],
    "loras_root": "loras",
    "save_path": save_path,
    "device": "",
    "profile": -1,
    "attention_mode": "auto",
    "compile": "",
    "transformer_quantization": "bf16",
    "vae_precision": "32",
    "vae_channels_last": False,
}

_definition_dirs: tuple[Path, ...] = ()
_definitions: Definitions | None = None
_budgets = Budgets()
_residents: ResidentModels | None = None


def configure(
    *,
    checkpoints: Path | str | None = None,
    loras: Path | str | None = None,
    definitions: Sequence[Path | str] | None = None,
    save_path: Path | str | None = None,
    device: str | None = None,
    profile: int | None = None,
    budgets: Budgets | None = None,
    attention: str | None = None,
    compiled: bool | None = None,
    quantization: str | None = None,
    vae_precision: int | None = None,
    vae_channels_last: bool | None = None,
) -> None:
    """Set where weights and LoRAs are, further folders of definitions, where files go, the device ("" chooses), the
    memory profile of runs that ask for none (-1 chooses), how much memory models and caches may take, and what makes
    models fast that are loaded from then on: the kernel of attention ("auto" measures), compiled blocks, transformers
    in "bf16" or "fp8", and a VAE of 32 or 16 bits, with channels last or not (docs/speed.md)."""
    global _definition_dirs, _definitions, _budgets
    if checkpoints is not None:
        server_config["checkpoints_paths"] = [str(checkpoints)]
    if loras is not None:
        server_config["loras_root"] = str(loras)
    if definitions is not None:
        _definition_dirs, _definitions = tuple(Path(folder) for folder in definitions), None
    if save_path is not None:
        globals().update(save_path=str(save_path), image_save_path=str(save_path))
        server_config["save_path"] = str(save_path)
    compile_ = None if compiled is None else "transformer" * compiled
    given = {"device": device, "profile": profile, "attention_mode": attention, "compile": compile_}
    given |= {"transformer_quantization": quantization, "vae_channels_last": vae_channels_last}
    given |= {"vae_precision": None if vae_precision is None else str(vae_precision)}
    server_config.update({name: value for name, value in given.items() if value is not None})
    if budgets is not None:
        _budgets = budgets
        if _residents is not None:
            _residents.memory.budget(budgets)


# ---- models


def definitions() -> Definitions:
    """Every model definition, read once."""
    global _definitions
    if _definitions is None:
        _definitions = load_definitions(_definition_dirs)
    return _definitions


def __getattr__(name: str) -> Any:
    """`models_def`: id -> definition, as `get_model_def` gives it; read when first asked for."""
    if name == "models_def":
        return {model_type: get_model_def(model_type) for model_type in definitions()}
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def get_model_def(model_type: str) -> dict[str, Any]:
    """The `model` object of a definition, its settings, and its architecture's flags. Raises UnknownModel."""
    definition = definitions()[model_type]
    architecture = definition.architecture
    return {
        **copy.deepcopy(dict(definition.model)),
        "settings": copy.deepcopy(dict(definition.settings)),
        "fps": architecture.fps,
        "frames_minimum": architecture.min_frames,
        "frames_steps": architecture.frame_step,
        "vace_class": architecture.vace,
        "i2v_class": architecture.i2v,
        "image_outputs": architecture.image_output,
        "text_outputs": architecture.text_output,
        "guidance_max_phases": architecture.phases,
    }


def get_base_model_type(model_type: str) -> str | None:
    """The architecture of a model; None when there is no such model."""
    known = definitions()
    return known[model_type].architecture_name if model_type in known else None


def get_model_family(model_type: str, for_ui: bool = False) -> str:
    """The family's name: for display, or as a key."""
    name = definitions()[model_type].architecture.family
    return name if for_ui else name.split()[0].lower()


def get_model_name(model_type: str) -> str:
    """The display name."""
    return definitions()[model_type].name


def get_model_filename(model_type: str) -> str:
    """The folder of the model's weights; "" for a model without any."""
    definition = definitions()[model_type]
    folder = definition.folder(_checkpoints()) if definition.architecture.needs_weights else None
    return str(folder) if folder is not None else ""


def get_default_settings(model_type: str) -> dict[str, Any]:
    """Every setting with the model's own defaults. Nothing is written to disk."""
    settings = {name: parameter.default for name, parameter in PARAMETERS.items() if name not in PLUMBING}
    return settings | copy.deepcopy(dict(definitions()[model_type].settings))


def get_model_min_frames_and_step(model_type: str) -> tuple[int, int]:
    """(least frames, step): a valid length is step * k + 1."""
    architecture = definitions()[model_type].architecture
    return architecture.min_frames, architecture.frame_step


def get_model_fps(model_type: str) -> int:
    """Frames per second that the model makes."""
    return definitions()[model_type].architecture.fps


def test_vace_module(model_type: str) -> bool:
    """Whether the model takes a control video with a mask, as VACE does."""
    return definitions()[model_type].architecture.vace


def test_class_i2v(model_type: str) -> bool:
    """Whether the model starts from an image."""
    return definitions()[model_type].architecture.i2v


# Their names are given; test runners must not take them for tests.
test_vace_module.__test__ = False  # type: ignore[attr-defined]
test_class_i2v.__test__ = False  # type: ignore[attr-defined]


def load_models(model_type: str, override_profile: int = -1, *, report: Report | None = None) -> tuple[Model, Model]:
    """Make a model the one at work, and return it with its offload object (here the same). It is read from its files
    when it is not in memory, or when they have changed; the one before stands by as far as the budgets allow.

    `override_profile`: a memory profile (`Wan2GP.memory_profiles`); -1 is the one that was configured.

    Raises UnknownModel, ModelUnavailable with the command that fetches the weights, or OutOfMemory.
    """
    global wan_model, offloadobj, transformer_type, reload_needed, low_memory
    definition = definitions()[model_type]
    place = _place(override_profile)
    unavailable = definitions().unavailable(definition.id, place.checkpoints, place.device.partition(":")[0])
    if unavailable is not None:
        raise ModelUnavailable(unavailable)
    residents = _resident_models()
    if reload_needed:
        residents.drop(definition.id)
    wan_model, offloadobj, transformer_type = None, None, ""
    wan_model = offloadobj = residents.take(definition, place, report or _silent)
    transformer_type, reload_needed = definition.id, False
    low_memory = residents.profile(definition.id).streamed
    return wan_model, offloadobj


def release_model() -> None:
    """Free the memory of every model, the one at work and those that stand by, and of what they computed."""
    global wan_model, offloadobj, transformer_type
    wan_model, offloadobj, transformer_type = None, None, ""
    if _residents is not None:
        _residents.release()


def memory_report() -> dict[str, Any]:
    """What is in memory, and how often a model, a part, an embedding or latents were found there; {} before the first
    model."""
    return dict(_residents.report()) if _residents is not None else {}


def _resident_models() -> ResidentModels:
    global _residents
    if _residents is None:
        with importing:
            from Wan2GP.engine.residency.memory import Memory
            from Wan2GP.engine.residency.models import ResidentModels
        _residents = ResidentModels(Memory(_budgets))
    return _residents


def _place(profile: int = -1) -> Place:
    device = server_config["device"]
    if not device:
        from Wan2GP.engine.loading import default_device

        device = default_device()
    chosen = profile if profile > 0 else server_config["profile"]
    return Place(
        _checkpoints(),
        device,
        chosen,
        _resident_models().memory,
        attention=server_config["attention_mode"],
        compiled=bool(server_config["compile"]),
        fp8=server_config["transformer_quantization"] == "fp8",
        vae_bits=int(server_config["vae_precision"]),
        vae_channels_last=server_config["vae_channels_last"],
    )


def _checkpoints() -> Path:
    return Path(server_config["checkpoints_paths"][0])


def _silent(phase: str, step: int, total: int) -> None:
    """Reports nothing."""


# ---- the generation call


def generate_video(**values: Any) -> None:
    """Generate and save; new paths are appended to `state["gen"]["file_list"]`. See `generate_media`."""
    check_names("generate_video", values)
    _generate(values)


def generate_media(**values: Any) -> bool:
    """Generate and save. False when the run failed after it began; its exception went out as an `error` event.

    Every parameter of `Wan2GP.parameters.PARAMETERS` is a keyword with a default. Raises TypeError for an unknown
    keyword, InvalidInput for values that cannot be used, ModelUnavailable and OutOfMemory when the model cannot be
    loaded. Cancelled runs end quietly with True and without a new file.
    """
    check_names("generate_media", values)
    return _generate(values)


generate_video.__signature__ = SIGNATURE.replace(return_annotation=None)  # type: ignore[attr-defined]
generate_media.__signature__ = SIGNATURE.replace(return_annotation=bool)  # type: ignore[attr-defined]


def check_generation(**values: Any) -> tuple[str, ...]:
    """Validate a call without loading the model; returns the notes the run would send. Raises as the call would."""
    check_names("check_generation", values)
    return _parsed(values).notes


def prepare_generation(**values: Any) -> GenerationRequest:
    """The first half of a call, for any thread: validated, pictures decoded, what the model reads of videos read as far
    as that is bounded. Given to a call of the same values as `plugin_data["prepared"]`, the second half is what needs
    the accelerator. Once: a second call reads again what the first one took. Raises as the call would."""
    check_names("prepare_generation", values)
    request = _parsed(values)
    assert request.definition.architecture.engine is not None, "it is parsed"
    return read_ahead(request, family(request.definition.architecture.engine))


def abort_generation(state: dict[str, Any], client_id: str = "", notify: Callable[[str], object] | None = None) -> None:
    """Stop the run that uses `state` before its next step. Callable from any thread."""
    state.setdefault("gen", {}).update(abort=True, resume=True)
    if wan_model is not None:
        wan_model._interrupt = True
    slots.look_again()
    if notify is not None:
        notify("Aborting the generation")


def _parsed(values: Mapping[str, Any]) -> GenerationRequest:
    if values.get("mode", "") not in ("", "generate"):
        raise Unsupported(f"{values['mode']!r} is not there in this version; leave it empty", field="mode")
    definition = definitions()[str(values.get("model_type", ""))]
    unavailable = _unavailable(definition.id)
    if unavailable is not None or definition.architecture.engine is None:
        raise ModelUnavailable(unavailable)
    kind = family(definition.architecture.engine)
    request = parse_request(values, definition, kind.reads, Path(server_config["loras_root"]))
    kind.check(request)
    check_finishing(request, kind.reads)
    check_preparing(request, definitions(), _unavailable)
    return request


def _unavailable(name: str) -> str | None:
    """Why a model cannot run here; None when it can. A device that is still to be chosen is left out of account."""
    device = server_config["device"].partition(":")[0] or None
    return definitions().unavailable(name, _checkpoints(), device)


def _generate(values: Mapping[str, Any]) -> bool:
    send: SendCommand = values.get("send_cmd") or (lambda command, data=None: None)
    gen = _begun(values.get("state"))
    request = (values.get("plugin_data") or {}).get("prepared") or _parsed(values)
    report = _reporter(send, gen)
    cancel = Cancel(lambda: bool(gen.get("abort")) or (wan_model is not None and wan_model._interrupt))
    if wan_model is not None:
        wan_model._interrupt = False
    gen["in_progress"] = True
    try:
        beside = Beside(definitions(), _place(), report, release_model, _resident_models().step_aside)
        gen["models_beside"] = beside.used
        drawn_in = Path(save_path)
        with prepared(request, beside, cancel, drawn_in) as ready, finishing(ready, beside) as finish:
            profile = int(values.get("override_profile") or -1)
            model = _resident(ready.definition, profile, send, report)
            for note in (*model.notes, *finish.notes, *ready.notes):
                send("info", note)
            folder = Path(image_save_path if ready.image_output else save_path)
            return Repeats(gen, send, report, cancel, folder).run(model, finish, ready)
    except GenerationCancelled:
        send("output")
        return True
    finally:
        gen["in_progress"] = False


def _begun(state: dict[str, Any] | None) -> dict[str, Any]:
    gen: dict[str, Any] = (state if state is not None else {}).setdefault("gen", {})
    for key in ("file_list", "file_settings_list", "unsaved"):
        gen.setdefault(key, [])
    gen["early_stop"] = False
    return gen


def _resident(definition: ModelDefinition, profile: int, send: SendCommand, report: Report) -> Model:
    """The model, from memory when it is there; "Loading" is told when it is read."""
    told = False

    def loading(phase: str, step: int, total: int) -> None:
        nonlocal told
        if not told:
            told = True
            send("status", f"Loading model {definition.name}")
        report(phase, step, total)

    return load_models(definition.id, profile, report=loading)[0]


def _reporter(send: SendCommand, gen: dict[str, Any]) -> Report:
    def report(phase: str, step: int, total: int) -> None:
        if phase == WINDOW:
            gen["window_no"], gen["total_windows"] = step, total
            return
        gen["progress_phase"] = (phase, step)
        send("progress", [(step, total), phase, total])

    return report
