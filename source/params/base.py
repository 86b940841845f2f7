"""Where a row's JSON becomes typed, and where precedence is decided: once, here.

A row may say the same thing at four levels. From weakest to strongest:
`full_orchestrator_payload` < `orchestrator_details` < the top level < `individual_segment_params`.
At each level the aliases are renamed to field names first; only then are the levels merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SkipValidation, model_validator

from headless.options import GenerationOptions, aliases, parse_model
from source.errors import InvalidInput
from Wan2GP.errors import did_you_mean

#: names that hold another level of parameters, weakest first; None stands for the row itself
LEVELS: tuple[str | None, ...] = (
    "full_orchestrator_payload",
    "orchestrator_details",
    None,
    "individual_segment_params",
)
CONTAINERS = frozenset(level for level in LEVELS if level)

#: what a row's JSON may hold at most
MAX_DEPTH = 64
MAX_INTEGER = 2**64

#: names that front ends and servers write into rows for themselves; they mean nothing to a task
BOOKKEEPING = frozenset(
    [
        "task_id",
        "task_type",
        "project_id",
        "parent_generation_id",
        "child_generation_id",
        "generation_id",
        "based_on",
        "tool_type",
        "shot_id",
        "shot_name",
        "run_id",
        "orchestrator_task_id",
        "orchestrator_task_id_ref",
        "orchestrator_run_id",
        "sub_orchestrator_task_id_ref",
        "params_json_str_override",
        "segment_image_download_dir",
        # where files go is the worker's to say
        "output_dir",
        "custom_output_dir",
        "generation_name",
        "thumbnail_url",
        "created_by",
        "priority",
        "amount_of_motion",
        "advanced_mode",
        "motion_mode",
        "generation_source",
        "create_as_generation",
        "is_primary",
        "add_in_position",
        "output_format",
        "enable_base64_output",
        "enable_sync_mode",
        "dp_orchestrator_payload",
        "debug",
        "debug_mode_enabled",
        "skip_cleanup_enabled",
    ]
)

#: features of some task types that the others refuse instead of ignoring: name -> what is refused
UNSUPPORTED = {
    "structure_guidance": "structure guidance",
    "structure_videos": "structure guidance",
    "structure_video_path": "structure guidance",
    "structure_guidance_video_url": "structure guidance",
    "structure_motion_video_url": "structure guidance",
    "use_uni3c": "Uni3C guidance",
    "uni3c_guide_video": "Uni3C guidance",
    "use_svi": "SVI chaining",
    "svi_predecessor_video_url": "SVI chaining",
    "enhance_prompt": "prompt enhancement by a vision-language model",
    "continue_from_video_resolved_path": "continuing from a video",
    "continue_from_video_resolved_path_for_guide": "continuing from a video",
    "initial_continued_video_path": "continuing from a video",
    "upscale_factor": "upscaling after the stitch",
    "regenerate_anchors": "regenerate_anchors",
    "show_input_images": "the banner of input images",
    "after_first_post_generation_saturation": "saturation after generation",
    "after_first_post_generation_brightness": "brightness after generation",
    "consolidated_end_anchor_idx": "frame consolidation",
    "consolidated_keyframe_positions": "frame consolidation",
    "vace_image_refs_to_prepare_by_worker": "prepared reference images",
}
#: values that switch such a feature off; 0 counts as False
OFF: tuple[Any, ...] = (None, False, "", [], {}, "none", "false")
#: values that change nothing although they are not off
NEUTRAL = {"upscale_factor": 1, "after_first_post_generation_saturation": 1}
#: how a feature above would work; front ends write these also when nothing asks for it
SETTINGS_OF_UNSUPPORTED = frozenset(
    [
        "structure_type",
        "structure_video_type",
        "structure_video_treatment",
        "structure_video_motion_strength",
        "structure_canny_intensity",
        "structure_depth_contrast",
        "structure_guidance_frame_offset",
        "structure_motion_frame_offset",
        "uni3c_strength",
        "uni3c_start_percent",
        "uni3c_end_percent",
        "uni3c_keep_on_gpu",
        "uni3c_frame_policy",
        "uni3c_zero_empty_frames",
        "uni3c_blackout_last_frame",
        "uni3c_guidance_frame_offset",
        "svi_strength",
        "svi_strength_1",
        "svi_strength_2",
        "upscale_model_name",
    ]
)


class Part(BaseModel):
    """An object inside a parameter. Names that nothing knows are kept, to be reported."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        """A null is the same as an absent name."""
        if not isinstance(values, Mapping):
            return values
        return {name: value for name, value in values.items() if value is not None}


class TaskParams(BaseModel):
    """Base of every task type's own parameters. Engine knobs are not declared here: they arrive in `options`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)

    #: older or other names of engine knobs that this task type accepts: name -> knob
    knob_names: ClassVar[Mapping[str, str]] = {}
    #: names that must not be read as engine knobs here
    not_knobs: ClassVar[frozenset[str]] = frozenset()
    #: names that this task type receives and has no use for
    carried: ClassVar[frozenset[str]] = frozenset()
    #: engine knobs that a row must give
    needed_knobs: ClassVar[tuple[str, ...]] = ()
    #: levels that were written for this task; a child's other levels are its parent's and may hold more than it knows
    own_levels: ClassVar[frozenset[str | None]] = frozenset({None, "individual_segment_params"})

    model: str | None = Field(
        None, description="model definition", validation_alias=AliasChoices("model", "model_name")
    )
    options: SkipValidation[GenerationOptions] = Field(default_factory=GenerationOptions, exclude=True)

    def resolved(self, given: Mapping[str, Given]) -> Self:
        """A copy in which parameters that stand for engine knobs have become knobs. Raises InvalidInput."""
        return self

    def of_row(self, raw: Mapping[str, Any]) -> Self:
        """A copy that knows what only the whole row says, in all its levels and older names. Raises InvalidInput."""
        return self

    def check(self) -> None:
        """For who adds a row: raises Unsupported for what would not act as it is asked to. A run looks again."""


Params = TypeVar("Params", bound=TaskParams)


@dataclass(frozen=True)
class Given:
    """What the strongest level says about one field."""

    value: Any
    #: the name under which it was written
    name: str
    #: larger is stronger; an index of LEVELS
    level: int


@dataclass(frozen=True)
class Parsed(Generic[Params]):
    """A row's parameters, typed, and the names that nothing knows."""

    params: Params
    unknown: tuple[str, ...]


def parse_params(
    kind: type[Params],
    raw: Mapping[str, Any],
    options_class: type[GenerationOptions] = GenerationOptions,
    *,
    strict: bool = False,
) -> Parsed[Params]:
    """Rename, merge and validate a row's parameters. A null is the same as an absent name.

    `strict` refuses names that nothing knows (add_task); otherwise they are returned, for one warning.
    Raises InvalidInput that names the field.
    """
    for _, values in levels(raw):
        check_plain(values)
        refuse_unsupported(values, kind)
    unknown = _unknown(kind, raw, options_class, strict=strict)
    if strict:
        _refuse_unknown(unknown, kind, options_class)
    own = strongest(raw, field_names(kind))
    knobs = strongest(raw, knob_table(kind, options_class))
    written = {field: given.name for field, given in (own | knobs).items()}
    options = parse_model(options_class, _values(knobs), written)
    params = parse_model(kind, _values(own) | {"options": options}, written)
    inside = tuple(_unknown_inside(params))
    if strict:
        _refuse_unknown(inside, kind, options_class)
    return Parsed(params.resolved(own | knobs).of_row(raw), (*unknown, *inside))


def strongest(raw: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Given]:
    """For each field that a row gives, the value of its strongest level. `names`: accepted name -> field.

    Of several names for one field at one level the first in `names` wins. Multipliers that are weaker than the list of
    LoRAs belong to another list: they are left out.
    """
    found: dict[str, Given] = {}
    for level, values in levels(raw):
        here: dict[str, Given] = {}
        for name, field in names.items():
            if values.get(name) is not None:
                here.setdefault(field, Given(values[name], name, LEVELS.index(level)))
        if "activated_loras" in here:
            found.pop("loras_multipliers", None)
        found |= here
    return found


def flatten_params(raw: Mapping[str, Any], kind: type[TaskParams]) -> dict[str, Any]:
    """One level that says what all levels of a row say: a name gives way to a stronger level's name for its field.

    Names that mean nothing to `kind` are kept, of several levels the strongest.
    """
    names = knob_table(kind, GenerationOptions) | field_names(kind)
    flat = {
        name: value
        for _, values in levels(raw)
        for name, value in values.items()
        if value is not None and name not in CONTAINERS and name not in names
    }
    return flat | {given.name: given.value for given in strongest(raw, names).values()}


def _values(given: Mapping[str, Given]) -> dict[str, Any]:
    return {field: each.value for field, each in given.items()}


def _unknown(
    kind: type[TaskParams], raw: Mapping[str, Any], options_class: type[GenerationOptions], *, strict: bool
) -> tuple[str, ...]:
    """Names that nothing knows, in the levels that were written for this task; all levels when strict."""
    known = field_names(kind) | knob_table(kind, options_class)
    names = (
        name for level, values in levels(raw) if strict or level in kind.own_levels for name in values
        if name not in known and not _tolerated(name, kind)
    )  # fmt: skip
    return tuple(dict.fromkeys(names))


def _refuse_unknown(unknown: Sequence[str], kind: type[TaskParams], options_class: type[GenerationOptions]) -> None:
    if unknown:
        hint = did_you_mean(unknown[0], {*field_names(kind), *knob_table(kind, options_class), *CONTAINERS})
        raise InvalidInput(f"there is no parameter of that name.{hint}", field=unknown[0])


def _unknown_inside(value: Any, where: str = "") -> Iterator[str]:
    """Names that nothing knows inside a parameter: "phase_config.phases.0.lora"."""
    if isinstance(value, BaseModel):
        yield from (f"{where}{name}" for name in value.model_extra or ())
        fields = type(value).model_fields
        inner: Iterable[tuple[str, Any]] = ((name, getattr(value, name)) for name in fields if not fields[name].exclude)
    elif isinstance(value, list):
        inner = ((str(index), item) for index, item in enumerate(value))
    else:
        return
    for name, item in inner:
        yield from _unknown_inside(item, f"{where}{name}.")


@cache
def field_names(kind: type[TaskParams]) -> MappingProxyType[str, str]:
    """Every name under which this task type accepts a parameter of its own -> the field."""
    return MappingProxyType({name: field for name, field in aliases(kind).items() if field != "options"})


@cache
def knob_table(kind: type[TaskParams], options_class: type[GenerationOptions]) -> MappingProxyType[str, str]:
    """Every name under which this task type accepts an engine knob -> the knob."""
    own = field_names(kind)
    names = aliases(options_class) | dict(kind.knob_names)
    return MappingProxyType(
        {name: knob for name, knob in names.items() if name not in own and name not in kind.not_knobs}
    )


def levels(raw: Mapping[str, Any]) -> Iterator[tuple[str | None, Mapping[str, Any]]]:
    """The levels that a row has, weakest first. Raises InvalidInput when one is not an object."""
    for level in LEVELS:
        values = raw if level is None else raw.get(level)
        if values is None:
            continue
        if not isinstance(values, Mapping):
            raise InvalidInput(f"must be a JSON object (given: {values!r:.80})", field=level or "params")
        yield level, values


def check_plain(values: Mapping[str, Any]) -> None:
    """Raises InvalidInput for JSON that no parameter can hold: nested too deeply, or an integer of too many digits."""
    for name, value in values.items():
        waiting = [(value, 1)] if name not in CONTAINERS else []
        while waiting:
            item, depth = waiting.pop()
            if depth > MAX_DEPTH:
                raise InvalidInput(f"is nested more than {MAX_DEPTH} deep", field=name)
            if isinstance(item, int) and abs(item) > MAX_INTEGER:
                raise InvalidInput("is a larger number than any parameter takes", field=name)
            inner = item.values() if isinstance(item, Mapping) else item if isinstance(item, list) else ()
            waiting += [(each, depth + 1) for each in inner]


def refuse_unsupported(values: Mapping[str, Any], kind: type[TaskParams]) -> None:
    """Raises InvalidInput for a feature that would otherwise be dropped silently."""
    for name, what in UNSUPPORTED.items():
        known = name in kind.model_fields or name in kind.carried
        if name in values and not known and not _asks_for_nothing(name, values[name]):
            raise InvalidInput(f"{what} is not supported by this task type; leave it out or switch it off", field=name)


def _asks_for_nothing(name: str, value: Any) -> bool:
    if name == "structure_guidance" and isinstance(value, Mapping):
        return not value.get("videos") and not value.get("_guidance_video_url")
    return value in OFF or (name in NEUTRAL and value == NEUTRAL[name])


def _tolerated(name: str, kind: type[TaskParams]) -> bool:
    known = (BOOKKEEPING, CONTAINERS, UNSUPPORTED, SETTINGS_OF_UNSUPPORTED, kind.carried)
    return name.startswith("_") or any(name in names for names in known)
