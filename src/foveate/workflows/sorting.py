"""Images copied into folders by their labels."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from foveate.data.container import BadImageError
from foveate.data.decode import open_image
from foveate.errors import ConfigError, OutputError
from foveate.files import writing_to
from foveate.records import printable
from foveate.workflows.output import clipped, refuse_within


class Sorter:
    """Copies images into folders by their labels; nothing is moved, and nothing there is replaced.

    Args:
        folder: is made with the first image; it may be there only if it is empty.
        sources: what the images were named by: it must lie in none of these folders.

    Raises:
        ConfigError: when there is something in it, or it lies among the images.
        OutputError: when it cannot be read.
    """

    def __init__(self, folder: Path | str, sources: Iterable[Path | str]) -> None:
        self.folder = Path(folder)
        refuse_within(self.folder, *sources, fix="sort into another folder")
        with writing_to(self.folder):
            if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
                raise ConfigError(f"{self.folder} exists and is not empty: give a new folder, or remove it first")
        self._folders: dict[str, Path] = {}

    def copy(self, path: str, label: str) -> None:
        """Copy one image.

        Raises:
            OutputError: when it cannot be written.
        """
        with writing_to(self.folder):
            target = self._free(self._folder_of(label) / Path(path).name)
            try:
                with open_image(Path(path)) as image, target.open("xb") as copy:
                    shutil.copyfileobj(image, copy)
            except BadImageError as error:
                raise OutputError(f"cannot copy {path} ({error}): it changed since it was predicted") from error

    def _folder_of(self, label: str) -> Path:
        if label not in self._folders:
            plain = printable(label).replace("/", "_").replace("\\", "_").strip(". ") or "_"
            folder = self._free(self.folder / clipped(plain))
            folder.mkdir(parents=True)
            self._folders[label] = folder
        return self._folders[label]

    @staticmethod
    def _free(path: Path) -> Path:
        free, number = path, 2
        while os.path.lexists(free):
            free, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
        return free
