"""What studies and comparisons share: their folder, their data, and the way to their end."""

import contextlib
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from foveate.config import Config, read_yaml
from foveate.data.dataset import Dataset, KnownData, load_dataset, load_known
from foveate.data.splits import StoredSplits
from foveate.errors import CheckpointError, ConfigError
from foveate.execution.campaign import Campaign, CampaignConfig, run_campaign
from foveate.execution.pool import Pool
from foveate.execution.serial import SerialPool
from foveate.files import write_atomically, write_json
from foveate.inference.network import pick_device
from foveate.parsing import yaml_text
from foveate.records import FiniteJson, Name, read_record
from foveate.settings import Section
from foveate.training.device import prepare_process
from foveate.training.environment import environment
from foveate.validation import validated
from foveate.workflows.leaks import tell_own_copies
from foveate.workflows.output import new_output
from foveate.workflows.request import Display, command_line, find_device, print_data_warnings, settings_digest
from foveate.workflows.workers import Workers

S = TypeVar("S", bound=Section)
C = TypeVar("C", bound=CampaignConfig)


def load_data(
    data: str | Path, base: Config, data_dir: Path | str | None, display: Display
) -> tuple[Dataset, torch.device, dict[str, Any]]:
    """The data of a new campaign, the device of its jobs, and the settings by which it finds the data again."""
    prepare_process(base)
    device = find_device(display, base.train.device)
    dataset = load_dataset(str(data), base.data, data_dir=data_dir, track=display.track)
    print_data_warnings(dataset, display)
    tell_own_copies(dataset, display)
    known = {"data": dataset.location, "fingerprint": dataset.fingerprint}
    return dataset, device, {**known, "data_dir": str(Path(data_dir).resolve()) if data_dir else None}


def load_data_again(
    verb: str,
    config: C,
    base: Config,
    folder: Path,
    display: Display,
    *,
    data: str | Path | None = None,
    data_dir: Path | str | None = None,
) -> tuple[C, Dataset, torch.device]:
    """The data of a campaign that goes on, its settings with the place of the data, and the device of its jobs.

    Args:
        verb: the command that began it.
        data, data_dir: where the data set lies now; None: where the settings say.

    Raises:
        CheckpointError: when the data set is another one now.
        DataError: when it is not there.
    """
    prepare_process(base)
    known, place = known_data(config, folder), data_dir or config.data_dir
    if data is None:
        command = command_line(verb, "NEW/PLACE", resume=folder)
        known = replace(known, gone=f"give its new place, as in `{command}`")
    dataset = load_known(str(data or config.data), base.data, known, data_dir=place, track=display.track)
    there = {"data": dataset.location, "data_dir": str(Path(place).resolve()) if place else None}
    return config.model_copy(update=there), dataset, pick_device(base.train.device)


def resuming(
    verb: str, folder: Path, before: CampaignConfig, config: CampaignConfig, crew: Workers, *, final: bool = False
) -> str:
    """The command line that resumes the campaign in `folder`, by the same workers.

    Args:
        before: its settings as its folder has them, and `config` with the place where its data lies now.
    """
    moved = [config.data] if config.data != before.data else []
    place = config.data_dir if config.data_dir != before.data_dir else None
    return command_line(verb, *moved, resume=folder, final=final, data_dir=place, **crew.flags)


def known_data(config: CampaignConfig, folder: Path) -> KnownData:
    """The fingerprint and the splits by which a campaign recognises its data set."""
    return KnownData(config.fingerprint, StoredSplits.kept(folder, config.splits), folder)


def create_folder(
    verb: str,
    file: str,
    config: CampaignConfig,
    dataset: Dataset,
    device: torch.device,
    *,
    runs: Path | str,
    name: str | None,
    fallback: str,
    sealed: bool = False,
) -> Path:
    """A new folder for a campaign: its settings in `file`, the splits of its data, the machine that it begins on.

    Args:
        sealed: whether to write the digest of the settings, too.
    """
    with new_output(Path(runs), verb, name, fallback=fallback) as (path, draft):
        stored = StoredSplits.write(draft, dataset.splits, len(dataset.labels))
        values = config.model_copy(update={"splits": stored.sha256}).model_dump(mode="json")
        write_atomically(draft / file, yaml_text(values))
        write_json(draft / "env.json", environment(device))
        if sealed:
            write_json(draft / "digest.json", {"sha256": settings_digest(read_yaml(draft / file))})
    return path


def read_settings(path: Path, kind: type[S]) -> S:
    """The settings that a study or a comparison keeps.

    Raises:
        CheckpointError: when they are damaged.
    """
    try:
        return validated(kind, read_yaml(path))
    except ConfigError as error:
        raise CheckpointError(f"{path} is damaged ({error}): restore it from a copy") from error


def read_environment(folder: Path) -> Mapping[str, Any]:
    """What `env.json` says of the machine and the versions that began a study or a comparison.

    Raises:
        CheckpointError: when it is damaged.
    """
    return read_record(folder / "env.json", dict[Name, FiniteJson], fix="restore it from a copy")


def sees_no_steps(pool: Pool) -> bool:
    """Whether nothing is heard of a job before it has ended, so that an interrupt must not wait for it."""
    return isinstance(pool, SerialPool)


def finish(campaign: Campaign, pool: Pool, interrupted: threading.Event, display: Display) -> None:
    """Take a campaign to its end.

    Raises:
        KeyboardInterrupt: once `interrupted` is set.
    """
    with contextlib.closing(display.follow(run_campaign(campaign, pool), campaign, pool.workers)) as events:
        for _ in events:
            if interrupted.is_set():
                raise KeyboardInterrupt
