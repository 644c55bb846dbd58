"""Studies, as the command line and the Python API call them: tune, take up again, train the winner."""

import contextlib
import csv
import hashlib
import io
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml
from pydantic_core import to_json

from foveate.config import Config, read_yaml, validated
from foveate.data.dataset import Dataset, KnownData, load_dataset, load_known
from foveate.data.splits import StoredSplits
from foveate.errors import CheckpointError, ConfigError, OutputError, StudyError
from foveate.execution.pool import Pool
from foveate.execution.serial import SerialPool
from foveate.files import locked, read_regular, write_atomically, write_json
from foveate.records import printable
from foveate.report.html import write_page
from foveate.report.sections import Page
from foveate.report.study_page import study_page
from foveate.report.study_plots import Axis, Choices, Range
from foveate.training.environment import environment
from foveate.training.runs import RunFolder
from foveate.training.saving import interruptible
from foveate.training.setup import DRAWS, pick_device, prepare_process, settle, with_place
from foveate.tuning.hyperband import li2018_brackets
from foveate.tuning.importance import knob_importance
from foveate.tuning.journal import Journal
from foveate.tuning.samplers import RandomSampler, TpeSampler
from foveate.tuning.search import Search, StudyConfig, Trial, Update, brackets_of
from foveate.tuning.space import Knob, random_draws, read_space
from foveate.tuning.storage import mark_place, own_place
from foveate.tuning.trial import run_trial, study_dataset, usable_in
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
from foveate.workflows.run import Run, train
from foveate.workflows.workers import check_attention, check_workers, open_pool, threads_for

__all__ = ["SilentStudy", "Study", "StudyDisplay", "open_study", "resume_study", "train_best", "tune"]

_SAMPLERS: Mapping[str, type[RandomSampler] | type[TpeSampler]] = {"random": RandomSampler, "tpe": TpeSampler}


_CHECKSUM = "# sha256 of all below: "
"""The second line of `best.yaml`."""
_BEST_BYTES = 1 << 20


class StudyDisplay(Display, Protocol):
    """Whoever follows a study."""

    def following(self, search: Search, workers: int) -> contextlib.AbstractContextManager[None]:
        """Around the whole of it."""
        ...

    def update(self, search: Search, update: Update) -> None:
        """Something happened to a job."""
        ...


class SilentStudy(NullDisplay):
    """Follows nothing."""

    def following(self, search: Search, workers: int) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002
        """Follow nothing."""
        return contextlib.nullcontext()

    def update(self, search: Search, update: Update) -> None:
        """Show nothing."""


@dataclass(frozen=True)
class Study:
    """A study's folder, `runs/tune/<name>/`, and what lies in it."""

    path: Path

    @property
    def config(self) -> StudyConfig:
        """Its settings.

        Raises:
            CheckpointError: when they are damaged.
        """
        return read_settings(self.path / "study.yaml", StudyConfig)

    @property
    def digest(self) -> str:
        """By which its settings are known as they were.

        The storage is left out: it changes nothing in what is found, and a copy of a study needs another.
        """
        values = read_yaml(self.path / "study.yaml")
        return settings_digest({name: value for name, value in values.items() if name != "storage"})

    @property
    def former_digest(self) -> str:
        """By which older versions knew its settings: all that they had, as pydantic writes it."""
        return hashlib.sha256(to_json(read_yaml(self.path / "study.yaml"))).hexdigest()

    @property
    def known_data(self) -> KnownData:
        """By what it knows its data set."""
        config = self.config
        return KnownData(config.fingerprint, StoredSplits.kept(self.path, config.splits), self.path)

    @property
    def results(self) -> Path:
        """A row of every trial."""
        return self.path / "tune_results.csv"

    @property
    def report(self) -> Path:
        """The page that tells everything about it."""
        return self.path / "study.html"

    @property
    def best(self) -> Path:
        """The winner's settings, as `train --config` reads them; there once the study has ended."""
        return self.path / "best.yaml"


def tune(
    data: str | Path,
    *,
    space: str = "default",
    knobs: tuple[str, ...] = (),
    max_epochs: int = 9,
    factor: int = 3,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float | None = None,
    subset: int | None = None,
    data_dir: Path | str | None = None,
    runs: Path | str = "runs",
    name: str | None = None,
    storage: str | None = None,
    settings: Mapping[str, Any] = {},
    display: StudyDisplay | None = None,
    **more: Any,
) -> Study:
    """Search a space of settings by Hyperband; the test split is never opened.

    Args:
        data: as `train` takes it.
        space: `paper`, `default`, or the path of a YAML file.
        knobs: search these of its knobs alone.
        max_epochs, factor: R and η of Hyperband.
        workers: processes, one trial at a time each; with the same `threads` they change nothing in what is found.
            None: one, or one for each GPU, or under Ray as many as the cluster has room for. 0: this very process.
        ray: run them by Ray: `local`, or HOST:PORT of a cluster's head, whose nodes see the same files.
        gpus: that a trial takes of those of Ray, where its device is one; a fraction shares it. None: one.
        subset: images of training and validation together; None: all.
        storage: folder or URL for the checkpoints; None: the study's folder.
        settings: of every trial, by name, over the space's. `threads` are those of a trial, and the study's, as
            sums change with them: the processor's, shared out among the workers, where they are not given.
        more: of `StudyConfig`, such as `algorithm`, `formula`, `semantics`, `seed`.

    Raises:
        ConfigError, DataError, OutputError: for a request that cannot be met; nothing is written then.
        StudyError: when too many trials failed.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; the study can be taken up again.
    """
    display = display or SilentStudy()
    check_output_dir(Path(runs), data)
    check_workers(workers, ray, gpus)
    li2018_brackets(max_epochs, factor)  # refuses what no plan can be made of
    for setting in settings:
        if setting.rpartition(".")[2] in ("epochs", "images_seen"):
            raise ConfigError(f"{setting}: a study's trials train for max_epochs at most (--max-epochs)")
    chosen = read_space(space)
    if knobs:
        chosen = chosen.restricted(knobs)
    given = {"threads": threads_for(workers, ray), **settings}
    whole_length = chosen.base(**given).train.images_seen
    base = chosen.base(**given, epochs=max_epochs)
    check_attention([base], workers)
    device = find_device(display, base.train.device)
    place = Path(data_dir) if data_dir else None
    whole = load_dataset(str(data), base.data, data_dir=place, track=display.track)
    print_data_warnings(whole, display)
    dataset = study_dataset(whole, subset, base.data.split_seed)
    if whole_length is not None and base.train.passes is None:
        # Of few images an epoch is several passes, so that the last rung is as long as the space's preset.
        base = base.replacing(passes=max(1, round(whole_length / (max_epochs * len(dataset.splits["train"])))))
    prepare_process(base)
    values: dict[str, Any] = {
        **more,
        "data": whole.location,
        "data_dir": str(place.resolve()) if place else None,
        "fingerprint": whole.fingerprint,
        "subset": subset,
        "space_name": space,
        "space": chosen,
        "base": with_place(settle(base, dataset, final=False), device),
        "max_epochs": max_epochs,
        "factor": factor,
        "draws": DRAWS,
    }
    config = validated(StudyConfig, values)

    def fill(folder: RunFolder) -> None:
        nonlocal config
        stored = StoredSplits.write(folder.path, whole.splits, len(whole.labels))
        config = config.model_copy(update={"splits": stored.sha256})
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        write_atomically(folder.path / "study.yaml", text)
        write_json(folder.path / "env.json", environment(device))

    if next(random_draws(chosen, config.seed, usable_in(chosen, config.base, dataset)), None) is None:
        raise ConfigError(f"space {space}: no network of it can be built at size={config.base.data.size}")
    with contextlib.closing(open_pool(run_trial, config.base, device, workers, ray, gpus)) as pool:
        if storage is not None:
            config = config.model_copy(update={"storage": own_place(storage)})
        fallback = f"{whole.name}-{Path(space).stem}"
        study = Study(RunFolder.create(Path(runs), "tune", name, fallback=fallback, fill=fill).path)
        if config.storage is not None:
            mark_place(config.storage, study.digest, study.path)
        return _search(study, config, whole, pool, display)


def resume_study(
    path: Path | str,
    *,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float | None = None,
    display: StudyDisplay | None = None,
) -> Study:
    """Take up a study that was killed or stopped, and end with the table it would have had.

    Raises:
        CheckpointError: when it is none, is damaged, or its data set is another one now.
        StudyError, KeyboardInterrupt: as in `tune`.
    """
    display = display or SilentStudy()
    check_workers(workers, ray, gpus)
    study = open_study(path)
    config = study.config
    check_attention([config.base], workers)
    prepare_process(config.base)
    whole = load_known(
        config.data, config.base.data, study.known_data, data_dir=config.data_dir, track=display.track
    )
    device = pick_device(config.base.train.device)
    with contextlib.closing(open_pool(run_trial, config.base, device, workers, ray, gpus)) as pool:
        return _search(study, config, whole, pool, display)


def open_study(path: Path | str) -> Study:
    """A study that lies in a folder.

    Raises:
        CheckpointError: when it is none.
    """
    path = Path(path)
    if not (path / "study.yaml").is_file():
        raise CheckpointError(f"{path} is not a study (no study.yaml): give a folder made by `foveate tune`")
    return Study(path)


def train_best(path: Path | str, **options: Any) -> Run:
    """Train a study's winner on train + validation for its whole length, then open the test split once.

    Args:
        options: of `train`: `runs`, `name`, `display`, `device`, `threads`, `seed`.

    Raises:
        CheckpointError: when the study has not ended, or its `best.yaml` was changed, and as `train`.
        ConfigError: for other options.
    """
    study = open_study(path)
    if not study.best.is_file():
        raise CheckpointError(f"{study.path} has no winner yet: `foveate tune --resume {study.path}`")
    with contextlib.suppress(OutputError), locked(study.path, f"{study.path} is being run"):
        pass  # a study under way may find another winner; one that cannot be written is not under way
    if others := options.keys() - {"runs", "name", "display", "device", "threads", "seed"}:
        raise ConfigError(
            f"{min(others)}: the winner is trained with the settings that won; for others give "
            f"`foveate train --config {study.best}`"
        )
    _check_winner(study)
    config = study.config
    return train(
        config.data, config=study.best, data_dir=config.data_dir, final=True, known=study.known_data, **options
    )


def _check_winner(study: Study) -> None:
    """Refuse a winner that was changed by hand: the test split would be opened for what never won."""
    try:
        _, line, text = read_regular(study.best, _BEST_BYTES).decode().split("\n", 2)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {study.best}: run `foveate tune --resume {study.path}`") from error
    # Earlier versions wrote no checksum.
    if line.startswith(_CHECKSUM) and line != _CHECKSUM + hashlib.sha256(text.encode()).hexdigest():
        raise CheckpointError(
            f"{study.best} was changed since the study ended: `foveate tune --resume {study.path}` writes it "
            f"again; to train what it says now, give `foveate train --config {study.best}`"
        )


def _search(study: Study, config: StudyConfig, whole: Dataset, pool: Pool, display: StudyDisplay) -> Study:
    """Take the study to its end, and write what it found, be it why too many trials failed."""
    dataset = study_dataset(whole, config.subset, config.base.data.split_seed)
    resuming = f"foveate tune --resume {shlex.quote(str(study.path))}"
    doing = f"{study.path} is being run"
    at_once = isinstance(pool, SerialPool)  # which hears of nothing until its job has ended
    with locked(study.path, doing), interruptible(resuming, at_once=at_once) as interrupted:
        usable = usable_in(config.space, config.base, dataset)
        sampler = _SAMPLERS[config.sampler](config.space, config.seed, usable)
        journal = Journal.open(study.path / "journal.jsonl", study.digest, study.former_digest)
        search = Search(config, study.path, journal, sampler)
        if journal.damaged:
            display.say(journal.damaged)
        try:
            with display.following(search, pool.workers):
                for update in search.run(pool):
                    if update is not None:
                        display.update(search, update)
                    if interrupted.is_set():
                        raise KeyboardInterrupt
        except StudyError:
            _write_results(study, search, pool.workers)
            raise
        _write_results(study, search, pool.workers)
        if (best := search.best) is None:
            raise StudyError(f"no trial came to an end; what each failed of is in {study.results}")
        share = sum(map(len, dataset.splits.values())) / sum(
            len(whole.splits[name]) for name in ("train", "validation")
        )
        name = printable(study.path.name)
        told = f"# trial {best.number} of {name}: {best.score:.4f} on the images that rank trials\n"
        settings = _winning(config, best, share).model_dump(mode="json")
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        write_atomically(study.best, f"{told}{_CHECKSUM}{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
    return study


def _write_results(study: Study, search: Search, workers: int) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    knobs = list(search.config.space.knobs)
    writer.writerow(["trial", "state", "score", "epochs", "bracket", "rung", *knobs, "reason"])
    for number, trial in sorted(search.trials.items()):
        values = [trial.settings.get(knob) for knob in knobs]
        row = [number, trial.state, trial.score, trial.epochs, trial.bracket, trial.rung]
        writer.writerow([*row, *values, trial.reason])
    write_atomically(study.results, text.getvalue())
    write_page(_page(study, search, workers), study.path / "study.html")


def _page(study: Study, search: Search, workers: int) -> Page:
    """What the report shows."""
    config, trials = search.config, [trial for _, trial in sorted(search.trials.items())]
    seconds = max((job["ended"] for trial in trials for job in trial.jobs), default=0.0)
    busy = sum(job["ended"] - job["began"] for trial in trials for job in trial.jobs)
    slots = max((job["slot"] + 1 for trial in trials for job in trial.jobs), default=workers)
    plan = brackets_of(config) if config.algorithm == "hyperband" else brackets_of(config)[:1]
    return study_page(
        title=study.path.name,
        subtitle=f"{Path(config.data).name}, space {config.space_name}, {config.algorithm}, seed {config.seed}",
        trials=trials,
        brackets=[[(rung.trials, rung.epochs) for rung in bracket] for bracket in plan],
        hyperparameters={name: _axis(knob) for name, knob in config.space.knobs.items()},
        importance=knob_importance(config.space, trials),
        best=search.best,
        seconds=seconds,
        worked=busy / (seconds * slots) if seconds else 0.0,
        epochs=search.epochs_done,
        settings=config.model_dump(mode="json", exclude={"space"}),
        environment=read_environment(study.path),
        train=f"foveate train --from {shlex.quote(str(study.path))}",
    )


def _axis(knob: Knob) -> Axis:
    """A knob as a plot takes it."""
    return Choices(knob.values) if knob.type == "choice" else Range(knob.low, knob.high, log=knob.log)


def _winning(config: StudyConfig, best: Trial, share: float) -> Config:
    """The winner's settings for a run of its own: with all threads, on whatever device is there.

    Args:
        share: of the images that the study had; an epoch of all has so many fewer passes.
    """
    settled = config.space.apply(config.base, best.settings)
    passes = max(1, round((settled.train.passes or 1) * share))
    return settled.replacing(passes=passes, threads=None, device="auto", patience=None)
