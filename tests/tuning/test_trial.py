"""Trials: in pieces they give what they give at one go, and they are scored on images that stop nothing."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foveate import progress
from foveate.config import Config, resolve_config
from foveate.data.dataset import Dataset, load_dataset
from foveate.errors import CheckpointError, DataError, TrainingError
from foveate.model import attention_kinds
from foveate.training import fit
from foveate.training import job as training_job
from foveate.training import settings as training_settings
from foveate.training.state import save_state
from foveate.tuning import trial
from foveate.tuning.space import Space
from foveate.tuning.trial import TrialJob, run_trial, study_dataset, train_trial, usable_in

TINY = {
    "stages": [{"filters": 6, "kernels": [3, 3]}, {"filters": 8, "kernels": [3, 3], "dropout": 0.25}],
    "epochs": 10,
    "passes_per_epoch": 1,
    "batch": 50,
    "size": 16,
    "flip": 0.0,
    "threads": 1,
    "device": "cpu",
    "resize_until": 0.4,
}


def tiny(**settings: Any) -> Config:
    return resolve_config("minute", settings={**TINY, **settings})


@pytest.fixture
def digits() -> Dataset:
    return study_dataset(load_dataset("digits", tiny().data), 300, 0, halved=True)


@pytest.fixture
def unhalved() -> Dataset:
    return study_dataset(load_dataset("digits", tiny().data), 300, 0, halved=False)


@pytest.fixture
def job(tmp_path: Path, digits: Dataset) -> Callable[..., TrialJob]:
    def make(**fields: Any) -> TrialJob:
        made = TrialJob(
            config=tiny(),
            dataset="digits",
            data_dir=None,
            fingerprint=digits.fingerprint,
            subset=300,
            folder=str(tmp_path / "trial"),
            from_epoch=0,
            to_epoch=10,
            semantics="continue",
            halves_validation=True,
        )
        return made.model_copy(update=fields)

    return make


def quiet(_: Any) -> None:
    pass


def finish(job: TrialJob, dataset: Dataset, heard: Callable[[Any], None] = quiet) -> dict[str, Any]:
    """What comes of a trial, whose rows are handed to `heard` as they are yielded."""
    rows = train_trial(job, dataset)
    while True:
        try:
            heard(next(rows))
        except StopIteration as ended:
            return ended.value


def best_alone(path: Path, *what: Any) -> None:
    """As `save_state`, but killed before it writes the state."""
    if not path.name.startswith("best"):
        raise InterruptedError
    save_state(path, *what)


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in ("seconds", "images_per_s")} for row in rows]


def test_settings_are_usable_where_their_network_fits_the_smaller_images_too() -> None:
    dataset = study_dataset(load_dataset("digits", tiny(size=32).data), 300, 0, halved=False)
    pools = {"type": "choice", "values": [1, 3], "sets": "model.stages.*.pool"}
    space = Space.model_validate({"preset": "minute", "hyperparameters": {"pool": pools}})
    stages = [{"filters": 4, "kernels": [3, 3], "pool": 3}] * 3
    base = space.base(epochs=9, size=32, passes_per_epoch=1, resize_until=0.0, stages=stages)
    usable = {first: usable_in(space, base, dataset, first) for first in (None, 16)}
    assert [usable[first]({"pool": 3}) for first in (None, 16)] == [True, False]
    assert [usable[first]({"pool": 1}) for first in (None, 16)] == [True, True]


class TestStudyDataset:
    def test_validation_is_halved_by_class(self) -> None:
        whole = load_dataset("digits", tiny().data)
        parts = study_dataset(whole, None, 0, halved=True).splits
        assert set(parts) == {"train", "validation", "rank"}
        both = np.concatenate([parts["validation"], parts["rank"]])
        assert sorted(both) == sorted(whole.splits["validation"])
        counts = [np.bincount(whole.labels[parts[name]], minlength=10) for name in ("validation", "rank")]
        assert np.abs(counts[0] - counts[1]).max() <= 1

    def test_validation_is_halved_by_group(self) -> None:
        whole = load_dataset("digits", tiny().data)
        groups = tuple(f"writer {index // 6}" for index in range(len(whole.labels)))
        grouped = replace(whole, groups=groups)
        parts = study_dataset(grouped, None, 0, halved=True).splits
        halves = [{groups[index] for index in parts[name]} for name in ("validation", "rank")]
        assert not halves[0] & halves[1]
        assert min(len(parts[name]) for name in ("validation", "rank")) > 100
        begun = study_dataset(grouped, None, 0, halved=True, draws=2).splits  # by an earlier version
        assert (begun["rank"] == study_dataset(whole, None, 0, halved=True).splits["rank"]).all()
        few = replace(whole, groups=("writer",) * len(groups))
        with pytest.raises(DataError, match="too few to be halved: give more images, of more groups"):
            study_dataset(few, None, 0, halved=True)

    def test_a_subset_has_the_same_share_of_every_class(self, digits: Dataset) -> None:
        assert sum(len(indices) for indices in digits.splits.values()) == pytest.approx(300, abs=10)
        counts = np.bincount(digits.labels[digits.splits["train"]])
        assert counts.max() - counts.min() <= 3
        whole = load_dataset("digits", tiny().data)
        assert study_dataset(whole, 10**6, 0, halved=True).splits["train"] is whole.splits["train"]

    def test_too_few_images_to_halve_are_refused(self, digits: Dataset) -> None:
        few = replace(digits, splits={"train": np.arange(10), "validation": np.array([3])})
        with pytest.raises(DataError, match="1 validation images are too few"):
            study_dataset(few, None, 0, halved=True)


class TestTrainTrial:
    def test_in_pieces_it_is_bit_identical(
        self, job: Callable[..., TrialJob], digits: Dataset, tmp_path: Path
    ) -> None:
        straight = finish(job(folder=str(tmp_path / "straight")), digits)
        pieces, torch_state = [], torch.get_rng_state()
        for from_epoch, to_epoch in ((0, 1), (1, 3), (3, 10)):
            torch.manual_seed(99)  # another trial was here in between
            pieces.append(finish(job(from_epoch=from_epoch, to_epoch=to_epoch), digits))
        torch.set_rng_state(torch_state)
        assert untimed([row for piece in pieces for row in piece["rows"]]) == untimed(straight["rows"])
        assert pieces[-1]["score"] == straight["score"]
        first, second = ((folder / "state.safetensors") for folder in (tmp_path / "straight", tmp_path / "trial"))
        assert_same_tensors(first, second)

    def test_cut_off_within_a_job_it_goes_on_from_its_last_epoch(
        self, job: Callable[..., TrialJob], digits: Dataset, tmp_path: Path
    ) -> None:
        straight = finish(job(folder=str(tmp_path / "straight"), to_epoch=4), digits)

        def cut_off(row: Any) -> None:
            if row["epoch"] == 2:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            finish(job(to_epoch=4), digits, cut_off)
        heard: list[Any] = []
        done = finish(job(to_epoch=4), digits, heard.append)
        assert [row["epoch"] for row in heard] == [3, 4]
        assert untimed(done["rows"]) == untimed(straight["rows"])
        assert_same_tensors(tmp_path / "straight" / "state.safetensors", tmp_path / "trial" / "state.safetensors")

    def test_its_precision_is_that_of_the_study_whatever_its_images(
        self, job: Callable[..., TrialJob], digits: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trained: list[str] = []

        def note(config: Config, *_: Any, **__: Any) -> Any:
            trained.append(config.train.precision)
            raise InterruptedError

        made = job()
        monkeypatch.setattr(trial, "Fit", note)
        monkeypatch.setattr(training_settings, "share_of_even_pixels", lambda _: 1.0)
        with pytest.raises(InterruptedError):
            finish(made, digits)
        assert trained == ["auto"]

    def test_done_already_it_trains_no_more(self, job: Callable[..., TrialJob], digits: Dataset) -> None:
        first = finish(job(to_epoch=2), digits)
        heard: list[Any] = []
        assert finish(job(to_epoch=2), digits, heard.append) == first
        assert heard == []

    @pytest.mark.parametrize(("from_epoch", "to_epoch", "done_to"), [(2, 4, 0), (0, 2, 4), (2, 3, 4), (3, 4, 2)])
    def test_a_checkpoint_that_is_gone_behind_or_ahead_changes_nothing(
        self,
        job: Callable[..., TrialJob],
        digits: Dataset,
        tmp_path: Path,
        from_epoch: int,
        to_epoch: int,
        done_to: int,
    ) -> None:
        if from_epoch:
            finish(job(folder=str(tmp_path / "straight"), to_epoch=from_epoch), digits)
        wanted = job(folder=str(tmp_path / "straight"), from_epoch=from_epoch, to_epoch=to_epoch)
        straight = finish(wanted, digits)
        if done_to:
            finish(job(to_epoch=done_to), digits)
        done = finish(job(from_epoch=from_epoch, to_epoch=to_epoch), digits)
        assert untimed(done["rows"]) == untimed(straight["rows"])
        assert done["score"] == straight["score"]
        assert_same_tensors(tmp_path / "straight" / "state.safetensors", tmp_path / "trial" / "state.safetensors")

    def test_the_score_is_of_the_best_epoch_on_other_images(
        self, job: Callable[..., TrialJob], digits: Dataset
    ) -> None:
        done = finish(job(to_epoch=3), digits)
        best = max(done["rows"], key=lambda row: row["val_accuracy"])
        assert done["score"] == best["rank_accuracy"]
        assert [row["rank_loss"] for row in done["rows"]] != [row["val_loss"] for row in done["rows"]]

    def test_augmentation_that_is_switched_off_is_none(
        self, job: Callable[..., TrialJob], digits: Dataset, tmp_path: Path
    ) -> None:
        none = {"family": "affine", "alternating_flip": False, "shift": 0.0, "rotation": 0.0, "zoom": 0.0}
        off, bare, on = (
            finish(job(config=tiny(**settings), to_epoch=1, folder=str(tmp_path / str(n))), digits)
            for n, settings in enumerate(({"augmentation": False, "shift": 0.2}, none, {"shift": 0.2}))
        )
        assert untimed(off["rows"]) == untimed(bare["rows"])
        assert untimed(off["rows"]) != untimed(on["rows"])

    def test_it_stops_early_by_the_stopping_images(self, job: Callable[..., TrialJob], digits: Dataset) -> None:
        still = tiny(lr=1e-12, head_lr=1e-12, bias_lr=1e-12, gate_lr=1e-12, weight_decay=0.0, patience=2)
        done = finish(job(config=still), digits)
        assert done["stopped"]
        assert len(done["rows"]) < 10


def test_checkpoints_may_lie_at_a_url(job: Callable[..., TrialJob], digits: Dataset, tmp_path: Path) -> None:
    straight = finish(job(to_epoch=3), digits)
    url = (tmp_path / "store").as_uri()
    pieces = [finish(job(folder=f"{url}/0001", from_epoch=a, to_epoch=b), digits) for a, b in ((0, 1), (1, 3))]
    assert untimed([row for piece in pieces for row in piece["rows"]]) == untimed(straight["rows"])
    assert [path.name for path in (tmp_path / "store" / "0001").iterdir()] == ["state.safetensors"]


KERASTUNER: dict[str, Any] = {"semantics": "kerastuner", "halves_validation": False}


class TestAsKerasTuner:
    def test_one_set_of_images_stops_and_ranks(self, job: Callable[..., TrialJob], unhalved: Dataset) -> None:
        done = finish(job(to_epoch=3, **KERASTUNER), unhalved)
        for row in done["rows"]:
            assert (row["rank_loss"], row["rank_accuracy"]) == (row["val_loss"], row["val_accuracy"])

    def test_a_promoted_trial_begins_from_its_best_weights_with_a_new_optimizer(
        self, job: Callable[..., TrialJob], unhalved: Dataset, tmp_path: Path
    ) -> None:
        theirs = [finish(job(from_epoch=a, to_epoch=b, **KERASTUNER), unhalved) for a, b in ((0, 3), (3, 5))]
        straight = finish(job(folder=str(tmp_path / "straight"), to_epoch=5, **KERASTUNER), unhalved)
        assert [row["epoch"] for row in theirs[1]["rows"]] == [4, 5]
        assert untimed(theirs[0]["rows"]) == untimed(straight["rows"][:3])
        assert untimed(theirs[1]["rows"]) != untimed(straight["rows"][3:])
        assert theirs[1]["score"] == max(row["val_accuracy"] for row in theirs[1]["rows"])

    def test_cut_off_it_does_not_begin_again_twice(
        self, job: Callable[..., TrialJob], unhalved: Dataset, tmp_path: Path
    ) -> None:
        outcomes = []
        for folder, cut in ((tmp_path / "a", False), (tmp_path / "b", True)):
            finish(job(folder=str(folder), to_epoch=2, **KERASTUNER), unhalved)
            promoted = job(folder=str(folder), from_epoch=2, to_epoch=5, **KERASTUNER)

            def cut_off(row: Any) -> None:
                if row["epoch"] == 3:
                    raise InterruptedError

            if cut:
                with pytest.raises(InterruptedError):
                    finish(promoted, unhalved, cut_off)
            outcomes.append(finish(promoted, unhalved))
        assert untimed(outcomes[0]["rows"]) == untimed(outcomes[1]["rows"])

    def test_killed_between_its_two_files_it_does_as_if_it_had_not_been(
        self, job: Callable[..., TrialJob], unhalved: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        outcomes = []
        for folder, cut in ((tmp_path / "a", False), (tmp_path / "b", True)):
            finish(job(folder=str(folder), to_epoch=2, **KERASTUNER), unhalved)
            promoted = job(folder=str(folder), from_epoch=2, to_epoch=4, **KERASTUNER)
            if cut:
                with monkeypatch.context() as patch:
                    patch.setattr(fit, "save_state", best_alone)
                    with pytest.raises(InterruptedError):
                        finish(promoted, unhalved)
            outcomes.append(finish(promoted, unhalved))
        assert untimed(outcomes[0]["rows"]) == untimed(outcomes[1]["rows"])

    def test_a_trial_that_stopped_early_is_trained_on_when_promoted(
        self, job: Callable[..., TrialJob], unhalved: Dataset
    ) -> None:
        still = tiny(lr=1e-12, head_lr=1e-12, bias_lr=1e-12, gate_lr=1e-12, weight_decay=0.0, patience=2)
        stopped = finish(job(config=still, to_epoch=5, **KERASTUNER), unhalved)
        assert stopped["stopped"]
        assert len(stopped["rows"]) < 5
        promoted = job(config=still, from_epoch=5, to_epoch=10, **KERASTUNER)
        assert [row["epoch"] for row in finish(promoted, unhalved)["rows"]][:2] == [6, 7]

    def test_a_checkpoint_that_is_gone_or_ahead_is_told(
        self, job: Callable[..., TrialJob], unhalved: Dataset
    ) -> None:
        with pytest.raises(CheckpointError, match="begin a new study"):
            finish(job(from_epoch=1, to_epoch=2, **KERASTUNER), unhalved)
        finish(job(to_epoch=2, **KERASTUNER), unhalved)
        with pytest.raises(CheckpointError, match="begin a new study"):
            finish(job(to_epoch=1, **KERASTUNER), unhalved)


ANEW: dict[str, Any] = {"semantics": "anew", "halves_validation": False}


def anew(epochs: int, **settings: Any) -> dict[str, Any]:
    """The fields of a job whose schedule spans its own epochs."""
    return {**ANEW, "config": tiny(**{**settings, "epochs": epochs}), "to_epoch": epochs}


class TestAnew:
    def test_validation_is_not_halved_and_ranks_in_the_last_epoch(
        self, job: Callable[..., TrialJob], unhalved: Dataset
    ) -> None:
        whole = load_dataset("digits", tiny().data)
        parts = study_dataset(whole, None, 0, halved=False).splits
        assert sorted(parts["validation"]) == sorted(whole.splits["validation"])
        done = finish(job(**anew(4)), unhalved)
        assert [row["epoch"] for row in done["rows"]] == [1, 2, 3, 4]
        assert done["score"] == done["rows"][-1]["val_accuracy"] == done["rows"][-1]["rank_accuracy"]
        assert "right" not in done

    def test_a_trial_that_goes_on_ranks_so_as_well(self, job: Callable[..., TrialJob], unhalved: Dataset) -> None:
        restless = tiny(epochs=6, lr=4.0, schedule="constant")
        continued = {"config": restless, "semantics": "continue", "halves_validation": False}
        done = [finish(job(from_epoch=end - 1, to_epoch=end, **continued), unhalved) for end in range(1, 7)]
        scores = [each["score"] for each in done]
        assert scores == [each["rows"][-1]["val_accuracy"] for each in done]
        assert scores != sorted(scores)  # the best epoch is not always the last

    def test_it_tells_which_images_it_gets_right(self, job: Callable[..., TrialJob], unhalved: Dataset) -> None:
        done = finish(job(**anew(2), tells_right=True), unhalved)
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(done["right"]), np.uint8))
        images = len(unhalved.splits["validation"])
        assert len(bits) == -(-images // 8) * 8
        assert bits.sum() / images == pytest.approx(done["score"])

    def test_a_promoted_trial_is_what_it_would_be_had_it_begun_so(
        self, job: Callable[..., TrialJob], unhalved: Dataset, tmp_path: Path
    ) -> None:
        straight = finish(job(**anew(4), folder=str(tmp_path / "straight")), unhalved)
        finish(job(**anew(1)), unhalved)
        promoted = finish(job(**anew(4)), unhalved)
        assert untimed(promoted["rows"]) == untimed(straight["rows"])

    def test_cut_off_it_goes_on_in_its_own_schedule(self, job: Callable[..., TrialJob], unhalved: Dataset) -> None:
        finish(job(**anew(1)), unhalved)
        straight = finish(job(**anew(3)), unhalved)
        finish(job(**anew(1)), unhalved)
        heard: list[Any] = []

        def cut_off(row: Any) -> None:
            heard.append(row)
            if row["epoch"] == 2:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            finish(job(**anew(3)), unhalved, cut_off)
        rest: list[Any] = []
        done = finish(job(**anew(3)), unhalved, rest.append)
        assert [row["epoch"] for row in rest] == [3]
        assert untimed(done["rows"]) == untimed(straight["rows"])

    def test_with_patience_one_half_stops_and_the_other_ranks(
        self, job: Callable[..., TrialJob], digits: Dataset
    ) -> None:
        still = anew(6, lr=1e-12, head_lr=1e-12, bias_lr=1e-12, gate_lr=1e-12, weight_decay=0.0, patience=2)
        done = finish(job(**{**still, "halves_validation": True}), digits)
        assert done["stopped"]
        best = max(done["rows"], key=lambda row: row["val_accuracy"])
        assert done["score"] == best["rank_accuracy"]


class TestRunTrial:
    def test_a_job_is_its_message(self, job: Callable[..., TrialJob]) -> None:
        assert TrialJob.model_validate(job().model_dump(mode="json")) == job()

    def test_it_reports_every_epoch(self, job: Callable[..., TrialJob]) -> None:
        heard: list[Any] = []
        done = run_trial(job(to_epoch=2).model_dump(mode="json"), heard.append)
        assert heard[0] == {}
        assert [told for told in heard if told] == done["rows"]

    def test_it_gives_a_heartbeat(self, job: Callable[..., TrialJob], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(progress, "_BEAT_EVERY_S", 0.0)
        heard: list[Any] = []
        done = run_trial(job(to_epoch=1).model_dump(mode="json"), heard.append)
        assert [told for told in heard if told] == done["rows"]
        assert len(heard) > 5

    def test_it_gives_a_heartbeat_while_it_loads_the_data_and_loads_them_once(
        self, job: Callable[..., TrialJob], monkeypatch: pytest.MonkeyPatch, own_cache: Path
    ) -> None:
        monkeypatch.setattr(progress, "_BEAT_EVERY_S", 0.0)
        message = job(to_epoch=1).model_dump(mode="json")
        training_job._loaded.clear()
        shutil.rmtree(own_cache / "decoded")
        beats: list[list[Any]] = []

        def stop(*_: Any, **__: Any) -> Any:
            raise InterruptedError

        monkeypatch.setattr(trial, "train_trial", stop)
        for _ in range(2):
            heard: list[Any] = []
            with pytest.raises(InterruptedError):
                run_trial(message, heard.append)
            beats.append(heard)
        assert len(beats[0]) > 100  # 1,797 digits are decoded
        assert beats[1] == [{}]
        for size in (16, 20, 24):  # of a study whose first rungs have smaller images, both stay
            job(config=tiny(size=size)).load_dataset("the study", progress.untracked)
        assert [key[-1].size for key in training_job._loaded] == [20, 24]

    def test_another_data_set_is_refused(self, job: Callable[..., TrialJob]) -> None:
        with pytest.raises(CheckpointError, match="not the data set of the study"):
            run_trial(job(fingerprint="other").model_dump(mode="json"), quiet)


def assert_same_tensors(first: Path, second: Path) -> None:
    from foveate.tensors import load_tensors

    (one, _), (other, _) = load_tensors(first), load_tensors(second)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


class Hungry(nn.Module):
    """An attention that runs out of memory where it is trained."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        if self.training:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has a total of …"
            )
        return features


def test_a_trial_that_runs_out_of_memory_fails_by_one_line_that_says_what_to_lower(
    job: Callable[..., TrialJob], digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so its worker is replaced, as after any failure."""
    monkeypatch.setattr(attention_kinds, "_REGISTERED", {"custom:Hungry": Hungry})
    with pytest.raises(TrainingError, match=r"^out of memory in a step of .*: lower micro_batch, batch or size$"):
        finish(job(config=tiny(attention="custom:Hungry")), digits)


@pytest.mark.parametrize("draws", [1, 2])
def test_a_trial_draws_as_its_study_does(
    job: Callable[..., TrialJob], digits: Dataset, monkeypatch: pytest.MonkeyPatch, draws: int
) -> None:
    seen: list[int] = []

    def noted(*given: Any, draws: int, **more: Any) -> None:
        seen.append(draws)
        raise InterruptedError

    monkeypatch.setattr(fit, "new_state", noted)
    with pytest.raises(InterruptedError):
        finish(job(draws=draws), digits)
    assert seen == [draws]


def test_trials_may_be_ranked_by_balanced_accuracy(
    job: Callable[..., TrialJob], digits: Dataset, unhalved: Dataset, tmp_path: Path
) -> None:
    held_out, labels = unhalved.splits["validation"], unhalved.labels
    few = held_out[(labels[held_out] < 5) | (np.arange(len(held_out)) % 4 == 0)]
    uneven = replace(unhalved, splits={**unhalved.splits, "validation": few})
    config = tiny(monitor="balanced_accuracy", epochs=3, images_seen=None)
    ranked = {"config": config, "score": "balanced_accuracy", "to_epoch": 3}
    done = finish(job(**ranked), digits)
    best = max(done["rows"], key=lambda row: row["val_balanced_accuracy"])
    assert done["score"] == best["rank_accuracy"]
    anew = finish(job(**ranked, semantics="anew", halves_validation=False, folder=str(tmp_path / "anew")), uneven)
    assert all(row["rank_accuracy"] == row["val_balanced_accuracy"] for row in anew["rows"])
    assert any(row["rank_accuracy"] != row["val_accuracy"] for row in anew["rows"])
    assert anew["score"] == anew["rows"][-1]["val_balanced_accuracy"]
