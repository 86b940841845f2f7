"""The definitions of families that diffusers' pipelines run, on tiny weights. Importable by every test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from Wan2GP import wgp
from Wan2GP.definitions import load_definitions

#: fields of a definition that say where its real weights are and what machine they need
NO_FILES = {"URLs": [], "URLs2": [], "modules": [], "loras": [], "loras_multipliers": [], "devices": []}

Builders = Mapping[str, Callable[[Path], Path]]


class TinyWeights:
    """Tiny weights by architecture, each built once, and put under the real definitions."""

    def __init__(self, builders: Builders, folder: Callable[[str], Path]) -> None:
        self._builders, self._folder = builders, folder
        self._made: dict[str, Path] = {}

    def of(self, architecture: str) -> Path:
        """The folder of an architecture's weights; architectures with the same builder share one."""
        builder = self._builders[architecture]
        if builder.__name__ not in self._made:
            self._made[builder.__name__] = builder(self._folder(builder.__name__))
        return self._made[builder.__name__]

    @contextmanager
    def under(self, rows: Path, *names: str, loras: Path | None = None) -> Iterator[None]:
        """The engine with these definitions on tiny weights; it writes into `rows`/out."""
        self.write_rows(rows, *names)
        wgp.configure(
            checkpoints=rows, loras=loras or rows / "loras", definitions=[rows], save_path=rows / "out", device="cpu"
        )
        try:
            yield
        finally:
            wgp.release_model()
            wgp.configure(definitions=[], loras="loras")

    def write_rows(self, rows: Path, *names: str) -> None:
        """Definition files for a folder of the user's own, which lay the tiny weights under the shipped rows."""
        rows.mkdir(parents=True, exist_ok=True)
        for name in names:
            source = str(self.of(load_definitions()[name].architecture_name))
            (rows / f"{name}.json").write_text(json.dumps({"model": NO_FILES | {"source": source}}), encoding="utf-8")


def definitions_of(*engines: str) -> list[str]:
    """The ids of all definitions whose architectures these engines run."""
    return [name for name, row in load_definitions().items() if row.architecture.engine in engines]
