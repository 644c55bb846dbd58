"""Damaged studies and comparisons: each ends well or in one line, and writes nothing outside of its folder.

Nothing is trained: simulated pools stand in for the workers. The damage is that of `benchmarks/mutations.py`.
"""

import contextlib
import hashlib
import itertools
import json
import os
import random
import shutil
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from benchmarks.mutations import mutated
from matplotlib.figure import Figure
from tests.comparison.test_experiment import SimulatedPool as SimulatedArms
from tests.studies import SPACE, SimulatedPool

from foveate.comparison.arms import parse_arm
from foveate.comparison.controls import NetworkCost
from foveate.comparison.settings import ComparisonConfig
from foveate.comparison.training import run_arm
from foveate.config import read_yaml, resolve_config
from foveate.data.dataset import Dataset, KnownData, load_dataset
from foveate.errors import CheckpointError, ConfigError, FoveateError
from foveate.files import locked
from foveate.settings import DataConfig
from foveate.training.device import with_place
from foveate.training.environment import environment
from foveate.training.settings import resolve_settings
from foveate.tuning.settings import StudyConfig
from foveate.tuning.space import Space
from foveate.tuning.storage import mark_place, own_place, working_folder
from foveate.tuning.trial import run_trial, study_dataset
from foveate.workflows import campaign
from foveate.workflows import comparison as comparisons
from foveate.workflows import study as studies
from foveate.workflows.request import NullDisplay, settings_digest
from foveate.workflows.workers import Workers

pytestmark = pytest.mark.slow
CASES = 80
"""Of each verb."""


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", DataConfig(size=16))


@pytest.fixture(autouse=True)
def simulated(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would train, plot, or wait for the disk is left out; everything that reads is real."""

    def known(data: str, config: DataConfig, known: KnownData, **_: Any) -> Dataset:
        if known.fingerprint != digits.fingerprint or config.size != 16:
            raise CheckpointError(f"{data} is not the data set")
        return digits

    monkeypatch.setattr(campaign, "load_known", known)
    monkeypatch.setattr(campaign, "prepare_process", lambda _: None)
    monkeypatch.setattr(studies, "train", lambda data, *, config, **_: resolve_config(file=config))
    pools = {run_trial: SimulatedPool, run_arm: SimulatedArms}
    monkeypatch.setattr(Workers, "open_pool", lambda _self, work, *_: pools[work](1))
    study_plots = ("rung_curves", "parallel_coordinates", "worker_timeline", "importance_bars")
    for plot in [f"study_plots.{name}" for name in study_plots] + [
        f"comparison_plots.{name}" for name in ("differences", "accuracies", "over_data_size")
    ]:
        monkeypatch.setattr(f"foveate.report.{plot}", lambda *_: Figure())
    monkeypatch.setattr("foveate.report.html.to_svg", lambda _: "")
    monkeypatch.setattr("foveate.report.html.to_png", lambda _: b"")
    costs = NetworkCost(parameters=1, training_flops=1)
    monkeypatch.setattr("foveate.comparison.outcomes.network_cost", lambda *_, **__: costs)
    monkeypatch.setattr(os, "fsync", lambda _: None)


def write_settings(folder: Path, name: str, settings: Any) -> None:
    folder.mkdir(parents=True)
    (folder / name).write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
    (folder / "env.json").write_text(json.dumps(environment(torch.device("cpu"))))


def make_study(folder: Path, digits: Dataset, *, updates: int | None = None, **more: Any) -> Path:
    """A study as `tune` leaves it, at its end or after so many updates."""
    space = Space.model_validate(SPACE)
    base = space.base(epochs=3, size=16, device="cpu")
    part = study_dataset(digits, None, base.data.split_seed, halved=True)
    config = StudyConfig.model_validate(
        {
            "data": "digits",
            "data_dir": None,
            "fingerprint": digits.fingerprint,
            "space_name": "test",
            "space": space,
            "base": with_place(resolve_settings(base, part), torch.device("cpu")),
            "max_epochs": 3,
            **more,
        }
    )
    write_settings(folder, "study.yaml", config)
    if config.storage:
        mark_place(config.storage, studies.Study(folder).digest, folder)

    class Stopping(NullDisplay):
        def follow(self, events: Any, campaign: Any, workers: int) -> Any:
            yield from itertools.islice(filter(None, events), updates and updates - 1)
            if updates:
                raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        studies.resume_study(folder, display=Stopping())
    return folder


def make_comparison(folder: Path, digits: Dataset, *, final: bool) -> Path:
    arms = [parse_arm(text, {"size": 16, "device": "cpu"}) for text in ("minute,attention=none", "minute")]
    settled = [
        arm.model_copy(update={"config": with_place(resolve_settings(arm.config, digits), torch.device("cpu"))})
        for arm in arms
    ]
    values = {"data": "digits", "data_dir": None, "fingerprint": digits.fingerprint, "num_classes": 10, "seeds": 2}
    write_settings(folder, "comparison.yaml", ComparisonConfig.model_validate({**values, "arms": settled}))
    (folder / "digest.json").write_text(json.dumps({"sha256": digest(folder / "comparison.yaml")}))
    comparisons.resume_comparison(folder, final=final)
    if not final:
        shutil.rmtree(folder / "runs" / "arm-01" / "all-1")
        failure = {"kind": "TrainingError", "reason": "the loss became nan"}
        (folder / "runs" / "arm-01" / "all-0" / "validation.json").unlink()
        (folder / "runs" / "arm-01" / "all-0" / "failed.json").write_text(json.dumps(failure))
    return folder


def digest(settings: Path) -> str:
    return settings_digest({name: value for name, value in read_yaml(settings).items() if name != "storage"})


def signed(folder: Path) -> None:
    """As somebody does it who damages settings on purpose: their digest fits again."""
    if (folder / "study.yaml").exists():
        text = json.dumps({"event": "study", "version": 2, "sha256": digest(folder / "study.yaml")}).encode()
        journal = folder / "journal.jsonl"
        rest = journal.read_bytes().partition(b"\n")[2]
        journal.write_bytes(b"%08x %s\n" % (zlib.crc32(text), text) + rest)
    else:
        (folder / "digest.json").write_text(json.dumps({"sha256": digest(folder / "comparison.yaml")}))


def everything(root: Path, but: Path) -> dict[str, Any]:
    """Every file and folder, but those in one: its content and when it was written."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(root.rglob("*"))
        if path != but and but not in path.parents
    }


def attack(root: Path, whole: Path, seed: int, use: Callable[[Path], None]) -> str | None:
    """Damage one file of a copy and use it; the one line in which that ended, if it did not end well."""
    draw = random.Random(seed)
    copy = root / "victim" / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(whole, copy)
    files = [path for path in sorted(copy.rglob("*")) if path.suffix in (".json", ".jsonl", ".yaml")]
    settings = next(path for path in files if path.name in ("study.yaml", "comparison.yaml"))
    file = draw.choice([*files, settings])
    kind, content = mutated(file.name, file.read_bytes(), draw)
    file.write_bytes(content)
    if file == settings and draw.random() < 0.7:
        with contextlib.suppress(FoveateError, ValueError):
            signed(copy)
    before = everything(root, but=copy)
    told = None
    try:
        use(copy)
    except FoveateError as error:
        told = str(error)
        assert "\n" not in told, (file.name, kind, told)
        assert "\x1b" not in told, (file.name, kind, told)
        assert len(told) < 2_000, (file.name, kind, told)
    except Exception as error:
        raise AssertionError(f"seed {seed}: {file.relative_to(copy)}, {kind}: {error!r}") from error
    assert everything(root, but=copy) == before, (file.name, kind)
    return told


def attack_often(root: Path, whole: Path, use: Callable[[Path], None]) -> None:
    ends: list[str | None] = []
    faults = []
    for seed in range(CASES // 2):
        try:
            ends.append(attack(root, whole, seed, use))
        except AssertionError as fault:
            faults.append(str(fault).splitlines()[0])
    assert faults == []
    assert 0 < ends.count(None) < len(ends)


def canary(root: Path) -> Iterator[Path]:
    for name in ("dear.txt", "trials/0000/state.safetensors", "0001/best-0.safetensors", ".x.aaaaaaaaaaaa.tmp"):
        path = root / "outside" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("kept")
        yield path


def use_study(path: Path) -> None:
    for use in (lambda: studies.open_study(path).config, lambda: studies.train_best(path)):
        with contextlib.suppress(FoveateError):
            use()
    studies.resume_study(path)


def use_comparison(path: Path) -> None:
    with contextlib.suppress(FoveateError):
        assert comparisons.open_comparison(path).findings is not None
    comparisons.resume_comparison(path, final=True)


@pytest.mark.parametrize("updates", [None, 9])
def test_a_damaged_study_ends_well_or_in_one_line(tmp_path: Path, digits: Dataset, updates: int | None) -> None:
    list(canary(tmp_path))
    whole = make_study(tmp_path / "whole", digits, updates=updates)
    attack_often(tmp_path, whole, use_study)


@pytest.mark.parametrize("final", [True, False])
def test_a_damaged_comparison_ends_well_or_in_one_line(tmp_path: Path, digits: Dataset, final: bool) -> None:
    list(canary(tmp_path))
    whole = make_comparison(tmp_path / "whole", digits, final=final)
    attack_often(tmp_path, whole, use_comparison)


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_a_copied_study_deletes_nothing_of_the_storage_it_names(
    tmp_path: Path, digits: Dataset, scheme: str
) -> None:
    place = own_place(f"{scheme}{tmp_path}/store")
    whole = make_study(tmp_path / "whole", digits, updates=9, storage=place)
    assert studies.open_study(whole).config.storage == place
    for trial in range(5):
        with working_folder(f"{place}/{trial:04}") as folder:
            (folder.path / "state.safetensors").write_text("weights")
            folder.upload(folder.path / "state.safetensors")
    copy = shutil.copytree(whole, tmp_path / "copy")
    before = everything(tmp_path, but=copy)
    with pytest.raises(CheckpointError, match=rf"not of its copy in {copy}: resume that one, or copy the check"):
        studies.resume_study(copy)
    assert everything(tmp_path, but=copy) == before
    studies.resume_study(whole)
    left = [working_folder(f"{place}/{trial:04}") for trial in range(5)]
    with contextlib.ExitStack() as opened:
        kept = [list(opened.enter_context(each).path.iterdir()) for each in left]
    assert sum(bool(files) for files in kept) == 1  # the winner's
    # As the line says: without its storage the copy goes on by itself.
    text = (copy / "study.yaml").read_text()
    (copy / "study.yaml").write_text("".join(line for line in text.splitlines(True) if "storage:" not in line))
    studies.resume_study(copy)
    assert (copy / "tune_results.csv").read_text() == (whole / "tune_results.csv").read_text()


def test_a_storage_that_was_written_into_the_settings_is_refused(tmp_path: Path, digits: Dataset) -> None:
    list(canary(tmp_path))
    whole = make_study(tmp_path / "whole", digits, updates=9)
    values = yaml.safe_load((whole / "study.yaml").read_text())
    for storage in (f"{tmp_path}/outside", f"file://{tmp_path}/outside", "../outside", str(tmp_path / "new")):
        (whole / "study.yaml").write_text(yaml.safe_dump({**values, "storage": storage}, sort_keys=False))
        before = everything(tmp_path, but=whole)
        with pytest.raises(CheckpointError, match="nothing is written or deleted there"):
            studies.resume_study(whole)
        assert everything(tmp_path, but=whole) == before


def test_a_moved_study_goes_on(tmp_path: Path, digits: Dataset) -> None:
    straight = make_study(tmp_path / "straight", digits)
    moved = make_study(tmp_path / "whole", digits, updates=9).rename(tmp_path / "moved")
    studies.resume_study(moved)
    assert (moved / "tune_results.csv").read_text() == (straight / "tune_results.csv").read_text()


def test_the_journal_of_an_older_version_is_known_by_what_its_settings_had(
    tmp_path: Path, digits: Dataset
) -> None:
    """Which had one setting less, and a digest of all of them as pydantic writes them."""
    straight = make_study(tmp_path / "straight", digits)
    old = make_study(tmp_path / "old", digits, updates=9)
    values = yaml.safe_load((old / "study.yaml").read_text())
    config = studies.open_study(old).config
    del values["fail_share"]
    text = config.model_dump_json(exclude={"fail_share"})
    (old / "study.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    first = json.dumps({"event": "study", "sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()
    journal = old / "journal.jsonl"
    rest = journal.read_bytes().partition(b"\n")[2]
    journal.write_bytes(b"%08x %s\n" % (zlib.crc32(first), first) + rest)
    said: list[str] = []

    class Listening(NullDisplay):
        def say(self, line: str) -> None:
            said.append(line)

    studies.resume_study(old, display=Listening())
    assert said == []
    assert journal.read_bytes().startswith(b"%08x %s\n" % (zlib.crc32(first), first) + rest)
    assert (old / "tune_results.csv").read_text() == (straight / "tune_results.csv").read_text()
    (old / "study.yaml").write_text(yaml.safe_dump({**values, "seed": 1}, sort_keys=False))
    with pytest.raises(CheckpointError, match=r"does not fit its study\.yaml"):
        studies.resume_study(old)


def test_a_setting_that_a_later_version_adds_changes_no_digest(tmp_path: Path, digits: Dataset) -> None:
    study = make_study(tmp_path / "study", digits)
    values = yaml.safe_load((study / "study.yaml").read_text())
    del values["hang_limit_s"], values["base"]["train"]["save_every_s"]  # as if this version had brought them
    (study / "study.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    signed(study)
    before = (study / "journal.jsonl").read_bytes()
    studies.resume_study(study)
    assert (study / "journal.jsonl").read_bytes() == before


def test_a_study_that_is_being_run_has_no_winner_to_train(tmp_path: Path, digits: Dataset) -> None:
    study = make_study(tmp_path / "study", digits)
    assert studies.train_best(study) is not None
    with locked(study, "x"), pytest.raises(ConfigError, match="is being run by another process"):
        studies.train_best(study)


def test_a_winner_so_far_is_trained_and_told_as_one(tmp_path: Path, digits: Dataset) -> None:
    said: list[str] = []

    class Listening(NullDisplay):
        def say(self, line: str) -> None:
            said.append(line)

    study = make_study(tmp_path / "a study", digits, updates=30)
    told = f"this is its best trial so far; to go on with the study: foveate tune --resume '{study}'"
    for _ in "stopped", "resumed and killed":
        said.clear()
        studies.train_best(study, runs=tmp_path / "runs", display=Listening())
        assert any(line.endswith(told) for line in said)
        with pytest.MonkeyPatch.context() as killed:
            killed.setattr(studies, "finish", lambda *_: sys.exit())  # nothing more is written
            with pytest.raises(SystemExit):
                studies.resume_study(study)
    studies.resume_study(study)
    said.clear()
    studies.train_best(study, runs=tmp_path / "runs", display=Listening())
    assert not any("so far" in line for line in said)


def test_two_that_open_the_test_split_at_once_record_it_once(tmp_path: Path, digits: Dataset) -> None:
    path = make_comparison(tmp_path / "comparison", digits, final=False)
    results: list[Any] = []

    def resume() -> None:
        try:
            results.append(comparisons.resume_comparison(path, final=True))
        except ConfigError as error:
            results.append(str(error))

    threads = [threading.Thread(target=resume) for _ in range(4)]
    with pytest.MonkeyPatch.context() as patch:  # signals are the main thread's
        patch.setattr(comparisons, "interruptible", lambda *_, **__: contextlib.nullcontext(threading.Event()))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert any(not isinstance(result, str) for result in results)
    assert all("is being run by another process" in result for result in results if isinstance(result, str))
    assert len(json.loads((path / "test_openings.json").read_text())) == 1


def test_a_damaged_ledger_of_openings_is_kept_and_named(tmp_path: Path, digits: Dataset) -> None:
    path = make_comparison(tmp_path / "comparison", digits, final=False)
    for text in ("[", "{}", '[{"time": "x"}]', "[5]"):
        (path / "test_openings.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"test_openings\.json is damaged \(.*\): restore it"):
            comparisons.resume_comparison(path, final=True)
        assert (path / "test_openings.json").read_text() == text
