"""What every request has: someone who follows it, a place to write to, a command line that does the same."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from foveate.config import Section, read_yaml, validated
from foveate.data.dataset import Dataset
from foveate.errors import CheckpointError, ConfigError
from foveate.progress import Track, untracked
from foveate.records import FiniteJson, Name, read_record
from foveate.training.device import device_for
from foveate.training.loop import EpochResult

__all__ = [
    "Display",
    "NullDisplay",
    "check_output_dir",
    "command_line",
    "find_device",
    "print_data_warnings",
    "read_environment",
    "read_settings",
    "settings_digest",
]

S = TypeVar("S", bound=Section)


class Display(Protocol):
    """Whoever follows the work: a terminal, a log, a notebook, nobody."""

    track: Track

    def say(self, line: str) -> None:
        """Something a person should know."""
        ...

    def epoch(self, result: EpochResult, *, epochs: int, best: bool) -> None:
        """An epoch ended."""
        ...


class NullDisplay:
    """Follows nothing."""

    track: Track = staticmethod(untracked)

    def say(self, line: str) -> None:
        """Say nothing."""

    def epoch(self, result: EpochResult, *, epochs: int, best: bool) -> None:
        """Show nothing."""


def read_settings(path: Path, kind: type[S]) -> S:
    """The settings that a study or a comparison keeps.

    Raises:
        CheckpointError: when they are damaged.
    """
    try:
        return validated(kind, read_yaml(path))
    except ConfigError as error:
        raise CheckpointError(f"{path} is damaged ({error}): restore it from a copy") from error


def settings_digest(values: Mapping[str, Any]) -> str:
    """By which settings are known as they were: of what their file says, not of what this version adds to it."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def read_environment(folder: Path) -> dict[str, Any]:
    """What `env.json` says of the machine and the versions that began a study or a comparison.

    Raises:
        CheckpointError: when it is damaged.
    """
    return read_record(folder / "env.json", dict[Name, FiniteJson], fix="restore it from a copy")


def find_device(display: Display, asked: str | None, recorded: str = "auto") -> torch.device:
    """As `training.device.device_for`, with what must be said of it said."""
    device, lines = device_for(asked, recorded)
    for line in lines:
        display.say(line)
    return device


def check_output_dir(runs: Path, data: str | Path, flag: str = "--runs") -> None:
    """Refuse to write into the folder the images are in: it is the user's, and what is written would be a class.

    Args:
        runs: the folder that is written.
        flag: what names it.
    """
    place = Path(data).expanduser()
    if str(data).strip() and place.is_dir() and runs.resolve().is_relative_to(place.resolve()):
        raise ConfigError(f"{runs} lies within the data, {data}: write elsewhere with {flag} FOLDER")


def print_data_warnings(dataset: Dataset, display: Display) -> None:
    """Say what a person should know of a data set: notes, and images that were left out."""
    for note in dataset.notes:
        display.say(note)
    for image in dataset.bad[:10]:
        display.say(f"left out: {image.id} ({image.reason})")
    if len(dataset.bad) > 10:
        display.say(f"left out: {len(dataset.bad) - 10} more unreadable images, all listed in the report")


def command_line(verb: str, *arguments: object, settings: Mapping[str, Any] | None = None, **flags: object) -> str:
    """The command line that does the same."""
    words = ["foveate", verb, *map(str, arguments)]
    for name, value in flags.items():
        if value is True:
            words.append(f"--{name}")
        elif value not in (None, False):
            words += [f"--{name.replace('_', '-')}", str(value)]
    for name, value in (settings or {}).items():
        words += ["--set", f"{name}={json.dumps(value)}"]
    return shlex.join(words)
