"""The folder of a study: what lies in it, and how the trials as a table, the page and the winner are written."""

import csv
import hashlib
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from foveate.config import read_yaml
from foveate.data.dataset import KnownData
from foveate.errors import CheckpointError
from foveate.files import read_regular, write_atomically, write_csv
from foveate.metrics import wilson_ends
from foveate.parsing import yaml_text
from foveate.records import printable
from foveate.report.html import write_page
from foveate.report.sections import Page
from foveate.report.study_page import study_page
from foveate.tuning.hyperparameters import Value
from foveate.tuning.importance import importances
from foveate.tuning.optimism import optimism
from foveate.tuning.search import Search
from foveate.tuning.settings import StudyConfig
from foveate.tuning.trials import Trial
from foveate.workflows.campaign import known_data, read_environment, read_settings
from foveate.workflows.request import command_line, settings_digest

RESULTS, REPORT, WINNER = "tune_results.csv", "study.html", "best.yaml"
_CHECKSUM = "# sha256 of all below: "
"""The second line of `best.yaml`."""
_SO_FAR = "# the best so far: the study had not come to its end\n"
"""The third line of that of such a study."""
_BEST_BYTES = 1 << 20


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
        """The digest of its settings, by which a change of them is noticed.

        The storage is left out: it changes nothing in what is found, and a copy of a study needs another.
        """
        values = read_yaml(self.path / "study.yaml")
        return settings_digest({name: value for name, value in values.items() if name != "storage"})

    @property
    def former_digest(self) -> str:
        """The digest of its settings as older versions took it: of all that they had, as pydantic writes it."""
        return hashlib.sha256(to_json(read_yaml(self.path / "study.yaml"))).hexdigest()

    @property
    def known_data(self) -> KnownData:
        """The fingerprint and the splits by which it recognises its data set."""
        return known_data(self.config, self.path)

    @property
    def results(self) -> Path:
        """A row of every trial."""
        return self.path / RESULTS

    @property
    def report(self) -> Path:
        """The page that tells everything about it."""
        return self.path / REPORT

    @property
    def best(self) -> Path:
        """The settings of the best trial so far, as `train --config` reads them; written when the study stops."""
        return self.path / WINNER

    @property
    def has_test_split(self) -> bool:
        """Whether its data has a test split; of a study of an earlier version, which kept no splits, True."""
        splits = self.known_data.splits
        return splits is None or splits.has("test")

    def training(self, data: str | None = None) -> str:
        """The command line that trains its winner; with a test split, which it then opens, on all other images.

        Args:
            data: where its data set lies now; None: where it lay when the study began.
        """
        if self.has_test_split:
            return command_line("train", *filter(None, [data]), "--from", self.path)
        config = self.config
        return command_line("train", data or config.data, config=self.best, data_dir=config.data_dir)

    @property
    def lines(self) -> list[str]:
        """What became of its trials, and the winner with the command that trains it."""
        with self.results.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        states = Counter(row["state"] for row in rows)
        lines = [f"{len(rows)} trials: {', '.join(f'{count} {state}' for state, count in states.items())}"]
        if self.best.exists():
            lines.append(self.best.read_text(encoding="utf-8").splitlines()[0].removeprefix("# "))
            told = "train it on all images and open the test split" if self.has_test_split else "train it"
            lines.append(f"{told}: {self.training()}")
        return lines


def open_study(path: Path | str) -> Study:
    """A study that lies in a folder.

    Raises:
        CheckpointError: when it is not a study.
    """
    path = Path(path)
    if not (path / "study.yaml").is_file():
        raise CheckpointError(f"{path} is not a study (no study.yaml): give a folder made by `foveate tune`")
    return Study(path)


def check_winner(folder: Path) -> str | None:
    """Refuse a winner that was changed by hand: the test split would be opened for settings that never won.

    Returns:
        A line where it is only the best so far.

    Raises:
        CheckpointError: when it was changed, or cannot be read.
    """
    best, resuming = folder / WINNER, f"foveate tune --resume {shlex.quote(str(folder))}"
    try:
        _, line, text = read_regular(best, _BEST_BYTES).decode().split("\n", 2)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {best}: run `{resuming}`") from error
    # Earlier versions wrote no checksum.
    if line.startswith(_CHECKSUM) and line != _CHECKSUM + hashlib.sha256(text.encode()).hexdigest():
        raise CheckpointError(
            f"{best} was changed since the study ended: `{resuming}` writes it "
            f"again; to train what it says now, give `foveate train --config {shlex.quote(str(best))}`"
        )
    if not text.startswith(_SO_FAR):
        return None
    return f"{folder} has not come to its end: this is its best trial so far; to go on with the study: {resuming}"


def write_results(search: Search, workers: int, ranking: int) -> None:
    """Write a row for every trial, and the page.

    Args:
        ranking: images that rank trials.

    Raises:
        OutputError: when a file cannot be written.
    """
    names = list(search.config.space.hyperparameters)
    rows: list[list[Any]] = [["trial", "state", "score", "epochs", "bracket", "rung", *names, "reason"]]
    for number, trial in sorted(search.trials.items()):
        values = [_cell(trial.settings[name]) if name in trial.settings else None for name in names]
        row = [number, trial.state, trial.score, trial.epochs, trial.bracket, trial.rung]
        rows.append([*row, *values, trial.reason])
    write_csv(search.folder / RESULTS, rows)
    write_page(_page(search, workers, ranking), search.folder / REPORT)


def _cell(value: Value) -> Value:
    """A value in the table, where an empty cell says that the trial does not have the hyperparameter."""
    return "null" if value is None else value


def _too_high(search: Search, best: Trial, ranking: int) -> str:
    """How much too good the winner's score is on average, in words; empty where that is not known."""
    scored = [each for _, each in sorted(search.trials.items()) if each.score is not None]
    rivals = [each for each in scored if each.reached == best.reached and each.state != "failed"]
    right = [each.right for each in rivals if each.right is not None]
    found = optimism(right, ranking) if len(right) == len(rivals) else None
    if found is None:
        return ""
    return f"{100 * max(0.0, found):.2f} points too high on average, as the best of {len(rivals)} on these images"


def _page(search: Search, workers: int, ranking: int) -> Page:
    config, study = search.config, Study(search.folder)
    trials = [trial for _, trial in sorted(search.trials.items())]
    seconds = max((job["ended"] for trial in trials for job in trial.jobs), default=0.0)
    busy = sum(job["ended"] - job["began"] for trial in trials for job in trial.jobs)
    slots = max((job["slot"] + 1 for trial in trials for job in trial.jobs), default=workers)
    plan = config.plan[: 1 + max((trial.bracket for trial in trials), default=0)]
    return study_page(
        title=search.folder.name,
        subtitle=f"{Path(config.data).name}, space {config.space_name}, {config.algorithm}, seed {config.seed}",
        trials=trials,
        brackets=[[(rung.trials, rung.epochs) for rung in bracket] for bracket in plan],
        about=config.algorithm == "asha",
        hyperparameters=config.space.hyperparameters,
        importance=importances(config.space, trials),
        ranking=ranking,
        best=search.best,
        too_high=_too_high(search, search.best, ranking) if search.best else "",
        metric=search.config.score.replace("_", " "),
        halved=config.halves_validation,
        first_size=config.first_size,
        seconds=seconds,
        worked=busy / (seconds * slots) if seconds else 0.0,
        epochs=search.epochs_done,
        settings=config.model_dump(mode="json", exclude={"space"}),
        environment=read_environment(search.folder),
        train=study.training(config.data if config.data != study.config.data else None),
        tested=study.has_test_split,
    )


def _score_told(best: Trial, ranking: int, score: str) -> str:
    """The score of a trial; with its interval where it is a share of the `ranking` images, as accuracy is."""
    assert best.score is not None
    if score != "accuracy":
        return f"{best.score:.1%} ({score.replace('_', ' ')} of {ranking:,} images)"
    low, high = wilson_ends(round(best.score * ranking), ranking)
    return f"{best.score:.1%} ({low:.1%} to {high:.1%} of {ranking:,} images)"


def write_winner(search: Search, ranking: int, *, share: float, ended: bool) -> None:
    """Write the settings of the best trial so far, if there is one, for a run with all threads on whatever device.

    Args:
        ranking: images that rank trials.
        share: of the images that the study had; an epoch of all of them has correspondingly fewer passes.
        ended: whether the study has come to its end.

    Raises:
        OutputError: when the file cannot be written.
    """
    if (best := search.best) is None:
        return
    settings = search.config.space.apply(search.config.base, best.settings)
    passes = max(1, round((settings.train.passes_per_epoch or 1) * share))
    settings = settings.replacing(passes_per_epoch=passes, threads=None, device="auto", patience=None)
    text = ("" if ended else _SO_FAR) + yaml_text(settings.model_dump(mode="json"))
    name, checksum = printable(search.folder.name), hashlib.sha256(text.encode()).hexdigest()
    images = "the images that rank trials" if search.config.halves_validation else "the validation images"
    if not best.reached:
        images += f" at {search.config.first_size} px"
    too_high = _too_high(search, best, ranking)
    score = _score_told(best, ranking, search.config.score)
    title = f"# trial {best.number} of {name}: {score} on {images}{too_high and f', {too_high}'}\n"
    write_atomically(search.folder / WINNER, f"{title}{_CHECKSUM}{checksum}\n{text}")
