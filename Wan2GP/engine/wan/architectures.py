"""Which conditions each architecture of the Wan family has, and what it needs to be given."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.wan.conditions import Conditions
from Wan2GP.engine.wan.fantasy import FantasyConditions
from Wan2GP.engine.wan.image_conditions import FirstLatentConditions, ImageConditions
from Wan2GP.engine.wan.phantom import PhantomConditions
from Wan2GP.engine.wan.recam import ReCamConditions
from Wan2GP.engine.wan.skyreels import DiffusionForcing
from Wan2GP.engine.wan.svi import SviConditions
from Wan2GP.engine.wan.vace import VaceConditions
from Wan2GP.errors import InvalidInput, Unsupported

CONDITIONS: Mapping[str, type[Conditions]] = MappingProxyType(
    {
        "t2v": Conditions,
        "t2v_1.3B": Conditions,
        "t2v_2_2": Conditions,
        "i2v": ImageConditions,
        "i2v_2_2": ImageConditions,
        "i2v_2_2_svi2pro": SviConditions,
        "flf2v_720p": ImageConditions,
        "fun_inp": ImageConditions,
        "fun_inp_1.3B": ImageConditions,
        "ti2v_2_2": FirstLatentConditions,
        "vace_1.3B": VaceConditions,
        "vace_14B": VaceConditions,
        "vace_14B_2_2": VaceConditions,
        "phantom_1.3B": PhantomConditions,
        "phantom_14B": PhantomConditions,
        "recam_1.3B": ReCamConditions,
        "fantasy": FantasyConditions,
        "sky_df_1.3B": DiffusionForcing,
        "sky_df_14B": DiffusionForcing,
    }
)


def conditions_class(request: GenerationRequest) -> type[Conditions]:
    """The conditions of a request: those of its architecture, or those of SVI. Raises Unsupported for want of any."""
    kind = SviConditions if request.svi else CONDITIONS.get(request.definition.architecture_name)
    if kind is None:
        raise Unsupported(
            f"this version has no implementation of {request.definition.architecture_name}", field="model"
        )
    return kind


def check_architecture(request: GenerationRequest) -> None:
    """Raises InvalidInput when the model is not given what it cannot do without."""
    architecture = request.definition.architecture
    conditions_class(request).check(request)
    _check_media(request)
    if architecture.i2v and request.image_start is None and request.video_source is None:
        raise InvalidInput(
            f"{request.definition.id} starts from an image; give image_start (or video_source)", field="image_start"
        )
    if request.definition.architecture_name == "flf2v_720p" and not request.image_ends:
        raise InvalidInput(f"{request.definition.id} needs a last frame too; give image_end", field="image_end")
    if request.sampling.solver not in architecture.solvers:
        raise Unsupported(
            f"{request.definition.id} has no sampler {request.sampling.solver!r}; "
            f"choose one of {', '.join(architecture.solvers)}",
            field="sample_solver",
        )


def _check_media(request: GenerationRequest) -> None:
    """Raises InvalidInput or Unsupported for media that would be passed over."""
    model, architecture = request.definition.id, request.definition.architecture
    if request.image_output and not (architecture.image_too or architecture.image_output):
        raise Unsupported(f"{model} makes videos alone; leave it at 0", field="image_mode")
    if request.image_output and request.video_source is not None:
        raise Unsupported("a still does not go on from a video; leave it out", field="video_source")
    redraws_alone = not architecture.vace and "G" in architecture.control
    if request.video_guide is not None and redraws_alone and "G" not in request.video_prompt_type:
        raise Unsupported(
            f"{model} can redraw video_guide (GV), not follow it; choose a VACE model for that",
            field="video_prompt_type",
        )
