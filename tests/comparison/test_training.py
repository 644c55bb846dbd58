"""A run of a comparison: paired with the others of its seed, and the same however often it was cut off."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveate import progress
from foveate.comparison import training
from foveate.comparison.arms import parse_arm
from foveate.comparison.training import ArmJob, pack, run_arm, training_subset, unpack
from foveate.config import Config
from foveate.data.dataset import Dataset, load_dataset
from foveate.errors import CheckpointError
from foveate.settings import DataConfig
from foveate.tensors import load_tensors
from foveate.training import fit
from foveate.training import job as training_job
from foveate.training import settings as training_settings
from foveate.training.settings import resolve_settings

TINY = (
    "minute,stages=[{filters: 6, kernels: [3, 3]}, {filters: 8, kernels: [3, 3], dropout: 0.25}],"
    "size=16,epochs=3,batch=50,passes_per_epoch=1,flip=0,tta_views=1"
)


def quiet(_: Mapping[str, Any]) -> None: ...


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", DataConfig(size=16))


@pytest.fixture
def job(tmp_path: Path, digits: Dataset) -> Callable[..., ArmJob]:
    def make(more: str = "", seed: int = 0, **fields: Any) -> ArmJob:
        arm = parse_arm(f"{TINY}{more}", {"threads": 1, "device": "cpu"})
        config = resolve_settings(arm.config, digits).replacing(seed=seed)
        values = {
            "config": config, "dataset": "digits", "data_dir": None,
            "fingerprint": digits.fingerprint, "subset": 200, "folder": str(tmp_path / f"run{more}{seed}"),
            "split": "validation",
        }  # fmt: skip
        return ArmJob.model_validate({**values, **fields})

    return make


def do(job: ArmJob) -> dict[str, Any]:
    return dict(run_arm(job.model_dump(mode="json"), quiet))


def untimed(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "train_s"}


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_bits_come_back(right: list[bool]) -> None:
    assert unpack(pack(np.array(right)), len(right)).tolist() == right


class TestSubset:
    def test_it_takes_the_same_share_of_every_class_of_the_training_images_alone(self, digits: Dataset) -> None:
        few = training_subset(digits, 300, 0)
        assert len(few.splits["train"]) == 300
        counts = np.bincount(digits.labels[few.splits["train"]], minlength=10)
        assert counts.max() - counts.min() <= 2
        assert few.splits["validation"] is digits.splits["validation"]
        assert set(few.splits["train"]) <= set(digits.splits["train"])

    @pytest.mark.parametrize("subset", [None, 10**6])
    def test_all_of_them(self, digits: Dataset, subset: int | None) -> None:
        assert training_subset(digits, subset, 0) is digits

    def test_the_only_image_of_a_class_is_in_it(self, digits: Dataset) -> None:
        labels = digits.labels.copy()
        labels[digits.splits["train"][0]] = 10
        few = training_subset(replace(digits, labels=labels), 50, 0)
        assert 10 in labels[few.splits["train"]]


class TestRun:
    def test_it_measures_who_was_right_and_keeps_it(self, job: Callable[..., ArmJob], digits: Dataset) -> None:
        made = job()
        result = do(made)
        right = unpack(result["right"], result["images"])
        assert len(right) == len(digits.splits["validation"])
        assert result["accuracy"] == pytest.approx(right.mean())
        assert result["gate"] is not None
        assert 0 <= result["without_attention"] <= 1
        assert result["images_shown"] == 3 * len(training_subset(digits, 200, 0).splits["train"])
        assert result["train_s"] > 0
        assert sorted(path.name for path in Path(made.folder).iterdir()) == [
            "validation.json",
            "weights.safetensors",
        ]

    def test_without_attention_there_is_nothing_to_take_out(self, job: Callable[..., ArmJob]) -> None:
        result = do(job(",attention=none"))
        assert (result["gate"], result["without_attention"]) == (None, None)

    def test_the_test_split_is_measured_by_the_weights_there_are(
        self, job: Callable[..., ArmJob], digits: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = do(job())
        monkeypatch.setattr(training, "Fit", None)  # it is not trained again
        again = do(job(split="test"))
        assert again["images"] == len(digits.splits["test"])
        assert again["train_s"] == first["train_s"]

    def test_cut_off_at_any_epoch_it_ends_the_same(
        self, job: Callable[..., ArmJob], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        straight = do(job())
        cut = job(folder=str(tmp_path / "cut"))
        for epoch in (1, 2):
            heard: list[Mapping[str, Any]] = []

            def die(message: Mapping[str, Any], heard: list[Any] = heard) -> None:
                heard.append(message)
                if message.get("epoch"):
                    raise InterruptedError

            with pytest.raises(InterruptedError):
                run_arm(cut.model_dump(mode="json"), die)
            assert heard[-1]["epoch"] == epoch
        assert untimed(do(cut)) == untimed(straight)

    def test_its_precision_is_that_of_the_comparison_whatever_its_images(
        self, job: Callable[..., ArmJob], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trained: list[str] = []

        def note(config: Config, *_: Any, **__: Any) -> Any:
            trained.append(config.train.precision)
            raise InterruptedError

        made = job()
        monkeypatch.setattr(training, "Fit", note)
        monkeypatch.setattr(training_settings, "share_of_even_pixels", lambda _: 1.0)
        with pytest.raises(InterruptedError):
            do(made)
        assert trained == [made.config.train.precision] == ["auto"]

    def test_an_epoch_is_as_long_as_its_images_make_it(self, job: Callable[..., ArmJob]) -> None:
        """Few images are gone through often, for an epoch to be worth its measuring; many once."""
        epochs: list[int] = []
        for subset in (50, None):
            open_ = job().config.replacing(images_seen=3000, passes_per_epoch=None)
            told: list[Mapping[str, Any]] = []
            made = job(config=open_, subset=subset, seed=int(subset is None))
            run_arm(made.model_dump(mode="json"), told.append)
            epochs.append(max(message.get("epoch", 0) for message in told))
        assert epochs == [20, 3]

    def test_it_gives_a_heartbeat_while_it_loads_the_data_and_loads_them_once(
        self, job: Callable[..., ArmJob], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(progress, "_BEAT_EVERY_S", 0.0)
        training_job._loaded.clear()
        beats: list[list[Any]] = []

        def stop(*_: Any) -> Any:
            raise InterruptedError

        monkeypatch.setattr(training, "training_subset", stop)
        for _ in range(2):
            heard: list[Any] = []
            with pytest.raises(InterruptedError):
                run_arm(job().model_dump(mode="json"), heard.append)
            beats.append(heard)
        assert len(beats[0]) > 100  # 1,797 digits are decoded
        assert beats[1] == [{}]

    def test_another_data_set_is_refused(self, job: Callable[..., ArmJob]) -> None:
        with pytest.raises(CheckpointError, match="is not the data set of the comparison"):
            do(job(fingerprint="other"))


class TestPairing:
    @staticmethod
    def begin(made: ArmJob, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
        """The weights before the first step, the first batches as the network sees them, dropout's first draws."""
        kept: dict[str, torch.Tensor] = {}

        def no_epochs(state: Any, loader: Any, *_: Any, augment: Any, **__: Any) -> list[Any]:
            kept.update({name: tensor.clone() for name, tensor in state.model.state_dict().items()})
            for number, batch in enumerate(itertools.islice(loader.epoch(), 3)):
                kept[f"seen {number}"], _ = augment(*batch, state.generator, state.extras)
            kept["dropped"] = torch.rand(100)
            return []

        with monkeypatch.context() as patch:
            patch.setattr(fit, "train_epochs", no_epochs)
            do(made)
        return kept

    def test_arms_of_a_seed_begin_with_the_same_weights_and_see_the_same(
        self, job: Callable[..., ArmJob], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain = self.begin(job(",attention=none"), monkeypatch)
        for more in ("", ",attention=cbam", ",optimizer=sgd", ",augmentations=[erase],strength=0"):
            arm = self.begin(job(more), monkeypatch)
            shared = [name for name in plain if name in arm and plain[name].shape == arm[name].shape]
            assert len(shared) == len(plain)
            assert all(torch.equal(plain[name], arm[name]) for name in shared)

    def test_another_seed_begins_otherwise(
        self, job: Callable[..., ArmJob], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, two = (self.begin(job(seed=seed), monkeypatch) for seed in (0, 1))
        assert not torch.equal(one["seen 0"], two["seen 0"])
        assert any(not torch.equal(one[name], two[name]) for name in one if name.endswith("weight"))

    def test_a_reference_trains_as_it_would_alone(self, job: Callable[..., ArmJob]) -> None:
        """Pairing costs the reference nothing: it is the run of `foveate train`."""
        import foveate

        made = job(",attention=none", subset=None)
        do(made)
        sections = made.config.model_dump(mode="json")
        settings = {
            name: value
            for section in ("data", "model", "augment", "train")
            for name, value in sections[section].items()
        }
        run = foveate.train("digits", preset="minute", runs=Path(made.folder).parent / "runs", **settings)
        alone, paired = (
            load_tensors(path)[0] for path in (run.folder.last, Path(made.folder) / "weights.safetensors")
        )
        assert all(torch.equal(alone[name], paired[name]) for name in paired)
