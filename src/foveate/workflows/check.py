"""Checks of data sets, as the command line and the Python API call them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from foveate.config import Config, resolve_config
from foveate.counts import plural
from foveate.data.augment import UNCHANGED, build_augment
from foveate.data.check import audit, pooled, suspects_finding
from foveate.data.dataset import Dataset, dataset_of
from foveate.data.findings import Finding, sort_by_severity
from foveate.data.folds import draw_folds, fold_units
from foveate.data.opening import open_source
from foveate.errors import DataError
from foveate.files import write_json
from foveate.report.check_page import EACH_SHOWN, GROUPS_SHOWN, check_page
from foveate.report.html import write_page
from foveate.settings import ExtraFamily
from foveate.training.device import DeviceData, prepare_process
from foveate.training.fit import Fit
from foveate.training.settings import resolve_settings
from foveate.workflows.defaults import default_preset, preset_of
from foveate.workflows.output import check_output_name, new_output, refuse_within
from foveate.workflows.request import Display, NullDisplay, find_device

_FOLDS = 3
_HELD_OUT = "held out"
"""The split of images that a fold's network has not seen; each epoch would be measured on `validation`."""
_SHEET_IMAGES = 8
_FEWEST_TO_TRAIN = 6
"""Images of every class that folds can be made of."""


@dataclass(frozen=True)
class Check:
    """A check's folder, `runs/check/<name>/`, and what lies in it."""

    path: Path

    @property
    def findings(self) -> list[dict[str, Any]]:
        """Each with `kind`, `severity`, `text`, `count`, `groups` of ids and `remarks` by id; gravest first."""
        return list(json.loads((self.path / "check.json").read_text(encoding="utf-8"))["findings"])

    @property
    def lines(self) -> list[str]:
        """Every finding, with some of its images below."""
        lines = []
        for finding in self.findings:
            lines.append(f"{finding['severity']:7} {finding['text']}")
            for group in finding["groups"][:3]:
                remarks = finding["remarks"]
                shown = (f"{each} ({remarks[each]})" if remarks.get(each) else each for each in group[:4])
                lines.append(f"        {'  '.join(shown)}{'  …' if len(group) > 4 else ''}")
            if (more := len(finding["groups"]) - 3) > 0:
                lines.append(f"        and {more:,} more")
        return lines or ["no problems found"]

    @property
    def has_errors(self) -> bool:
        """Whether a figure made with the data as it is would be wrong."""
        return any(finding["severity"] == "error" for finding in self.findings)

    @property
    def report(self) -> Path:
        """The page that shows it."""
        return self.path / "check.html"


def check(
    data: str | Path,
    *,
    labels: bool = False,
    augment: bool = False,
    preset: str | None = None,
    data_dir: Path | str | None = None,
    runs: Path | str = "runs",
    name: str | None = None,
    settings: Mapping[str, Any] = {},
    display: Display | None = None,
) -> Check:
    """Find what is wrong with a data set; nothing is written into it.

    Args:
        data: as `train` takes it.
        labels: doubt labels too, by networks trained on two thirds of the images and asked about the rest.
        augment: draw a sheet of what each family of augmentation does to some of its images.
        preset: whose size and `fit` images are looked at with, and which those networks and that augmentation are
            of; None: the one that `train` would choose.
        settings: over the preset.

    Raises:
        ConfigError, DataError, OutputError: for a request that cannot be met; nothing is written then.
    """
    display = display or NullDisplay()
    refuse_within(runs, data)
    check_output_name(Path(runs), "check", name)
    preset = preset_of(settings, display) if preset is None else preset
    config = resolve_config(preset, settings=settings)
    device = find_device(display, config.train.device)
    prepare_process(config)
    source = open_source(str(data), data_dir, display.track)
    if preset is None:
        preset, _ = default_preset(source, settings)
        config = resolve_config(preset, settings=settings)
    dataset = pooled(dataset_of(source, config.data, for_training=False, track=display.track))
    taken = f"images at {dataset.size} px (fit: {dataset.fit}), as train takes them with the preset {preset}"
    if settings:
        taken += " and these settings"
    display.say(taken)
    folds = _draw_folds(dataset, config.data.split_seed) if labels else None
    passed = [Finding("passed_over", "warning", note) for note in dataset.notes]
    doubted = _suspects(config, dataset, *folds, device, display) if folds is not None else []
    findings = sort_by_severity([*audit(source, dataset, config.data, track=display.track), *passed, *doubted])
    counts = {
        split: dict(zip(dataset.class_names, of_classes.tolist(), strict=True))
        for split, indices in dataset.splits.items()
        for of_classes in (np.bincount(dataset.labels[indices], minlength=len(dataset.class_names)),)
    }
    told = {
        "data": dataset.location,
        "preset": preset,
        "size": dataset.size,
        "fit": dataset.fit,
        "counts": counts,
        "findings": [{**asdict(finding), "count": finding.count} for finding in findings],
    }
    unread = f" ({len(dataset.bad):,} of them cannot be read)" if dataset.bad else ""
    with new_output(Path(runs), "check", name, fallback=dataset.name) as (path, draft):
        page = check_page(
            title=path.name,
            subtitle=f"{dataset.location}, {plural(len(source.labels), 'image')}{unread}, "
            f"{len(dataset.class_names)} classes; {taken}",
            counts=counts,
            findings=findings,
            pictures=_pictures(dataset, findings),
            sheet=_sheet(config, dataset) if augment else {},
        )
        write_json(draft / "check.json", told)
        write_page(page, draft / "check.html")
    return Check(path)


def _pictures(dataset: Dataset, findings: list[Finding]) -> dict[str, NDArray[np.uint8]]:
    """The pixels of the images that the page shows, by id."""
    place = {dataset.ids[index]: index for indices in dataset.splits.values() for index in indices.tolist()}
    shown = [
        each for finding in findings for group in finding.groups[:GROUPS_SHOWN] for each in group[:EACH_SHOWN]
    ]
    return {each: dataset.images[place[each]] for each in shown if each in place}


def _sheet(config: Config, dataset: Dataset) -> dict[str, NDArray[np.uint8]]:
    """Some images as they are, and [N, H, W, 3] after each family of augmentation alone, by its name."""
    every = np.sort(np.concatenate(list(dataset.splits.values())))
    chosen = every[np.linspace(0, len(every) - 1, _SHEET_IMAGES).round().astype(int)]
    images = torch.from_numpy(dataset.images[chosen]).permute(0, 3, 1, 2)
    labels = torch.from_numpy(dataset.labels[chosen])
    turn = torch.arange(len(chosen)) % 2 == 0
    flip = config.augment.flip if config.augment.flip is not None else 0.5 * dataset.mirror_safe
    plain = {**UNCHANGED, "augmentation": True}  # whatever the preset does: a sheet is asked for
    rows = {"as they are": plain}
    if config.augment.augmentation:
        rows[config.augment.family] = {"flip": flip, "augmentations": ()}
    rows |= {family: {**plain, "augmentations": (family,)} for family in get_args(ExtraFamily)}
    sheet = {}
    for row, of_row in rows.items():
        augment = build_augment(config.augment.model_copy(update=of_row), max(2, len(dataset.class_names)))
        draws = torch.Generator().manual_seed(config.train.seed)
        changed, _ = augment(images, labels, turn, draws, draws)
        sheet[row] = changed.float().clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return sheet


def _draw_folds(dataset: Dataset, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """The sorted indices of all images, and the fold of each; DataError where they cannot be parted into folds."""
    every = np.sort(np.concatenate(list(dataset.splits.values())))
    labels = dataset.labels[every]
    present, counts = np.unique(labels, return_counts=True)
    if len(present) < 2 or counts.min() < _FEWEST_TO_TRAIN:
        raise DataError(
            f"labels: folds need two classes, and {_FEWEST_TO_TRAIN} images of each: check without --labels"
        )
    units = fold_units(replace(dataset, splits={"train": every}))
    fewest = min(len(np.unique(units[labels == label])) for label in present)
    try:
        if fewest >= _FOLDS:
            return every, draw_folds(labels, units, _FOLDS, seed)
    except DataError:
        pass  # it names a number of folds, which nobody has asked for
    raise DataError(
        f"labels: images of one group, and copies of one image, share a fold, and a class has too few groups or "
        f"different images for {_FOLDS} folds: check without --labels"
    )


def _suspects(
    config: Config,
    dataset: Dataset,
    every: NDArray[np.int64],
    folds: NDArray[np.int8],
    device: torch.device,
    display: Display,
) -> list[Finding]:
    """Labels that are doubted by networks which were trained without their images, as `_draw_folds` parts them."""
    probabilities = np.zeros((len(every), len(dataset.class_names)))
    data = DeviceData.load(dataset, device)
    for fold in range(_FOLDS):
        display.say(f"labels: training network {fold + 1} of {_FOLDS}")
        asked = folds == fold
        part = data.with_splits({"train": every[~asked], _HELD_OUT: every[asked]})
        resolved = resolve_settings(config, part.dataset)
        fit = Fit(resolved, part)
        for _ in fit.epochs(track=display.track):
            pass
        logits, _ = part.logits(fit.state.model, _HELD_OUT, resolved, label="asking it", track=display.track)
        probabilities[asked] = softmax(logits, axis=1)
    return suspects_finding(dataset, every, probabilities)
