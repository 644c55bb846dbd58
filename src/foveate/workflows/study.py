"""Studies, as the command line and the Python API call them: tune, resume, train the winner."""

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from foveate.config import Config, check_keywords
from foveate.data.dataset import Dataset, load_known
from foveate.errors import CheckpointError, ConfigError, DataError, OutputError, StudyError
from foveate.execution.pool import Pool
from foveate.files import locked
from foveate.inference.network import pick_device
from foveate.training.device import with_place
from foveate.training.fit import DRAWS
from foveate.training.saving import interruptible
from foveate.training.settings import precision_told, resolve_settings
from foveate.tuning.journal import Journal
from foveate.tuning.samplers import SAMPLERS, check_sampler
from foveate.tuning.search import Search
from foveate.tuning.settings import StudyConfig, usual_plan
from foveate.tuning.space import Space, random_draws, read_space
from foveate.tuning.storage import local_place, mark_place, own_place
from foveate.tuning.trial import run_trial, study_dataset, usable_in
from foveate.validation import check_values, validated
from foveate.workflows.campaign import (
    create_folder,
    finish,
    load_data,
    load_data_again,
    resuming,
    sees_no_steps,
)
from foveate.workflows.output import check_output_name, refuse_within
from foveate.workflows.request import Display, NullDisplay, command_line, tell
from foveate.workflows.run import Run
from foveate.workflows.start import start_told, with_start
from foveate.workflows.study_files import Study, check_winner, open_study, write_results, write_winner
from foveate.workflows.train import train
from foveate.workflows.workers import Workers


def tune(
    data: str | Path,
    *,
    space: str = "default",
    search: Sequence[str] = (),
    max_epochs: int = 9,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float | None = None,
    subset: int | None = None,
    data_dir: Path | str | None = None,
    runs: Path | str = "runs",
    name: str | None = None,
    storage: str | None = None,
    settings: Mapping[str, Any] = {},
    display: Display | None = None,
    **more: Any,
) -> Study:
    """Search a space of settings with many short trials and few long ones; the test split is never opened.

    Args:
        data: as `train` takes it.
        space: `paper`, `default`, or the path of a YAML file.
        search: names of the hyperparameters to search; none: all that the space has.
        max_epochs: of the longest trials: R of Hyperband.
        workers: processes, one trial at a time each; with the same `threads` they change nothing in what is found.
            None: one, or one for each GPU, or under Ray as many as the cluster has room for. 0: this very process.
        ray: run them by Ray: `local`, or HOST:PORT of a cluster's head, whose nodes see the same files.
        gpus: how many of Ray's a trial takes, where its device is one; a fraction shares it. None: one.
        subset: images of training and validation together; None: all.
        storage: folder or URL for the checkpoints; None: the study's folder.
        settings: of every trial, by name, over the space's; `start` may be the name of a run in `runs`. `threads`
            are those of a trial, and the study's, as sums change with them: the processor's, shared out among the
            workers, where they are not given.
        more: of `StudyConfig`, such as `algorithm`, `factor`, `first_size`, `semantics`, `time_s`; what is
            left open of the plan is as `tuning.settings.usual_plan` says.

    Raises:
        CheckpointError, ConfigError, DataError, OutputError: for a request that cannot be met; nothing is written
            then.
        StudyError: when too many trials failed.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; the study can be resumed.
    """
    display = display or NullDisplay()
    crew = Workers(workers, ray, gpus)
    refuse_within(runs, data)
    if storage is not None and (place := local_place(storage)) is not None:
        refuse_within(place, data, fix="keep the checkpoints elsewhere with --storage FOLDER")
    for setting in (*settings, *more):
        if setting.rpartition(".")[2] in ("epochs", "images_seen"):
            raise ConfigError(f"{setting}: a study's trials train for max_epochs at most (--max-epochs)")
    check_keywords((*StudyConfig.model_fields, "knobs"), more)
    check_values(StudyConfig, {"max_epochs": max_epochs})
    chosen = read_space(space)
    if search := (*search, *more.pop("knobs", ())):  # `knobs` is the older name
        chosen = chosen.restricted(search)
    asked_of_all = chosen.base(**settings).train  # a space may have threads and a device of its own
    given = dict(settings)
    if asked_of_all.threads is None:
        given["threads"] = crew.threads_for({"device": asked_of_all.device})
    whole_length = chosen.base(**given).train.images_seen
    base = with_start(chosen.base(**given, epochs=max_epochs), Path(runs))
    crew.check_attention(_attentions(chosen, base))
    values: dict[str, Any] = {
        **usual_plan(chosen, base, max_epochs, more),
        "data": str(data),
        "data_dir": None,
        "fingerprint": "",
        "subset": subset,
        "space_name": space,
        "space": chosen,
        "base": base,
        "max_epochs": max_epochs,
        "draws": DRAWS,
    }
    # What can be refused without the data is refused before it is decoded, which may take minutes.
    asked = validated(StudyConfig, values)
    check_sampler(asked.sampler)
    crew.check_device(pick_device(base.train.device))
    check_output_name(Path(runs), "tune", name)
    whole, device, location = load_data(data, base, data_dir, display)
    dataset = study_dataset(whole, subset, base.data.split_seed, halved=asked.halves_validation)
    if whole_length is not None and base.train.passes_per_epoch is None:
        # With few images an epoch is several passes, so that the last rung is as long as the space's preset.
        base = base.replacing(
            passes_per_epoch=max(1, round(whole_length / (max_epochs * len(dataset.splits["train"]))))
        )
    resolved = resolve_settings(base, dataset)
    started = start_told(resolved, whole, ("validation", "test"), display.track)
    tell(display, *precision_told([base], [resolved], device), *started)
    base = with_place(resolved, device)
    config = validated(StudyConfig, {**values, **location, "base": base})
    usable = usable_in(chosen, config.base, dataset, config.first_size)
    if next(random_draws(chosen, config.seed, usable), None) is None:
        smaller = "" if config.first_size is None else f" and first_size={config.first_size}"
        raise ConfigError(f"space {space}: no network of it can be built at size={config.base.data.size}{smaller}")
    with contextlib.closing(crew.open_pool(run_trial, config.base, device)) as pool:
        if storage is not None:
            config = config.model_copy(update={"storage": own_place(storage)})
        fallback = f"{whole.name}-{Path(space).stem}"
        folder = create_folder(
            "tune", "study.yaml", config, whole, device, runs=runs, name=name, fallback=fallback
        )
        study = Study(folder)
        if config.storage is not None:
            mark_place(config.storage, study.digest, study.path)
        return _search(study, study.config, whole, pool, crew, display)


def resume_study(
    path: Path | str,
    data: str | Path | None = None,
    *,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float | None = None,
    data_dir: Path | str | None = None,
    display: Display | None = None,
) -> Study:
    """Resume a study that was killed or stopped; it ends with the table that it would have had.

    Args:
        data: where its data set lies now, if it was moved; it must be the same. `data_dir` says it of `cifar10`.

    Raises:
        CheckpointError: when it is not a study, is damaged, or its data set has changed.
        DataError: when its data set is not there.
        StudyError, KeyboardInterrupt: as in `tune`.
    """
    display = display or NullDisplay()
    crew = Workers(workers, ray, gpus)
    study = open_study(path)
    config = study.config
    crew.check_attention(_attentions(config.space, config.base))
    check_sampler(config.sampler)
    config, whole, device = load_data_again(
        "tune", config, config.base, study.path, display, data=data, data_dir=data_dir
    )
    with contextlib.closing(crew.open_pool(run_trial, config.base, device)) as pool:
        return _search(study, config, whole, pool, crew, display)


def train_best(
    path: Path | str, data: str | Path | None = None, *, data_dir: Path | str | None = None, **options: Any
) -> Run:
    """Train a study's winner on train + validation for its whole length, then open the test split once.

    Of a study that has not come to its end it is the best trial so far, and a line says so.

    Args:
        data: where its data set lies now, if it was moved; it must be the same. `data_dir` says it of `cifar10`.
        options: of `train`: `runs`, `name`, `display`, `device`, `threads`, `seed`.

    Raises:
        CheckpointError: when the study has no winner yet, or its `best.yaml` was changed, and as `train`.
        DataError: when its data has no test split, and as `train`.
        ConfigError: for other options.
    """
    study = open_study(path)
    if not study.best.is_file():
        raise CheckpointError(
            f"{study.path} has no winner yet: `foveate tune --resume {shlex.quote(str(study.path))}`"
        )
    with contextlib.suppress(OutputError), locked(study.path, f"{study.path} is being run"):
        pass  # a study under way may find another winner; one that cannot be written is not under way
    if others := options.keys() - {"runs", "name", "display", "device", "threads", "seed"}:
        raise ConfigError(
            f"{min(others)}: the winner is trained with the settings that won; for others give "
            f"`foveate train --config {study.best}`"
        )
    if not study.has_test_split:
        raise DataError(
            f"the data of {study.path} has no test images, which --from opens in the end: train the winner by "
            f"`{study.training(None if data is None else str(data))}`"
        )
    so_far = check_winner(study.path)
    display: Display = options.get("display") or NullDisplay()
    tell(display, so_far)
    config = study.config
    told = {name: value for name, value in options.items() if name not in ("runs", "display")}
    known = study.known_data
    if data is None:
        moved = command_line("train", "NEW/PLACE", "--from", study.path)
        known = replace(known, gone=f"give its new place, as in `{moved}`")
    return train(
        data or config.data,
        config=study.best,
        data_dir=data_dir or config.data_dir,
        final=True,
        known=known,
        command=command_line("train", *filter(None, [data]), "--from", study.path, data_dir=data_dir, **told),
        **options,
    )


def _attentions(space: Space, base: Config) -> list[str]:
    """The names of the attentions that a study's trials may have."""
    return [base.model.attention, *map(str, space.choices("model.attention"))]


def _search(
    study: Study, config: StudyConfig, whole: Dataset, pool: Pool, crew: Workers, display: Display
) -> Study:
    """Take the study to its end, and write what it found, be it why too many trials failed.

    Args:
        config: of the study, with the place where its data lies now.
    """
    seed = config.base.data.split_seed
    dataset = study_dataset(whole, config.subset, seed, halved=config.halves_validation, draws=config.draws)
    images = sum(len(whole.splits[name]) for name in ("train", "validation"))
    share = sum(map(len, dataset.splits.values())) / images
    ranking = len(dataset.splits["rank" if config.halves_validation else "validation"])
    command = resuming("tune", study.path, study.config, config, crew)
    with (
        locked(study.path, f"{study.path} is being run"),
        interruptible(command, at_once=sees_no_steps(pool)) as interrupted,
    ):
        usable = usable_in(config.space, config.base, dataset, config.first_size)
        if config.first_size is not None:  # decoded here and once, not by every worker at the same time
            smaller = config.base.data.model_copy(update={"size": config.first_size})
            load_known(config.data, smaller, study.known_data, data_dir=config.data_dir, track=display.track)
        sampler = SAMPLERS[config.sampler](config.space, config.seed, usable)
        journal = Journal.open(study.path / "journal.jsonl", study.digest, study.former_digest)
        search = Search(config, study.path, journal, sampler)
        if journal.damaged:
            display.say(journal.damaged)
        if study.best.exists():  # until the end it is a winner so far, whatever ends this process
            write_winner(search, ranking, share=share, ended=False)
        try:
            finish(search, pool, interrupted, display)
        except (StudyError, KeyboardInterrupt):  # the table says why; and the best so far can be used
            write_results(search, pool.workers, ranking)
            write_winner(search, ranking, share=share, ended=False)
            raise
        write_results(search, pool.workers, ranking)
        write_winner(search, ranking, share=share, ended=True)
        if search.best is None:
            raise StudyError(f"no trial came to an end; why each failed is in {study.results}")
    return study
