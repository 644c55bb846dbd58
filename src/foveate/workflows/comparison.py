"""Comparisons, as the command line and the Python API call them: compare, resume, plan."""

import contextlib
import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foveate.comparison.arms import Arm, matched_controls, parse_arm, short_labels, without_attention
from foveate.comparison.experiment import Experiment
from foveate.comparison.outcomes import PairFinding, arm_summaries, pair_findings, spread_words
from foveate.comparison.settings import ComparisonConfig
from foveate.comparison.training import JudgedSplit, run_arm, training_subset
from foveate.config import Config, read_yaml, validated
from foveate.data.dataset import Dataset
from foveate.errors import CheckpointError, ComparisonError, ConfigError, DataError
from foveate.execution.pool import Pool
from foveate.files import locked, write_atomically, write_json
from foveate.records import Digest, Record, read_record
from foveate.report.comparison_page import ComparisonPage, write_comparison_report
from foveate.training.saving import interruptible
from foveate.training.setup import DRAWS, settle, with_place
from foveate.workflows.campaign import (
    create_folder,
    finish,
    load_data,
    load_data_again,
    read_environment,
    read_settings,
    sees_no_steps,
)
from foveate.workflows.request import Display, NullDisplay, check_output_dir, settings_digest
from foveate.workflows.workers import Workers

PILOT_SEED = 1_000_000
"""The first seed of a pilot: no comparison begins there by default, so that a plan is made from other runs."""


class _Sealed(Record):
    """What `digest.json` holds: by which a changed `comparison.yaml` is known."""

    sha256: Digest


class _TestOpening(Record):
    """When the test split was opened, and by which command."""

    time: str
    command: str


@dataclass(frozen=True)
class Comparison:
    """A comparison's folder, `runs/compare/<name>/`, and what lies in it."""

    path: Path

    @property
    def config(self) -> ComparisonConfig:
        """Its settings.

        Raises:
            CheckpointError: when they are damaged.
        """
        return read_settings(self.path / "comparison.yaml", ComparisonConfig)

    @property
    def experiment(self) -> Experiment:
        """Its runs, as measured on the split that it is judged on."""
        return Experiment(self.config, self.path, self.split)

    @property
    def split(self) -> JudgedSplit:
        """What it is judged on: the test split once that is open."""
        return "test" if (self.path / "results-test.csv").exists() else "validation"

    @property
    def test_openings(self) -> Path:
        """When the test split was opened, and by which command; no such file: it was not."""
        return self.path / "test_openings.json"

    @property
    def findings(self) -> list[PairFinding]:
        """The difference and the verdict of every pair."""
        return pair_findings(self.experiment)

    @property
    def report(self) -> Path:
        """The page that tells everything about it."""
        return self.path / "compare.html"


def compare(
    data: str | Path,
    arms: Sequence[str],
    *,
    seeds: int = 5,
    controls: bool = True,
    final: bool = False,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float | None = None,
    data_dir: Path | str | None = None,
    runs: Path | str = "runs",
    name: str | None = None,
    settings: Mapping[str, Any] = {},
    display: Display | None = None,
    **more: Any,
) -> Comparison:
    """Train arms with the same seeds, and say of every pair whether they differ.

    The reference is the arm without attention where there is one alone, else the first. Of one arm it is the same
    without attention. Every other arm is compared with it, and with controls made of it where the costs differ:
    as wide as it takes to have the arm's parameters, and the arm's training FLOPs.

    Args:
        data: as `train` takes it.
        arms: each `PRESET[,KEY=VALUE…]`.
        seeds: of every arm; the first is `first_seed`.
        controls: whether to make them.
        final: open the test split after every run has ended, and judge by it.
        workers, ray, gpus: as `tune` takes them.
        settings: of every arm.
        more: of `ComparisonConfig`: `first_seed`, `subsets`, `delta` (a share: 0.005 is half a point), `alpha`,
            `hang_limit_s`.

    Raises:
        ConfigError, DataError, OutputError: for a request that cannot be met; nothing is written then.
        ComparisonError: when no run came to an end.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; the comparison can be resumed.
    """
    display = display or NullDisplay()
    if isinstance(arms, str) or not all(isinstance(arm, str) for arm in arms):
        raise ConfigError(f"arms={arms!r}: give a list of texts, such as 'minute,attention=none'")
    subsets = more.get("subsets", (None,))
    if not isinstance(subsets, Sequence) or not all(isinstance(each, int | None) for each in subsets):
        raise ConfigError(f"subsets={subsets!r}: give a list of numbers of images; None: all")
    if more.get("pilot") and seeds < 2:
        raise ConfigError(f"seeds={seeds}: a plan learns how seeds spread, from two at least")
    crew = Workers(workers, ray, gpus)
    check_output_dir(Path(runs), data)
    given = {"threads": crew.threads, **settings}
    if any(setting.rpartition(".")[2] == "seed" for setting in settings):
        raise ConfigError("seed: all arms have the same seeds; say which by --seeds and --first-seed")
    parsed = _ordered([parse_arm(text, given) for text in arms], given)
    _check_alike(parsed)
    crew.check_attention([arm.config for arm in parsed])
    base = parsed[0].config
    dataset, device, location = load_data(data, base, data_dir, display)
    if final and "test" not in dataset.splits:
        raise DataError(f"{dataset.name} has no test images: add a test split to it, or compare without --final")
    if len(dataset.splits["validation"]) < 2:
        raise DataError(f"{dataset.name} has a single validation image: add images, or set val_fraction higher")
    _check_subsets(subsets, dataset)
    few = min((each for each in subsets if each), default=None)
    smallest = training_subset(dataset, few, base.data.split_seed)
    settled = [arm.model_copy(update={"config": _settled(arm.config, smallest, device)}) for arm in parsed]
    _check_different(settled)
    if controls:
        costs = {"num_classes": len(dataset.class_names), "size": dataset.images.shape[1]}
        settled += matched_controls(settled[1:], settled[0], **costs)
    config = validated(
        ComparisonConfig,
        {
            **more,
            **location,
            "num_classes": len(dataset.class_names),
            "arms": settled,
            "seeds": seeds,
            "draws": DRAWS,
        },
    )

    with contextlib.closing(crew.open_pool(run_arm, base, device)) as pool:
        fallback = f"{dataset.name}-plan" if config.pilot else dataset.name
        folder = create_folder(
            "compare",
            "comparison.yaml",
            config,
            dataset,
            device,
            runs=runs,
            name=name,
            fallback=fallback,
            sealed=True,
        )
        return _run(Comparison(folder), pool, display, final=final)


def plan_comparison(data: str | Path, arms: Sequence[str], *, seeds: int = 4, **options: Any) -> Comparison:
    """A pilot: a small comparison with seeds that no other has, by which the spread between seeds is learned.

    Its verdicts are no evidence. `seeds_needed` of its findings says by the spread how many seeds see δ.

    Args:
        options: of `compare`.

    Raises:
        As `compare`.
    """
    return compare(data, arms, seeds=seeds, first_seed=PILOT_SEED, pilot=True, **options)


def resume_comparison(
    path: Path | str,
    *,
    final: bool = False,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float | None = None,
    display: Display | None = None,
) -> Comparison:
    """Resume a comparison that was killed or stopped; or open the test split of one that has ended.

    Raises:
        CheckpointError: when it is none, is damaged, or its data set is another one now.
        ComparisonError, KeyboardInterrupt: as in `compare`.
    """
    display = display or NullDisplay()
    crew = Workers(workers, ray, gpus)
    comparison = open_comparison(path)
    config = comparison.config
    sealed = read_record(comparison.path / "digest.json", _Sealed, fix="restore it from a copy")
    if sealed.sha256 != settings_digest(read_yaml(comparison.path / "comparison.yaml")):
        raise CheckpointError(f"{comparison.path / 'comparison.yaml'} was changed: restore the original")
    if final and config.pilot:
        raise ConfigError(f"{comparison.path} is a plan's pilot: it opens no test split")
    crew.check_attention([arm.config for arm in config.arms])
    base = config.arms[0].config
    dataset, device = load_data_again(config, base, comparison.path, display)
    if final and "test" not in dataset.splits:
        raise DataError(f"{dataset.name} has no test images: go on without --final")
    with contextlib.closing(crew.open_pool(run_arm, base, device)) as pool:
        return _run(comparison, pool, display, final=final)


def open_comparison(path: Path | str) -> Comparison:
    """A comparison that lies in a folder.

    Raises:
        CheckpointError: when it is none.
    """
    path = Path(path)
    if not (path / "comparison.yaml").is_file():
        raise CheckpointError(
            f"{path} is not a comparison (no comparison.yaml): give a folder made by `foveate compare`"
        )
    return Comparison(path)


def _run(comparison: Comparison, pool: Pool, display: Display, *, final: bool) -> Comparison:
    """Do what is to be done, and write what it came to."""
    with contextlib.ExitStack() as held:
        held.enter_context(locked(comparison.path, f"{comparison.path} is being run"))
        # Read under the lock: another process may have opened the test split until then.
        opened = comparison.test_openings.exists()
        final = final or opened
        resuming = f"foveate compare --resume {shlex.quote(str(comparison.path))}{' --final' if final else ''}"
        interrupted = held.enter_context(interruptible(resuming, at_once=sees_no_steps(pool)))
        # Once the test split is open nothing is trained any more.
        splits: list[JudgedSplit] = ["test"] if opened else ["validation", "test"] if final else ["validation"]
        for split in splits:
            experiment = Experiment(comparison.config, comparison.path, split)
            if split == "test" and experiment.pending():
                _record_test_opening(comparison.test_openings, resuming)
            finish(experiment, pool, interrupted, display)
            if len(failures := experiment.failures()) == len(experiment.runs):
                raise ComparisonError(f"no run came to an end, the last one so: {[*failures.values()][-1]}")
            _write(comparison, experiment)
    return comparison


def _write(comparison: Comparison, experiment: Experiment) -> None:
    """The row and the bits of every run, what they come to, and the page."""
    config, split, failures = experiment.config, experiment.split, experiment.failures()
    arms, labels = config.arms, short_labels(config.arms)
    text = io.StringIO()
    columns = ("accuracy", "loss", "without_attention", "gate", "train_s", "images_shown")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "seed", "training_images", *columns, "failed"])
    for run in experiment.runs:
        measured = [getattr(experiment.result(run), column, None) for column in columns]
        row = [arms[run.arm].name, run.seed, config.subsets[run.subset], *measured]
        writer.writerow([*row, failures.get(run)])
    done = [run for run in experiment.runs if experiment.result(run) is not None]
    bits = io.BytesIO()
    np.savez(
        bits,
        runs=np.array(done, np.int64).reshape(-1, 3),  # places of subset, seed, place of arm
        right=np.packbits(experiment.right(done), axis=1),
    )
    findings = pair_findings(experiment)
    page = ComparisonPage(
        title=comparison.path.name,
        split=split,
        arms=[
            {
                "name": arm.name,
                "label": f"{label}, {', '.join(arm.matched)}" if arm.matched else label,
                "matched": arm.matched,
                **asdict(summary),
            }
            for summary in arm_summaries(experiment)
            for arm, label in ((arms[summary.arm], labels[summary.arm]),)
        ],
        findings=[{**asdict(each), "words": each.words, "plan": each.plan} for each in findings],
        failed=[(arms[run.arm].name, run.seed, config.subsets[run.subset], why) for run, why in failures.items()],
        settings=config.model_dump(mode="json"),
        environment=read_environment(comparison.path),
        test=f"foveate compare --resume {shlex.quote(str(comparison.path))} --final",
        spread=spread_words(config.seeds) if config.pilot else None,
    )
    write_atomically(comparison.path / f"right-{split}.npz", bits.getvalue())
    write_json(comparison.path / f"findings-{split}.json", [asdict(each) for each in findings])
    write_atomically(comparison.path / f"results-{split}.csv", text.getvalue())
    write_comparison_report(page, comparison.path)


def _record_test_opening(path: Path, command: str) -> None:
    """Record that the test split is about to be opened: before it is, so that a kill hides nothing."""
    before: tuple[_TestOpening, ...] = ()
    if path.exists():
        before = read_record(path, tuple[_TestOpening, ...], fix="restore it from a copy")
    opening = _TestOpening(time=datetime.now(UTC).isoformat(timespec="seconds"), command=command)
    write_json(path, [each.model_dump() for each in (*before, opening)])


def _ordered(arms: list[Arm], given: Mapping[str, Any]) -> list[Arm]:
    """The reference first, made where there is one arm alone.

    Raises:
        ConfigError: for no arm, and for two that are the same.
    """
    if not arms:
        raise ConfigError(
            "nothing to compare: give --arm PRESET,KEY=VALUE,… twice or more, or once with attention"
        )
    if len(arms) == 1:
        if arms[0].config.model.attention == "none":
            raise ConfigError(f"arm {arms[0].name!r} has no attention to be compared without: give a second --arm")
        arms = [without_attention(arms[0], given), *arms]
    if len({arm.name for arm in arms}) < len(arms):
        raise ConfigError("two arms are the same: their runs would be, bit by bit")
    plain = [arm for arm in arms if arm.config.model.attention == "none"]
    reference = plain[0] if len(plain) == 1 else arms[0]
    return [reference, *(arm for arm in arms if arm is not reference)]


def _check_alike(arms: Sequence[Arm]) -> None:
    """Raises ConfigError for arms that do not see the same images in the same splits, on the same device."""
    first = arms[0].config
    for arm in arms[1:]:
        own = arm.config
        for name in (*type(own.data).model_fields, "device", "threads"):
            values = [getattr(config.train, name, getattr(config.data, name, None)) for config in (first, own)]
            if values[0] != values[1]:
                raise ConfigError(
                    f"arms {arms[0].name!r} and {arm.name!r} differ in {name} ({values[0]}, {values[1]}): "
                    f"give all the same, with --set {name}=…"
                )


def _check_different(arms: Sequence[Arm]) -> None:
    """Raises ConfigError for settled arms that are the same."""
    seen: dict[str, str] = {}
    for arm in arms:
        same = seen.setdefault(arm.config.model_dump_json(exclude={"preset"}), arm.name)
        if same != arm.name:
            raise ConfigError(
                f"arms {same!r} and {arm.name!r} are the same: their runs would be, bit by bit (each is judged at "
                "its last epoch, without more views: keep, patience, monitor and views make no difference)"
            )


def _check_subsets(subsets: Sequence[int | None], dataset: Dataset) -> None:
    """Raises ConfigError for a number of training images that is not there, is given twice, or is too small."""
    images, classes = len(dataset.splits["train"]), len(dataset.class_names)
    for subset in subsets:
        if subset is not None and not classes <= subset <= images:
            raise ConfigError(
                f"subsets={subset}: there are {images:,} training images of {classes:,} classes: "
                "give a number between the two"
            )
    if len(set(subsets)) < len(subsets):
        raise ConfigError("subsets: a number of training images is given twice")


def _settled(config: Config, dataset: Dataset, device: torch.device) -> Config:
    """As for a run of its own, but to the last epoch, which is judged; what has no effect is as by default.

    `passes` stays open: each run settles it by how many images it has.
    """
    without = {
        "passes": config.train.passes,
        "views": 1,
        "monitor": "accuracy",
        "save_every_s": 60.0,
        "keep": "last",
        "patience": None,
    }
    if config.model.attention == "none":
        without |= {"attention_mode": "replace", "attention_stage": 1}
    return with_place(settle(config, dataset, final=False), device).replacing(**without)
