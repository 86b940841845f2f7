"""magic_edit: change an image as a text says, with Flux Kontext at Replicate or in this worker.

The steps import the libraries that they use themselves: add_task only needs the declarations, and should start at once.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import AliasChoices, Field

from headless.options import GenerationOptions, ImageRef
from source.errors import EngineError, GenerationCancelled, InvalidInput, ShuttingDown, StaleClaim, Transient
from source.params.generating import GeneratingParams
from source.params.lora import LoRAConfig
from source.planning.image_sizes import of_megapixel, size_text
from source.results import finished
from source.task_registry import Done, TaskContext, task

if TYPE_CHECKING:
    from source.replicate_api import Prediction, Replicate

HOSTED_MODEL = "black-forest-labs/flux-kontext-dev-lora"
LOCAL_MODEL = "flux_dev_kontext"
IN_SCENE = "https://huggingface.co/peteromallet/Flux-Kontext-InScene/resolve/main/InScene-v1.0.safetensors"
PROMPT = "the same scene from another angle"
#: what the hosted model reads; anything else is converted
HOSTED_FORMATS = frozenset({"jpeg", "png", "gif", "webp"})
POLL_S = 0.5
#: engine's knob -> its name at Replicate
HOSTED_KNOBS = {"num_inference_steps": "num_inference_steps", "embedded_guidance_scale": "guidance"}
#: entries of the timeline: the prediction of this task, and one whose output was no use
PREDICTION, USELESS = "prediction", "prediction_useless"


class MagicEditParams(GeneratingParams):
    """An image and what to change of it."""

    image_url: ImageRef = Field(
        ..., description="the image: http(s) URL or path", validation_alias=AliasChoices("image_url", "image")
    )
    in_scene: bool = Field(False, description="add the InScene LoRA: another picture of the same scene")
    engine: Literal["replicate", "local"] = Field(
        "replicate",
        description="where: at Replicate (needs REPLICATE_API_TOKEN), or with flux_dev_kontext in the worker",
    )


@task("magic_edit", output="a WebP image from Replicate, a PNG image from the worker's own model", uses_gpu=False)
def magic_edit(params: MagicEditParams, context: TaskContext) -> Done:
    """Change an image as a text says (FLUX.1 Kontext), at Replicate or in this worker."""
    return _local(params, context) if params.engine == "local" else _hosted(params, context)


# ---- in this worker


def _local(params: MagicEditParams, context: TaskContext) -> Done:
    from Wan2GP.media import probe_image

    model = context.model(params.model or LOCAL_MODEL)
    image = context.fetch(params.image_url, kind="image", field="image_url")
    options = params.options
    if params.in_scene:
        own = LoRAConfig.from_options(options)
        options = own.merge(LoRAConfig.from_pairs([(IN_SCENE, 1.0)], "in_scene")).to_options(options)
    if options.resolution is None:
        info = probe_image(image)
        size = of_megapixel((info.width, info.height), model.pixel_block)
        options = options.replace(resolution=size_text(size))
    shown = [str(image), *(options.image_refs or [])]
    return finished(context.generate(model.name, options.replace(prompt=_prompt(params), image_refs=shown)))


def _prompt(params: MagicEditParams) -> str:
    return (params.options.prompt or "").strip() or PROMPT


# ---- at Replicate


def _hosted(params: MagicEditParams, context: TaskContext) -> Done:
    from source.replicate_api import Replicate

    if params.model not in (None, HOSTED_MODEL):
        raise InvalidInput(f"{params.model} is not run at Replicate; leave it out, or say engine: local", field="model")
    with Replicate(context.settings, context.wait) as replicate:
        prediction = _earlier(replicate, context) or _started(params, replicate, context)
        prediction = _followed(prediction, replicate, context)
        path = _saved(prediction, replicate, context)
    ignored = sorted(_asked(params.options) - {"prompt", "seed", *HOSTED_KNOBS})
    notes = {"notes": [f"not used at Replicate: {', '.join(ignored)}"]} if ignored else {}
    return Done(path, {"model": HOSTED_MODEL, "engine": "replicate", "prediction": prediction.id, **notes})


def _asked(options: GenerationOptions) -> set[str]:
    """`resolution` is what front ends send without meaning anything by it: the image's own shape is kept."""
    return options.to_engine().keys() - {"resolution"}


def _earlier(replicate: Replicate, context: TaskContext) -> Prediction | None:
    """What an earlier claim of this task began and could not wait for; None when it is no use any more."""
    known = context.kept(PREDICTION)
    if known is None or known == context.kept(USELESS):
        return None
    try:
        found = replicate.look(known)
    except EngineError:
        return None
    return found if found.unfinished or found.status == "succeeded" else None


def _started(params: MagicEditParams, replicate: Replicate, context: TaskContext) -> Prediction:
    given = _input(params, replicate, context)
    context.report("queued", text="Replicate")
    prediction = replicate.start(HOSTED_MODEL, given)
    context.keep(PREDICTION, prediction.id)
    return prediction


def _input(params: MagicEditParams, replicate: Replicate, context: TaskContext) -> dict[str, Any]:
    options = params.options
    given: dict[str, Any] = {
        "prompt": _prompt(params),
        "input_image": _address(params.image_url, replicate, context),
        "aspect_ratio": "match_input_image",
        "lora_strength": 1,
        "output_format": "webp",
        "output_quality": 90,
    }
    if options.seed is not None and options.seed >= 0:
        given["seed"] = options.seed
    if params.in_scene:
        given["lora_weights"] = IN_SCENE
    knobs = options.to_engine()
    return given | {theirs: knobs[ours] for ours, theirs in HOSTED_KNOBS.items() if ours in knobs}


def _address(reference: str, replicate: Replicate, context: TaskContext) -> str:
    """A public URL is Replicate's to read; a file of this machine, or of its network, is handed over."""
    from source.replicate_api import is_public
    from Wan2GP.media import probe_image, read_image, write_image

    if is_public(reference):
        return reference
    image = context.fetch(reference, kind="image", field="image_url")
    if probe_image(image).format not in HOSTED_FORMATS:
        image = write_image(context.scratch / "image.png", read_image(image))
    context.report("uploading", text=image.name)
    return replicate.upload(image)


def _followed(prediction: Prediction, replicate: Replicate, context: TaskContext) -> Prediction:
    """The prediction once it has ended well. One that is cancelled here is cancelled there; a worker that stops leaves
    it to the next."""
    deadline = time.monotonic() + context.settings.replicate_timeout_s
    try:
        while prediction.unfinished:
            if time.monotonic() > deadline:
                replicate.cancel(prediction.id)
                raise Transient(f"the edit at Replicate takes more than {context.settings.replicate_timeout_s:g} s")
            phase = "generating" if prediction.status == "processing" else "queued"
            context.report(phase, prediction.step, prediction.total, "Replicate")
            context.wait(POLL_S)
            prediction = replicate.look(prediction.id)
    except (ShuttingDown, StaleClaim):
        raise
    except GenerationCancelled:
        replicate.cancel(prediction.id)
        raise
    if prediction.status != "succeeded":
        raise EngineError(f"the edit at Replicate {prediction.status}: {prediction.error or 'no reason was given'}")
    return prediction


def _saved(prediction: Prediction, replicate: Replicate, context: TaskContext) -> Path:
    """The output, checked to be an image."""
    from source.media.download import DownloadRules
    from source.media.fetch import check_media
    from Wan2GP.media import probe_image

    settings = context.settings
    rules = DownloadRules(
        timeout_s=settings.download_timeout_s,
        max_bytes=settings.max_download_mb * 1024 * 1024,
        max_text=f"{settings.max_download_mb} MB (setting max_download_mb)",
        check=lambda: context.wait(0),
    )
    context.report("downloading")
    try:
        path = replicate.save(prediction.output, context.scratch / "magic_edit.webp", rules)
        check_media(path, "image")
    except (InvalidInput, EngineError) as error:
        context.keep(USELESS, prediction.id)
        raise EngineError(f"what Replicate made cannot be used: {error}") from error
    return path.rename(path.with_suffix(f".{probe_image(path).format}"))
