"""Where LoRA files may lie, and the file that a name or path means."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from source.errors import InvalidInput
from source.loras.references import SUFFIXES
from source.media.download import url_scheme
from source.settings import Settings
from Wan2GP.errors import did_you_mean

#: what `housekeeping.set_ambiguous_aside` puts behind a name
AMBIGUOUS = ".ambiguous"
#: at most so many names are compared with one that was not found
_MAX_NAMES = 2000


class LoRAFolders:
    """LORAS_DIR with one folder a model family, and the further folders of LORA_DIRS."""

    def __init__(self, settings: Settings) -> None:
        self.root = settings.loras_dir.absolute()
        self._further = tuple(folder.absolute() for folder in settings.lora_dirs)

    def of(self, family: str) -> Path:
        """The folder of a model family (`ModelInfo.lora_folder`); it may not exist yet."""
        return self.root / family

    def find(self, reference: str, family: str) -> Path:
        """The absolute path of a file name (subfolders allowed) in the family's folder, or in a further folder; or of
        an absolute path inside an allowed folder. Raises InvalidInput that names the file.
        """
        if (scheme := url_scheme(reference)) is not None:
            raise InvalidInput(f"{scheme}: URLs are not read ({reference[:200]!r}); give a file name or an http(s) URL")
        if not reference.strip() or "\0" in reference:
            raise InvalidInput(f"{reference!r} is not a file name")
        path = Path(reference)
        if ".." in path.parts:
            raise InvalidInput(f'{reference[:200]!r} leads upwards; give a file name without ".."')
        candidates = [path] if path.is_absolute() else [base / path for base in (self.of(family), *self._further)]
        for candidate in candidates:
            if self.allowed(candidate).is_file():
                return candidate
        raise InvalidInput(self._missing(path, family))

    def allowed(self, path: Path) -> Path:
        """`path` when it leads, symbolic links followed, into an allowed folder. Raises InvalidInput otherwise."""
        try:
            real = path.resolve()
            inside = any(real.is_relative_to(folder.resolve()) for folder in (self.root, *self._further))
            real.exists()  # a name that the file system refuses (too long) shows here
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
            raise InvalidInput(f"{str(path)[:200]!r} is not a file path: {error}") from None
        if not inside:
            folders = ", ".join(map(str, (self.root, *self._further)))
            raise InvalidInput(
                f"{path} lies or leads outside the folders of LoRAs ({folders}); "
                "copy it there, or add its folder to LORA_DIRS"
            )
        return path

    def _missing(self, path: Path, family: str) -> str:
        folder = path.parent if path.is_absolute() else self.of(family)
        if (folder / f"{path.name}{AMBIGUOUS}").exists():
            return (
                f"{path.name} in {folder} was renamed to {path.name}{AMBIGUOUS}, because many repositories have a file "
                "of that name; give the URL of the one that is meant, or rename the file to a name of its own"
            )
        hint = did_you_mean(path.name, [file.name for file in islice(self._files(folder), _MAX_NAMES)])
        return f"there is no LoRA file {str(path)[:200]!r} in {folder}.{hint}"

    @staticmethod
    def _files(folder: Path) -> Iterator[Path]:
        return (file for file in folder.rglob("*") if file.suffix in SUFFIXES)
