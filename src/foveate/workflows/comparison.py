"""Comparisons, as the command line and the Python API call them: compare, take up again, plan."""

import contextlib
import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import yaml

from foveate.comparison.arms import Arm, matched_controls, parse_arm, short_labels, without_attention
from foveate.comparison.experiment import ComparisonConfig, Experiment, Finding, Update
from foveate.comparison.training import JudgedSplit, run_arm, training_subset
from foveate.config import Config, read_yaml, validated
from foveate.data.dataset import Dataset, KnownData, load_dataset, load_known
from foveate.data.splits import StoredSplits
from foveate.errors import CheckpointError, ComparisonError, ConfigError, DataError
from foveate.execution.pool import Pool
from foveate.execution.serial import SerialPool
from foveate.files import locked, write_atomically, write_json
from foveate.records import Digest, Record, read_record
from foveate.report.comparison_page import Failure, comparison_page
from foveate.report.html import write_page
from foveate.report.verdicts import ComparedArm, ComparedPair, plan_in_words, spread_in_words, verdict_in_words
from foveate.training.environment import environment
from foveate.training.runs import RunFolder
from foveate.training.saving import interruptible
from foveate.training.setup import DRAWS, pick_device, prepare_process, settle, with_place
from foveate.workflows.request import (
    Display,
    NullDisplay,
    check_output_dir,
    find_device,
    print_data_warnings,
    read_environment,
    read_settings,
    settings_digest,
)
from foveate.workflows.workers import check_attention, check_workers, open_pool, threads_for

__all__ = [
    "Comparison",
    "ComparisonDisplay",
    "SilentComparison",
    "compare",
    "open_comparison",
    "plan_comparison",
    "resume_comparison",
]

PILOT_SEED = 1_000_000
"""The first seed of a pilot: no comparison has its seeds by default, so that a plan is made of other runs."""


class ComparisonDisplay(Display, Protocol):
    """Whoever follows a comparison."""

    def following(
        self, experiment: Experiment, split: JudgedSplit, workers: int
    ) -> contextlib.AbstractContextManager[None]:
        """Around all runs that are trained or measured."""
        ...

    def update(self, experiment: Experiment, update: Update) -> None:
        """Something happened to a run."""
        ...


class SilentComparison(NullDisplay):
    """Follows nothing."""

    def following(
        self,
        experiment: Experiment,  # noqa: ARG002
        split: JudgedSplit,  # noqa: ARG002
        workers: int,  # noqa: ARG002
    ) -> contextlib.AbstractContextManager[None]:
        """Follow nothing."""
        return contextlib.nullcontext()

    def update(self, experiment: Experiment, update: Update) -> None:
        """Show nothing."""


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
        """Its runs, and what they come to."""
        return Experiment(self.config, self.path)

    @property
    def split(self) -> JudgedSplit:
        """What it is judged on: the test split once that is open."""
        return "test" if (self.path / "results-test.csv").exists() else "validation"

    @property
    def test_openings(self) -> Path:
        """When the test split was opened, and by which command; no such file: it was not."""
        return self.path / "test_openings.json"

    @property
    def findings(self) -> list[Finding]:
        """The difference and the verdict of every pair."""
        return self.experiment.findings(self.split)

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
    display: ComparisonDisplay | None = None,
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
        KeyboardInterrupt: after Ctrl-C or SIGTERM; the comparison can be taken up again.
    """
    display = display or SilentComparison()
    if isinstance(arms, str) or not all(isinstance(arm, str) for arm in arms):
        raise ConfigError(f"arms={arms!r}: give a list of texts, such as 'minute,attention=none'")
    subsets = more.get("subsets", (None,))
    if not isinstance(subsets, Sequence) or not all(isinstance(each, int | None) for each in subsets):
        raise ConfigError(f"subsets={subsets!r}: give a list of numbers of images; None: all")
    if more.get("pilot") and seeds < 2:
        raise ConfigError(f"seeds={seeds}: a plan learns how seeds spread, from two at least")
    check_output_dir(Path(runs), data)
    check_workers(workers, ray, gpus)
    given = {"threads": threads_for(workers, ray), **settings}
    if any(setting.rpartition(".")[2] == "seed" for setting in settings):
        raise ConfigError("seed: all arms have the same seeds; say which by --seeds and --first-seed")
    parsed = _ordered([parse_arm(text, given) for text in arms], given)
    _check_alike(parsed)
    check_attention([arm.config for arm in parsed], workers)
    base = parsed[0].config
    prepare_process(base)
    device = find_device(display, base.train.device)
    place = Path(data_dir) if data_dir else None
    dataset = load_dataset(str(data), base.data, data_dir=place, track=display.track)
    print_data_warnings(dataset, display)
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
            "data": dataset.location,
            "data_dir": str(place.resolve()) if place else None,
            "fingerprint": dataset.fingerprint,
            "num_classes": len(dataset.class_names),
            "arms": settled,
            "seeds": seeds,
            "draws": DRAWS,
        },
    )

    def fill(folder: RunFolder) -> None:
        stored = StoredSplits.write(folder.path, dataset.splits, len(dataset.labels))
        values = config.model_copy(update={"splits": stored.sha256}).model_dump(mode="json")
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        write_atomically(folder.path / "comparison.yaml", text)
        write_json(folder.path / "env.json", environment(device))
        write_json(folder.path / "digest.json", _digest(folder.path).model_dump())

    with contextlib.closing(open_pool(run_arm, base, device, workers, ray, gpus)) as pool:
        fallback = f"{dataset.name}-plan" if config.pilot else dataset.name
        folder = RunFolder.create(Path(runs), "compare", name, fallback=fallback, fill=fill)
        return _run(Comparison(folder.path), pool, display, final=final)


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
    display: ComparisonDisplay | None = None,
) -> Comparison:
    """Take up a comparison that was killed or stopped; or open the test split of one that has ended.

    Raises:
        CheckpointError: when it is none, is damaged, or its data set is another one now.
        ComparisonError, KeyboardInterrupt: as in `compare`.
    """
    display = display or SilentComparison()
    check_workers(workers, ray, gpus)
    comparison = open_comparison(path)
    config = comparison.config
    sealed = read_record(comparison.path / "digest.json", _Sealed, fix="restore it from a copy")
    if sealed != _digest(comparison.path):
        raise CheckpointError(f"{comparison.path / 'comparison.yaml'} was changed: restore the original")
    if final and config.pilot:
        raise ConfigError(f"{comparison.path} is a plan's pilot: it opens no test split")
    check_attention([arm.config for arm in config.arms], workers)
    base = config.arms[0].config
    prepare_process(base)
    known = KnownData(config.fingerprint, StoredSplits.kept(comparison.path, config.splits), comparison.path)
    dataset = load_known(config.data, base.data, known, data_dir=config.data_dir, track=display.track)
    if final and "test" not in dataset.splits:
        raise DataError(f"{dataset.name} has no test images: go on without --final")
    device = pick_device(base.train.device)
    with contextlib.closing(open_pool(run_arm, base, device, workers, ray, gpus)) as pool:
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


def _run(comparison: Comparison, pool: Pool, display: ComparisonDisplay, *, final: bool) -> Comparison:
    """Do what is to be done, and write what it came to."""
    at_once = isinstance(pool, SerialPool)  # which hears of nothing until its job has ended
    with contextlib.ExitStack() as held:
        held.enter_context(locked(comparison.path, f"{comparison.path} is being run"))
        # Read under the lock: another process may have opened the test split until then.
        experiment, opened = comparison.experiment, comparison.test_openings.exists()
        final = final or opened
        resuming = f"foveate compare --resume {shlex.quote(str(comparison.path))}{' --final' if final else ''}"
        interrupted = held.enter_context(interruptible(resuming, at_once=at_once))
        # Once the test split is open nothing is trained any more.
        splits: list[JudgedSplit] = ["test"] if opened else ["validation", "test"] if final else ["validation"]
        for split in splits:
            if split == "test" and experiment.pending(split):
                _record_test_opening(comparison.test_openings, resuming)
            with display.following(experiment, split, pool.workers):
                for update in experiment.train(pool, split):
                    if update is not None:
                        display.update(experiment, update)
                    if interrupted.is_set():
                        raise KeyboardInterrupt
            if len(failures := experiment.failures(split)) == len(experiment.runs):
                raise ComparisonError(f"no run came to an end, the last one so: {[*failures.values()][-1]}")
            _write(comparison, experiment, split)
    return comparison


def _write(comparison: Comparison, experiment: Experiment, split: JudgedSplit) -> None:
    """The row and the bits of every run, what they come to, and the page."""
    text, config, failures = io.StringIO(), experiment.config, experiment.failures(split)
    arms, labels = config.arms, short_labels(config.arms)
    columns = ("accuracy", "loss", "without_attention", "gate", "train_s", "images_shown")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "seed", "training_images", *columns, "failed"])
    for run in experiment.runs:
        result, images = experiment.result(run, split), config.subsets[run.subset]
        told = [getattr(result, column, None) for column in columns]
        writer.writerow([arms[run.arm].name, run.seed, images, *told, failures.get(run)])
    done = [run for run in experiment.runs if experiment.result(run, split) is not None]
    bits = io.BytesIO()
    np.savez(
        bits,
        runs=np.array(done, np.int64).reshape(-1, 3),  # places of subset, seed, place of arm
        right=np.packbits(experiment.right(done, split), axis=1),
    )
    wanted = {"seeds_wanted": config.seeds, "next_seed": config.first_seed + config.seeds}
    pairs, told_pairs = [], []
    for each in experiment.findings(split):
        arm, other = (arms[place].name for place in each.pair)
        named = labels[each.pair.arm], labels[each.pair.other]
        told_pairs.append({**asdict(each), "arm": arm, "other": other, "labels": list(named), **wanted})
        pair = ComparedPair(
            arm=arm,
            other=other,
            labels=named,
            subset=each.subset,
            seeds=each.seeds,
            difference=each.difference,
            verdict=each.verdict,
            words=verdict_in_words(each, **wanted),
            plan=plan_in_words(each),
        )
        pairs.append(pair)
    page = comparison_page(
        title=comparison.path.name,
        split=split,
        config=config,
        arms=[
            ComparedArm(
                arm.name, f"{label}, {', '.join(arm.matched)}" if arm.matched else label, arm.matched, summary
            )
            for summary in experiment.summaries(split)
            for arm, label in ((arms[summary.arm], labels[summary.arm]),)
        ],
        pairs=pairs,
        failures=[
            Failure(arms[run.arm].name, run.seed, config.subsets[run.subset], why) for run, why in failures.items()
        ],
        environment=read_environment(comparison.path),
        opening=f"foveate compare --resume {shlex.quote(str(comparison.path))} --final",
        spread=spread_in_words(config.seeds) if config.pilot else "",
    )
    write_atomically(comparison.path / f"right-{split}.npz", bits.getvalue())
    write_json(comparison.path / f"findings-{split}.json", told_pairs)
    write_atomically(comparison.path / f"results-{split}.csv", text.getvalue())
    write_page(page, comparison.report)


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


def _digest(folder: Path) -> _Sealed:
    """By which a comparison's settings are known as they were."""
    return _Sealed(sha256=settings_digest(read_yaml(folder / "comparison.yaml")))


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
