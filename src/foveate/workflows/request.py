"""What every request has: a display, a place to write to, a command line that does the same."""

import hashlib
import json
import shlex
from collections.abc import Generator, Iterable, Mapping
from typing import Any, Protocol

import torch

from foveate.data.dataset import Dataset
from foveate.execution.campaign import Campaign
from foveate.execution.pool import Event
from foveate.parsing import yaml_line
from foveate.progress import Track, untracked
from foveate.training.device import device_for
from foveate.training.state import EpochResult


class Display(Protocol):
    """Shows the work to a terminal, a log, a notebook, or nobody."""

    track: Track

    def say(self, line: str) -> None:
        """Something a person should know."""
        ...

    def epoch(self, result: EpochResult, *, epochs: int, best: bool) -> None:
        """An epoch ended."""
        ...

    def follow(
        self, events: Iterable[Event | None], campaign: Campaign, workers: int
    ) -> Generator[Event | None, None, None]:
        """Show what happens to the jobs of a study or a comparison, and yield it on."""
        ...


class NullDisplay:
    """Follows nothing."""

    track: Track = staticmethod(untracked)

    def say(self, line: str) -> None:
        """Say nothing."""

    def epoch(self, result: EpochResult, *, epochs: int, best: bool) -> None:
        """Show nothing."""

    def follow(
        self,
        events: Iterable[Event | None],
        campaign: Campaign,  # noqa: ARG002
        workers: int,  # noqa: ARG002
    ) -> Generator[Event | None, None, None]:
        """Show nothing."""
        yield from events


def settings_digest(values: Mapping[str, Any]) -> str:
    """The digest of settings as their file has them, without what this version would add: it shows a change."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def tell(display: Display, *lines: str | None) -> None:
    """Say the lines that there are."""
    for line in lines:
        if line is not None:
            display.say(line)


def find_device(display: Display, asked: str | None, recorded: str = "auto") -> torch.device:
    """As `training.device.device_for`, which says what the user must be told."""
    device, lines = device_for(asked, recorded)
    tell(display, *lines)
    return device


def print_data_warnings(dataset: Dataset, display: Display) -> None:
    """Say what a person should know of a data set: notes, and images that were left out."""
    tell(display, *dataset.notes)
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
        elif value is not None and value is not False:  # 0 is a value
            words += [f"--{name.replace('_', '-')}", str(value)]
    for name, value in (settings or {}).items():
        words += ["--set", f"{name}={yaml_line(value)}"]
    return shlex.join(words)
