"""A training that starts from another network of Foveate, from the command line and from Python."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from tests.integration.conftest import Outcome

import foveate as package
from foveate.checkpoint import load_model, weights_origin
from foveate.tensors import load_tensors, save_tensors
from foveate.training.state import EpochResult
from foveate.workflows.request import NullDisplay

pytestmark = pytest.mark.slow

Foveate = Callable[..., Outcome]
STAGES = [{"filters": 8, "kernels": [3, 3]}, {"filters": 12, "kernels": [3, 3]}]
SHORT = {"stages": STAGES, "attention_stage": 2, "whiten": 0, "batch": 50, "lr": 0.05, "images_seen": 2300}


class Told(NullDisplay):
    """Keeps what is said, and presses Ctrl-C after an epoch if asked to."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.lines: list[str] = []
        self.stop_after = stop_after

    def say(self, line: str) -> None:
        self.lines.append(line)

    def epoch(self, result: EpochResult, *, epochs: int, best: bool) -> None:
        if result.epoch == self.stop_after:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run `first`."""
    runs = tmp_path_factory.mktemp("before") / "runs"
    package.train("digits", preset="minute", runs=runs, name="first", **{**SHORT, "images_seen": 7000})
    return runs


def test_its_first_epoch_is_better_than_that_of_a_network_drawn_at_random(before: Path, tmp_path: Path) -> None:
    told = Told()
    started = package.train("digits", start="first", runs=before, name="second", seed=1, display=told, **SHORT)
    scratch = package.train("digits", preset="minute", runs=tmp_path, seed=1, **SHORT)
    first, other = (each.folder.read_history()[0].val_accuracy for each in (started, scratch))
    assert first is not None
    assert other is not None
    assert first > other + 0.1
    tensors = len(started.checkpoint().model.state_dict())
    fit = f"another network of Foveate ({tensors} of {tensors} tensors fit)"
    words = f"{fit}; licence not known: the file does not say"
    assert f"training starts from {words}; from the run first" in told.lines
    origin = weights_origin(started.folder.best)
    assert origin is not None
    assert origin.words == f"{words}; from the run first"
    assert "from the run first" in started.report.read_text()
    recorded = yaml.safe_load((started.path / "args.yaml").read_text())["train"]["start"]
    assert recorded == str((before / "train/first/weights/best.safetensors").resolve())
    # A run that starts from it again has the whole chain.
    third = package.train("digits", start=str(started.path), runs=tmp_path, name="third", **SHORT)
    assert "which started from another network of Foveate" in third.checkpoint().weights.words  # type: ignore[union-attr]


def test_it_is_resumed_to_the_same_bits_without_the_network_that_it_started_from(
    before: Path, tmp_path: Path
) -> None:
    shutil.copytree(before / "train" / "first", tmp_path / "gone")
    options = {**SHORT, "images_seen": 3500, "seed": 2, "start": str(tmp_path / "gone"), "passes_per_epoch": 1}
    whole = package.train("digits", runs=tmp_path, name="whole", **options)
    with pytest.raises(KeyboardInterrupt):
        package.train("digits", runs=tmp_path, name="stopped", display=Told(stop_after=1), **options)
    shutil.rmtree(tmp_path / "gone")
    resumed = package.resume(tmp_path / "train" / "stopped")
    one, other = (load_model(each.folder.best) for each in (whole, resumed))
    assert one.weights == other.weights is not None
    theirs = other.model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in one.model.state_dict().items())
    assert whole.metrics == resumed.metrics


def test_folds_start_from_it_too_and_it_is_told_that_it_saw_their_images(before: Path, tmp_path: Path) -> None:
    told = Told()
    options = {**SHORT, "images_seen": 100, "folds": 2, "workers": 0, "runs": tmp_path}
    started = package.train("digits", start=str(before / "train/first"), display=told, name="a", **options)
    scratch = package.train("digits", preset="minute", name="b", **options)
    assert started.metrics["out-of-fold"]["accuracy"] > scratch.metrics["out-of-fold"]["accuracy"] + 0.1
    assert any("of the images of this data set that are measured here" in line for line in told.lines)


def test_a_start_that_is_not_trained_to_its_end_is_told(foveate: Foveate, before: Path, tmp_path: Path) -> None:
    shutil.copytree(before / "train/first", tmp_path / "first")
    folder = package.open_run(tmp_path / "first").folder
    folder.write_record(folder.read_record().model_copy(update={"finished": False}))
    config = ("--config", tmp_path / "first" / "args.yaml", "--set", "images_seen=100")
    done = foveate("train", "digits", "--start", "first", *config, "--name", "a")
    assert done.status == 0, done.err
    assert f"training of {tmp_path}/first is not finished; to continue: foveate train --resume " in done.out
    tensors, meta = load_tensors(folder.best)
    save_tensors(tmp_path / "new.safetensors", tensors, {**meta, "training": {"epoch": 1, "step": 0}})
    refused = foveate("train", "digits", "--start", "new.safetensors", *config, "--name", "b")
    assert refused.status == 2
    assert "new.safetensors is from before the first step of training" in refused.err


def test_what_cannot_be_started_from_is_one_line(foveate: Foveate, before: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "empty").mkdir()
    first = str(before / "train/first")
    for flags, message in {
        ("--start", "nobody"): "--start nobody: there is no such file or folder, and no run runs/train/nobody",
        ("--start", "notes.txt"): "notes.txt",
        ("--start", "empty"): "empty is not a run",
        ("--start", first, "--weights", "imagenet"): "give --weights or --start, not both",
        ("--start", first, "--preset", "paper", "--size", "32"): "fits the new network: give it the settings of",
    }.items():
        done = foveate("train", "digits", "--set", "images_seen=100", *flags)
        assert done.status == 2, done
        assert message in done.err
        assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()
