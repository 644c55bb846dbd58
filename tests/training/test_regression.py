"""Logistic regression on frozen features: scikit-learn's own answers, put into the classifier."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from foveate.config import Config, resolve_config
from foveate.data.dataset import Dataset, load_dataset
from foveate.errors import ConfigError
from foveate.settings import DataConfig
from foveate.training.device import DeviceData
from foveate.training.features import features_of, forward_of
from foveate.training.fit import Fit
from foveate.training.regression import _best_strength, _fit, _fitted, _Split
from foveate.training.settings import balanced_weights, resolve_settings
from foveate.training.state import EpochResult

CPU = torch.device("cpu")
SMALL = {"backbone": "resnet18", "weights": None, "size": 16, "batch": 20}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    whole = load_dataset("digits", DataConfig(size=16))
    return replace(whole, splits={name: each[:60] for name, each in whole.splits.items()})


@pytest.fixture
def config(digits: Dataset) -> Callable[..., Config]:
    def make(preset: str = "photos", **settings: object) -> Config:
        return resolve_settings(resolve_config(preset, settings={**SMALL, **settings}), digits)

    return make


@pytest.fixture
def blobs() -> _Split:
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    return _Split((rng.normal(size=(120, 8)) + 2 * np.eye(8)[labels]).astype(np.float32), labels)


def test_it_is_scikit_learns_classifier(blobs: _Split) -> None:
    weight, bias = _fitted(blobs, 0.1, np.ones(3))
    theirs = LogisticRegression(C=0.1, max_iter=1000).fit(*blobs)
    logits = blobs.features @ weight.T + bias
    ours = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(ours, theirs.predict_proba(blobs.features), atol=1e-5)


def test_two_classes_and_one_without_images_have_a_logit_each(blobs: _Split) -> None:
    two = _Split(blobs.features[blobs.labels != 1], blobs.labels[blobs.labels != 1])
    weight, bias = _fitted(two, 1.0, np.ones(3))
    logits = two.features @ weight.T + bias
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    theirs = LogisticRegression(C=1.0, max_iter=1000).fit(*two)
    np.testing.assert_allclose(shares[:, [0, 2]], theirs.predict_proba(two.features), atol=1e-5)
    assert shares[:, 1].max() < 1e-5


@pytest.fixture
def uneven(digits: Dataset) -> Dataset:
    """Of the first class all training images, of the others two each."""
    train, labels = digits.splits["train"], digits.labels
    kept = np.concatenate([train[labels[train] == label][: 60 if label == 0 else 2] for label in range(10)])
    return replace(digits, splits={**digits.splits, "train": np.sort(kept)})


class TestUnevenClasses:
    def test_balanced_weights_are_scikit_learns(self, uneven: Dataset) -> None:
        labels = uneven.labels[uneven.splits["train"]]
        split = _Split(np.random.default_rng(0).normal(size=(len(labels), 8)).astype(np.float32), labels)
        theirs = LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced").fit(*split)
        weight, bias = _fitted(split, 0.1, np.array(balanced_weights(uneven)))
        logits = split.features @ weight.T + bias
        ours = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(ours, theirs.predict_proba(split.features), atol=1e-5)

    @pytest.mark.parametrize(
        ("preset", "settings"),
        [
            ("photos", {"class_weights": "balanced"}),
            ("photos-tuned", {"class_weights": "balanced"}),
            ("photos-tuned", {"sampler": "balanced"}),
        ],
    )
    def test_the_classifier_of_a_backbone_honours_them(
        self, uneven: Dataset, preset: str, settings: dict[str, object]
    ) -> None:
        def found(**more: object) -> tuple[EpochResult, torch.Tensor]:
            asked = resolve_config(preset, settings={**SMALL, "weights": None, **more})
            fit = Fit(resolve_settings(asked, uneven), DeviceData.load(uneven, CPU))
            return next(fit.epochs()), fit.state.model.state_dict()["head.classifier.bias"]

        (row, bias), (plain, plain_bias) = found(**settings), found()
        assert row.val_balanced_accuracy is not None
        assert plain.val_balanced_accuracy is not None
        # The largest class no longer has the largest bias by its number of images alone.
        assert bias[0] - bias[1:].mean() < plain_bias[0] - plain_bias[1:].mean() - 0.5


def test_noise_is_penalised_more_than_what_tells_the_classes(blobs: _Split) -> None:
    rng = np.random.default_rng(1)
    noise = _Split(rng.normal(size=(60, 300)).astype(np.float32), np.arange(60) % 3)
    of_noise, of_blobs = (_best_strength(each, None, np.ones(3), 0) for each in (noise, blobs))
    assert of_noise is not None
    assert of_blobs is not None
    assert of_noise < of_blobs


def test_images_of_one_group_are_in_one_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten copies of each image: without groups, each is known to the classifier, and no penalty seems the best."""
    rng = np.random.default_rng(2)
    features = np.repeat(rng.normal(size=(20, 50)), 10, axis=0).astype(np.float32)
    copies = _Split(features, np.repeat(np.arange(20) % 2, 10))
    groups, same = np.repeat(np.arange(20), 10), np.ones(2)
    by_groups, by_images = (_best_strength(copies, each, same, 0) for each in (groups, None))
    assert by_groups is not None
    assert by_images is not None
    assert by_groups < by_images


class TestWhatFoldsCannotHoldOut:
    def test_one_image_of_each_class_leaves_nothing_to_choose_by(self) -> None:
        one_each = _Split(np.eye(3, dtype=np.float32), np.arange(3))
        assert _best_strength(one_each, None, np.ones(3), 0) is None

    @pytest.mark.parametrize("classes", [2, 3])
    def test_nor_does_one_group_of_each_class(self, blobs: _Split, classes: int) -> None:
        few = blobs.labels < classes
        train = _Split(blobs.features[few], blobs.labels[few])
        assert _best_strength(train, train.labels, np.ones(3), 0) is None

    @pytest.mark.parametrize("grouped", [False, True])
    def test_a_class_of_one_unit_changes_nothing_for_the_others(self, blobs: _Split, grouped: bool) -> None:
        """Of a fourth class there are ten images of one group, or one image."""
        count = 10 if grouped else 1
        apart = blobs._replace(features=blobs.features + 2 * np.eye(8, dtype=np.float32)[blobs.labels])
        fourth = np.tile(4 * np.eye(8, dtype=np.float32)[3], (count, 1))
        train = _Split(np.concatenate([apart.features, fourth]), np.concatenate([apart.labels, [3] * count]))
        groups = np.concatenate([np.arange(120), [120] * count]) if grouped else None
        assert _best_strength(train, groups, np.ones(4), 0) == _best_strength(apart, None, np.ones(3), 0) == 10

    def test_the_middle_is_taken_and_the_epoch_says_so(
        self, digits: Dataset, config: Callable[..., Config]
    ) -> None:
        by_class = replace(digits, groups=[str(label) for label in digits.labels])
        for dataset, chosen in ((digits, True), (by_class, False)):
            (row,) = Fit(config(), DeviceData.load(dataset, CPU)).epochs()
            assert row.strength_chosen is chosen
        assert row.lr == pytest.approx(0.1)


def test_it_is_one_epoch_that_is_not_fitted_twice(
    digits: Dataset, config: Callable[..., Config], tmp_path: Path
) -> None:
    path = tmp_path / "state.safetensors"
    fit = Fit(config(), DeviceData.load(digits, CPU), path=path)
    (row,) = fit.epochs()
    assert row.val_accuracy is not None
    assert row.train_accuracy > row.val_accuracy > 0.3  # features of random weights tell digits well enough
    logits, labels = fit.data.logits(fit.state.model, "validation", fit.config)
    assert (logits.argmax(1) == labels).mean() == pytest.approx(row.val_accuracy)
    again = Fit(config(), DeviceData.load(digits, CPU), path=path)
    again.resume(path)
    assert list(again.epochs()) == []
    for name, tensor in fit.state.model.state_dict().items():
        assert torch.equal(tensor, again.state.model.state_dict()[name])


class TestFrozen:
    def test_features_of_a_split_that_is_closed_are_never_computed(
        self, digits: Dataset, config: Callable[..., Config]
    ) -> None:
        fit = Fit(config("photos-head"), DeviceData.load(digits, CPU))
        features = features_of(fit.state.model, fit.data, fit.config, lambda each, **_: each)
        assert features.dataset.splits.keys() == {"train", "validation"}
        assert len(features.images) == len(features.labels) == 120
        for split in ("train", "validation"):
            indices, places = digits.splits[split], features.dataset.splits[split]
            assert np.array_equal(features.labels[places], digits.labels[indices])
            pixels = torch.from_numpy(digits.images[indices[:4]]).permute(0, 3, 1, 2)
            own = fit.state.model.eval().stem(pixels)
            torch.testing.assert_close(
                features.images[places[:4]].float().permute(0, 3, 1, 2), own, rtol=2e-3, atol=2e-3
            )

    def test_a_head_on_features_learns_as_on_images(self, digits: Dataset, config: Callable[..., Config]) -> None:
        settings = {
            "epochs": 2,
            "head": "attention_pool",
            "attention": "luong_scaled",
            "attention_mode": "residual",
        }
        by_features = Fit(config("photos-head", **settings), DeviceData.load(digits, CPU))
        by_images = Fit(config("photos-head", **settings), DeviceData.load(digits, CPU))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("foveate.training.fit.sees_features", lambda _: False)
            expected = list(by_images.epochs())
        for row, wanted in zip(by_features.epochs(), expected, strict=True):
            assert row.train_loss == pytest.approx(wanted.train_loss, rel=5e-3)
        before = Fit(config("photos-head", **settings), DeviceData.load(digits, CPU)).state.model
        for name, tensor in by_features.state.model.stem.state_dict().items():
            assert torch.equal(tensor, before.stem.state_dict()[name]), name

    def test_the_last_third_alone_is_trained_and_asked_faster_to_the_same_answers(
        self, digits: Dataset, config: Callable[..., Config]
    ) -> None:
        tuned = config("photos-tuned", epochs=1, regression_first=False, augmentation=False)
        fit = Fit(tuned, DeviceData.load(digits, CPU))
        pixels = torch.from_numpy(digits.images[:4]).permute(0, 3, 1, 2)
        model = fit.state.model.eval()
        with torch.no_grad():
            torch.testing.assert_close(forward_of(model, tuned)(pixels), model(pixels), rtol=1e-4, atol=1e-4)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        list(fit.epochs())
        changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert changed
        assert all(name.startswith(("stem.stages.stage4", "head.")) for name in changed), changed
        rates = [group["initial_lr"] for group in fit.state.optimizer.param_groups]
        assert rates == [3e-4, 1e-3]


class TestRegressionFirst:
    def test_steps_begin_from_the_classifier_of_photos_with_a_schedule_of_their_own(
        self, digits: Dataset, config: Callable[..., Config], tmp_path: Path
    ) -> None:
        data, path = DeviceData.load(digits, CPU), tmp_path / "state.safetensors"
        (alone,) = Fit(config(), data).epochs()
        fit = Fit(config("photos-tuned", epochs=3), data, path=path)
        epochs = fit.epochs()
        first = next(epochs)
        assert (first.epoch, first.val_loss, first.lr) == (1, alone.val_loss, alone.lr)
        again = Fit(config("photos-tuned", epochs=3), data)
        again.resume(path)
        later = list(epochs)
        assert [row.epoch for row in later] == [2, 3]
        assert [row.lr for row in later] == pytest.approx(
            [1e-3 * (1 + np.cos(np.pi * at / 6)) / 2 for at in (2, 5)]
        )
        assert [row.train_loss for row in again.epochs()] == [row.train_loss for row in later]
        for name, tensor in fit.state.model.state_dict().items():
            assert torch.equal(tensor, again.state.model.state_dict()[name])

    @pytest.fixture
    def unmeasured(self) -> DeviceData:
        """200 training images, and none to measure on while training."""
        whole = load_dataset("digits", DataConfig(size=16))
        return DeviceData.load(replace(whole, splits={"train": whole.splits["train"][:200]}), CPU)

    def test_with_validation_the_best_epoch_is_kept_which_may_be_it(
        self, digits: Dataset, unmeasured: DeviceData
    ) -> None:
        asked = resolve_config("photos-tuned", settings=SMALL)
        assert resolve_settings(asked, digits).train.keep == "best"
        assert resolve_settings(asked, unmeasured.dataset).train.keep == "last"

    def test_without_validation_it_is_kept_where_held_out_images_do_not_show_a_gain(
        self, unmeasured: DeviceData, config: Callable[..., Config], tmp_path: Path
    ) -> None:
        fit = Fit(
            config("photos-tuned", epochs=2, lr=1.0),
            unmeasured,
            path=tmp_path / "state.safetensors",
            holds_out=True,
        )
        first = next(epochs := fit.epochs())
        before = {name: tensor.clone() for name, tensor in fit.state.model.state_dict().items()}
        again = Fit(config("photos-tuned", epochs=2, lr=1.0), unmeasured, holds_out=True)
        again.resume(tmp_path / "state.safetensors")
        assert list(epochs) == list(again.epochs()) == []
        assert fit.state.history == [first]
        assert all(torch.equal(tensor, before[name]) for name, tensor in fit.state.model.state_dict().items())
        assert fit.told == again.told
        assert fit.told is not None
        assert fit.told.startswith("of 40 training images held out the regression predicts ")
        assert fit.told.endswith(": the regression is kept")

    def test_and_trained_on_where_they_show_one_as_if_they_had_not_been_asked(
        self, unmeasured: DeviceData, config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("foveate.training.regression._STRENGTHS", np.array([1e-8]))  # a poor regression
        settings = {"epochs": 4, "lr": 1e-3, "backbone_lr": 1e-6, "label_smoothing": 0.0, "augmentation": False}
        tuned = config("photos-tuned", **settings)
        fit = Fit(tuned, unmeasured, holds_out=True)
        rows = list(fit.epochs())
        assert [row.epoch for row in rows] == [1, 2, 3, 4]
        assert fit.told is None
        unasked = Fit(tuned, unmeasured)
        assert [row.train_loss for row in unasked.epochs()] == [row.train_loss for row in rows]

    def test_of_a_class_with_too_few_images_to_hold_out_it_is_kept(
        self, unmeasured: DeviceData, config: Callable[..., Config]
    ) -> None:
        alone = Fit(config("photos-tuned", epochs=1), unmeasured, holds_out=True)
        assert (len(list(alone.epochs())), alone.told) == (1, None)  # there is nothing to decide
        few = unmeasured.with_splits({"train": unmeasured.dataset.splits["train"][:30]})
        fit = Fit(config("photos-tuned", epochs=2), few, holds_out=True)
        assert len(list(fit.epochs())) == 1
        assert fit.told is not None
        assert fit.told.startswith("a class has fewer than 5 training images, or groups of them, so that a fifth")

    @pytest.mark.parametrize("settings", [{"head": "attention_pool"}, {"attention": "luong_scaled"}])
    def test_a_head_that_is_no_regression_is_refused(self, settings: dict[str, object]) -> None:
        with pytest.raises(ConfigError, match=r"train\.regression_first=true fits a classifier"):
            resolve_config("photos-tuned", settings=settings)


def test_of_fewer_images_than_features_the_same_is_fitted_in_fewer_dimensions() -> None:
    rng = np.random.default_rng(3)
    labels = np.arange(40) % 2
    features = (rng.normal(size=(40, 100)) + labels[:, None]).astype(np.float32)
    strength, weight, bias = _fit(_Split(features, labels), None, np.ones(2), 0)
    theirs = LogisticRegression(C=strength, max_iter=10_000, tol=1e-8).fit(features, labels)
    logits = features @ weight.T + bias
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(shares, theirs.predict_proba(features), atol=5e-3)
